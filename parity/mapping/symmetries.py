"""What changes no attention: scales of queries and keys, or of values and output, that cancel, and shifts.

The key's bias adds the same to all scores of a query. As the weights of a query's keys sum up to one, the value's bias
adds the same to all that the heads give, and the output's bias can take it away.

A candidate's attention may be another function than the reference's and still have these symmetries, if a map takes its
query for the query, its heads for the heads. So they tell which map is right where no map makes both models agree.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from parity.models import uniform

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from parity.mapping.uses.gathering import Uses
    from parity.mapping.uses.operations import Operation, View

    State = dict[str, torch.Tensor]


def rescaled(state: Mapping[str, torch.Tensor], uses: Uses, shifted: Collection[str] = ()) -> State | None:
    """Returns other weights under which every attention gives the same.

    Args:
        state: the model's weights, or those of its first operations.
        uses: what the model does with its tensors; query, key and value are taken in this order.
        shifted: whose bias is another one as well, `key` or `value`.

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
        matrix = output.projections[0].matrix
        if len(matrix.columns) != 1 or matrix.view.item or matrix.view.name not in state:
            return None
        _multiply(changed, matrix.view, matrix.columns[0], 1 / factors[2])
        if "key" in shifted:
            _shift(changed, attention, 1)
        if "value" in shifted and not _shift_value(changed, attention, output):
            return None
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


def _shift(state: State, attention: Operation, part: int) -> torch.Tensor | None:
    """Adds something to the bias of one part of query, key and value, and returns it; None if there is no bias."""
    width = attention.rows // 3
    projections = attention.projections
    view = projections[part if len(projections) > 1 else 0].bias
    if view is None:
        return None
    added = uniform("shift of a bias", (width,))
    shift = torch.zeros(view.size)
    shift[0 if len(projections) > 1 else part * width :][:width] = added
    state[view.name] = state[view.name] + shift.view(view.shape)
    return added


def _shift_value(state: State, attention: Operation, output: Operation) -> bool:
    """Adds something to the value's bias and takes it away behind the attention; returns whether that can be done."""
    matrix, bias = output.projections[0].matrix, output.projections[0].bias
    shift = _shift(state, attention, 2)
    if shift is None or bias is None or len(matrix.view.shape) != 2:
        return False
    weight = state[matrix.view.name].movedim(matrix.columns[0], -1)
    state[bias.name] = state[bias.name] - (weight @ shift.to(weight)).view(bias.shape)
    return True
