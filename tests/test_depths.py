"""A number that another block has another of, by a rule, is one cause; and no number is called what it isn't."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import vit
from parity import check
from tests.small import OURS, SMALL
from vit.model import AttentionBlock

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from parity.report import Report


class _Scaled(AttentionBlock):
    """Multiplies the output of its MLP by a number of its own."""

    by: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.pre_norm(x)
        x = x + self.dropout(self.attention(y, y, y, need_weights=False)[0])
        z: torch.Tensor = x + self.by * self.MLP(self.norm(x))
        return z


def _scaled(rule: Callable[[int], float], layers: int) -> Report:
    """Checks our ViT, whose blocks are such."""
    candidate = vit.ViT(**OURS | {"num_layers": layers})
    for number in range(layers):
        block = candidate.get_submodule(f"attn_layers.{number}")
        block.__class__ = _Scaled
        block.by = rule(number)  # type: ignore[assignment]
    return check(candidate, overrides=SMALL | {"num_layers": layers}, modes=["eval"])


@pytest.mark.parametrize(
    ("rule", "words", "where"),
    [
        (lambda i: (i + 1) ** -0.5, "1 / sqrt(i + 1)", "in blocks 1, 2 and 3"),
        (lambda i: 1 / (i + 1), "1 / (i + 1)", "in blocks 1, 2 and 3"),
        (lambda i: 1 - 0.1 * i, "1 - 0.1 * i", "in blocks 1, 2 and 3"),
        (lambda i: 0.3 / (i + 1), "0.3 / (i + 1)", "in all 4 blocks"),
        (lambda i: 0.9**i, "0.9^i", "in blocks 1, 2 and 3"),
        (lambda i: 1 - i / 15, "1 - 1 / 15 * i", "in blocks 1, 2 and 3"),
    ],
)
def test_number_that_follows_the_depth_is_one_cause(rule: Callable[[int], float], words: str, where: str) -> None:
    report = _scaled(rule, 4)
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.phrases == (f"the output of the MLP times {words}, i the block's number from 0, {where}",)
    assert [cause.id for cause in report.causes] == ["residual-scale"]


@pytest.mark.parametrize("blocks", [{2}, {0, 1, 2}], ids=["one", "all"])
def test_number_is_called_after_the_blocks_only_where_all_have_it(blocks: set[int]) -> None:
    report = _scaled(lambda block: 3**-0.5 if block in blocks else 1.0, 3)
    assert report.explanation is not None
    (phrase,) = report.explanation.phrases
    assert ("1 / sqrt(3 blocks) in all 3 blocks" in phrase) == (len(blocks) == 3)
    assert ("1 / sqrt(3) in block 2" in phrase) == (blocks == {2})


def test_numbers_that_follow_no_rule_are_a_cause_each() -> None:
    report = _scaled(lambda block: (0.3, 0.8, 0.7)[block], 3)
    assert [cause.id for cause in report.causes] == ["residual-scale"] * 3


def test_constants_that_blocks_have_others_of_are_a_cause_each() -> None:
    candidate = vit.ViT(**OURS)

    def multiplied_by(number: float) -> Callable[..., torch.Tensor]:
        return lambda *arguments: arguments[-1] * number

    for block, number in enumerate((0.3, 0.8)):
        candidate.get_submodule(f"attn_layers.{block}.MLP").register_forward_hook(multiplied_by(number))
    report = check(candidate, overrides=SMALL, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.phrases == (
        "features times 0.3 in mlp of block 0",
        "features times 0.8 in mlp of block 1",
    )
