"""What weights can absorb: ways to take a tensor's effect out of a model, into others, so that it can be left out.

A way follows from what a model does with its tensors, not from their names: a norm's scale goes into the projection
that follows it, a learned scale into the projection before it, a position into the token that it is added to. Every
way is a proposal; whoever uses it proves by running that the model is the same function afterwards.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, NamedTuple

import torch

from parity.folding.drafts import role_of
from parity.models import split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from parity.folding.drafts import Draft
    from parity.mapping import Operation, Uses, View

    # given what is left in the tensors that are taken out
    Step = Callable[[Draft, Mapping[str, torch.Tensor]], None]


class Way(NamedTuple):
    """One proposal: what becomes of the tensor, in words, and how."""

    words: str
    step: Step


def ways(names: tuple[str, ...], uses: Uses) -> Iterator[Way]:
    """Yields every way to take tensors of one operation out of a model, the simplest first.

    Args:
        names: tensors or slices, all of one operation, or a single one that belongs to none.
        uses: what the model does with its tensors.
    """
    yield Way("without effect, and left out", lambda *_: None)
    roles = [role_of(name, uses) for name in names]
    kinds = {role.kind for role in roles}
    if "unused" in kinds:
        return
    if "free" in kinds:
        yield from _ways_of_free(names[0], uses)
        return
    at = roles[0].at
    operation = uses.operations[at]
    before = uses.operations[at - 1] if at else None
    after = uses.operations[at + 1] if at + 1 < len(uses.operations) else None
    if operation.vectors:
        yield from _ways_of_vectors(operation, before, after, only_shift=kinds == {"shift"})
    elif "matrix" in kinds:
        yield from _ways_of_matrix(operation, before, after)
    else:
        yield from _ways_of_bias(names[0], operation, after, uses)


def _ways_of_vectors(
    operation: Operation, before: Operation | None, after: Operation | None, *, only_shift: bool
) -> Iterator[Way]:
    """A scale and a shift of features, with or without a norm before them."""
    if after and after.projections:
        step = functools.partial(_vectors_into_next, operation=operation, after=after, only_shift=only_shift)
        yield Way("folded into the projection that follows", step)
    if before and not only_shift:
        where = "projection" if before.projections else "norm"
        yield Way(
            f"folded into the {where} before",
            functools.partial(_vectors_into_previous, operation=operation, before=before),
        )


def _vectors_into_next(draft: Draft, _: object, *, operation: Operation, after: Operation, only_shift: bool) -> None:
    scale, shift = operation.vectors
    for n, projection in enumerate(after.projections):
        matrix = draft.matrix(after, n)
        if shift and projection.bias:
            draft[projection.bias] = draft.vector(projection.bias) + matrix @ draft.vector(shift)
        if scale and not only_shift:
            draft.set_matrix(after, matrix * draft.vector(scale), n)
    if shift:
        draft[shift] = torch.tensor(0.0)


def _vectors_into_previous(draft: Draft, _: object, *, operation: Operation, before: Operation) -> None:
    scale, shift = operation.vectors
    bias = before.projections[-1].bias if before.projections else before.vectors[1]
    if scale:
        factor = draft.vector(scale)
        if before.projections:
            draft.set_matrix(before, draft.matrix(before, -1) * factor[:, None], -1)
        elif before.vectors[0]:
            draft[before.vectors[0]] = draft.vector(before.vectors[0]) * factor
        if bias:
            draft[bias] = draft.vector(bias) * factor
        draft[scale] = torch.tensor(1.0)
    if shift and bias:
        draft[bias] = draft.vector(bias) + draft.vector(shift)
        draft[shift] = torch.tensor(0.0)


def _ways_of_matrix(operation: Operation, before: Operation | None, after: Operation | None) -> Iterator[Way]:
    """A whole projection, with nothing between it and another one."""
    rows, columns = operation.projections[0].matrix.shape
    if rows == columns:
        if before and before.projections and before.projections[-1].matrix.shape[0] == columns:
            step = functools.partial(_matrix_into_previous, operation=operation, before=before)
            yield Way("multiplied into the projection before", step)
        if after and after.projections and all(p.matrix.shape[1] == rows for p in after.projections):
            step = functools.partial(_matrix_into_next, operation=operation, after=after)
            yield Way("multiplied into the projection that follows", step)


def _matrix_into_next(draft: Draft, _: object, *, operation: Operation, after: Operation) -> None:
    own, bias = draft.matrix(operation), operation.projections[0].bias
    for n, projection in enumerate(after.projections):
        matrix = draft.matrix(after, n)
        if bias and projection.bias:
            draft[projection.bias] = draft.vector(projection.bias) + matrix @ draft.vector(bias)
        draft.set_matrix(after, matrix @ own, n)


def _matrix_into_previous(draft: Draft, _: object, *, operation: Operation, before: Operation) -> None:
    own, bias, earlier = draft.matrix(operation), operation.projections[0].bias, before.projections[-1].bias
    draft.set_matrix(before, own @ draft.matrix(before, -1), -1)
    if earlier:
        moved = own @ draft.vector(earlier)
        draft[earlier] = moved + draft.vector(bias) if bias else moved


def _ways_of_bias(name: str, operation: Operation, after: Operation | None, uses: Uses) -> Iterator[Way]:
    """A bias goes where a constant is added to the same features: to a bias behind the next matrix, or to positions."""
    rows = operation.rows // 3 if operation.kind == "attention" else operation.rows
    if after and after.projections and all(p.bias and p.matrix.shape[1] == rows for p in after.projections):
        step = functools.partial(_bias_into_next, name=name, after=after)
        yield Way("folded into the bias of the projection that follows", step)
    for table in uses.free:
        if table.shape[-1:] == (operation.rows,) and table.size > operation.rows:
            parts = (_rows(table, 1, None), f"{table}", _rows(table, 0, -1))
            yield from (Way(f"added to {part}", functools.partial(_spread, name=name, part=part)) for part in parts)


def _bias_into_next(draft: Draft, _: object, *, name: str, after: Operation) -> None:
    constant = draft[name].flatten()
    for n, projection in enumerate(after.projections):
        if projection.bias:
            draft[projection.bias] = draft.vector(projection.bias) + draft.matrix(after, n) @ constant


def _spread(draft: Draft, _: object, *, name: str, part: str) -> None:
    draft[part] = draft[part] + draft[name].flatten()


def _ways_of_free(name: str, uses: Uses) -> Iterator[Way]:
    """A token or a position is added to what it meets; a single number is a factor of some projection."""
    tensor, _ = split(name)
    for other in uses.free:
        if other.name != tensor:
            parts = [f"{other}"]
            if sum(length > 1 for length in other.shape) > 1:
                parts += [_rows(other, 0, 1), _rows(other, -1, None)]
            yield from (Way(f"added to {part}", functools.partial(_added, name=name, part=part)) for part in parts)
    block = re.findall(r"\d+", tensor)[:1]
    for operation in uses.operations:
        for n, projection in enumerate(operation.projections):
            matrix = projection.matrix
            if re.findall(r"\d+", matrix.view.name)[:1] == block:
                where = re.sub(r"\d+", "{i}", matrix.view.name, count=1)
                is_packed = operation.kind == "attention" and len(operation.projections) == 1
                width = matrix.shape[0] // 3 if is_packed else matrix.shape[0]
                for start in (0, width) if is_packed else (0,):
                    rows = slice(start, start + width)
                    times = functools.partial(_times, name=name, operation=operation, number=n, rows=rows)
                    yield Way(f"multiplied into {where}{f'[{start}:{start + width}]' * is_packed}", times)


def _added(draft: Draft, _: object, *, name: str, part: str) -> None:
    if draft[part].numel() == draft[name].numel():
        draft[part] = draft[part].flatten() + draft[name].flatten()


def _times(
    draft: Draft, rest: Mapping[str, torch.Tensor], *, name: str, operation: Operation, number: int, rows: slice
) -> None:
    if draft[name].numel() != 1:
        return
    factor = draft[name].flatten() / rest[name].flatten()
    matrix, bias = draft.matrix(operation, number).clone(), operation.projections[number].bias
    matrix[rows] *= factor
    draft.set_matrix(operation, matrix, number)
    if bias:
        vector = draft.vector(bias).clone()
        vector[rows] *= factor
        draft[bias] = vector


def _rows(table: View, start: int, stop: int | None) -> str:
    """Names rows of a table of positions, which stand along its first axis of several."""
    axis = next(axis for axis, length in enumerate(table.shape) if length > 1)
    first, last, _ = slice(start, stop).indices(table.shape[axis])
    return f"{table.name}[{':, ' * (axis + len(table.item))}{first}:{last}]"
