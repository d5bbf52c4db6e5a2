"""Attention whose heads together are not as wide as a token: a cause with a name, whatever holds its projections."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from parity import check, infer_mapping
from tests.odd_vit import Block, OddViT
from tests.small import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

WIDTH, HEADS = 48, 4


class _Fused(nn.Module):
    """`count` heads of `head` features each, their queries, keys and values in one Linear."""

    def __init__(self, head: int, count: int = HEADS, *, per_head: bool = False, scaled_by: int | None = None) -> None:
        super().__init__()
        self.shape, self.per_head, self.scale = (count, head), per_head, math.sqrt(scaled_by or head)
        self.inward, self.outward = nn.Linear(WIDTH, 3 * count * head), nn.Linear(count * head, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        count, head = self.shape
        y = self.inward(x).unflatten(-1, (count, 3, head) if self.per_head else (3, count, head))
        q, k, v = (part.transpose(1, 2) for part in y.unbind(-2 if self.per_head else -3))
        y = (q @ k.mT / self.scale).softmax(-1) @ v
        merged: Tensor = self.outward(y.transpose(1, 2).flatten(2))
        return merged


class _Head(nn.Module):
    def __init__(self, head: int) -> None:
        super().__init__()
        self.key, self.query, self.value = (nn.Linear(WIDTH, head, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.query(x) @ self.key(x).mT * self.key.out_features**-0.5, -1)
        return weights @ self.value(x)  # type: ignore[no-any-return]


class _Modules(nn.Module):
    """One module for each head."""

    def __init__(self, head: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_Head(head) for _ in range(HEADS))
        self.outward = nn.Linear(HEADS * head, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        merged: Tensor = self.outward(torch.cat([head(x) for head in self.heads], -1))
        return merged


class _Block(Block):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__({}, 1e-6)
        del self.qkv, self.proj
        self.attention = attention

    def attended(self, x: Tensor) -> Tensor:
        attended: Tensor = self.attention(x)
        return attended


def _with(attention: Callable[[], nn.Module]) -> OddViT:
    model = OddViT({})
    model.blocks = nn.ModuleList(_Block(attention()) for _ in range(2))
    return model


@pytest.mark.parametrize(
    ("attention", "said"),
    [
        (lambda: _Fused(20), "4 heads of 20 features"),
        (lambda: _Fused(20, per_head=True), "4 heads of 20 features"),
        (lambda: _Fused(12, 8), "8 heads of 12 features"),
        (lambda: _Fused(20, scaled_by=WIDTH), "4 heads of 20 features"),
        (lambda: _Modules(20), "4 heads of 20 features"),
        (lambda: _Modules(WIDTH), "4 heads of 48 features"),
    ],
)
def test_heads_of_another_width_are_one_cause(attention: Callable[[], nn.Module], said: str) -> None:
    model = _with(attention)
    report = check(model, overrides=SMALL, modes=["eval"])
    assert report.verdict == "divergent"
    assert [cause.id for cause in report.causes] == ["head-width"], report
    statement = report.causes[0].statement
    assert statement.startswith(said)
    assert statement.endswith("the reference has 4 of 12")
    assert ("scaled by 1 / sqrt(48)" in statement) == (getattr(model.blocks[0].attention, "scale", 0) == WIDTH**0.5)
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.minimal


def test_another_attention_of_another_width_gets_its_formula() -> None:
    class Sines(_Fused):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sin())

    report = check(_with(lambda: Sines(20)), overrides=SMALL, modes=["eval"])
    assert report.verdict == "divergent"
    assert [cause.id for cause in report.causes] == ["graft"], report
    assert "; the reference: x + attention(y), where x is" in report.causes[0].statement
    assert report.explanation is not None
    assert report.explanation.complete


def test_attention_of_another_width_has_no_counterpart_and_the_rest_has() -> None:
    found = infer_mapping(VisionTransformer(**SMALL), _with(lambda: _Modules(WIDTH)))
    assert found.certainty == "unique by proof"
    assert all(".self_attention." in name for name in found.unmapped_reference)
    assert all(".attention." in name for name in found.unmapped_candidate)


def test_neither_is_mistaken_for_an_mlp_as_wide_as_a_token() -> None:
    model = _with(lambda: _Modules(WIDTH))
    for block in model.blocks:
        block.fc1, block.fc2 = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    found = infer_mapping(VisionTransformer(**SMALL), model)
    partners = {entry.reference: entry.candidate for entry in found.entries}
    assert partners["encoder.layers.encoder_layer_1.ln_1.weight"] == "blocks.1.norm_1.weight"
    assert not any(".out_proj." in name for name in partners)


def test_projections_that_add_up_to_as_many_rows_are_no_attention_of_another_width() -> None:
    """One norm for all leaves nothing between attention and MLP: 48 + 144 + 96 rows are three times 96."""
    model = OddViT({})
    for block in model.blocks:
        block.norm_1 = block.norm_2 = model.norm
    found = infer_mapping(VisionTransformer(**SMALL), model)
    partners = {entry.reference: entry.candidate for entry in found.entries}
    assert partners["encoder.layers.encoder_layer_1.self_attention.in_proj_weight"] == "blocks.1.qkv.weight"
    assert partners["encoder.layers.encoder_layer_1.mlp.3.weight"] == "blocks.1.fc2.weight"
