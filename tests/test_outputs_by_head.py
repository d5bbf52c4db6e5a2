"""Heads whose outputs are projected by a kernel (head, in, out) of which each has its item, and then added up."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from parity import check
from tests.test_maps_that_close import HEADS, RIGHT, SIZES, WIDTH, ViT

if TYPE_CHECKING:
    from collections.abc import Callable

    Projection = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Any]

HEAD = WIDTH // HEADS


class _Attention(nn.Module):
    """Keeps what the heads give apart, (B, heads, N, in), until `project` has it, with the kernel and the bias."""

    def __init__(self, project: Projection) -> None:
        super().__init__()
        self.project = project
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.kernel, self.bias = nn.Parameter(torch.zeros(HEADS, HEAD, WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: torch.Tensor) -> Any:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, HEAD)).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1) / HEAD**0.5).softmax(-1) @ v
        return self.project(mixed, self.kernel, self.bias)


def _each(x: torch.Tensor, kernel: torch.Tensor) -> list[torch.Tensor]:
    return [x[:, head] @ kernel[head] for head in range(HEADS)]


_RIGHT: dict[str, Projection] = {
    "einsum, sum": lambda x, w, b: torch.einsum("bhld,hdo->bhlo", x, w).sum(1) + b,
    "einsum, heads last": lambda x, w, b: torch.einsum("bhld,hdo->bloh", x, w).sum(-1) + b,
    "einsum twice": lambda x, w, b: torch.einsum("bhlo->blo", torch.einsum("bhld,hdo->bhlo", x, w)) + b,
    "einsum, heads second": lambda x, w, b: torch.einsum("bhld,dho->bhlo", x, w.transpose(0, 1)).sum(1) + b,
    "matmul, sum": lambda x, w, b: b + torch.sum(x @ w, dim=1),
    "matmul, turned": lambda x, w, b: (x @ w).transpose(1, 2).sum(dim=-2) + b,
    "matmul, heads first": lambda x, w, b: torch.matmul(x.transpose(0, 1), w[:, None]).sum(0) + b,
    "matmul, one by one": lambda x, w, b: sum((x @ w).unbind(1)) + b,
    "bias behind": lambda x, w, b: (x @ w + b / HEADS).sum(1),
    "loop": lambda x, w, b: sum(_each(x, w)) + b,
    "loop, stack": lambda x, w, b: torch.stack(_each(x, w)).sum(0) + b,
    "loop, stack behind": lambda x, w, b: torch.stack(_each(x, w), dim=-1).sum(-1) + b,
    "loop, reduce": lambda x, w, b: functools.reduce(operator.add, _each(x, w)) + b,
    "loop, reduce torch.add": lambda x, w, b: functools.reduce(torch.add, _each(x, w), b),
}
_TWICE: dict[str, Projection] = {
    "einsum": lambda x, w, b: (torch.einsum("bhld,hdo->bhlo", x, w) + b).sum(1),
    "matmul": lambda x, w, b: (x @ w + b).sum(dim=1),
    "loop": lambda x, w, b: sum(y + b for y in _each(x, w)),
    "stack": lambda x, w, b: torch.stack([y + b for y in _each(x, w)]).sum(0),
}


@pytest.mark.parametrize("how", _RIGHT)
def test_kernel_of_every_head_is_the_output_projection(how: str) -> None:
    report = check(ViT(lambda: _Attention(_RIGHT[how])), overrides=SIZES, modes=["eval"])
    assert report.verdict in RIGHT, str(report)
    assert report.mapping is not None
    assert report.mapping.certainty == "unique by proof"
    assert report.mapping.is_complete


@pytest.mark.parametrize("how", _TWICE)
def test_bias_in_every_head_is_a_cause_of_its_own(how: str) -> None:
    report = check(ViT(lambda: _Attention(_TWICE[how])), overrides=SIZES, modes=["eval"])
    assert report.verdict == "divergent", str(report)
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.mapping is not None
    assert report.mapping.is_complete
    assert [cause.id for cause in report.causes] == ["graft"]


def test_greatest_of_the_heads_is_a_difference() -> None:
    report = check(ViT(lambda: _Attention(lambda x, w, b: (x @ w).amax(1) + b)), overrides=SIZES, modes=["eval"])
    assert report.verdict == "divergent", str(report)
    assert report.mapping is not None
    assert report.mapping.is_complete
