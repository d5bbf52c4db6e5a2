"""Patches that are cut in another order before a Linear projects them: the order is the cause, and the only one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from einops import rearrange
from torch import nn

import vit
from parity import check
from tests.small import OURS, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable


class _Cut(vit.ViT):
    """Cuts patches itself."""

    def __init__(self, order: str, *, backwards: bool = False) -> None:
        super().__init__(**OURS)
        self.order, self.backwards = order, backwards
        self.patches: nn.Module = nn.Linear(192, 48)  # type: ignore[assignment]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = rearrange(images, f"b c (h p) (w q) -> b ({self.order}) (c p q)", p=8, q=8)
        x = self.patches(pixels.flip(1) if self.backwards else pixels)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding
        logits: torch.Tensor = self.head(self.ln(self.attn_layers(x))[:, 0])
        return logits


@pytest.mark.parametrize(
    ("order", "backwards", "words"), [("w h", False, "column by column"), ("h w", True, "back to front")]
)
def test_order_of_patches_is_one_cause(order: str, backwards: bool, words: str) -> None:  # noqa: FBT001
    report = check(_Cut(order, backwards=backwards), overrides=SMALL, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.phrases == (f"patches {words} in conv_proj",)
    assert [cause.id for cause in report.causes] == ["patch-order"]


class _Changed(vit.ViT):
    """Changes its images, and flattens patches in an order of its own; the projection may be a function."""

    def __init__(self, order: str, change: Callable[[torch.Tensor], torch.Tensor], *, is_module: bool) -> None:
        super().__init__(**OURS)
        self.order, self.change, self.is_module = order, change, is_module
        self.linear = nn.Linear(192, 48)
        del self.patches

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = rearrange(self.change(images), f"b c (h p) (w q) -> b (h w) ({self.order})", p=8, q=8)
        linear = self.linear
        x = linear(pixels) if self.is_module else nn.functional.linear(pixels, linear.weight, linear.bias)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding
        logits: torch.Tensor = self.head(self.ln(self.attn_layers(x))[:, 0])
        return logits


_MEAN, _STD = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
_CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as they are": lambda images: images,
    "images taken as 2 x - 1": lambda images: 2 * images - 1,
    "images normalised inside the model": lambda images: (images - _MEAN) / _STD,
    "images times 255": lambda images: images * 255,
    "the image's channels reversed": lambda images: images.flip(1),
    "the image mirrored left to right": lambda images: images.flip(-1),
    "rows and columns of the image exchanged": lambda images: images.mT,
}


@pytest.mark.parametrize("is_module", [True, False])
@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("p q c", "as they are"),
        ("p q c", "images taken as 2 x - 1"),
        ("q p c", "images taken as 2 x - 1"),
        ("p c q", "images normalised inside the model"),
        ("c q p", "images times 255"),
        ("p q c", "the image's channels reversed"),
        ("q p c", "the image mirrored left to right"),
        ("p q c", "rows and columns of the image exchanged"),
    ],
)
def test_changed_images_say_nothing_of_the_order_of_pixels(order: str, words: str, is_module: bool) -> None:  # noqa: FBT001
    report = check(_Changed(order, _CHANGES[words], is_module=is_module), overrides=SMALL, modes=["eval"])
    assert report.mapping is not None
    assert not any("pixels" in warning for warning in report.mapping.warnings)
    if words == "as they are":
        assert report.verdict == "equivalent"
        return
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.phrases == (words,)


def test_clamped_images_say_nothing_of_the_order_of_pixels() -> None:
    report = check(
        _Changed("p q c", lambda images: images.clamp(-0.5, 0.5), is_module=True), overrides=SMALL, modes=["eval"]
    )
    assert report.mapping is not None
    assert not report.mapping.warnings
    assert [cause.id for cause in report.causes] == ["graft"]
