"""A formula of eval mode and the dropouts that stand in it: explained in train mode if they are the reference's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parity import check
from tests.small import SMALL

if TYPE_CHECKING:
    from parity.report import Report

Tensor = torch.Tensor
RATE = 0.2


class _Block(nn.Module):
    """Adds the norm as well, since the branch is added to it in place; drops its branches at two rates."""

    def __init__(self, attention: float, mlp: float) -> None:
        super().__init__()
        self.before, self.behind = nn.LayerNorm(48, eps=1e-6), nn.LayerNorm(48, eps=1e-6)
        self.mha = nn.MultiheadAttention(48, 4, batch_first=True)
        self.up, self.down = nn.Linear(48, 96), nn.Linear(96, 48)
        self.rates = attention, mlp

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        branch, _ = self.mha(y, y, y, need_weights=False)
        y += F.dropout(branch, self.rates[0], self.training)
        x = x + y
        y = F.dropout(F.gelu(self.up(self.behind(x))), RATE, self.training)
        return x + F.dropout(self.down(y), self.rates[1], self.training)


class _Aliased(nn.Module):
    def __init__(self, attention: float, mlp: float, dropout: float) -> None:
        super().__init__()
        self.patch, self.drop = nn.Conv2d(3, 48, 8, 8), nn.Dropout(dropout)
        self.token, self.table = nn.Parameter(torch.zeros(1, 1, 48)), nn.Parameter(torch.zeros(1, 17, 48))
        self.blocks = nn.Sequential(*[_Block(attention, mlp) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(48, eps=1e-6), nn.Linear(48, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = self.drop(torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.table)
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


def checked(attention: float, mlp: float = RATE) -> Report:
    def build(dropout: float = RATE) -> _Aliased:
        return _Aliased(attention, mlp, dropout)

    return check(build, overrides=SMALL | {"dropout": RATE}, modes=["eval", "train"])


def test_dropout_of_the_reference_in_a_formula_is_no_difference() -> None:
    explanation = checked(RATE).explanation
    assert explanation is not None
    assert explanation.complete
    assert explanation.phrases[0].startswith("x + y + z")
    assert not explanation.in_train_mode


def test_another_dropout_beside_a_formula_is_named() -> None:
    explanation = checked(RATE, 0.4).explanation
    assert explanation is not None
    assert explanation.complete
    assert explanation.in_train_mode == ("dropout on the MLP's output has rate 0.4 (blocks 0 and 1)",)


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (0.0, "dropout is missing on the attention's output (blocks 0 and 1)"),
        (0.4, "dropout on the attention's output has rate 0.4 (blocks 0 and 1)"),
    ],
)
def test_other_dropout_in_a_formula_is_told_apart_from_it(rate: float, said: str) -> None:
    explanation = checked(rate).explanation
    assert explanation is not None
    assert explanation.complete
    assert explanation.in_train_mode == (said,)
