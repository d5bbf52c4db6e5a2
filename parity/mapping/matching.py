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
from dataclasses import replace
from typing import TYPE_CHECKING

from parity.mapping.grouped import grouped_ways, meanings
from parity.mapping.head_widths import without_other_widths
from parity.mapping.norm_order import norms_first
from parity.mapping.outputs import output_way, with_outputs_joined
from parity.mapping.qkv import attention_ways, merging_ways
from parity.mapping.serving import SERVING, as_in_other_blocks, meaning_of, serving_ways
from parity.mapping.slices import ON_SLICES, slice_ways, with_slices_joined
from parity.mapping.uses.patterns import matrix_layouts, vector_layout
from parity.mapping.uses.ways import ATTENTION, PATCHES, POSITIONS, TOKENS, Matches, Way, joined
from parity.models import Entry, whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from parity.mapping.uses.gathering import Uses
    from parity.mapping.uses.operations import Operation, View


# tokens of equal size that are tried in every order, and tokens that may stand before the patches
_MOST_ALIKE, _MOST_TOKENS = 4, 16

# how rare two ways together may be that are tried together
_RAREST = 3

Buffers = tuple["AbstractSet[str]", "AbstractSet[str]"]


def match(reference: Uses, candidate: Uses, buffers: Buffers) -> Matches:
    """Matches two models' tensors.

    Args:
        reference: what the reference does with its tensors.
        candidate: the same of the candidate.
        buffers: names of the reference's and of the candidate's tensors that are no parameters.
    """
    found = Matches()
    ways: dict[str, list[list[Way]]] = defaultdict(list)  # by what is chosen: a list per block
    mine, others, apart = without_other_widths(reference, candidate)
    others = with_outputs_joined(with_slices_joined(others, reference))
    pairs = _aligned(norms_first(mine), norms_first(others))
    heads = reference.heads or candidate.heads
    is_merging = False  # the next projection takes what the heads of an attention give
    for ours, theirs in pairs:
        if ours is None or theirs is None:
            continue
        if ours.kind == "attention":
            options = grouped_ways(ours, theirs) if theirs.is_grouped and reference.is_packed else []
            options = serving_ways(ours, theirs) if theirs.serving and reference.is_packed else options
            options = options or slice_ways(ours, theirs)
            options = options or attention_ways(ours, theirs, heads, is_packed=reference.is_packed)
            ways[ATTENTION].append(options)
        elif ours.kind == "matrix" and len(theirs.projections) > 1:
            _match_parts(found, ours, theirs)
        elif ours.kind == "matrix":
            one, other = ours.projections[0], theirs.projections[0]
            options = [
                Way(name, (Entry(str(one.matrix.view), str(other.matrix.view), layout),))
                for name, layout in matrix_layouts(one.matrix, other.matrix, heads)
            ]
            merging = merging_ways(one.matrix, other.matrix, heads) if is_merging else []
            if merging and len(options) == 1:
                ways[ATTENTION].append(_each_with(ways[ATTENTION].pop(), [replace(options[0], name=""), *merging]))
            elif len(options) == 1:
                found.fixed += options[0].entries
            else:
                ways[PATCHES].append(options)
            _match_vectors(found, one.bias, other.bias, "bias")
        else:
            for left, right, what in zip(ours.vectors, theirs.vectors, ("scale", "shift"), strict=True):
                _match_vectors(found, left, right, what)
        is_merging = ours.kind == "attention" and not theirs.is_grouped
    ways |= {name: as_in_other_blocks(blocks) for name, blocks in ways.items() if name == ATTENTION}
    for name, blocks in ways.items():
        common = [way.name for way in blocks[0] if all(way.name in {w.name for w in block} for block in blocks)]
        found.choices[name] = [
            joined([next(way for way in block if way.name == label) for block in blocks]) for label in common
        ]
    _leave_unmatched(found, [*pairs, *apart])
    found.left_reference |= _of_no_operation(reference)
    found.left_candidate |= _of_no_operation(candidate)
    _match_free(found, reference, candidate, buffers)
    return found


def _of_no_operation(uses: Uses) -> dict[str, str]:
    computed = dict.fromkeys(map(whole, uses.computed_parts), "a part of a weight that is computed as the model runs")
    return computed | dict.fromkeys(map(whole, uses.statistics), "running statistics of a norm")


def _match_parts(found: Matches, ours: Operation, theirs: Operation) -> None:
    """Matches a projection with one in parts, of which one has the bias."""
    way = output_way(ours, theirs)
    if way is None:
        _leave_unmatched(found, [(ours, None), (None, theirs)])
        return
    found.fixed += way.entries
    biases = [p.bias for p in theirs.projections if p.bias]
    _match_vectors(found, ours.projections[0].bias, next(iter(biases), None), "bias")
    found.left_candidate |= {str(bias): "an extra bias" for bias in biases[1:]}


def _each_with(first: list[Way], then: list[Way]) -> list[Way]:
    """Returns the ways of two that are chosen together, the usual ones first; not of two rare ones both."""
    both = [
        replace(joined([one, other]), name=one.name + other.name)
        for one in first
        for other in then
        if one.rarity + other.rarity <= _RAREST
    ]
    return sorted(both, key=lambda way: way.rarity)


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
            score += best[i + 1][j + 1] + 0.01 * taken[i + 1][j + 1] + 0.02 * _are_projections(ours, i, theirs, j)
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


def _are_projections(ours: Sequence[Operation], i: int, theirs: Sequence[Operation], j: int) -> bool:
    """Whether two operations follow an attention, whose output they project, and the other's MLP comes at once.

    The MLP is two more of the very same shape, which no norm of its own parts from the projection.
    """
    follow = i > 0 < j and ours[i - 1].kind == theirs[j - 1].kind == "attention"
    return follow and all(operation.key == ours[i].key for operation in theirs[j : j + 3])


def _is_of_a_block(operation: Operation) -> bool:
    """Whether a module around the operation's own one is numbered."""
    return bool(re.search(r"\d", ".".join(operation.views[0].name.split(".")[:-2])))


def _fit(ours: Operation, theirs: Operation) -> float:
    if ours.key != theirs.key:
        return 0.0
    fit = 1.0 if ours.kind == theirs.kind else 0.5  # a norm without a shift looks like a scale
    return fit + 0.005 * (_is_of_a_block(ours) == _is_of_a_block(theirs)) - 0.03 * theirs.is_idle


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
        for name in way.left_reference:
            meaning = "no bias of query, key and value" if "bias" in name else ON_SLICES
            found.left_meaning[name] = meaning_of(name, way) if SERVING in way.name else meaning
        found.left_meaning |= dict.fromkeys(way.left_candidate, "an extra bias of query, key and value")
    for ours, theirs in pairs:
        if ours and theirs and theirs.is_grouped:
            found.left_meaning |= meanings(ours, theirs)


def _match_free(found: Matches, reference: Uses, candidate: Uses, buffers: Buffers) -> None:
    """Matches tokens and the table of positions by their numbers of elements.

    Tokens of equal size are told apart by running, where there are equally many of them.
    """
    aside = _of_every_block(candidate.free, reference.free)
    left = [view for view in candidate.free if view not in aside]
    ours = sorted(reference.free, key=lambda view: view.size)
    table = ours[-1] if ours and _is_table(ours[-1]) else None
    for size in dict.fromkeys(view.size for view in ours if view is not table):
        group = [view for view in ours if view.size == size and view is not table]
        others = [other for other in left if other.size == size]
        if len(group) == len(others) > 1 and len(group) <= _MOST_ALIKE:
            ways = [way for order in itertools.permutations(others) if (way := _token_way(group, order))]
            if ways:
                found.choices[f"{TOKENS} of {size} values"] = ways
                for view, other in zip(group, others, strict=True):
                    _take(found, left, view, other, buffers)
                continue
        for view in group:
            _match_token(found, view, left, buffers)
    if table:
        sizes = [sorted(view.size for view in uses.free) for uses in (reference, candidate)]
        _match_table(found, table, left, buffers, min(sum(of_one[:-1]) for of_one in sizes))
    found.left_candidate |= {
        str(view): "a fixed table" if view.name in buffers[1] else "an extra token or table" for view in (*left, *aside)
    }


def _of_every_block(views: Sequence[View], others: Sequence[View]) -> list[View]:
    """Returns those that several blocks have one each of, and the other model has not: no token, whatever their size.

    A model's tokens may have numbers as well; their names say that they are tokens.
    """
    alike: dict[tuple[str, int], list[View]] = defaultdict(list)
    for view in views:
        if not any(_common_words(view.name, other.name) for other in others):
            alike[re.sub(r"\d+", "#", view.name), view.size].append(view)
    return [
        view
        for (_, size), found in alike.items()
        if 1 < len(found) > sum(other.size == size for other in others)
        for view in found
    ]


def _is_table(view: View) -> bool:
    return max(view.shape, default=0) < view.size


def _match_token(found: Matches, view: View, left: list[View], buffers: Buffers) -> None:
    same = sorted((other for other in left if other.size == view.size), key=lambda o: -_common_words(view.name, o.name))
    for other in same:
        layout = vector_layout(view.shape, other.shape, view.item, other.item)
        if layout:
            _take(found, left, view, other, buffers)
            found.fixed.append(Entry(str(view), str(other), layout))
            return
    found.left_reference[str(view)] = "no such token"


def _take(found: Matches, left: list[View], ours: View, theirs: View, buffers: Buffers) -> None:
    left.remove(theirs)
    if theirs.name in buffers[1] and ours.name not in buffers[0]:
        found.warnings.append(f"{theirs.name} is a buffer: it is never trained, whatever the weights")


def _token_way(ours: Sequence[View], theirs: Sequence[View]) -> Way | None:
    """Pairs tokens in this order; None if their shapes don't allow it."""
    layouts = [vector_layout(a.shape, b.shape, a.item, b.item) for a, b in zip(ours, theirs, strict=True)]
    if not all(layouts):
        return None
    entries = tuple(Entry(str(a), str(b), f"{s}") for a, b, s in zip(ours, theirs, layouts, strict=True))
    right, wrong = 0, []
    for view, other in zip(ours, theirs, strict=True):
        words = {each: _common_words(view.name, each.name) for each in theirs}
        best = max(words.values())
        named = [each for each, common in words.items() if common == best]
        if named == [other]:
            right += 1
        elif len(named) == 1:
            wrong.append(f"{other}, not {named[0]}, acts as {view}")
    return Way(", ".join(map(str, theirs)), entries, -len(wrong) or right, next(iter(wrong), ""))


def _match_table(found: Matches, table: View, left: list[View], buffers: Buffers, tokens: int) -> None:
    """Matches the table of positions, whole or but for the rows of the tokens that stand before the patches."""
    learned = [view for view in left if view.name not in buffers[1] or table.name in buffers[0]]
    for other in sorted(learned, key=lambda o: -_common_words(table.name, o.name)):
        layout = vector_layout(table.shape, other.shape, table.item, other.item) if other.size == table.size else None
        if layout:
            _take(found, left, table, other, buffers)
            if table.item or other.item:
                found.fixed.append(Entry(str(table), str(other), layout))
            else:
                found.choices[POSITIONS] = _position_ways(table, other, layout)
            return
    if not _match_rows(found, table, left, buffers[1], tokens):
        found.left_reference[str(table)] = "no such table of positions that is learned"


def _match_rows(found: Matches, table: View, left: list[View], buffers: AbstractSet[str], tokens: int) -> bool:
    """Matches tables of which one has rows of tokens that the other model keeps elsewhere or has not.

    Rows that both have, such as the class token's, come before them; of the shorter table, those that are more than a
    square of patches, and at most as many as both models have tokens, which are `tokens` numbers together.
    """
    for other in sorted(left, key=lambda view: -view.size):
        is_ours = table.size > other.size
        longer, shorter = (table, other) if is_ours else (other, table)
        is_token = not _is_table(shorter) and longer.size > 2 * shorter.size
        if other.name in buffers or table.item or other.item or is_token:
            continue
        axis = next(axis for axis, length in enumerate(longer.shape) if length != 1)
        rows, width = longer.shape[axis], longer.size // longer.shape[axis]
        extra, odd = divmod(longer.size - shorter.size, width)
        if odd or not 0 < extra <= _MOST_TOKENS:
            continue
        count = shorter.size // width
        shared = next((n for n in range(min(tokens // width, count) + 1) if math.isqrt(count - n) ** 2 == count - n), 0)
        rest = _rows(longer, shared + extra, rows)
        if not shared:
            pairs = [(rest, (whole(shorter.name), shorter.shape))]
        elif count in shorter.shape:
            pairs = [(_rows(longer, 0, shared), _rows(shorter, 0, shared)), (rest, _rows(shorter, shared, count))]
        else:
            continue
        if not is_ours:
            pairs = [(theirs, ours) for ours, theirs in pairs]
        layouts = [vector_layout(ours[1], theirs[1]) for ours, theirs in pairs]
        if None in layouts:
            continue
        left.remove(other)
        found.fixed += [Entry(a[0], b[0], f"{s}") for (a, b), s in zip(pairs, layouts, strict=True)]
        _match_extra_rows(found, _rows(longer, shared, shared + extra), left, buffers, is_ours=is_ours)
        return True
    return False


_Part = tuple[str, tuple[int, ...]]


def _rows(table: View, start: int, stop: int) -> _Part:
    """Returns name and shape of some rows of a table."""
    axis = next(axis for axis, length in enumerate(table.shape) if length != 1)
    name = f"{table.name}[{':, ' * axis}{start}:{stop}]"
    return name, (*table.shape[:axis], stop - start, *table.shape[axis + 1 :])


def _match_extra_rows(
    found: Matches, part: _Part, left: list[View], buffers: AbstractSet[str], *, is_ours: bool
) -> None:
    name, shape = part
    if not is_ours:
        found.left_candidate[name] = "an extra position of a token"
        return
    single = next((view for view in left if view.size == math.prod(shape) and view.name not in buffers), None)
    step = vector_layout(shape, single.shape) if single else None
    if single and step:
        left.remove(single)
        found.fixed.append(Entry(name, str(single), step))
    else:
        found.left_reference[name] = "no position of the class token"


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


def _common_words(one: str, other: str) -> int:
    """Returns how many words two names begin alike, such as `class_token` and `cls_embed` one; kinds do not count."""
    words = [
        {word[:3].replace("cls", "cla") for word in re.split(r"[._\d]+", name.lower()) if len(word) > 2}
        for name in (one, other)
    ]
    return len((words[0] & words[1]) - {"tok", "emb"})
