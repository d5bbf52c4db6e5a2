"""One weight map after the other: from the first model's tensors to the third's, by way of the second's."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import TYPE_CHECKING

from parity.models import IDENTITY, Bounds, Entry, WeightMap, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from parity.models import Shapes


def composed(first: WeightMap, second: WeightMap, between: Shapes) -> WeightMap:
    """Returns the map from the first model's tensors to the third's.

    It says which parts correspond; of two layout steps one after the other, only one is kept. A part that one of the
    maps leaves out, or that a layout step tears, has no counterpart.

    Args:
        first: from the first model to the second.
        second: from the second model to the third.
        between: the shapes of the second model's tensors.
    """
    entries = tuple(_joined(first.entries, second.entries, between))
    lacking = (Entry(name, name) for name in second.unmapped_reference)
    extra = (Entry(name, name) for name in first.unmapped_candidate)
    left_reference = [entry.reference for entry in _joined(first.entries, lacking, between)]
    left_candidate = [entry.candidate for entry in _joined(extra, second.entries, between)]
    return dataclasses.replace(
        second,
        entries=entries,
        unmapped_reference=(*first.unmapped_reference, *left_reference),
        unmapped_candidate=(*second.unmapped_candidate, *left_candidate),
        warnings=(),
        meaning={},
        undecided=(),
        without_effect=(),
    )


def _joined(first: Iterable[Entry], second: Iterable[Entry], between: Shapes) -> Iterator[Entry]:
    """Yields an entry for every two that meet in the second model."""
    by_tensor: dict[str, list[Entry]] = defaultdict(list)
    for entry in second:
        by_tensor[split(entry.reference)[0]].append(entry)
    for one in first:
        name = split(one.candidate)[0]
        for other in by_tensor[name]:
            ours, theirs = (_bounds(part, between[name]) for part in (one.candidate, other.reference))
            meeting = [_meeting(*pair) for pair in zip(ours, theirs, between[name], strict=True)]
            is_torn = (meeting != ours and one.layout != IDENTITY) or (meeting != theirs and other.layout != IDENTITY)
            if is_torn or any(bounds.start >= bounds.stop for bounds in meeting):
                continue
            yield Entry(
                _narrowed(one.reference, ours, meeting),
                _narrowed(other.candidate, theirs, meeting),
                one.layout if other.layout == IDENTITY else other.layout,
            )


def _meeting(one: Bounds, other: Bounds, length: int) -> Bounds:
    """Returns what two slices of an axis have in common; nothing where one tears the other's pieces."""
    whole = Bounds(0, length)
    if whole in (one, other):
        return other if one == whole else one
    if one.every or other.every:
        return one if one == other else Bounds(0, 0)
    return Bounds(max(one.start, other.start), min(one.stop, other.stop))


def _bounds(part: str, shape: tuple[int, ...]) -> list[Bounds]:
    box = split(part)[1]
    bounds = [Bounds(start, shape[axis] if stop < 0 else stop, every) for axis, (start, stop, every) in enumerate(box)]
    return [*bounds, *(Bounds(0, length) for length in shape[len(box) :])]


def _narrowed(part: str, whole: list[Bounds], within: list[Bounds]) -> str:
    """Returns the piece of `part` that lies `within` the bounds where all of it lies in `whole`."""
    if whole == within:
        return part
    name, box = split(part)
    axes = []
    boxes = [*box, *[Bounds(0, -1)] * len(whole)]
    for all_of_it, piece, at in zip(whole, within, boxes, strict=False):
        start, stop, every = at
        if all_of_it != piece:
            first = at.start - all_of_it.start
            start, stop, every = first + piece.start, first + piece.stop, piece.every
        axes.append(":" if stop < 0 else f"{start}:{stop}{f' of {every}' * bool(every)}")
    while axes[-1] == ":":
        axes.pop()
    return f"{name}[{', '.join(axes)}]"
