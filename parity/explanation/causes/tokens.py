"""Entries for the tokens on their way to the first block: the class token, the positions, a factor."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange

from parity.explanation.bending import Kind
from parity.explanation.causes.variants import after, skipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Tensor = torch.Tensor


# a table reads best with an entry's parts side by side
# fmt: off
def kinds(config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for class token and positions, the likeliest first."""
    yield Kind("class-token-place", {"place": lambda _, x, token: torch.cat([x, token.expand(len(x), -1, -1)], 1)},
               "the class token last", "first", "torch.cat([cls_token, x], dim=1)")
    yield Kind("class-token-zero", {"token": after(torch.zeros_like)}, "zeros for the class token", "a learned one",
               "nn.Parameter(torch.zeros(1, 1, dim)), and load its weights")
    yield Kind("class-token-scale", {"token": lambda original, token, value: original(token) * value},
               "the class token times {value}", "as it is", "take the factor away", start=(2.0, 0.5))
    yield Kind("class-token-missing", {"place": skipped, "table": after(_patches_alone)},
               "no class token", "one", "torch.cat([cls_token, x], dim=1)", at="class_token",
               elsewhere={"table": "encoder.pos_embedding"})
    yield Kind("position-missing", {"add": skipped}, "no position embedding", "a learned one", "x + pos_embedding")
    for rows, first in (("1 to N", True), ("0 to N - 1", False)):
        yield Kind("position-of-class-token", {"table": after(functools.partial(_patch_rows, first=first))},
                   f"no position for the class token, and rows {rows} for the patches",
                   "row 0 for it, 1 to N for them", "add positions after torch.cat([cls_token, x], dim=1)")
    yield Kind("position-missing", {"table": after(_class_row_only)}, "no positions for the patches",
               "a learned one for each", "x + pos_embedding")
    yield Kind("position-of-class-token", {"table": after(_without_class_row)}, "no position for the class token",
               "row 0", "x + pos_embedding, the class token's included")
    for steps in (1, -1, 2, -2):
        yield Kind("position-shift", {"table": after(functools.partial(torch.roll, shifts=steps, dims=1))},
                   f"positions shifted by {steps}", "each in its place", "x + pos_embedding")
        yield Kind("position-shift", {"table": after(functools.partial(_patches_rolled, steps=steps))},
                   f"positions of the patches shifted by {steps}", "each in its place", "x + pos_embedding")
    yield Kind("position-transposed", {"table": lambda _, table, grid: _grid_transposed(table, grid)},
               "rows and columns of the positions' grid exchanged", "row by row", "x + pos_embedding")
    yield Kind("position-doubled", {"add": lambda original, x, table: original(original(x, table), table)},
               "the position embedding added twice", "once", "x + pos_embedding")
    yield Kind("position-operator", {"add": lambda _, x, table: x * table}, "tokens times positions", "plus",
               "x + pos_embedding")
    yield Kind("position-fixed", {"add": lambda _, x, __, value: x + value}, "a fixed table of positions",
               "a learned one", "nn.Parameter(torch.zeros(1, N + 1, dim))",
               fit=lambda wanted, x, *_: (wanted - x).mean(0, keepdim=True))
    root = {f"sqrt({config['hidden_dim']})": config["hidden_dim"] ** 0.5}
    yield Kind("token-scale", {"add": lambda original, x, table, value: original(x * value, table)},
               "tokens times {value} before positions are added", "as they are", "x + pos_embedding",
               start=(*root.values(), 0.5), named=root)
    yield Kind("token-scale", {"output": lambda original, x, value: original(x) * value}, "tokens times {value}",
               "as they are", "take the factor away", only="pos_embedding$", start=(*root.values(), 0.5), named=root)


# fmt: on


def _patch_rows(table: Tensor, *, first: bool) -> Tensor:
    return torch.cat([torch.zeros_like(table[:, :1]), table[:, 1:] if first else table[:, :-1]], 1)


def _patches_alone(table: Tensor | None) -> Tensor | None:
    return None if table is None else table[:, 1:]


def _without_class_row(table: Tensor) -> Tensor:
    return _patch_rows(table, first=True)


def _class_row_only(table: Tensor) -> Tensor:
    return torch.cat([table[:, :1], torch.zeros_like(table[:, 1:])], 1)


def _patches_rolled(table: Tensor, steps: int) -> Tensor:
    return torch.cat([table[:, :1], table[:, 1:].roll(steps, 1)], 1)


def _grid_transposed(table: Tensor, grid: int) -> Tensor:
    return torch.cat([table[:, :1], rearrange(table[:, 1:], "b (h w) d -> b (w h) d", h=grid)], 1)
