"""Attention of which one projection serves as several of query, key and value.

Query, key and value are taken to lead into it in this order. What a projection serves as besides has no counterpart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from parity.mapping.uses.operations import Matrix, View
from parity.mapping.uses.patterns import matrix_layouts, vector_layout
from parity.mapping.uses.ways import Way
from parity.models import Entry
from parity.tracing import PARTS

if TYPE_CHECKING:
    from parity.mapping.uses.operations import Operation

SERVING = "query, key, value, of which one projection is several"


def serving_ways(ours: Operation, theirs: Operation) -> list[Way]:
    """Lists the one map between a packed projection and those of which one serves as several of its parts.

    Args:
        ours: the reference's: query, key and value one after the other in one matrix.
        theirs: the candidate's, whole or head by head.
    """
    packed, width = ours.projections[0], ours.rows // len(PARTS)
    heads = len(theirs.serving) // len(PARTS)
    head = width // heads
    if len(ours.projections) > 1 or any(p.matrix.shape[0] != head or p.bias_parts for p in theirs.projections):
        return []
    entries: list[Entry] = []
    left: list[str] = []
    seen = set[int]()
    for place, number in enumerate(theirs.serving):
        at, part = divmod(place, len(PARTS))
        start = part * width + at * head
        rows, own = f"[{start}:{start + head}]", theirs.projections[number]
        layouts = matrix_layouts(Matrix(View("", (head, width)), (0,), (1,)), own.matrix, None)
        sides: list[tuple[str, View, str | None]] = [(packed.matrix.view.name, own.matrix.view, layouts[0][1])]
        if packed.bias and own.bias:
            layout = vector_layout((head,), own.bias.shape, (), own.bias.item)
            sides.append((packed.bias.name, own.bias, layout))
        elif packed.bias:
            left.append(f"{packed.bias.name}{rows}")
        for name, view, layout in sides:
            if number in seen or layout is None:
                left.append(f"{name}{rows}")
            else:
                entries.append(Entry(f"{name}{rows}", str(view), layout))
        seen.add(number)
    return [Way(SERVING, tuple(entries), left_reference=tuple(left))]


def meaning_of(name: str, way: Way) -> str:
    """Returns what it means that a slice of the packed projection, or of its bias, has no counterpart."""
    is_served = name.replace("bias", "weight") in way.left_reference  # its bias is the other one's as well
    return "no projection of its own" if is_served else "no bias of query, key and value"


def as_in_other_blocks(blocks: list[list[Way]]) -> list[list[Way]]:
    """Lets the ways of a block in which one projection is several go with whatever is chosen for the others.

    Args:
        blocks: the ways of each.
    """
    others = [block for block in blocks if not any(SERVING in way.name for way in block)]
    if not others or len(others) == len(blocks):
        return blocks
    labels = [way.name for way in others[0]]
    return [
        [
            replace(way, name=label)
            for label in labels
            for way in sorted(block, key=lambda way: -len(way.name))
            if label.endswith(way.name.removeprefix(SERVING))
        ]
        if block not in others
        else block
        for block in blocks
    ]
