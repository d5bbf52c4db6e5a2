"""Attention whose heads project slices of the tokens' features: each its own, with weights of its own or those of all.

Its query, key and value are those of an attention whose matrices are zero but for a block for each head on their
diagonal.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from parity.mapping.qkv import bias_of, readings, rows_of, vote
from parity.mapping.uses.patterns import entry_between, placed
from parity.mapping.uses.ways import Way
from parity.tracing import PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parity.mapping.qkv import Reading
    from parity.mapping.uses.gathering import Uses
    from parity.mapping.uses.operations import Operation, View
    from parity.models import Entry

ON_SLICES = "no projection of the features beside a head's own"


def with_slices_joined(operations: Sequence[Operation], reference: Uses) -> list[Operation]:
    """Puts the attentions of single heads together, where each takes a slice of the features.

    Args:
        operations: of the candidate, in order of use.
        reference: what the reference does; nothing is joined unless its query, key and value stand in one matrix.
    """
    if not reference.is_packed:
        return list(operations)
    width = next(op for op in reference.operations if op.kind == "attention").rows // len(PARTS)

    def slices(operation: Operation) -> int:
        if operation.kind != "attention":
            return 0
        columns = operation.projections[0].matrix.shape[1]
        is_slice = columns < width and width % columns == 0 and operation.rows == len(PARTS) * columns
        return width // columns if is_slice else 0

    found: list[Operation] = []
    for count, run in itertools.groupby(operations, slices):
        members = list(run)
        if count and len(members) in (1, count):
            projections = [projection for member in members for projection in member.projections]
            members = [replace(members[-1], projections=projections, at=members[0].at, slices=count)]
        found += members
    return found


def slice_ways(ours: Operation, theirs: Operation) -> list[Way]:
    """Lists the maps between the packed projections of one attention and those of another on slices.

    Args:
        ours: the reference's: query, key and value one after the other in one matrix.
        theirs: the candidate's; there are no such maps unless `with_slices_joined` has joined it.
    """
    if theirs.slices == 1:
        return []
    sizes = [projection.matrix.shape[0] for projection in theirs.projections]
    head = ours.rows // len(PARTS) // theirs.slices
    ways = (_way(ours, theirs, reading) for reading in readings(sizes, sum(sizes) // len(PARTS), head))
    return [way for way in ways if way is not None]


def _way(ours: Operation, theirs: Operation, reading: Reading) -> Way | None:
    """Returns the entries of one reading of the candidate's projections, and what they leave of the reference's."""
    packed, heads = ours.projections[0], theirs.slices
    head = ours.rows // len(PARTS) // heads
    lengths = {"q": len(PARTS), "h": heads, "g": heads, "d": head, "i": head}
    of_one = {"h": 1, "d": head, "i": head}
    entries: list[Entry | None] = []
    votes = []
    own_heads = len(reading.parts[0])
    for (number, part), at in itertools.product(enumerate(PARTS), range(own_heads)):
        their = reading.parts[number][at]
        own = theirs.projections[their.matrix]
        one = placed(
            packed.matrix.view, [(packed.matrix.rows, "qhd"), (packed.matrix.columns, "gi")], lengths,
            {"q": number, "h": at, "g": at},
        )  # fmt: skip
        entries.append(entry_between(one, rows_of(own, their, of_one, "i"), lengths))
        if packed.bias and own.bias:
            one = placed(packed.bias, [((0,), "qhd")], lengths, {"q": number, "h": at})
            entries.append(entry_between(one, bias_of(own, their, of_one), lengths))
        votes.append(vote(own.matrix, their, part))
    if None in entries:
        return None
    left = _beside(packed.matrix.view, heads, head, own_heads)
    if packed.bias:
        left += (
            [str(packed.bias)] if theirs.projections[0].bias is None else _below(packed.bias, heads, head, own_heads)
        )
    against = next((words for count, words in votes if count < 0), "")
    return Way(reading.name, tuple(filter(None, entries)), sum(count for count, _ in votes), against, tuple(left))


def _beside(view: View, heads: int, head: int, own: int) -> list[str]:
    """Names what a packed matrix has beside the blocks on the diagonals, and below the block that all heads share."""
    width = heads * head
    rows = [(part * width + number * head, number * head) for part in range(len(PARTS)) for number in range(own)]
    sides = [(row, start, stop) for row, at in rows for start, stop in ((0, at), (at + head, width)) if start < stop]
    return [f"{view.name}[{row}:{row + head}, {start}:{stop}]" for row, start, stop in sides] + _below(
        view, heads, head, own
    )


def _below(view: View, heads: int, head: int, own: int) -> list[str]:
    """Names the rows of the heads that have none of their own."""
    width = heads * head
    starts = [part * width for part in range(len(PARTS))] if own < heads else []
    return [f"{view.name}[{start + own * head}:{start + width}]" for start in starts]
