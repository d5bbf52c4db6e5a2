"""Attentions whose heads together are not as wide as a token, so that no projection of theirs has a counterpart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.mapping.qkv import readings
from parity.tracing import PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parity.mapping.uses.gathering import Uses
    from parity.mapping.uses.operations import Operation

    Pair = tuple[Operation | None, Operation | None]


def of_other_widths(reference: Uses, candidate: Uses) -> tuple[list[Operation], list[Operation]]:
    """Returns the operations of both models' attentions, if all of the candidate's have another width of all heads.

    Such an attention is a run of operations that take a token's features, query, key and value together as wide as
    three times what the next projection takes.

    Args:
        reference: what the reference does with its tensors.
        candidate: the same of the candidate.
    """
    ours = [n for n, operation in enumerate(reference.operations) if operation.kind == "attention"]
    if not ours:
        return [], []
    _, _, width = reference.operations[ours[0]].key
    found = [run for end in range(len(candidate.operations)) if (run := _run_to(candidate.operations, end, width))]
    if len(found) != len(ours):
        return [], []
    return (
        [operation for n in ours for operation in reference.operations[n : n + 2]],
        [operation for run in found for operation in run],
    )


def without_other_widths(reference: Uses, candidate: Uses) -> tuple[list[Operation], list[Operation], list[Pair]]:
    """Returns the operations of both models but those of such attentions, and these, of which none has a partner."""
    ours, theirs = of_other_widths(reference, candidate)
    rest = [[op for op in uses.operations if op not in aside]
            for uses, aside in ((reference, ours), (candidate, theirs))]  # fmt: skip
    return rest[0], rest[1], [*((operation, None) for operation in ours), *((None, operation) for operation in theirs)]


def _run_to(operations: Sequence[Operation], end: int, width: int) -> list[Operation]:
    """Returns the operations of an attention that the projection of this number ends; none if it ends no such one."""
    last = operations[end]
    if last.kind != "matrix" or last.key[1] != width or last.key[2] == width:
        return []
    rows = 0
    for start in range(end - 1, -1, -1):
        operation = operations[start]
        if operation.kind not in ("matrix", "attention") or operation.key[2] != width:
            return []
        rows += operation.key[1]
        if rows >= len(PARTS) * last.key[2]:
            run = list(operations[start : end + 1])
            sizes = [projection.matrix.shape[0] for op in run[:-1] for projection in op.projections]
            return run if _may_be_parts(sizes, last.key[2]) else []
    return []


def _may_be_parts(sizes: Sequence[int], width: int) -> bool:
    """Whether matrices of so many rows may hold query, key and value of heads that are so wide together."""
    heads = (width // count for count in range(1, width + 1) if width % count == 0)
    return any(True for head in heads for _ in readings(list(sizes), width, head))
