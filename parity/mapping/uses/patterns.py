"""Einops patterns from a tensor of one model to one of another that keeps the same values in other axes."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.models import IDENTITY, Entry, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from parity.mapping.uses.operations import Matrix, View


def matrix_layouts(ours: Matrix, theirs: Matrix, heads: int | None) -> list[tuple[str, str]]:
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
    if len(mine) > 1:  # a convolution's channels and pixels in one axis, or in other ones
        names = list("cpqrs"[: len(mine)])
        lengths = dict(zip(names, shapes[0], strict=True))
        first = [names, [*names[1:], names[0]]]
        orders = [*first, *(o for o in map(list, itertools.permutations(names)) if o not in first and len(mine) < 4)]
        ways = []
        for order in orders:
            groups = _grouped([lengths[name] for name in order], shapes[1])
            if groups is not None:
                along = {axis: [order[n] for n in group] for axis, group in zip(other, groups, strict=True)}
                text = " ".join(_bracketed(along[axis]) for axis in other)
                ways.append((text, ({a: [n] for a, n in zip(mine, names, strict=True)}, along, lengths)))
        return ways
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


def vector_layout(
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
class Placed:
    """A tensor, or a slice of one, and the letters along each of its axes."""

    name: str
    letters: tuple[str, ...]


def placed(
    view: View,
    axes: Sequence[tuple[tuple[int, ...], str]],
    lengths: Mapping[str, int],
    fixed: Mapping[str, int] | None = None,
) -> Placed | None:
    """Spreads letters over the axes of a tensor.

    Args:
        view: the tensor.
        axes: axes, and the letters whose items are counted along them, the last one the fastest.
        lengths: of every letter.
        fixed: letters of which only one item is taken, and which.

    Returns:
        The slice in which the fixed letters have these items; None if the lengths don't fit, or it is no slice.
    """
    fixed = fixed or {}
    letters, bounds = ["1"] * len(view.shape), [""] * len(view.shape)
    for members, order in axes:
        counted = [letter for letter in order if lengths[letter] > 1]
        groups = _grouped([lengths[letter] for letter in counted], [view.shape[axis] for axis in members])
        if groups is None:
            return None
        for axis, group in zip(members, groups, strict=True):
            along = [counted[number] for number in group]
            taken = [number for number, letter in enumerate(along) if letter in fixed]
            letters[axis] = "".join(letter for letter in along if letter not in fixed) or "1"
            if not taken:
                continue
            first, last = taken[0], taken[-1] + 1
            if last - first != len(taken):
                return None
            item = 0
            for letter in along[first:last]:
                item = item * lengths[letter] + fixed[letter]
            block, inside = (math.prod(lengths[x] for x in part) for part in (along[first:last], along[last:]))
            every = f" of {block * inside}" if first else ""
            bounds[axis] = f"{item * inside}:{(item + 1) * inside}{every}"
    if view.start is not None:  # a slice of a vector; one of every so many items is none of the whole
        if " of " in bounds[0]:
            return None
        begin, _, end = (bounds[0] or f"0:{view.size}").partition(":")
        bounds[0] = f"{view.start + int(begin)}:{view.start + int(end)}"
    items = [f"{n}:{n + 1}" for n in view.item]
    texts = [*items, *(text or ":" for text in bounds)]
    while texts and texts[-1] == ":":
        texts.pop()
    return Placed(
        f"{view.name}[{', '.join(texts)}]" if texts else whole(view.name), ("1",) * len(items) + tuple(letters)
    )


def entry_between(ours: Placed | None, theirs: Placed | None, lengths: Mapping[str, int]) -> Entry | None:
    """Returns the entry that maps the same letters to each other; None if one side has others."""
    if ours is None or theirs is None or {*"".join(ours.letters), "1"} != {*"".join(theirs.letters), "1"}:
        return None
    if ours.letters == theirs.letters:
        return Entry(ours.name, theirs.name)
    texts = [" ".join(_bracketed([*letters]) for letters in side.letters) for side in (ours, theirs)]
    merged = sorted({letter for side in (ours, theirs) for text in side.letters if len(text) > 1 for letter in text})
    if all("(h d)" in text for text in texts) and "q" not in "".join(merged):  # no need to tell heads apart
        texts, merged = [text.replace("(h d)", "o") for text in texts], [x for x in merged if x not in "hd"]
    return Entry(ours.name, theirs.name, ", ".join([" -> ".join(texts), *(f"{x}={lengths[x]}" for x in merged)]))
