"""Attention in which several heads share a key and a value, beside one in which each has its own.

Of such an attention only the query has a counterpart. It is known by its size, since there is more of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.mapping.uses.operations import Matrix, View
from parity.mapping.uses.patterns import matrix_layouts, vector_layout
from parity.mapping.uses.ways import Way
from parity.models import IDENTITY, Entry
from parity.tracing import PARTS

if TYPE_CHECKING:
    from parity.mapping.uses.operations import Operation

_SHARED = "keys and values that several heads share"


def grouped_ways(ours: Operation, theirs: Operation) -> list[Way]:
    """Lists the one map between a packed projection and a query's, whose heads share keys and values.

    Args:
        ours: the reference's: query, key and value one after the other in one matrix.
        theirs: the candidate's.
    """
    packed, width = ours.projections[0], ours.rows // len(PARTS)
    first = max(theirs.projections, key=lambda projection: projection.matrix.shape[0])
    rows = first.matrix.shape[0]
    if len(ours.projections) > 1 or (rows > width and first.matrix.rows != (0,)):
        return []
    weight, view = packed.matrix.view.name, first.matrix.view
    queries, others = f"[0:{width}]", f"[{width}:{ours.rows}]"
    left = [f"{weight}{others}"]
    beside = [str(projection.matrix.view) for projection in theirs.projections if projection is not first]
    if rows > width:  # keys and values follow in the same matrix
        entries = [Entry(f"{weight}{queries}", f"{view.name}{queries}")]
        beside.append(f"{view.name}[{width}:{rows}]")
    else:
        query = Matrix(View("", (width, width)), (0,), (1,))
        entries = [Entry(f"{weight}{queries}", str(view), matrix_layouts(query, first.matrix, None)[0][1])]
    if packed.bias and first.bias:
        layout = vector_layout((first.bias.size,), first.bias.shape)
        theirs_of_query = f"{first.bias.name}{queries}" if rows > width else str(first.bias)
        entries.append(Entry(f"{packed.bias.name}{queries}", theirs_of_query, layout or IDENTITY))
        left.append(f"{packed.bias.name}{others}")
        beside += [f"{first.bias.name}[{width}:{rows}]"] * (rows > width)
    elif packed.bias:
        left.append(str(packed.bias))
    beside += [str(p.bias) for p in theirs.projections if p is not first and p.bias]
    return [Way("query, fewer keys and values", tuple(entries), 0, "", tuple(left), tuple(beside))]


def meanings(ours: Operation, theirs: Operation) -> dict[str, str]:
    """Says what it means that the tensors have no counterpart that such a map leaves."""
    return {name: _SHARED for way in grouped_ways(ours, theirs) for name in (*way.left_reference, *way.left_candidate)}
