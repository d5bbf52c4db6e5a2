"""Attention whose heads each project a slice of the features is mapped block by block, and named as one cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from einops import rearrange
from torch import nn

from parity import check
from parity.mapping.matching import _aligned
from parity.mapping.uses.operations import Operation, View
from tests.test_maps_that_close import HEADS, SIZES, WIDTH, Attention, ViT

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = WIDTH // HEADS


class OfEach(Attention):
    """Every head has Linears of its own, fused or not."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.ModuleList([nn.Linear(HEAD, 3 * HEAD)] if fused else [nn.Linear(HEAD, HEAD) for _ in range(3)])
            for _ in range(HEADS)
        )

    def forward(self, x: torch.Tensor) -> Any:
        found = []
        for head, part in zip(self.heads, x.chunk(HEADS, -1), strict=True):
            q, k, v = torch.cat([linear(part) for linear in head.children()], -1).chunk(3, -1)
            found.append((q @ k.transpose(-2, -1) / HEAD**0.5).softmax(-1) @ v)
        return self.out(torch.cat(found, -1))


class OfAll(Attention):
    """All heads share three Linears, given tokens by heads or heads by tokens."""

    def __init__(self, *, bias: bool, order: str) -> None:
        super().__init__()
        self.order = order
        self.q, self.k, self.v = (nn.Linear(HEAD, HEAD, bias=bias) for _ in range(3))

    def parts(self, x: torch.Tensor) -> Any:
        x = rearrange(x, f"b n (h d) -> {self.order}", h=HEADS)
        return [rearrange(linear(x), f"{self.order} -> b h n d") for linear in (self.q, self.k, self.v)]


@pytest.mark.parametrize(
    ("attention", "shared"),
    [
        (lambda: OfEach(fused=False), False),
        (lambda: OfEach(fused=True), False),
        (lambda: OfAll(bias=True, order="b n h d"), True),
        (lambda: OfAll(bias=True, order="b h n d"), True),
    ],
)
def test_heads_on_slices_are_one_cause(attention: Callable[[], nn.Module], shared: bool) -> None:  # noqa: FBT001
    report = check(ViT(attention), overrides=SIZES, weights="synthetic", modes=["eval"])
    assert report.verdict == "divergent"
    assert report.explanation is not None
    assert report.explanation.complete
    (cause,) = report.causes
    assert cause.id == "heads-on-slices"
    assert f"its own {HEAD} features" in cause.statement
    assert ("all heads share" in cause.statement) == shared


def test_shared_projections_without_a_bias_lack_it_as_well() -> None:
    report = check(
        ViT(lambda: OfAll(bias=False, order="b n h d")), overrides=SIZES, weights="synthetic", modes=["eval"]
    )
    assert {cause.id for cause in report.causes} == {"heads-on-slices", "qkv-bias"}
    assert report.explanation is not None
    assert report.explanation.complete


def test_slice_of_another_head_is_something_else() -> None:
    class Turned(OfEach):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x.roll(HEAD, -1))

    report = check(ViT(lambda: Turned(fused=False)), overrides=SIZES, weights="synthetic", modes=["eval"])
    assert report.verdict == "divergent"
    assert [cause.id for cause in report.causes] != ["heads-on-slices"]


def _norm(module: str) -> Operation:
    return Operation("norm", vectors=[View(f"{module}.{name}", (WIDTH,)) for name in ("weight", "bias")])


def test_a_blocks_norm_is_not_taken_for_the_final_one_that_is_missing() -> None:
    ours = [_norm("encoder.layers.encoder_layer_1.ln_2"), _norm("encoder.ln")]
    theirs = [_norm("blocks.1.norm2")]
    assert _aligned(ours, theirs) == [(ours[0], theirs[0]), (ours[1], None)]
    theirs = [_norm("norm")]
    assert _aligned(ours, theirs) == [(ours[0], None), (ours[1], theirs[0])]
