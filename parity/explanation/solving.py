"""Numbers that are not known beforehand, such as an eps, are solved for. Knows no model."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Residual = Callable[[Sequence[float]], torch.Tensor | None]

# a number that was solved for is given with as few digits as reproduce the candidate this much less exactly, at most
_AS_GOOD = 4.0

# what the order of operations alone makes in float64, relative
_ROUNDING = 2e-15

# how many starts are measured at most
_MOST_STARTS = 600


def solve(residual: Residual, starts: Iterable[Sequence[float]]) -> tuple[float, Sequence[float]] | None:
    """Lowers the norm of a residual by Gauss-Newton steps from the best of several starts.

    Args:
        residual: takes the numbers; None where there is none.
        starts: numbers from which to look.

    Returns:
        The norm with the numbers that give it; None if no start has a finite residual.
    """
    measured = []
    for values in itertools.islice(starts, _MOST_STARTS):
        off = residual(values)
        if off is not None and bool(torch.isfinite(off).all()):
            measured.append((float(off.norm()), values))
    best: tuple[float, Sequence[float]] | None = None
    for _, values in sorted(measured)[:2]:
        found = _gauss_newton(residual, values)
        if best is None or found[0] < best[0]:
            best = found
    return best


def _gauss_newton(residual: Residual, values: Sequence[float]) -> tuple[float, Sequence[float]]:
    """Lowers the norm of `residual` step by step; returns it with the values that give it."""
    off = residual(values)
    assert off is not None
    best = float(off.norm()), tuple(values)
    for _ in range(12):
        columns = []
        for n, value in enumerate(best[1]):
            step = abs(value) * 1e-3 or 1e-9
            sides = [residual([v + sign * step * (m == n) for m, v in enumerate(best[1])]) for sign in (1, -1)]
            if sides[0] is None or sides[1] is None:
                return best
            columns.append((sides[0] - sides[1]) / (2 * step))
        jacobian = torch.stack(columns, 1)
        # a step for each value in units of its own column, so that values of any size go together
        lengths = jacobian.norm(dim=0).clamp_min(1e-300)
        try:
            steps = torch.linalg.lstsq(jacobian / lengths, off[:, None]).solution[:, 0] / lengths
        except RuntimeError:
            return best
        new = [max(v - float(step), 0.0) if v >= 0 else v - float(step) for v, step in zip(best[1], steps, strict=True)]
        next_off = residual(new)
        if next_off is None or not float(next_off.norm()) < best[0] * 0.9:
            if next_off is not None and float(next_off.norm()) < best[0]:
                best = float(next_off.norm()), tuple(new)
            return best
        off, best = next_off, (float(next_off.norm()), tuple(new))
    return best


def rounded(
    residual: Residual, best: tuple[float, Sequence[float]], size: float, names: Sequence[Mapping[str, float]]
) -> Sequence[float]:
    """Returns numbers that have a name, or as few digits as do as well.

    Args:
        residual: takes the numbers.
        best: its norm, and the numbers that give it.
        size: the norm of what the residual is a difference from.
        names: for each number, those that have a name.
    """
    bound = max(_AS_GOOD * best[0], _ROUNDING * size)
    values = list(best[1])
    for n, value in enumerate(values):
        choices = [named for named in names[n].values() if math.isclose(named, value, rel_tol=1e-6)]
        choices += [float(f"{value:.{digits}g}") for digits in range(1, 10)]
        for choice in (*choices, *([0.0] if abs(value) < 1e-13 else [])):
            trial = [choice if m == n else v for m, v in enumerate(values)]
            off = residual(trial)
            if off is not None and float(off.norm()) <= bound:
                values = trial
                break
    return values
