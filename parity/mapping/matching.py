"""From what two models do with their tensors to the weight maps that are possible between them.

Operations are matched in order of use, like two texts: projections by their numbers of features, norms by their width.
Where a pair leaves several maps open (which third of a fused projection is the query, in which order a Linear takes a
patch's pixels), all of them are listed; only a run can tell.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from parity.models.weight_map import IDENTITY, Entry
from parity.tracing.attention import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parity.mapping.operations import Matrix, Operation, View
    from parity.mapping.uses import Uses


@dataclass(frozen=True)
class Way:
    """One of several ways to map a group of tensors.

    Attributes:
        name: what it is, in words.
        entries: of all blocks.
        by_name: how many of the tensors' names speak for it, less those that speak against it.
        contradiction: in words, what the names would have had otherwise.
        left_reference: biases that only the reference has, or slices of them.
        left_candidate: biases that only the candidate has.
    """

    name: str
    entries: tuple[Entry, ...]
    by_name: int = 0
    contradiction: str = ""
    left_reference: tuple[str, ...] = ()
    left_candidate: tuple[str, ...] = ()


@dataclass
class Matches:
    """All maps that are possible between two models.

    Attributes:
        fixed: entries that are in each of them.
        choices: groups of entries of which exactly one way holds, by what is chosen.
        left_reference: tensors of the reference without a counterpart, and what it means that there is none.
        left_candidate: the same of the candidate.
        left_meaning: the same for what one of several ways leaves.
        warnings: a sentence each.
    """

    fixed: list[Entry] = field(default_factory=list)
    choices: dict[str, list[Way]] = field(default_factory=dict)
    left_reference: dict[str, str] = field(default_factory=dict)
    left_candidate: dict[str, str] = field(default_factory=dict)
    left_meaning: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def defaults(self) -> dict[str, Way]:
        """Returns for every group the way that is most usual, or that the names speak for."""
        return {name: max(ways, key=lambda way: way.by_name) for name, ways in self.choices.items() if ways}


PATCHES, ATTENTION, POSITIONS = "order of a patch's pixels", "order of query, key and value", "place of the class token"


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
            ways[ATTENTION].append(_attention_ways(ours, theirs, reference.heads or candidate.heads))
        elif ours.kind == "matrix":
            one, other = ours.projections[0], theirs.projections[0]
            options = [
                Way(name, (Entry(str(one.matrix.view), str(other.matrix.view), layout),))
                for name, layout in _matrix_layouts(one.matrix, other.matrix, reference.heads)
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
            _joined([next(way for way in block if way.name == label) for block in blocks]) for label in common
        ]
    _leave_unmatched(found, pairs)
    _match_free(found, reference, candidate, buffers)
    return found


def _joined(ways: list[Way]) -> Way:
    """Makes the same way of all blocks one."""
    return Way(
        ways[0].name,
        tuple(entry for way in ways for entry in way.entries),
        sum(way.by_name for way in ways),
        ways[0].contradiction,
        tuple(name for way in ways for name in way.left_reference),
        tuple(name for way in ways for name in way.left_candidate),
    )


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
        layout = _vector_layout(ours.shape, theirs.shape, ours.item, theirs.item)
        if layout:
            found.fixed.append(Entry(str(ours), str(theirs), layout))
            return
    if ours:
        found.left_reference[str(ours)] = f"no {what}"
    if theirs:
        found.left_candidate[str(theirs)] = f"an extra {what}"


def _matrix_layouts(ours: Matrix, theirs: Matrix, heads: int | None) -> list[tuple[str, str]]:
    """Returns the layouts that are possible between two projections of as many features: name and einops pattern."""
    axes = [(matrix.view.shape, matrix.view.item, matrix.rows, matrix.columns) for matrix in (ours, theirs)]
    if axes[0] == axes[1] and not ours.view.item:
        return [("as it is", IDENTITY)]
    row_ways = _axis_ways(ours, theirs, "rows", heads)
    column_ways = _axis_ways(ours, theirs, "columns", heads)
    return [
        (" ".join(filter(None, (row[0], column[0]))) or "as it is", _pattern(ours, theirs, (row[1], column[1])))
        for row in row_ways
        for column in column_ways
    ]


# for rows and for columns: the letters of each axis of the one and of the other side, and their lengths
_Letters = tuple[dict[int, list[str]], dict[int, list[str]], dict[str, int]]


def _axis_ways(ours: Matrix, theirs: Matrix, which: str, heads: int | None) -> list[tuple[str, _Letters]]:
    mine: tuple[int, ...] = getattr(ours, which)
    other: tuple[int, ...] = getattr(theirs, which)
    shapes = [ours.view.shape[a] for a in mine], [theirs.view.shape[a] for a in other]
    if shapes[0] == shapes[1]:
        names = list(("oxyz" if which == "rows" else "icpq")[: len(mine)])
        lengths = dict(zip(names, shapes[0], strict=True))
        return [("", ({a: [n] for a, n in zip(mine, names, strict=True)},
                      {a: [n] for a, n in zip(other, names, strict=True)}, lengths))]  # fmt: skip
    if len(mine) > 1 and len(other) == 1:  # a convolution's channels and pixels in one axis
        names = list("cpqrs"[: len(mine)])
        lengths = dict(zip(names, shapes[0], strict=True))
        orders = [names, [*names[1:], names[0]]]
        if len(mine) == 3:
            c, p, q = names
            orders += [[q, p, c], [c, q, p]]
        return [
            (f"({' '.join(order)})", ({a: [n] for a, n in zip(mine, names, strict=True)}, {other[0]: order}, lengths))
            for order in orders
        ]
    if len(mine) == 1 and len(other) == 2:  # heads and their features in two axes
        order = [n for _, n in sorted(zip(other, "hd", strict=True))]
        lengths = dict(zip("hd", shapes[1], strict=True))
        is_swapped = heads is not None and shapes[1][0] != heads and shapes[1][1] == heads
        merged = order[::-1] if is_swapped else order
        by_axis = dict(zip(other, "hd", strict=True))
        return [("", ({mine[0]: merged}, {a: [n] for a, n in by_axis.items()}, lengths))]
    return []


def _pattern(ours: Matrix, theirs: Matrix, letters: tuple[_Letters, _Letters]) -> str:
    texts = []
    for matrix, side in ((ours, 0), (theirs, 1)):
        by_axis: dict[int, list[str]] = {}
        for group in letters:
            by_axis |= group[side]  # type: ignore[arg-type]
        axes = [_bracketed(by_axis.get(axis, ["1"])) for axis in range(len(matrix.view.shape))]
        texts.append(" ".join(["1"] * len(matrix.view.item) + axes))
    merged = {
        name for group in letters for side in group[:2] for names in side.values() if len(names) > 1 for name in names
    }
    lengths = {name: length for group in letters for name, length in group[2].items() if name in merged}
    return ", ".join([f"{texts[0]} -> {texts[1]}", *(f"{name}={length}" for name, length in lengths.items())])


def _bracketed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"({' '.join(names)})"


def _vector_layout(
    ours: tuple[int, ...], theirs: tuple[int, ...], our_item: tuple[int, ...] = (), their_item: tuple[int, ...] = ()
) -> str | None:
    """Returns the layout between two shapes that differ in axes of length 1, order of axes, or a split axis."""
    if ours == theirs and not our_item and not their_item:
        return IDENTITY
    mine, other = [n for n in ours if n != 1], [n for n in theirs if n != 1]
    letters = "abcdef"[: len(other)]
    for order in itertools.permutations(range(len(mine))):
        groups = _grouped(other, [mine[axis] for axis in order])
        if groups is None:
            continue
        by_axis = {axis: [letters[n] for n in group] for axis, group in zip(order, groups, strict=True)}
        left = iter([by_axis[axis] for axis in range(len(mine))])
        right = iter(letters)
        texts = (
            ["1"] * len(our_item) + ["1" if n == 1 else _bracketed(next(left)) for n in ours],
            ["1"] * len(their_item) + ["1" if n == 1 else next(right) for n in theirs],
        )
        merged = [letter for axis in by_axis.values() if len(axis) > 1 for letter in axis]
        sizes = [f"{letter}={other[letters.index(letter)]}" for letter in sorted(merged)]
        return ", ".join([f"{' '.join(texts[0])} -> {' '.join(texts[1])}", *sizes])
    return None


def _grouped(lengths: list[int], products: list[int]) -> list[list[int]] | None:
    """Cuts axes of `lengths`, in order, into groups whose products are `products`; None if that is not possible."""
    groups: list[list[int]] = []
    position = 0
    for product in products:
        group: list[int] = []
        while math.prod(lengths[n] for n in group) < product and position < len(lengths):
            group.append(position)
            position += 1
        if math.prod(lengths[n] for n in group) != product:
            return None
        groups.append(group)
    return groups if position == len(lengths) else None


@dataclass(frozen=True)
class _Segment:
    """Rows of the reference's query, key and value, one after the other, and the rows of the candidate's matrix."""

    start: int
    rows: int
    matrix: int
    at: int
    layout: tuple[str, str] | None = None  # einops names of the rows on both sides, if they are interleaved


def _attention_ways(ours: Operation, theirs: Operation, heads: int | None) -> list[Way]:
    """Lists the maps between the projections of two attentions."""
    width = ours.rows // 3
    sizes = [projection.matrix.shape[0] for projection in theirs.projections]
    ways = []
    for name, segments in _segmentations(sizes, width, heads, is_whole=len(ours.projections) == 1):
        rows = [_row_way(ours, theirs, segment, heads) for segment in segments]
        if all(rows):
            votes = [_vote(theirs.projections[s.matrix].matrix, s, width) for s in segments]
            against = next((words for vote, words in votes if vote < 0), "")
            way = _joined([row for row in rows if row])
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
        patterns = _matrix_layouts(*matrices, heads)
        if len(patterns) != 1:
            return None
        layout = patterns[0][1]
    entries = [Entry(left, right, layout)]
    views = (source.bias, start), (target.bias, segment.at)
    cut = [_sliced_vector(view, begin, segment.rows) if view else None for view, begin in views]
    if source.bias and target.bias:
        shapes = _cut_shape(source.bias, segment.rows), _cut_shape(target.bias, segment.rows)
        step = _vector_layout(*shapes, source.bias.item, target.bias.item)
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
                   if (layout := _vector_layout(view.shape, other.shape, view.item, other.item)))  # fmt: skip
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
        layout = _vector_layout(shape, other.shape)
        if other.size != (rows - 1) * width or layout is None or other.name in buffers or table.item:
            continue
        left.remove(other)
        before = ":, " * axis
        found.fixed.append(Entry(f"{table.name}[{before}1:{rows}]", str(other), layout))
        first = tuple(1 if a == axis else n for a, n in enumerate(table.shape))
        single = next((view for view in left if view.size == width and view.name not in buffers), None)
        step = _vector_layout(first, single.shape) if single else None
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
        steps = [_vector_layout(mine, other) for mine, other in shapes]
        if None not in steps:
            entries = tuple(Entry(left, right, f"{s}") for (left, right), s in zip(parts, steps, strict=True))
            ways.append(Way("class token last", entries))
    return ways


def _same_word(one: str, other: str) -> bool:
    """Whether two names share a word's beginning, such as `class` and `cls_token`."""
    words = [{word[:3] for word in re.split(r"[._\d]+", name.lower()) if len(word) > 2} for name in (one, other)]
    return bool(words[0] & words[1])
