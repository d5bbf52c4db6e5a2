"""Patches that are cut in another order before a Linear projects them: the order is the cause, and the only one."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from torch import nn

import vit
from parity import check
from tests.small import OURS, SMALL


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
