"""Heads that are projected one by one: by modules of their own, by parts of one tensor, or some of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parity import check
from tests.test_maps_that_close import HEADS, RIGHT, SIZES, WIDTH, ViT

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = WIDTH // HEADS


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    return (q @ k.transpose(-2, -1) / HEAD**0.5).softmax(-1) @ v


def _linears(rows: int, columns: int = WIDTH, **options: Any) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(columns, rows, **options) for _ in range(HEADS))


class PartsTogether(nn.Module):
    """In each head two of query, key and value come of one Linear; the heads follow one another, or take turns."""

    def __init__(self, fused: str) -> None:
        super().__init__()
        self.fused = fused
        self.two, self.one, self.out = _linears(2 * HEAD), _linears(HEAD), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        found = []
        for two, one in zip(self.two, self.one, strict=True):
            parts = dict(zip(self.fused, two(x).chunk(2, -1), strict=True))
            found.append(_attend(*(parts[part] if part in parts else one(x) for part in "qkv")))
        return self.out(torch.cat(found, -1))


class ValuesLater(nn.Module):
    """All scores are there before the first value."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = *(_linears(HEAD) for _ in range(3)), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        scores = [q(x) @ k(x).transpose(-2, -1) / HEAD**0.5 for q, k in zip(self.q, self.k, strict=True)]
        return self.out(torch.cat([s.softmax(-1) @ v(x) for s, v in zip(scores, self.v, strict=True)], -1))


class SomeWhole(nn.Module):
    """`whole` are Linears of all heads, the others one for each head."""

    def __init__(self, whole: str) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(
            {part: nn.Linear(WIDTH, WIDTH) if part in whole else _linears(HEAD) for part in "qkv"}
        )
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        modules: list[Any] = [*self.parts.values()]
        each = [
            part(x).chunk(HEADS, -1) if isinstance(part, nn.Linear) else [head(x) for head in part] for part in modules
        ]
        return self.out(torch.cat([_attend(*parts) for parts in zip(*each, strict=True)], -1))


class OutputsApart(nn.Module):
    """Each head's output is projected by a Linear of its own, and what comes of it is added up."""

    def __init__(self, bias: str) -> None:
        super().__init__()
        self.qkv, self.outs = _linears(3 * HEAD), _linears(WIDTH, HEAD, bias=False)
        self.bias = nn.Parameter(torch.zeros(WIDTH)) if bias == "of all" else None
        if bias == "of one":
            self.outs[1] = nn.Linear(HEAD, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        mixed = [out(_attend(*qkv(x).chunk(3, -1))) for qkv, out in zip(self.qkv, self.outs, strict=True)]
        return sum(mixed) if self.bias is None else sum(mixed) + self.bias


class ItemsOfAnAxis(nn.Module):
    """Parameters (in, head, out) of which each head takes its item, and (head, in, out) behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(WIDTH, HEADS, HEAD)) for _ in range(3))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(HEADS, HEAD)) for _ in range(3))
        self.out, self.bias = nn.Parameter(torch.zeros(HEADS, HEAD, WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: torch.Tensor) -> Any:
        y: Any = self.bias
        for head in range(HEADS):
            parts = (x @ w[:, head] + b[head] for w, b in zip(self.weights, self.biases, strict=True))
            y = y + _attend(*parts) @ self.out[head]
        return y


class RowsOfATable(nn.Module):
    """All biases are rows of one table, of which each head takes some columns."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(WIDTH, WIDTH)) for _ in range(4))
        self.biases = nn.Parameter(torch.zeros(4, WIDTH))

    def forward(self, x: torch.Tensor) -> Any:
        *weights, out = self.weights
        y: Any = 0
        for head in range(HEADS):
            own = slice(head * HEAD, (head + 1) * HEAD)
            q, k, v = (x @ weight[:, own] + self.biases[n, own] for n, weight in enumerate(weights))
            y = y + _attend(q, k, v) @ out[own]
        return y + self.biases[3]


class AllInOne(nn.Module):
    """Query, key, value and output are items of one tensor, of which each head takes some rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(4, WIDTH, WIDTH)), nn.Parameter(torch.zeros(4, WIDTH))

    def forward(self, x: torch.Tensor) -> Any:
        found = []
        for head in range(HEADS):
            own = slice(head * HEAD, (head + 1) * HEAD)
            found.append(_attend(*(F.linear(x, self.weight[n, own], self.bias[n, own]) for n in range(3))))
        return F.linear(torch.cat(found, -1), self.weight[3], self.bias[3])


@pytest.mark.parametrize(
    "attention",
    [
        *((lambda fused=fused: PartsTogether(fused)) for fused in ("qk", "kv", "kq", "vq")),
        ValuesLater,
        *((lambda whole=whole: SomeWhole(whole)) for whole in ("q", "v", "qk", "kv")),
        *((lambda bias=bias: OutputsApart(bias)) for bias in ("of all", "of one")),
        ItemsOfAnAxis,
        RowsOfATable,
        AllInOne,
    ],
)
def test_heads_apart_are_mapped_by_proof(attention: Callable[[], nn.Module]) -> None:
    report = check(ViT(attention), overrides=SIZES, weights="synthetic", modes=["eval"])
    assert report.verdict in RIGHT, report
    assert report.mapping is not None
    assert report.mapping.certainty == "unique by proof"
    assert report.mapping.is_complete


def test_value_of_another_head_is_a_difference() -> None:
    class Turned(ValuesLater):
        def forward(self, x: torch.Tensor) -> Any:
            scores = [q(x) @ k(x).transpose(-2, -1) / HEAD**0.5 for q, k in zip(self.q, self.k, strict=True)]
            values = [v(x) for v in self.v]
            return self.out(torch.cat([s.softmax(-1) @ v for s, v in zip(scores, values[::-1], strict=True)], -1))

    report = check(ViT(Turned), overrides=SIZES, weights="synthetic", modes=["eval"])
    assert report.verdict == "divergent", report


@pytest.mark.parametrize("is_linear", [True, False])
def test_projection_of_the_patches_is_none_of_the_heads(is_linear: bool) -> None:  # noqa: FBT001
    patch, width, heads = 4, 48, 4

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList(
                nn.ModuleList(nn.Linear(width, width // heads) for _ in range(3)) for _ in range(heads)
            )
            self.out = nn.Linear(width, width)

        def forward(self, x: torch.Tensor) -> Any:
            heads: Any = self.heads
            found = [F.scaled_dot_product_attention(*(linear(x) for linear in head)) for head in heads]
            return self.out(torch.cat(found, -1))

    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(width, width) if is_linear else nn.Conv2d(3, width, patch, patch)

        def forward(self, x: torch.Tensor) -> Any:
            if is_linear:
                return self.project(F.unfold(x, patch, stride=patch).transpose(1, 2))
            return self.project(x).flatten(2).transpose(1, 2)

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.token = Patches(), nn.Parameter(torch.zeros(1, 1, width))
            self.positions = nn.Parameter(torch.zeros(1, 17, width))
            self.attention, self.norm1, self.norm2, self.norm = (
                Heads(), *(nn.LayerNorm(width, eps=1e-6) for _ in range(3)),
            )  # fmt: skip
            self.mlp = nn.Sequential(nn.Linear(width, 80), nn.GELU(), nn.Linear(80, width))
            self.head = nn.Linear(width, 7)

        def forward(self, images: torch.Tensor) -> Any:
            x = self.patches(images)
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
            x = x + self.attention(self.norm1(x))
            x = x + self.mlp(self.norm2(x))
            return self.head(self.norm(x)[:, 0])

    sizes = {
        "image_size": 16, "patch_size": patch, "num_layers": 1, "num_heads": heads, "hidden_dim": width, "mlp_dim": 80,
        "num_classes": 7,
    }  # fmt: skip
    report = check(Wide(), overrides=sizes, weights="synthetic", modes=["eval"])
    assert report.verdict in RIGHT, report
