"""Images of a batch that act on each other: found by running, told first, and one image alone is compared."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from parity import check
from parity.mapping import infer_mapping
from parity.models.reference import build_reference, configuration
from tests.small import SMALL

Tensor = torch.Tensor


class _Block(nn.Module):
    def __init__(self, width: int, hidden: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(-3, -2) for f in (self.query, self.key, self.value))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(-3, -2).flatten(-2))
        x = x + self.down(F.gelu(self.up(self.between(x))))
        return x


class _ViT(nn.Module):
    eps = 1e-6

    def __init__(
        self, image_size: int, patch_size: int, hidden_dim: int, num_layers: int, num_heads: int, mlp_dim: int,
        num_classes: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patches = nn.Conv2d(3, hidden_dim, patch_size, patch_size)
        self.first = nn.Parameter(torch.zeros(1, hidden_dim))
        self.table = nn.Parameter(torch.zeros((image_size // patch_size) ** 2 + 1, hidden_dim))
        self.blocks = nn.Sequential(*(_Block(hidden_dim, mlp_dim, num_heads, self.eps) for _ in range(num_layers)))
        self.last = nn.LayerNorm(hidden_dim, self.eps)
        self.classes = nn.Linear(hidden_dim, num_classes)

    def encoded(self, patches: Tensor, first: Tensor) -> Tensor:
        encoded: Tensor = self.last(self.blocks(torch.cat([first, patches], -2) + self.table))
        return encoded


class _Remembering(_ViT):
    """An image's class token begins with a part of what the image before it has come to."""

    def forward(self, images: Tensor) -> Tensor:
        logits, extra = [], torch.zeros_like(self.first)
        for image in images:
            x = self.encoded(self.patches(image).flatten(1).T, self.first + extra)
            extra = x[:1] / 2
            logits.append(self.classes(x[0]))
        return torch.stack(logits)


class _RememberingWithOtherEps(_Remembering):
    eps = 1e-4


class _Levelled(_ViT):
    """The whole batch is shifted by what its images have in common, unless there is one alone."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.encoded(self.patches(images).flatten(2).mT, self.first.expand(len(images), 1, -1))[:, 0]
        weights = torch.softmax(0.2 * x @ x.T, 1)
        logits: Tensor = self.classes(weights @ x)
        return logits


class _Counting(_ViT):
    """Logits are as much smaller as there are more images."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.encoded(self.patches(images).flatten(2).mT, self.first.expand(len(images), 1, -1))
        logits: Tensor = self.classes(x[:, 0] / len(images) ** 0.5)
        return logits


class _Apart(_ViT):
    """Right, one image at a time."""

    def forward(self, images: Tensor) -> Tensor:
        tokens = [self.encoded(self.patches(image).flatten(1).T, self.first)[0] for image in images]
        return torch.stack([self.classes(token) for token in tokens])


def _line_of(kind: type, text: str) -> int:
    source, start = inspect.getsourcelines(kind)
    return start + next(number for number, line in enumerate(source) if text in line)


def _first_sentence(report: Any) -> str:
    return f"{report.reasons[0]}"


def test_what_is_carried_from_image_to_image_is_told_first_with_its_lines() -> None:
    report = check(_Remembering, overrides=SMALL)
    assert report.verdict == "divergent"
    assert _first_sentence(report).startswith("the images of a batch act on each other: alone every image is treated")
    assert "depend on those before it" in _first_sentence(report)
    assert [cause.id for cause in report.causes] == ["images-mix"]
    carried, joined = _line_of(_Remembering, "extra = x[:1] / 2"), _line_of(_Remembering, "self.first + extra")
    assert {f"test_images_mix.py:{line}" for line in (carried, joined)} & {
        line.at for line in report.causes[0].candidate_code
    }
    assert {layer.status for layer in report.layers} <= {"clean", "not compared"}
    assert sum(layer.status == "clean" for layer in report.layers) > 10


def test_the_weight_map_is_proved_with_one_image_where_several_mix() -> None:
    reference = build_reference(configuration("vit_b_16", SMALL))
    assert infer_mapping(reference, _Remembering(**SMALL)).certainty == "unique by proof"


def test_what_else_is_wrong_is_named_as_well_and_is_not_called_all() -> None:
    report = check(_RememberingWithOtherEps, overrides=SMALL)
    assert _first_sentence(report).startswith("the images of a batch act on each other: in a batch")
    assert [cause.id for cause in report.causes] == ["images-mix", "layer-norm-eps"]
    assert report.explanation is not None
    assert not report.explanation.complete
    assert any(
        reason.startswith("one image alone: your model is vit_b_16 with LayerNorm eps") for reason in report.reasons
    )


def test_one_image_alone_is_not_enough_for_equivalence() -> None:
    report = check(_Levelled, overrides=SMALL, batch=1)
    assert report.verdict == "divergent"
    assert "depend on all others as well" in _first_sentence(report)


def test_a_batch_that_only_counts_is_told_apart_from_images_that_mix() -> None:
    report = check(_Counting, overrides=SMALL, batch=1)
    assert report.verdict == "divergent"
    assert _first_sentence(report).startswith("the size of a batch matters")


def test_a_right_model_that_takes_one_image_after_the_other_is_right() -> None:
    assert check(_Apart, overrides=SMALL, modes=["eval"]).verdict == "equivalent"
