"""Which rule resizes a position embedding: told from what the rule does, not from its source.

The same table is resized by every rule that is in use, in float64, and compared with what somebody else's code made of
it. Knows tables of positions only: (1, 1 + G * G, D), the class token's row first, then a square grid row by row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from parity.errors import ParityError
from parity.tracing import SAME_FUNCTION_BOUND, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Some code computes in float32 whatever it is given, which was measured to make 4e-7. The two rules that are closest to
# each other, by size and by the scale factor with its offset, are 6e-2 apart on a random grid of 7 x 7.
ROUNDED_BOUND = 1e-5

# added to the new side before dividing by the old one, so that rounding cannot lose a row; it also shifts every point
OFFSET = 0.1

_SMOOTH = ("bicubic", "bilinear")

# grids to try a function on: growing and shrinking, by whole and by fractional ratios, and to a single position
_TRIED = ((7, 12), (12, 7), (4, 8), (8, 4), (6, 7))


@dataclass(frozen=True)
class Rule:
    """One way to resize a grid, in the words of `torch.nn.functional.interpolate`.

    Attributes:
        mode: bicubic, bilinear, nearest, nearest-exact or area.
        align_corners: whether the centres of the corner positions stay in place; None where the mode doesn't ask.
        antialias: whether a grid that shrinks is smoothed over what is lost.
        offset: by scale factor, and this much is added to the new side before it is divided by the old one; None: by
            size, which the plain scale factor new / old is the same as.
    """

    mode: str
    align_corners: bool | None = None
    antialias: bool = False
    offset: float | None = None

    def apply(self, table: torch.Tensor, side: int) -> torch.Tensor:
        """Resizes a table (1, 1 + G * G, D) to (1, 1 + side * side, D), in the table's dtype.

        Raises:
            ParityError: the table's positions form no square grid.
        """
        old = _side(table)
        grid = table[:, 1:].transpose(1, 2).reshape(1, -1, old, old)
        scale = None if self.offset is None else (side + self.offset) / old
        resized = F.interpolate(
            grid,
            size=(side, side) if scale is None else None,
            scale_factor=None if scale is None else (scale, scale),
            mode=self.mode,
            align_corners=self.align_corners,
            antialias=self.antialias,
        )
        return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)

    def __str__(self) -> str:
        parts = [self.mode]
        if self.align_corners is not None:
            parts.append(f"align_corners={self.align_corners}")
        if self.mode in _SMOOTH:
            parts.append(f"antialias={self.antialias}")
        parts.append("by size" if self.offset is None else f"by the scale factor (new + {self.offset}) / old")
        return ", ".join(parts)


_CHOICES: list[tuple[str, bool | None, bool]] = [
    *((mode, corners, antialias) for mode in _SMOOTH for corners in (True, False) for antialias in (False, True)),
    *((mode, None, False) for mode in ("nearest", "nearest-exact", "area")),
]
RULES = tuple(
    Rule(mode, corners, antialias, offset)
    for offset in (None, OFFSET)
    for mode, corners, antialias in _CHOICES
    if offset is None or not (corners or mode == "area")  # these ask for the new side only
)


@dataclass(frozen=True)
class Crop:
    """No resizing at all: of a table for more positions the first ones are used, in order."""

    def apply(self, table: torch.Tensor, side: int) -> torch.Tensor:
        """Cuts a table (1, 1 + G * G, D) to (1, 1 + side * side, D)."""
        return table[:, : 1 + side * side]

    def __str__(self) -> str:
        return "cutting the table off after the last position needed"


Resizing = Rule | Crop


@dataclass(frozen=True)
class Recognition:
    """The rules that explain what was seen.

    Attributes:
        rules: those that fit. Several only where they are the same function of what was seen, such as bilinear with
            and without `antialias` of a grid that grows.
        residual: relative error of the best one, norm(seen - expected) / norm(expected), in float64.
        nearest: the rule that comes closest, whether it fits or not.
        problem: why no rule fits, or None.
    """

    rules: tuple[Rule, ...]
    residual: float
    nearest: Rule | None
    problem: str | None = None

    @property
    def rule(self) -> Rule | None:
        """The rule, the simplest one if several fit, or None."""
        return self.rules[0] if self.rules else None

    def __str__(self) -> str:
        if self.problem or not self.rules:
            return f"no known rule: {self.problem}"
        rounded = "" if self.residual <= SAME_FUNCTION_BOUND else ", computed in less than float64"
        others = f"; what was seen cannot tell it from: {'; '.join(map(str, self.rules[1:]))}" * (len(self.rules) > 1)
        return f"{self.rules[0]}{rounded} (residual {self.residual:.1e}){others}"


def recognise(resize: Callable[[torch.Tensor, int], torch.Tensor]) -> Recognition:
    """Finds out by which rule a function resizes position embeddings.

    Args:
        resize: called with a table (1, 1 + G * G, D) in float64 and the side H of the new grid, several times, for
            grids that grow and shrink; returns the table (1, 1 + H * H, D).
    """
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for old, new in _TRIED:
        table = torch.randn(1, 1 + old * old, 8, dtype=torch.float64, generator=generator)
        made = resize(table.clone(), new)
        problem = _misfit(table, made, new)
        if problem:
            return Recognition((), math.inf, None, problem)
        pairs.append((table, made))
    return _recognise(pairs)


def recognise_tables(old: torch.Tensor, new: torch.Tensor) -> Recognition:
    """Finds out by which rule one table was made from another.

    Args:
        old: (1, 1 + G * G, D), in float32 or float64.
        new: (1, 1 + H * H, D).

    Raises:
        ParityError: the old table's positions form no square grid, or both grids are the same, which shows nothing.
    """
    side = _side(old)
    if old.shape == new.shape:
        raise ParityError(f"both tables are grids of {side} x {side} positions: nothing was resized")
    problem = _misfit(old, new)
    return Recognition((), math.inf, None, problem) if problem else _recognise([(old, new)])


def _recognise(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> Recognition:
    """Compares what was made of each table, as pairs of an old and a new one, with what every rule makes of it."""
    errors = {rule: _error(rule, pairs) for rule in RULES}
    best = min(errors, key=lambda rule: errors[rule])
    # what rounding of the best one cannot have made is another function
    bound = SAME_FUNCTION_BOUND if errors[best] <= SAME_FUNCTION_BOUND else ROUNDED_BOUND
    fitting = tuple(rule for rule in RULES if errors[rule] <= bound)
    problem = None if fitting else f"the nearest one, {best}, is off by {errors[best]:.1e}"
    return Recognition(fitting, errors[best], best, problem)


def _error(rule: Rule, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Returns the largest relative error of the rule over all pairs, positions of the grid only."""
    return max(
        compare(rule.apply(old.detach().double(), _side(new))[:, 1:], new[:, 1:].double(), ulp=False).relative
        for old, new in pairs
    )


def _misfit(old: torch.Tensor, new: torch.Tensor, side: int | None = None) -> str | None:
    """Says why no rule can have made `new` of `old`, to the side that was asked for, or returns None."""
    if new.ndim != 3 or new.shape[::2] != old.shape[::2]:
        return f"it makes a table of shape {tuple(new.shape)} of one of shape {tuple(old.shape)}"
    positions = new.shape[1] - 1
    if positions < 1 or math.isqrt(positions) ** 2 != positions:
        return f"the new table has {positions} positions, which form no square grid"
    if side not in (None, math.isqrt(positions)):
        return f"it makes {positions} positions where a grid of {side} x {side} was asked for"
    if compare(old[:, :1].double(), new[:, :1].double(), ulp=False).relative > ROUNDED_BOUND:
        return "the class token's row, the first one, has changed"
    return None


def _side(table: torch.Tensor) -> int:
    """Returns the side of a table's square grid of positions."""
    if table.ndim != 3 or len(table) != 1 or table.shape[1] < 2:
        raise ParityError(f"expected a table of shape (1, 1 + positions, width), got {tuple(table.shape)}")
    positions = table.shape[1] - 1
    side = math.isqrt(positions)
    if side * side != positions:
        raise ParityError(f"the table has {positions} positions beside the class token's, which form no square grid")
    return side
