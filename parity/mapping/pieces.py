"""Tensors that one model holds whole and the other in pieces: a Linear for each class, an MLP in one flat vector.

What the uses of single tensors don't show is guessed by shapes, in the order of use or of the state dict, and counts
only where both models then give the same logits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import TYPE_CHECKING

from parity.errors import ParityError
from parity.mapping.effects import logits_of
from parity.models import Entry, split, state_shapes, synthetic
from parity.tracing import SAME_FUNCTION_BOUND, compare

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import nn

    from parity.mapping.uses.gathering import Uses
    from parity.models import WeightMap

    Left = dict[str, tuple[int, ...]]


def with_pieces(
    found: WeightMap, uses: tuple[Uses, Uses], models: tuple[nn.Module, nn.Module], images: torch.Tensor
) -> WeightMap | None:
    """Returns the map with every tensor in it, if those without a counterpart are each other's pieces.

    Args:
        found: the map of the others.
        uses: what reference and candidate do with their tensors.
        models: reference and candidate.
        images: (B, C, H, W).
    """
    left = found.unmapped_reference, found.unmapped_candidate
    learned = dict(models[1].named_parameters())
    # a table in a buffer is fixed, whatever values it could hold as well
    if not all(left) or any(split(name)[0] not in learned for name in found.unmapped_candidate):
        return None
    tried = []
    for by_use in (True, False):
        ours, theirs = (
            _in_order(names, use if by_use else None, model)
            for names, use, model in zip(left, uses, models, strict=True)
        )
        entries = _gathered(ours, theirs)
        if entries is None or entries in tried:
            continue
        tried.append(entries)
        complete = dataclasses.replace(
            found, entries=(*found.entries, *entries), unmapped_reference=(), unmapped_candidate=()
        )
        with contextlib.suppress(ParityError):
            if _agree(complete, models, images):
                return complete
    return None


def _in_order(names: Iterable[str], uses: Uses | None, model: nn.Module) -> Left:
    """Returns tensors and slices with their shapes, in the order of their use, or in that of the state dict."""
    shapes = state_shapes(model)
    order = [*shapes] if uses is None else [view.name for op in uses.operations for view in op.views] + [*shapes]
    place = {name: number for number, name in reversed([*enumerate(order)])}
    return {
        name: (*(len(bounds.items(length)) for bounds, length in zip(box, shapes[tensor], strict=False)),
               *shapes[tensor][len(box):])
        for name, (tensor, box) in sorted(((n, split(n)) for n in names), key=lambda one: place[one[1][0]])
    }  # fmt: skip


def _gathered(ours: Left, theirs: Left) -> list[Entry] | None:
    """Returns an entry for every piece, or None where something is left over."""
    waiting, rest = dict(ours), dict(theirs)
    entries: list[Entry] = []
    for name, shape in ours.items():
        pieces = next(filter(None, (_pieces(shape, rest, axis) for axis in range(min(len(shape), 2)))), [])
        parts = [_slice(name, *place) if len(pieces) > 1 else name for _, place in pieces]
        if parts and None not in parts:
            entries += [Entry(f"{part}", piece) for part, (piece, _) in zip(parts, pieces, strict=True)]
            del waiting[name]
            rest = {piece: left for piece, left in rest.items() if piece not in dict(pieces)}
    for name, shape in rest.items():
        taken = _laid_end_to_end(name, shape, waiting)
        if taken is None:
            return None
        entries += taken
    return None if waiting else entries


def _laid_end_to_end(name: str, shape: tuple[int, ...], waiting: Left) -> list[Entry] | None:
    """Returns entries for the first tensors of `waiting`, which are taken from it, that fill up a flat vector."""
    entries: list[Entry] = []
    start = 0
    while len(shape) == 1 and waiting and start < shape[0]:
        reference, held = next(iter(waiting.items()))
        stop = start + math.prod(held)
        part = _slice(name, 0, start, stop)
        if part is None or stop > shape[0]:
            return None
        letters = "abcd"[: len(held)]
        sizes = "".join(f", {letter}={size}" for letter, size in zip(letters, held, strict=True))
        layout = f"{' '.join(letters)} -> ({' '.join(letters)}){sizes}"
        entries.append(Entry(reference, part, layout) if len(held) > 1 else Entry(reference, part))
        del waiting[reference]
        start = stop
    return entries if start == shape[0] else None


def _pieces(shape: tuple[int, ...], rest: Left, axis: int) -> list[tuple[str, tuple[int, int, int]]] | None:
    """Returns the first of `rest` that make up a tensor one after the other along an axis, with the place of each."""
    found: list[tuple[str, tuple[int, int, int]]] = []
    start = 0
    for name, other in rest.items():
        alike = len(other) == len(shape) and other[:axis] + other[axis + 1 :] == shape[:axis] + shape[axis + 1 :]
        if alike and start + other[axis] <= shape[axis]:
            found.append((name, (axis, start, start + other[axis])))
            start += other[axis]
    return found if start == shape[axis] else None


def _slice(name: str, axis: int, start: int, stop: int) -> str | None:
    """Returns the name of a slice of a tensor, or of one that is some rows already."""
    tensor, box = split(name)
    if not box:
        return f"{tensor}[{':, ' * axis}{start}:{stop}]"
    if axis or len(box) > 1 or box[0].every:
        return None
    return f"{tensor}[{box[0].start + start}:{box[0].start + stop}]"


def _agree(found: WeightMap, models: tuple[nn.Module, nn.Module], images: torch.Tensor) -> bool:
    state = synthetic(models[0], 0)
    values = synthetic(models[1], 0, only={split(name)[0] for name in found.unused}) | found.apply(state)
    logits = logits_of(models[0], state, images, "reference"), logits_of(models[1], values, images, "candidate")
    return compare(*logits, ulp=False).relative <= SAME_FUNCTION_BOUND
