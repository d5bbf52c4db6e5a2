"""Positions, of tokens or of blocks, that are added again before every block are one cause of the right name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from parity import check
from tests.test_maps_that_close import HEADS, SIZES, WIDTH, Attention, ViT

LAYERS = 3


class _Plain(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def parts(self, x: torch.Tensor) -> Any:
        return self.qkv(x).view(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)


class _Repeated(ViT):
    def __init__(self) -> None:
        super().__init__(_Plain)
        self.blocks.append(type(self.blocks[0])(_Plain))

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(len(x), -1, -1), x], 1)

    def forward(self, images: torch.Tensor) -> Any:
        return self.head(self.norm(self.encoded(self.embedded(images)))[:, 0])

    def encoded(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class FirstAndAgain(_Repeated):
    def encoded(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.positions
        for block in self.blocks:
            x = block(x + self.positions)
        return x


class ByDepth(_Repeated):
    def __init__(self) -> None:
        super().__init__()
        self.depths = nn.Parameter(torch.zeros(LAYERS, 1, WIDTH))

    def encoded(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.positions
        for block, depth in zip(self.blocks, self.depths, strict=True):
            x = block(x + depth)
        return x


class OfEachBlock(_Repeated):
    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(LAYERS, 5, WIDTH))

    def encoded(self, x: torch.Tensor) -> torch.Tensor:
        for block, positions in zip(self.blocks, self.positions, strict=True):
            x = block(x + positions)
        return x


class Growing(_Repeated):
    def encoded(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.positions
        for number, block in enumerate(self.blocks):
            x = block(x + 0.1 * number * self.positions)
        return x


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (FirstAndAgain, "x = block(x + self.positions)"),
        (ByDepth, "x = block(x + depth)"),
        (OfEachBlock, "x + positions[i + 1], i the block's number from 0,"),
        (Growing, "x + encoder.pos_embedding / (10 / (i + 1)), i the block's number from 0,"),
    ],
)
def test_what_one_line_adds_before_every_block_is_one_cause(model: type[_Repeated], words: str) -> None:
    report = check(model(), overrides=SIZES | {"num_layers": LAYERS}, weights="synthetic", modes=["eval"])
    assert report.verdict == "divergent"
    assert report.explanation is not None
    assert report.explanation.complete
    (cause,) = report.causes
    assert words in cause.statement
    assert "encoder.layers.encoder_layer_0" in cause.where


def test_learned_tensors_of_its_own_are_no_constants() -> None:
    class Shifted(_Plain):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(WIDTH))

        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x) + self.shift.tanh()

    report = check(ViT(Shifted), overrides=SIZES, weights="synthetic", modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    (cause,) = report.causes
    assert "shift" in cause.statement
    assert "plus (" not in cause.statement
