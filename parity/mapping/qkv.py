"""Every way in which the projections of one attention can hold the query, key and value of another.

They are fused into one matrix or two or none, in any order, one after the other or head by head. What the names of the
matrices say for a way is counted, and decides nothing here.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from parity.mapping.patterns import matrix_layouts, vector_layout
from parity.mapping.ways import Way, joined
from parity.models import Entry
from parity.tracing import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parity.mapping.operations import Matrix, Operation, View


@dataclass(frozen=True)
class _Segment:
    """Rows of the reference's query, key and value, one after the other, and the rows of the candidate's matrix."""

    start: int
    rows: int
    matrix: int
    at: int
    layout: tuple[str, str] | None = None  # einops names of the rows on both sides, if they are interleaved


def attention_ways(ours: Operation, theirs: Operation, heads: int | None) -> list[Way]:
    """Lists the maps between the projections of two attentions."""
    width = ours.rows // 3
    sizes = [projection.matrix.shape[0] for projection in theirs.projections]
    ways = []
    for name, segments in _segmentations(sizes, width, heads, is_whole=len(ours.projections) == 1):
        rows = [_row_way(ours, theirs, segment, heads) for segment in segments]
        if all(rows):
            votes = [_vote(theirs.projections[s.matrix].matrix, s, width) for s in segments]
            against = next((words for vote, words in votes if vote < 0), "")
            way = joined([row for row in rows if row])
            ways.append(replace(way, name=name, by_name=sum(vote for vote, _ in votes), contradiction=against))
    return ways


_FUSED_NAME = re.compile(r"(?<![a-z])(qkv|qvk|kqv|kvq|vqk|vkq|kv|vk)(?![a-z])")
_PART_NAME = re.compile(
    r"(?<![a-z])(?:w_?|to_?|(?:proj|lin|linear|fc)_?)?"  # to_q, w_q, proj_q
    r"([qkv])(?:uery|ueries|ey|eys|al|alue|alues)?"
    r"(?:_?(?:proj|lin|linear|fc|w))?(?![a-z])"  # q_proj, query_linear
)


def _vote(matrix: Matrix, segment: _Segment, width: int) -> tuple[int, str]:
    """Returns whether a matrix's name speaks for (1) or against (-1) the part that a segment gives it, and how."""
    part = PARTS[segment.start // width]
    name = matrix.view.name
    text = name.lower()
    fused = _FUSED_NAME.findall(text)
    if fused:
        if matrix.shape[0] != len(fused[-1]) * width or segment.rows != width:
            return 0, ""
        letter = fused[-1][segment.at // width]
    else:
        single = _PART_NAME.findall(text)
        if not single or matrix.shape[0] > width:
            return 0, ""
        letter = single[-1]
    if letter == part[0]:
        return 1, ""
    named = next(p for p in PARTS if p[0] == letter)
    return -1, f"{name}, the {named} by its name, acts as the {part}"


_Segmentation = tuple[str, list[_Segment]]


def _segmentations(sizes: list[int], width: int, heads: int | None, *, is_whole: bool) -> Iterator[_Segmentation]:
    """Yields every way in which matrices of `sizes` rows can hold query, key and value of `width` rows each.

    `is_whole` says that the reference keeps all three in one matrix.
    """
    head = width // heads if heads and heads > 1 and width % heads == 0 else width
    count = width // head
    for order in itertools.permutations(range(3)):
        in_order = ", ".join(PARTS[part] for part in order)
        if sizes == [3 * width]:
            ways = _fused(order, width, head, is_whole=is_whole)
        elif sizes == [width] * 3:
            ways = [("", [_Segment(p * width, width, n, 0) for n, p in enumerate(order)])]
        elif sorted(sizes) == [width, 2 * width]:
            ways = _two_fused(order, width, head, single=sizes.index(width))
        elif sizes == [head] * (3 * count):
            ways = _per_head(order, width, head)
        elif sizes == [3 * head] * count:
            segments = [
                _Segment(p * width + h * head, head, h, n * head) for h in range(count) for n, p in enumerate(order)
            ]
            ways = [(" fused in each head's own", segments)]
        else:
            ways = []
        yield from ((in_order + how, segments) for how, segments in ways)


def _fused(order: tuple[int, ...], width: int, head: int, *, is_whole: bool) -> list[_Segmentation]:
    """All three in one matrix: one after the other, or head by head, or feature by feature."""
    if is_whole and order == (0, 1, 2):
        ways = [(" fused", [_Segment(0, 3 * width, 0, 0)])]
        if head != width:
            ways += [
                (" fused per head", [_Segment(0, 3 * width, 0, 0, ("(q h d)", "(h q d)"))]),
                (" interleaved", [_Segment(0, 3 * width, 0, 0, ("(q h d)", "(h d q)"))]),
            ]
        return ways
    ways = [(" fused", [_Segment(p * width, width, 0, n * width) for n, p in enumerate(order)])]
    if head != width:
        per_head = [
            _Segment(p * width + h * head, head, 0, (3 * h + n) * head)
            for h in range(width // head)
            for n, p in enumerate(order)
        ]
        ways.append((" fused per head", per_head))
    return ways


def _two_fused(order: tuple[int, ...], width: int, head: int, single: int) -> list[_Segmentation]:
    """Two of the three in one matrix; `single` is the number of the other one's."""
    first, *pair = order if single == 0 else (order[2], order[0], order[1])
    alone = _Segment(first * width, width, single, 0)
    together = [_Segment(p * width, width, 1 - single, n * width) for n, p in enumerate(pair)]
    ways = [(", two of them fused", [alone, *together])]
    if head != width:
        per_head = [
            _Segment(p * width + h * head, head, 1 - single, (2 * h + n) * head)
            for h in range(width // head)
            for n, p in enumerate(pair)
        ]
        ways.append((", two of them fused per head", [alone, *per_head]))
    return ways


def _per_head(order: tuple[int, ...], width: int, head: int) -> list[_Segmentation]:
    """A matrix for each head of each of the three."""
    heads = range(width // head)
    return [
        (
            " head by head",
            [_Segment(p * width + h * head, head, 3 * h + n, 0) for h in heads for n, p in enumerate(order)],
        ),
        (
            ", each a list of heads",
            [_Segment(p * width + h * head, head, n * len(heads) + h, 0) for n, p in enumerate(order) for h in heads],
        ),
    ]


def _row_way(ours: Operation, theirs: Operation, segment: _Segment, heads: int | None) -> Way | None:
    """Returns the entries of one segment, weight and bias; None if the shapes rule it out."""
    start = segment.start
    for source in ours.projections:
        if start < source.matrix.shape[0]:
            break
        start -= source.matrix.shape[0]
    target = theirs.projections[segment.matrix]
    left = _sliced(source.matrix.view, source.matrix.rows, start, segment.rows)
    right = _sliced(target.matrix.view, target.matrix.rows, segment.at, segment.rows)
    if start + segment.rows > source.matrix.shape[0] or left is None or right is None:
        return None
    sizes = f", h={heads}, q=3"
    if segment.layout:
        layout = _interleaved(source.matrix, target.matrix, segment.layout) + sizes
    else:
        matrices = _with_rows(source.matrix, segment.rows), _with_rows(target.matrix, segment.rows)
        patterns = matrix_layouts(*matrices, heads)
        if len(patterns) != 1:
            return None
        layout = patterns[0][1]
    entries = [Entry(left, right, layout)]
    views = (source.bias, start), (target.bias, segment.at)
    cut = [_sliced_vector(view, begin, segment.rows) if view else None for view, begin in views]
    if source.bias and target.bias:
        shapes = _cut_shape(source.bias, segment.rows), _cut_shape(target.bias, segment.rows)
        step = vector_layout(*shapes, source.bias.item, target.bias.item)
        if segment.layout:
            step = f"{segment.layout[0]} -> {segment.layout[1]}{sizes}"
        if step is None or None in cut:
            return None
        return Way("", (*entries, Entry(f"{cut[0]}", f"{cut[1]}", step)))
    return Way("", tuple(entries), 0, "", *(((name,) if name else ()) for name in cut))


def _interleaved(source: Matrix, target: Matrix, names: tuple[str, str]) -> str:
    texts = []
    for matrix, rows in ((source, names[0]), (target, names[1])):
        axes = {matrix.rows[0]: rows, matrix.columns[0]: "i"}
        letters = [axes.get(axis, "1") for axis in range(len(matrix.view.shape))]
        texts.append(" ".join(["1"] * len(matrix.view.item) + letters))
    return f"{texts[0]} -> {texts[1]}"


def _with_rows(matrix: Matrix, rows: int) -> Matrix:
    """Returns a matrix as the given number of its rows would be."""
    if matrix.shape[0] == rows or len(matrix.rows) != 1:
        return matrix
    shape = tuple(rows if axis == matrix.rows[0] else n for axis, n in enumerate(matrix.view.shape))
    return replace(matrix, view=replace(matrix.view, shape=shape))


def _sliced(view: View, rows: tuple[int, ...], start: int, length: int) -> str | None:
    total = math.prod(view.shape[axis] for axis in rows)
    if length == total:
        return str(view)
    if len(rows) != 1:
        return None
    items = [f"{n}:{n + 1}" for n in view.item]
    return f"{view.name}[{', '.join([*items, *[':'] * rows[0], f'{start}:{start + length}'])}]"


def _sliced_vector(view: View, start: int, length: int) -> str | None:
    long = [axis for axis, n in enumerate(view.shape) if n != 1]
    return _sliced(view, tuple(long), start, length)


def _cut_shape(view: View, length: int) -> tuple[int, ...]:
    long = [axis for axis, n in enumerate(view.shape) if n != 1]
    if view.size == length or len(long) != 1:
        return view.shape
    return tuple(length if axis == long[0] else n for axis, n in enumerate(view.shape))
