"""A projection that serves as several of query, key and value is mapped once, and named as one cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from einops import rearrange
from torch import nn

from parity import check
from tests.test_maps_that_close import HEADS, SIZES, WIDTH, Attention, ViT

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = WIDTH // HEADS


class Whole(Attention):
    """Three Linears, of which those numbered in `which` make query, key and value."""

    def __init__(self, which: tuple[int, ...], *, bias: bool = True) -> None:
        super().__init__()
        self.which, self.own = which, nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(3))

    def parts(self, x: torch.Tensor) -> Any:
        return [rearrange(self.own[number](x), "b n (h d) -> b h n d", h=HEADS) for number in self.which]


class OfEach(Attention):
    """The same for each head, with Linears of its own."""

    def __init__(self, which: tuple[int, ...]) -> None:
        super().__init__()
        self.which = which
        self.heads = nn.ModuleList(nn.ModuleList(nn.Linear(WIDTH, HEAD) for _ in range(3)) for _ in range(HEADS))

    def forward(self, x: torch.Tensor) -> Any:
        found = []
        head: Any
        for head in self.heads:
            q, k, v = (head[number](x) for number in self.which)
            found.append((q @ k.transpose(-2, -1) / HEAD**0.5).softmax(-1) @ v)
        return self.out(torch.cat(found, -1))


@pytest.mark.parametrize(
    ("attention", "said"),
    [
        (lambda: Whole((0, 0, 0)), "qqq"),
        (lambda: Whole((2, 2, 2)), "qqq"),
        (lambda: Whole((0, 0, 2)), "qqv"),
        (lambda: Whole((0, 1, 0)), "qkq"),
        (lambda: Whole((0, 1, 1)), "qkk"),
        (lambda: OfEach((0, 0, 0)), "qqq"),
        (lambda: OfEach((0, 0, 2)), "qqv"),
    ],
)
def test_a_projection_that_serves_as_several_is_one_cause(attention: Callable[[], nn.Module], said: str) -> None:
    report = check(ViT(attention), overrides=SIZES, weights="synthetic", modes=["eval"])
    assert report.verdict == "divergent"
    assert report.explanation is not None
    assert report.explanation.complete, report
    (cause,) = report.causes
    assert cause.id in ("projection-shared", "key-shares-query")
    assert f"projections {said} used as query, key and value" in cause.statement
    text = " ".join(str(report).split())
    assert "no projection of its own: the candidate has no counterpart of " in text
    assert "features beside a head's own" not in text
    assert "no bias of query, key and value" not in text


def test_without_a_bias_it_lacks_that_as_well() -> None:
    report = check(ViT(lambda: Whole((0, 0, 0), bias=False)), overrides=SIZES, weights="synthetic", modes=["eval"])
    assert {cause.id for cause in report.causes} == {"projection-shared", "qkv-bias"}
    assert report.explanation is not None
    assert report.explanation.complete


def test_each_of_several_images_given_to_its_projections_is_no_sharing() -> None:
    class ImageByImage(Whole):
        def parts(self, x: torch.Tensor) -> Any:
            made = [torch.stack([own(image) for image in x]) for own in self.own]
            return [rearrange(part, "b n (h d) -> b h n d", h=HEADS) for part in made]

    report = check(ViT(lambda: ImageByImage((0, 1, 2))), overrides=SIZES, weights="synthetic", modes=["eval"])
    assert report.verdict in ("identical", "equivalent"), report


def test_a_projection_may_serve_as_several_in_one_block_alone() -> None:
    made = iter([(0, 0, 2), (0, 1, 2), (0, 1, 2), (0, 1, 2)])
    report = check(ViT(lambda: Whole(next(made))), overrides=SIZES, weights="synthetic", modes=["eval"])
    (cause,) = report.causes
    assert cause.id == "key-shares-query"
    assert "in self_attention of block 0" in cause.statement
    assert report.explanation is not None
    assert report.explanation.complete
