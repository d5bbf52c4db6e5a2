"""Which projections lead into an attention."""

from __future__ import annotations

import functools
import itertools
import operator
from typing import TYPE_CHECKING

from parity.mapping.uses.lineages import LOST
from parity.mapping.uses.operations import Operation, is_low_rank

if TYPE_CHECKING:
    from collections.abc import Sequence


def _shape_of(operations: list[Operation]) -> tuple[int, int] | None:
    """Returns how many features come out of matrices one after the other, and how many go in."""
    if any(operation.kind != "matrix" for operation in operations):
        return None
    first, last = (operations[number].projections[0].matrix.shape for number in (0, -1))
    return last[0], first[1]


def _are_grouped(rows: Sequence[int], width: int) -> bool:
    """Whether projections of so many rows are a query's and those of fewer keys and values, apart or fused."""
    queries, *others = sorted(rows, reverse=True)
    fewer = (sum(rows) - width) // 2
    if not 0 < fewer < width or width % fewer or sum(rows) != width + 2 * fewer:
        return False
    return not others or (queries == width and (others == [fewer] * 2 or len(others) == 1))


def go_back_to_their_width(operations: Sequence[Operation]) -> bool:
    """Whether a square matrix follows every grouped attention, whose queries are then as wide as the tokens."""
    matrices = [op for op in operations if op.projections]
    following = itertools.zip_longest(matrices, matrices[1:])
    return all(
        after is not None and after.key == ("matrix", op.key[-1], op.key[-1])
        for op, after in following
        if op.is_grouped
    )


def close_attention(operations: list[Operation], at: int, attended: int, *, may_be_grouped: bool) -> bool:
    """Makes the projections that lead into an attention one operation, and returns whether they were all there.

    Together they have three times as many rows as columns. Where each head attends by itself, the last one closes it.
    Branches of low rank beside them are none of them, nor are the norms and scales of queries and keys; a norm as wide
    as the tokens may as well be the one before them, which then another one is. Nor is what a head's output is
    projected by before the next head attends. Where heads may share keys and values, there may be fewer rows of these.

    Args:
        operations: so far, in order of use.
        at: the place at which it is asked.
        attended: the uses that lead to a softmax so far.
        may_be_grouped: heads may share keys and values.
    """
    members: list[Operation] = []
    beside: list[Operation] = []
    numbers = iter(range(len(operations) - 1, -1, -1))
    for number in numbers:
        operation = operations[number]
        if operation.kind in ("norm", "scale"):
            beside.insert(0, operation)
            continue
        if operation.kind != "matrix":
            break
        branch = operations[max(number - 1, 0) : number + 1]
        if is_low_rank(branch) and _shape_of(branch) in map(_shape_of, ([op] for op in operations[number - 2 :])):
            beside[:0] = branch
            next(numbers)
            continue
        width = (members or [operation])[-1].projections[0].matrix.shape[1]
        is_other = operation.projections[0].matrix.shape[1] != width
        if _is_output(operation, operations[:number], members, None if is_other else attended):
            beside.insert(0, operation)
            continue
        if is_other:
            break
        members.insert(0, operation)
        rows = sum(member.rows for member in members)
        sizes = [member.rows for member in members]
        is_grouped = may_be_grouped and _are_grouped(sizes, width)
        if rows == 3 * width or is_grouped:
            if not _attend(members, beside, operations[:number], attended):
                return False
            merged = _merged(members, at, is_grouped=is_grouped)
            operations[number:] = [merged, *beside]
            return True
        if rows >= 3 * width:
            return False
    return False


def _merged(members: Sequence[Operation], at: int, *, is_grouped: bool) -> Operation:
    """Returns an attention of projections, of which one may serve as several and is then among them as often."""
    each = [projection for member in members for projection in member.projections]
    own = list({id(projection): projection for projection in each}.values())
    merged = Operation("attention", own, [], members[-1].at, at)
    merged.is_grouped = is_grouped
    merged.uses = functools.reduce(operator.or_, (member.uses for member in members))
    if len(own) < len(each):
        merged.serving = tuple(next(n for n, one in enumerate(own) if one is other) for other in each)
    return merged


def _is_output(
    operation: Operation, before: Sequence[Operation], members: Sequence[Operation], attended: int | None
) -> bool:
    """Whether an operation is what another head's output is projected by, and leads to none of the others.

    One that takes as many features as these takes what comes of another head's value, which leads to no softmax.
    """

    def leads_on(other: Operation) -> bool:
        return any(other.leads_to(member.lineage) for member in members)

    if not members or leads_on(operation):
        return False
    values = [op for op in before if op.kind == "matrix" and op.leads_to(operation.lineage)]
    return attended is None or any(not value.leads_to(attended) and not leads_on(value) for value in values)


def _attend(
    members: Sequence[Operation], beside: Sequence[Operation], before: Sequence[Operation], attended: int
) -> bool:
    """Whether projections may be an attention's, as far as it is known what leads to what.

    One of them leads to a softmax, or takes what the one before them takes, as a value does. None takes what comes of
    the others but a value, and that not what comes of another value: what follows an attention does. A norm that was
    used since the first of them is not the one before them.
    """
    width = members[0].projections[0].matrix.shape[1]
    last = before[-1] if before else None
    if last and last.kind != "norm" and any(op.vectors and op.key[1] == width for op in beside):
        return False
    if attended & LOST:
        return True
    leading = [member for member in members if member.leads_to(attended)]
    is_value = last is not None and last.kind == "matrix" and last.lineage == members[0].lineage
    behind = [member for member in members if any(other.leads_to(member.lineage) for other in members)]
    follows = any(other.leads_to(member.lineage) for member in behind for other in members if other not in leading)
    few = 3 * sum(member.rows for member in behind) <= sum(member.rows for member in members)
    return bool(leading or is_value) and few and not follows
