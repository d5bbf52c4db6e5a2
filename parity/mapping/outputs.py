"""Heads whose outputs are projected one by one and added up, beside one projection of them all.

What a head's output is multiplied with is a block of that projection's columns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from parity.mapping.uses.operations import Matrix, View
from parity.mapping.uses.patterns import matrix_layouts
from parity.mapping.uses.ways import Way
from parity.models import Entry
from parity.tracing import PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parity.mapping.uses.operations import Operation


def with_outputs_joined(operations: Sequence[Operation]) -> list[Operation]:
    """Puts the projections of single heads' outputs together that follow an attention.

    Args:
        operations: of the candidate, in order of use.
    """
    found: list[Operation] = []
    left = list(operations)
    while left:
        count = _heads_projected(found[-1], left) if found else 0
        if count > 1:
            projections = [projection for operation in left[:count] for projection in operation.projections]
            found.append(replace(left[count - 1], projections=projections))
        else:
            found.append(left[0])
        del left[: max(count, 1)]
    return found


def _heads_projected(before: Operation, following: Sequence[Operation]) -> int:
    """Returns how many operations make up the projection of an attention's output; 0 if none do."""
    if before.kind != "attention":
        return 0
    width = before.rows // len(PARTS)
    rows, columns = following[0].projections[0].matrix.shape if following[0].projections else (0, 0)
    count = width // columns if columns and width % columns == 0 else 0
    heads = following[:count]
    alike = all(op.kind == "matrix" and op.key == following[0].key for op in heads)
    return count if len(heads) == count and alike and rows == before.key[-1] else 0


def output_way(ours: Operation, theirs: Operation) -> Way | None:
    """Returns the map between a projection and one in parts; None if the reference's is not one matrix as well."""
    if len(ours.projections) > 1:
        return None
    whole, entries, start = ours.projections[0].matrix, list[Entry](), 0
    if whole.rows != (0,) or whole.columns != (1,) or whole.view.item:
        return None
    for projection in theirs.projections:
        rows, columns = projection.matrix.shape
        part = Matrix(View(whole.view.name, (rows, columns)), (0,), (1,))
        layouts = matrix_layouts(part, projection.matrix, None)
        if not layouts:
            return None
        name = f"{whole.view.name}[:, {start}:{start + columns}]"
        entries.append(Entry(name, str(projection.matrix.view), layouts[0][1]))
        start += columns
    return Way("head by head", tuple(entries))
