"""One weight map after the other: from the first model's tensors to the third's, by way of the second's."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import TYPE_CHECKING

from parity.models import IDENTITY, Entry, WeightMap, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from parity.models import Shapes

    Bounds = list[tuple[int, int]]


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
            meeting = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(ours, theirs, strict=True)]
            is_torn = (meeting != ours and one.layout != IDENTITY) or (meeting != theirs and other.layout != IDENTITY)
            if is_torn or any(start >= stop for start, stop in meeting):
                continue
            yield Entry(
                _narrowed(one.reference, ours, meeting),
                _narrowed(other.candidate, theirs, meeting),
                one.layout if other.layout == IDENTITY else other.layout,
            )


def _bounds(part: str, shape: tuple[int, ...]) -> Bounds:
    box = split(part)[1]
    bounds = [(start, shape[axis] if stop < 0 else stop) for axis, (start, stop) in enumerate(box)]
    return [*bounds, *((0, length) for length in shape[len(box) :])]


def _narrowed(part: str, whole: Bounds, within: Bounds) -> str:
    """Returns the piece of `part` that lies `within` the bounds where all of it lies in `whole`."""
    if whole == within:
        return part
    name, box = split(part)
    axes = []
    boxes = [*box, *[(0, -1)] * len(whole)]
    for (first, last), (start, stop), (at, end) in zip(whole, within, boxes, strict=False):
        if (first, last) != (start, stop):
            axes.append(f"{at + start - first}:{at + stop - first}")
        else:
            axes.append(":" if end < 0 else f"{at}:{end}")
    while axes[-1] == ":":
        axes.pop()
    return f"{name}[{', '.join(axes)}]"
