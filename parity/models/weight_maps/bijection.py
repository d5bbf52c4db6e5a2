"""Is a weight map a bijection? It uses every element of every tensor of both models exactly once, or leaves it out."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from parity.errors import MappingError, listed
from parity.models.weight_maps.entries import IDENTITY, Bounds, cut, rearranged, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from parity.models.state import Shape, Shapes
    from parity.models.weight_maps.entries import Box, Entry
    from parity.models.weight_maps.weight_map import WeightMap


def require_separate(found: WeightMap, reference: nn.Module, candidate: nn.Module) -> None:
    """Checks that no tensors of the reference are mapped to one that the candidate holds under several names.

    Raises:
        MappingError: some are; the message says which.
    """
    ours, theirs = (
        {name: id(tensor) for name, tensor in module.state_dict(keep_vars=True).items()}
        for module in (reference, candidate)
    )
    sources: dict[int, dict[str, set[tuple[int, Box]]]] = defaultdict(lambda: defaultdict(set))
    for entry in found.entries:
        (source, box), (name, _) = split(entry.reference), split(entry.candidate)
        sources[theirs[name]][name].add((ours[source], box))
    shared = [list(by_name) for by_name in sources.values() if len(set(map(frozenset, by_name.values()))) > 1]
    if shared:
        raise MappingError(
            f"the candidate has one tensor by the names {listed(shared[0])}, where the reference has "
            f"{len(shared[0])}{f', and {len(shared) - 1} more like it' if len(shared) > 1 else ''}"
        )


def require_bijection(found: WeightMap, reference: Shapes, candidate: Shapes) -> None:
    """Checks that every element of every tensor is used exactly once, or left out by name.

    Raises:
        MappingError: it isn't; the message lists the tensors.
    """
    sides = (
        ("the reference", reference, [e.reference for e in found.entries], found.unmapped_reference),
        ("the candidate", candidate, [e.candidate for e in found.entries],
         (*found.unmapped_candidate, *found.unused)),
    )  # fmt: skip
    complaints, left_over = [], []
    for owner, shapes, parts, left_out in sides:
        boxes = defaultdict(list)
        for part in (*parts, *left_out):
            name, box = split(part)
            boxes[name].append(box)
            if name in shapes:
                _part_shape(part, shapes)
        missing = [name for name in boxes if name not in shapes]
        twice = [name for name, b in boxes.items() if name in shapes and _overlap(b, shapes[name])]
        unknown = [
            name for name, shape in shapes.items()
            if name not in twice and sum(_volume(box, shape) for box in boxes[name]) < math.prod(shape)
        ]  # fmt: skip
        left_over.append(unknown)
        for names, what in (
            (missing, f"{owner} lacks {{}} of the weight map {found.source}'s tensors"),
            (twice, f"the weight map {found.source} uses {{}} of {owner}'s tensors twice"),
            (unknown, f"the weight map {found.source} doesn't know {{}} of {owner}'s tensors"),
        ):
            if names:
                complaints.append(f"{what.format(len(names))}: {listed(names)}")
        if missing and owner == "the candidate":
            left_over[0] += [e.reference for e in found.entries if split(e.candidate)[0] in missing]
    if complaints:
        raise MappingError("; ".join(complaints), *left_over)
    misshapen = [
        f"{e.reference} {shape} = {e.candidate} {whole}"
        for e in found.entries
        if (shape := _shape_after(e, reference)) != (whole := _part_shape(e.candidate, candidate))
    ]
    if misshapen:
        raise MappingError(f"tensors of different shapes are mapped to each other: {listed(misshapen)}")


def _bounds(box: Box, shape: Shape) -> list[Bounds]:
    bounds = [Bounds(start, shape[axis] if stop < 0 else stop, every) for axis, (start, stop, every) in enumerate(box)]
    return bounds + [Bounds(0, length) for length in shape[len(box) :]]


def _volume(box: Box, shape: Shape) -> int:
    return math.prod(
        max(stop - start, 0) * (length // every if every else 1)
        for (start, stop, every), length in zip(_bounds(box, shape), shape, strict=False)
    )


def _overlap(boxes: Sequence[Box], shape: Shape) -> bool:
    bounds = [_bounds(box, shape) for box in boxes]
    if len(bounds) == 1:
        return False
    pairs = itertools.combinations(sorted(bounds), 2)
    return any(all(itertools.starmap(_meet, zip(one, other, shape, strict=False))) for one, other in pairs)


def _meet(one: Bounds, other: Bounds, length: int) -> bool:
    """Whether two slices of an axis have an item in common."""
    if one.every == other.every:
        return one.start < other.stop and other.start < one.stop
    return not set(one.items(length)).isdisjoint(other.items(length))


def _part_shape(part: str, shapes: Shapes) -> Shape:
    name, box = split(part)
    try:
        return tuple(cut(torch.empty(shapes[name], device="meta"), box).shape)
    except (RuntimeError, IndexError) as error:
        raise MappingError(f"the weight map takes {part} of a tensor of shape {shapes[name]}") from error


def _shape_after(entry: Entry, reference: Shapes) -> Shape:
    part = _part_shape(entry.reference, reference)
    if entry.layout == IDENTITY:
        return part
    return tuple(rearranged(torch.empty(part, device="meta"), entry.layout).shape)
