"""Tables of positions that were interpolated: to another size and back, or from another size by another rule."""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from parity.training import RULES
from parity.transfer.finding import Found

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parity.transfer.finding import Turn

# sides of grids in use: 7, 14, 16, 24, 32 and 37 patches are those of published models
_SIDES = (7, 8, 12, 14, 16, 18, 20, 24, 28, 32, 37)
_LARGEST = 64

_FEW = 4  # columns that are looked at first

# Interpolation in float32 leaves some 1e-7; the two rules that are closest to each other are 6e-2 apart.
_BOUND = 1e-5

_HINT = "positions of the size of the model's own grid are taken as they are"


def resampled(expected: torch.Tensor, found: torch.Tensor) -> Found | None:
    """Tells how a table of positions (1, N, D) or (N, D) was interpolated, if it was.

    Args:
        expected: the table that should be there: the class token's row and a square grid, or the grid alone.
        found: the one that is there.
    """
    if expected.ndim not in (2, 3) or (expected.ndim == 3 and len(expected) != 1):
        return None
    e, f = (table.double().reshape(1, -1, table.shape[-1]) for table in (expected, found))
    off = (e != f).any(1).flatten().nonzero().flatten()  # columns
    if len(off) < e.shape[2] or e.shape[1] < 4:
        return None
    as_sequence = next(_as_sequence(e, f), None)
    if as_sequence:
        return as_sequence
    others = next((n for n in (1, 0) if math.isqrt(e.shape[1] - n) ** 2 == e.shape[1] - n), None)
    if others is None:
        return None
    if not others:  # the rules know tables with the class token's row
        e, f = (torch.cat([table[:, :1], table], dim=1) for table in (e, f))
    return None if _close(e[:, 1:], f[:, 1:]) else next(_as_grid(e, f), None)


def _as_sequence(e: torch.Tensor, f: torch.Tensor) -> Iterator[Found]:
    """The whole table, the class token's row with it, as if it was a line."""
    count = e.shape[1]
    lengths = {*range(count // 2, 2 * count + 2)} if count < _LARGEST else {n * n + 1 for n in _SIDES}
    for length, corners in itertools.product(sorted(lengths - {count}), (False, True)):
        there = functools.partial(F.interpolate, size=length, mode="linear", align_corners=corners)
        back = functools.partial(F.interpolate, size=count, mode="linear", align_corners=corners)
        if _makes(lambda table: back(there(table.transpose(1, 2))).transpose(1, 2), e, f):  # noqa: B023  (called at once)
            phrase = f"rows resampled to {length} and back, the class token's among them"
            yield Found("weights-resampled", phrase, _HINT)


def _as_grid(e: torch.Tensor, f: torch.Tensor) -> Iterator[Found]:
    side = math.isqrt(e.shape[1] - 1)
    sides = sorted({*range(2, min(2 * side + 2, _LARGEST)), *_SIDES} - {side})
    pairs = [(there, back) for there in RULES for back in RULES if there is back or there.mode == back.mode]
    for other, (there, back) in itertools.product(sides, pairs):
        if _makes(lambda table: back.apply(there.apply(table, other), side)[:, 1:], e, f):  # noqa: B023  (called at once)
            phrase = f"positions resampled to {other} x {other} and back ({there.mode})"
            yield Found("weights-resampled", phrase, _HINT)
    for other in sorted({n for n in (*_SIDES, side // 2) if 2 <= n < side}):
        yield from _from_another_size(other, side, e[0, 1:, :_FEW], f[0, 1:, :_FEW])


def _makes(turn: Turn, e: torch.Tensor, f: torch.Tensor) -> bool:
    """Whether a turn of the expected table makes the last rows of the one that was found; few columns come first."""
    for columns in (slice(0, _FEW), slice(None)):
        made = turn(e[..., columns])
        if not _close(made, f[:, -made.shape[1] :, columns]):
            return False
    return True


def _from_another_size(other: int, side: int, e: torch.Tensor, f: torch.Tensor) -> Iterator[Found]:
    """Both tables (G * G, D) were made of one of another size, by different rules, each of them linear in it."""
    eye = torch.eye(other * other, dtype=torch.float64)[None]
    unit = torch.cat([eye.new_zeros(1, 1, other * other), eye], dim=1)
    made_by = {rule: rule.apply(unit, side)[0, 1:] for rule in RULES}
    for rule, matrix in made_by.items():
        old = torch.linalg.lstsq(matrix, e).solution
        if not _close(matrix @ old, e):
            continue
        for another, by_other in made_by.items():
            if another != rule and _close(by_other @ old, f):
                phrase = f"positions of {other} x {other} resized by another rule: {another}; the expected: {rule}"
                yield Found("weights-resampled", phrase, f"resize with {rule}")


def _close(made: torch.Tensor, found: torch.Tensor) -> bool:
    return bool((made - found).norm() <= _BOUND * found.norm())
