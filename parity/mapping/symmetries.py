"""What changes no attention: scales of queries and keys, or of values and output, that cancel, and the key's bias.

A candidate's attention may be another function than the reference's and still have these symmetries, if a map takes its
query for the query, its heads for the heads. So they tell which map is right where no map makes both models agree.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from parity.models import uniform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from parity.mapping.operations import Operation, View
    from parity.mapping.uses import Uses

    State = dict[str, torch.Tensor]


def rescaled(state: Mapping[str, torch.Tensor], uses: Uses, *, with_shift: bool) -> State | None:
    """Returns other weights under which every attention gives the same.

    Args:
        state: the model's weights, or those of its first operations.
        uses: what the model does with its tensors; query, key and value are taken in this order.
        with_shift: the key's bias is another one as well.

    Returns:
        The weights; None where the projections are laid out so that this can't be done.
    """
    changed = dict(state)
    for attention, output in itertools.pairwise([*uses.operations, None]):
        if attention is None or attention.kind != "attention" or attention.projections[0].matrix.view.name not in state:
            continue
        factors = _factors(attention, uses.heads)
        if output is None or output.kind != "matrix" or factors is None:
            return None
        parts = [projection.matrix for projection in attention.projections]
        of_rows = torch.split(torch.cat(factors), [matrix.shape[0] for matrix in parts])
        for projection, factor in zip(attention.projections, of_rows, strict=True):
            matrix = projection.matrix
            if len(matrix.rows) != 1 or matrix.view.item or projection.bias_parts:
                return None
            _multiply(changed, matrix.view, matrix.rows[0], factor)
            if projection.bias:
                _multiply(changed, projection.bias, 0, factor)
        if with_shift:
            _shift_key(changed, attention)
        matrix = output.projections[0].matrix
        if len(matrix.columns) != 1 or matrix.view.item or matrix.view.name not in state:
            return None
        _multiply(changed, matrix.view, matrix.columns[0], 1 / factors[2])
    return changed


def _factors(attention: Operation, heads: int | None) -> list[torch.Tensor] | None:
    """Returns what rows of query, key and value are multiplied with: powers of two, another one for each head."""
    width = attention.rows // 3
    sizes = [projection.matrix.shape[0] for projection in attention.projections]
    if sizes not in ([3 * width], [width] * 3) or width % (heads or 1):
        return None
    powers = torch.tensor([(-1.0) ** h * (1 + h // 2 % 3) for h in range(heads or 1)])
    query, value = (2.0 ** powers.repeat_interleave(width // (heads or 1)) for powers in (powers, powers.roll(1)))
    return [query, 1 / query, value]


def _multiply(state: State, view: View, axis: int, factor: torch.Tensor) -> None:
    shape = [-1 if n == axis else 1 for n in range(len(view.shape))]
    state[view.name] = state[view.name] * factor.view(shape)


def _shift_key(state: State, attention: Operation) -> None:
    """Adds something to the key's bias, which adds the same number to all scores of a query."""
    width = attention.rows // 3
    first, *others = attention.projections
    view = others[0].bias if others else first.bias
    if view is not None:
        shift = torch.zeros(view.size)
        shift[0 if others else width :][:width] = uniform("shift of the key's bias", (width,))
        state[view.name] = state[view.name] + shift.view(view.shape)
