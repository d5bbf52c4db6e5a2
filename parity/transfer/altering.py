"""Other values for the old ones, by a formula: factors, shifts, roundings, values that were clipped."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch

from parity.transfer.finding import Found

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A formula that was computed in float32, once or twice rounded: 1.2e-7 a time, of a value's size or of what it is the
# difference of.
_ROUNDING = 5e-7

_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_EIGHTHS = ("float8_e4m3fn", "float8_e5m2")

# Values of a step of this many, from minus to plus: symmetric schemes divide the largest value by one of them.
_STEPS = {"int8": (127.0, 128.0, 127.5), "int4": (7.0, 8.0, 7.5)}

# rows and columns that are looked at first, so that what doesn't fit costs next to nothing
_FEW = 4


def altered(expected: torch.Tensor, found: torch.Tensor, constants: Mapping[str, float]) -> Found | None:
    """Tells by which formula `found` was made of `expected`, if it was by one of those that are known.

    Args:
        expected: the tensor that should be there, of the shape of `found`, in float32 as that.
        found: the one that is there.
        constants: factors that mean something, by what they are called.
    """
    e, f = expected.double(), found.double()
    tried = _scaled(e, f, constants), _shifted(e, f), _clipped(e, f), _in_steps(e, f)
    return next(itertools.chain(*tried), None)


def altered_by_slice(expected: torch.Tensor, found: torch.Tensor, constants: Mapping[str, float]) -> Found | None:
    """Tells whether every row, column or channel of `found` was made of that of `expected` with a number of its own.

    The arguments are those of `altered`.
    """
    return next(_by_slice(expected.double(), found.double(), constants), None)


def halves(expected: torch.Tensor, found: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields `expected` as narrower dtypes hold it, where they could hold all of `found` as it is."""
    for name, dtype in _dtypes():
        if all(torch.equal(few.to(dtype).float(), few) for few in (found[:_FEW], found)):
            yield name, expected.to(dtype).float()
            if dtype == torch.bfloat16:
                upper = expected.contiguous().view(torch.int32) >> 16 << 16
                yield f"{name} by cutting bits off", upper.view(torch.float32)


def _dtypes() -> Iterator[tuple[str, torch.dtype]]:
    yield from _HALVES.items()
    for name in _EIGHTHS:
        if hasattr(torch, name):  # since torch 2.1
            yield name, getattr(torch, name)


def rounded(expected: torch.Tensor, found: torch.Tensor) -> Found | None:
    """Tells which narrower dtype `expected` went through, if that is all that has happened to it."""
    for name, made in halves(expected, found):
        if torch.equal(made, found):
            return Found("weights-rounded", f"rounded to {name}", "save them in float32")
    return None


def _agree(made: torch.Tensor, found: torch.Tensor, size: torch.Tensor) -> bool:
    return bool(((made - found).abs() <= _ROUNDING * size).all())


def _scaled(e: torch.Tensor, f: torch.Tensor, constants: Mapping[str, float]) -> Iterator[Found]:
    for few in (slice(0, _FEW), slice(None)):
        factor = float((e[few] * f[few]).sum() / (e[few] * e[few]).sum()) if bool(e[few].any()) else math.nan
        made = e[few] * factor
        if not _agree(made, f[few], made.abs()):
            return
    if factor:
        yield Found("weights-factor", f"times {in_words(factor, constants)}", "take the factor out")


def in_words(number: float, constants: Mapping[str, float]) -> str:
    """Returns a number with what it is called, where it is one of those that mean something."""
    text = f"{number:.7g}"
    for name, constant in constants.items():
        if abs(number - constant) <= _ROUNDING * abs(constant):
            return f"{text} ({name})" if text != name else text
    return text


def _shifted(e: torch.Tensor, f: torch.Tensor) -> Iterator[Found]:
    for few in (slice(0, _FEW), slice(None)):
        shift = float(_shifts(e[few].reshape(1, -1), f[few].reshape(1, -1)))
        if not _agree(e[few] + shift, f[few], e[few].abs() + abs(shift)):
            return
    if shift:
        number = f"{shift:+.6g}"
        what = " (a scale kept as its difference from 1)" if abs(abs(shift) - 1) < _ROUNDING else ""
        yield Found("weights-offset", f"{number} added{what}", "take the number off")


def _shifts(e: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """Returns what was added to each row (rows, n), as it shows where the sum was rounded least."""
    least = e.abs().argmin(1, keepdim=True)
    return (f - e).gather(1, least)


def _clipped(e: torch.Tensor, f: torch.Tensor) -> Iterator[Found]:
    low, high = float(f.min()), float(f.max())
    inside = (e > low) & (e < high)
    if bool(inside.any()) and torch.equal(e.clamp(low, high), f):
        yield Found("weights-clipped", f"clipped to {low:.6g} ... {high:.6g}", "don't clip them")


def _by_slice(e: torch.Tensor, f: torch.Tensor, constants: Mapping[str, float]) -> Iterator[Found]:
    """A factor or a shift for each row, column or channel."""
    for axis in range(e.ndim):
        length = e.shape[axis]
        if e.ndim < 2 or length < 2 or e.numel() < 4 * length:
            continue
        name = (
            ("row", "column")[axis] if e.ndim == 2 else ("feature", "channel")[axis] if e.ndim == 4 and axis < 2 else ""
        )
        where = name or f"index of axis {axis}"
        along = [x.movedim(axis, 0).reshape(length, -1) for x in (e, f)]
        for few in (slice(0, _FEW), slice(None)):
            x, y = (side[few] for side in along)
            factors = (x * y).sum(1, keepdim=True) / (x * x).sum(1, keepdim=True).clamp_min(1e-300)
            shifts = _shifts(x, y)
            are_factors = bool(factors.all()) and _agree(x * factors, y, (x * factors).abs())
            are_shifts = _agree(x + shifts, y, x.abs() + shifts.abs())
            if not (are_factors or are_shifts):
                break
        if are_factors:
            shown = ", ".join(in_words(float(n), constants) for n in factors[:3]) + " ..." * (length > 3)
            yield Found("weights-factor", f"a factor for each {where}", "take the factors out", shown)
        elif are_shifts:
            shown = ", ".join(f"{float(n):+.4g}" for n in shifts[:3]) + " ..." * (length > 3)
            yield Found("weights-offset", f"a number added for each {where}", "take them off", shown)


def _in_steps(e: torch.Tensor, f: torch.Tensor) -> Iterator[Found]:
    """Rounded to whole multiples of a step: the weights of a quantised model, made floating-point numbers again."""
    scopes = {"": range(e.ndim), " row by row": range(1, e.ndim)} | (
        {" column by column": range(1)} if e.ndim > 1 else {}
    )
    for scope, axes in scopes.items():
        if not axes:
            continue
        high, low = e.amax(tuple(axes), keepdim=True), e.amin(tuple(axes), keepdim=True)
        largest = torch.maximum(high, -low)
        for name, divisors in _STEPS.items():
            width = (high - low) / (2 * divisors[1] - 1)
            symmetric = [(largest / n, torch.zeros_like(low)) for n in divisors]
            for step, start in [*symmetric, (width, (low / width.clamp_min(1e-300)).round() * width)]:
                if _are_rounded(e, f, start, step.clamp_min(1e-300)):
                    yield Found("weights-rounded", f"rounded to {name}{scope}", "save them in float32")
                    return


def _are_rounded(e: torch.Tensor, f: torch.Tensor, start: torch.Tensor, step: torch.Tensor) -> bool:
    """Whether `f` is `e` rounded to whole steps away from the start; a few values are looked at first."""
    start, step = start.expand_as(f), step.expand_as(f)
    for few in ((slice(0, _FEW),) * f.ndim, (slice(None),) * f.ndim):
        steps = (f[few] - start[few]) / step[few]
        # a value half-way between two steps may go to either
        halfway = (f[few] - e[few]).abs() <= 0.51 * step[few]
        if not bool((((steps - steps.round()).abs() <= 1e-2) & halfway).all()):
            return False
    return True
