"""What can be said of two tensors that differ, where no cause is known: a factor, a shift, another order, how alike."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from parity.tracing import SAME_FUNCTION_BOUND

if TYPE_CHECKING:
    from collections.abc import Iterator

_AXES = {2: ("images", "features"), 3: ("images", "tokens", "features"), 4: ("images", "channels", "rows", "columns")}


def facts(expected: torch.Tensor, found: torch.Tensor) -> list[str]:
    """Says how `found` is related to `expected`, a phrase each, the most telling first.

    Args:
        expected: the reference's tensor, in float64, images on the first axis and features on the last.
        found: the candidate's.
    """
    if expected.shape != found.shape:
        return [f"it has shape {tuple(found.shape)}, expected is {tuple(expected.shape)}"]
    if not (bool(torch.isfinite(expected).all()) and bool(torch.isfinite(found).all())):
        return ["it has values that are not finite"]
    names = _AXES.get(expected.ndim, tuple(f"axis {axis}" for axis in range(expected.ndim)))
    found_facts = [*_linear(expected, found), *_order(expected, found, names), *_few(expected, found, names)]
    return [*found_facts, *_correlations(expected, found, names)]


def _linear(expected: torch.Tensor, found: torch.Tensor) -> Iterator[str]:
    """A factor, a shift, or both, that make one tensor the other."""
    x, y = expected.flatten(), found.flatten()
    factor = float(x @ y / (x @ x)) if bool(x.any()) else math.nan
    if _agree(x * factor, y):
        yield f"it is the expected one times {factor:.8g}"
        return
    shift = y - x
    if _agree(x + shift.mean(), y):
        yield f"it is the expected one plus {float(shift.mean()):.8g}"
        return
    centred = x - x.mean()
    slope = float(centred @ (y - y.mean()) / (centred @ centred)) if bool(centred.any()) else math.nan
    if _agree(centred * slope + y.mean(), y):
        yield f"it is the expected one times {slope:.8g} plus {float(y.mean() - slope * x.mean()):.8g}"
    elif expected.ndim > 1 and len(expected) > 1:
        difference = found - expected
        if _agree(expected + difference.mean(0, keepdim=True), found):
            yield "it is the expected one plus the same constants for every image"


def _order(expected: torch.Tensor, found: torch.Tensor, names: tuple[str, ...]) -> Iterator[str]:
    """An axis along which the one is a permutation of the other."""
    for axis, name in enumerate(names):
        rows = [x.movedim(axis, 0).flatten(1) for x in (expected, found)]
        orders = [(x @ torch.linspace(1, 2, x.shape[1], dtype=x.dtype, device=x.device)).argsort() for x in rows]
        if len(rows[0]) > 1 and _agree(rows[0][orders[0]], rows[1][orders[1]]):
            yield f"it holds the expected {name} in another order"


def _few(expected: torch.Tensor, found: torch.Tensor, names: tuple[str, ...]) -> Iterator[str]:
    """The indices of an axis, where only some of them differ."""
    usual = torch.linalg.vector_norm(expected) / math.sqrt(max(expected.numel(), 1))
    for axis, name in enumerate(names):
        off = (found - expected).abs().movedim(axis, 0).flatten(1).amax(1) > SAME_FUNCTION_BOUND * usual
        count = int(off.sum())
        if 0 < count <= len(off) / 2:
            which = ", ".join(map(str, off.nonzero().flatten().tolist()[:6]))
            yield f"{count} of {len(off)} {name} differ ({which}{' ...' if count > 6 else ''})"


def _correlations(expected: torch.Tensor, found: torch.Tensor, names: tuple[str, ...]) -> Iterator[str]:
    whole = _correlation(expected.flatten()[None], found.flatten()[None])
    parts = []
    for axis, name in enumerate(names):
        values = _correlation(*(x.movedim(axis, 0).flatten(1) for x in (expected, found)))
        parts.append(f"{float(values.min()):.2g} to {float(values.max()):.2g} by {name}")
    yield f"correlation with the expected one {float(whole):.3g} ({', '.join(parts)})"


def _correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x, y = (v - v.mean(1, keepdim=True) for v in (x, y))
    norms = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
    return torch.nan_to_num((x * y).sum(1) / norms)


def _agree(x: torch.Tensor, y: torch.Tensor) -> bool:
    return float(torch.linalg.vector_norm(x - y)) <= SAME_FUNCTION_BOUND * float(torch.linalg.vector_norm(y))
