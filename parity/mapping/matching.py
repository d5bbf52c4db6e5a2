"""From what two models do with their tensors to the weight maps that are possible between them.

Operations are matched in order of use, like two texts: projections by their numbers of features, norms by their width.
Where a pair leaves several maps open (which third of a fused projection is the query, in which order a Linear takes a
patch's pixels), all of them are listed; only a run can tell.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from typing import TYPE_CHECKING

from parity.mapping.patterns import matrix_layouts, vector_layout
from parity.mapping.qkv import attention_ways
from parity.mapping.ways import ATTENTION, PATCHES, POSITIONS, Matches, Way, joined
from parity.models import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parity.mapping.operations import Operation, View
    from parity.mapping.uses import Uses


def match(reference: Uses, candidate: Uses, buffers: set[str]) -> Matches:
    """Matches two models' tensors.

    Args:
        reference: what the reference does with its tensors.
        candidate: the same of the candidate.
        buffers: names of the candidate's tensors that are no parameters.
    """
    found = Matches()
    ways: dict[str, list[list[Way]]] = defaultdict(list)  # by what is chosen: a list per block
    pairs = _aligned(reference.operations, candidate.operations)
    for ours, theirs in pairs:
        if ours is None or theirs is None:
            continue
        if ours.kind == "attention":
            ways[ATTENTION].append(attention_ways(ours, theirs, reference.heads or candidate.heads))
        elif ours.kind == "matrix":
            one, other = ours.projections[0], theirs.projections[0]
            options = [
                Way(name, (Entry(str(one.matrix.view), str(other.matrix.view), layout),))
                for name, layout in matrix_layouts(one.matrix, other.matrix, reference.heads)
            ]
            if len(options) == 1:
                found.fixed += options[0].entries
            else:
                ways[PATCHES].append(options)
            _match_vectors(found, one.bias, other.bias, "bias")
        else:
            for left, right, what in zip(ours.vectors, theirs.vectors, ("scale", "shift"), strict=True):
                _match_vectors(found, left, right, what)
    for name, blocks in ways.items():
        common = [way.name for way in blocks[0] if all(way.name in {w.name for w in block} for block in blocks)]
        found.choices[name] = [
            joined([next(way for way in block if way.name == label) for block in blocks]) for label in common
        ]
    _leave_unmatched(found, pairs)
    _match_free(found, reference, candidate, buffers)
    return found


def _aligned(ours: Sequence[Operation], theirs: Sequence[Operation]) -> list[tuple[Operation | None, Operation | None]]:
    """Pairs two sequences of operations, in order, as many and as closely together as possible."""
    rows, columns = len(ours), len(theirs)
    # best[i][j]: score of the rest from i and j on, and whether the pair (i, j) is taken in it
    best = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    taken = [[False] * (columns + 1) for _ in range(rows + 1)]
    for i, j in itertools.product(range(rows - 1, -1, -1), range(columns - 1, -1, -1)):
        skip = max(best[i + 1][j], best[i][j + 1])
        score = _fit(ours[i], theirs[j])
        if score:
            # neighbours that go on together belong together: a norm goes with what it leads to
            score += best[i + 1][j + 1] + 0.01 * taken[i + 1][j + 1]
        taken[i][j] = score > skip
        best[i][j] = max(score, skip)
    pairs: list[tuple[Operation | None, Operation | None]] = []
    i = j = 0
    while i < rows and j < columns:
        if taken[i][j]:
            pairs.append((ours[i], theirs[j]))
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            pairs.append((ours[i], None))
            i += 1
        else:
            pairs.append((None, theirs[j]))
            j += 1
    return [*pairs, *((op, None) for op in ours[i:]), *((None, op) for op in theirs[j:])]


def _fit(ours: Operation, theirs: Operation) -> float:
    if ours.key != theirs.key:
        return 0.0
    return 1.0 if ours.kind == theirs.kind else 0.5  # a norm without a shift looks like a scale


def _match_vectors(found: Matches, ours: View | None, theirs: View | None, what: str) -> None:
    if ours and theirs:
        layout = vector_layout(ours.shape, theirs.shape, ours.item, theirs.item)
        if layout:
            found.fixed.append(Entry(str(ours), str(theirs), layout))
            return
    if ours:
        found.left_reference[str(ours)] = f"no {what}"
    if theirs:
        found.left_candidate[str(theirs)] = f"an extra {what}"


def _leave_unmatched(found: Matches, pairs: list[tuple[Operation | None, Operation | None]]) -> None:
    words = {"matrix": "projection", "attention": "attention", "norm": "norm", "scale": "scale"}
    for ours, theirs in pairs:
        if ours and not theirs:
            found.left_reference |= {str(view): f"no such {words[ours.kind]}" for view in ours.views}
        elif theirs and not ours:
            found.left_candidate |= {str(view): f"an extra {words[theirs.kind]}" for view in theirs.views}
    for way in found.choices.get(ATTENTION, []):
        found.left_meaning |= dict.fromkeys(way.left_reference, "no bias of query, key and value")
        found.left_meaning |= dict.fromkeys(way.left_candidate, "an extra bias of query, key and value")


def _match_free(found: Matches, reference: Uses, candidate: Uses, buffers: set[str]) -> None:
    """Matches class token and position embedding by their numbers of elements."""
    left = list(candidate.free)
    ours = sorted(reference.free, key=lambda view: view.size)
    for view in ours:
        is_table = max(view.shape, default=0) < view.size
        same = [other for other in left if other.size == view.size and not (is_table and other.name in buffers)]
        same.sort(key=lambda other: not _same_word(view.name, other.name))
        fitting = ((other, layout) for other in same
                   if (layout := vector_layout(view.shape, other.shape, view.item, other.item)))  # fmt: skip
        other, layout = next(fitting, (None, None))
        if other is not None and layout is not None:
            left.remove(other)
            if other.name in buffers:
                found.warnings.append(f"{other.name} is a buffer: it is never trained, whatever the weights")
            if is_table and not view.item and not other.item:
                found.choices[POSITIONS] = _position_ways(view, other, layout)
            else:
                found.fixed.append(Entry(str(view), str(other), layout))
        elif is_table and not _match_rows(found, view, left, buffers):
            found.left_reference[str(view)] = "no such table of positions that is learned"
        elif not is_table:
            found.left_reference[str(view)] = "no such token"
    found.left_candidate |= {
        str(view): "a fixed table" if view.name in buffers else "an extra token or table" for view in left
    }


def _match_rows(found: Matches, table: View, left: list[View], buffers: set[str]) -> bool:
    """Matches a table of positions whose first row, the class token's, the candidate keeps elsewhere or has not."""
    axis = next(axis for axis, length in enumerate(table.shape) if length != 1)
    rows, width = table.shape[axis], table.size // table.shape[axis]
    shape = tuple(rows - 1 if a == axis else n for a, n in enumerate(table.shape))
    for other in left:
        layout = vector_layout(shape, other.shape)
        if other.size != (rows - 1) * width or layout is None or other.name in buffers or table.item:
            continue
        left.remove(other)
        before = ":, " * axis
        found.fixed.append(Entry(f"{table.name}[{before}1:{rows}]", str(other), layout))
        first = tuple(1 if a == axis else n for a, n in enumerate(table.shape))
        single = next((view for view in left if view.size == width and view.name not in buffers), None)
        step = vector_layout(first, single.shape) if single else None
        if single and step:
            left.remove(single)
            found.fixed.append(Entry(f"{table.name}[{before}0:1]", str(single), step))
        else:
            found.left_reference[f"{table.name}[{before}0:1]"] = "no position of the class token"
        return True
    return False


def _position_ways(ours: View, theirs: View, layout: str) -> list[Way]:
    """A table of positions holds the class token's in its first row, or in its last."""
    ways = [Way("class token first", (Entry(str(ours), str(theirs), layout),))]
    axes = [next(a for a, n in enumerate(view.shape) if n != 1) for view in (ours, theirs)]
    rows = ours.shape[axes[0]]
    if theirs.shape[axes[1]] == rows:
        parts = [
            [f"{view.name}[{':, ' * axis}{start}:{stop}]" for view, axis, (start, stop)
             in zip((ours, theirs), axes, bounds, strict=True)]
            for bounds in (((0, 1), (rows - 1, rows)), ((1, rows), (0, rows - 1)))
        ]  # fmt: skip
        shapes = [
            [tuple(length if a == axis else n for a, n in enumerate(view.shape))
             for view, axis in zip((ours, theirs), axes, strict=True)]
            for length in (1, rows - 1)
        ]  # fmt: skip
        steps = [vector_layout(mine, other) for mine, other in shapes]
        if None not in steps:
            entries = tuple(Entry(left, right, f"{s}") for (left, right), s in zip(parts, steps, strict=True))
            ways.append(Way("class token last", entries))
    return ways


def _same_word(one: str, other: str) -> bool:
    """Whether two names share a word's beginning, such as `class` and `cls_token`."""
    words = [{word[:3] for word in re.split(r"[._\d]+", name.lower()) if len(word) > 2} for name in (one, other)]
    return bool(words[0] & words[1])
