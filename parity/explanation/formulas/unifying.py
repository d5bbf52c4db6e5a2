"""Which values of two stretches of operations are the same: what both compute needs no formula.

Tensors tell, not operations: a projection may be a product of matrices or an einsum, and a head may lie along an axis
of its own or beside the others.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from parity.explanation.formulas.recording import Value

# two tensors hold the same where they are so near, relative
_NEAR = 1e-9

# a tensor with more axes than that is compared as it lies
_MOST_AXES = 5


def same_values(theirs: Mapping[Value, torch.Tensor], ours: Mapping[Value, torch.Tensor]) -> dict[Value, Value]:
    """Returns for each value of one stretch the first of the other one that holds the same, in whatever layout.

    The last axis stays the last: a matrix is not the same as the transposed one.

    Args:
        theirs: what the values of one stretch hold.
        ours: what those of the other one do.
    """
    alike: dict[int, list[tuple[float, Value]]] = defaultdict(list)
    for value, tensor in ours.items():
        alike[tensor.numel()].append((_norm(tensor), value))
    found = {}
    for value, tensor in theirs.items():
        if value.name is not None:  # weights are known by their names
            continue
        norm = _norm(tensor)
        near = (other for size, other in alike[tensor.numel()] if math.isclose(size, norm, rel_tol=_NEAR))
        same = next((other for other in near if _hold_the_same(tensor, ours[other])), None)
        if same is not None:
            found[value] = same
    return found


def _norm(tensor: torch.Tensor) -> float:
    return float(tensor.norm()) if tensor.is_floating_point() else math.nan


def _hold_the_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    wanted, least = other.flatten(), _NEAR * float(other.norm())
    pairs = itertools.chain(
        ((laid, wanted) for laid in _layouts(one, other.shape)),
        ((laid, one.flatten()) for laid in _layouts(other, one.shape)),
    )
    return any(float((laid.flatten() - flat).norm()) <= least for laid, flat in pairs)


def _layouts(tensor: torch.Tensor, like: torch.Size) -> Iterator[torch.Tensor]:
    """Yields a tensor with its axes in every order in which the last one is the last.

    Args:
        tensor: of any shape.
        like: the other shape; an axis that is a multiple of one of its axes may be that one and another together.
    """
    for apart in _apart(tensor.squeeze(), like):
        axes = range(apart.dim() - 1)
        orders = itertools.permutations(axes) if apart.dim() <= _MOST_AXES else [tuple(axes)]
        yield from (apart.permute(*order, -1) for order in orders)


def _apart(tensor: torch.Tensor, like: torch.Size) -> Iterator[torch.Tensor]:
    yield tensor
    for axis, length in enumerate(tensor.shape):
        for one in {one for one in like if 1 < one < length and length % one == 0 and length not in like}:
            for both in ((one, length // one), (length // one, one)):
                yield tensor.reshape(*tensor.shape[:axis], *both, *tensor.shape[axis + 1 :])
