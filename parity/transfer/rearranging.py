"""The same values in another order: every order that conversion scripts are known to make, and others as they are.

An order is tried by looking at a few rows first, so that what doesn't fit costs next to nothing.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

import torch

from parity.transfer.finding import Change, Found

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parity.transfer.finding import Changes, Turn

_QKV = "qkv"
_MOST_PERMUTED = 4  # axes
_PROBED = 64  # values that are looked at first


def rearranged(expected: torch.Tensor, found: torch.Tensor, heads: Sequence[int]) -> Found | None:
    """Tells in which order, of those that have a name, `found` holds the values of `expected`, if it does.

    Args:
        expected: the tensor that should be there, of the shape of `found`.
        found: the one that is there.
        heads: numbers of attention heads to reckon with.
    """
    if not _may_be_permuted(expected, found) or torch.equal(expected, found):
        return None
    probed = found.flatten()[:: max(found.numel() // _PROBED, 1)]
    for change in _changes(expected, found, tuple(heads)):
        made = change.turn(expected)
        if torch.equal(made.flatten()[:: max(found.numel() // _PROBED, 1)], probed) and torch.equal(made, found):
            return Found(change.id, change.phrase, change.hint)
    return None


def _may_be_permuted(expected: torch.Tensor, found: torch.Tensor) -> bool:
    if expected.shape != found.shape or expected.numel() < 2:
        return False
    return bool(expected.max() == found.max()) and bool(expected.min() == found.min())


def _changes(expected: torch.Tensor, found: torch.Tensor, heads: tuple[int, ...]) -> Changes:
    shape = tuple(expected.shape)
    if len(shape) == 3 and shape[0] == 1 and shape[1] > 1:
        yield from _of_positions(shape[1])
    if len(shape) == 4:
        yield from _of_kernel(shape)
    if len(shape) > 1:
        yield from _transposed(shape)
    for axis, length in enumerate(shape):
        if length > 1:
            name = axis_name(axis, shape)
            yield from _along(axis, name, length, heads)
            yield from _rolled(expected, found, axis, name)


def axis_name(axis: int, shape: Sequence[int]) -> str:
    """Returns what the slices of a tensor along an axis are called."""
    if len(shape) == 1:
        return "rows"
    if len(shape) == 4:
        return ("features", "channels", "rows", "columns")[axis]
    return ("rows", "columns")[axis - len(shape) + 2] if axis >= len(shape) - 2 else f"axis {axis}"


def _index(axis: int, order: torch.Tensor) -> Turn:
    return lambda tensor: tensor.index_select(axis, order)


def _of_positions(count: int) -> Changes:
    """Orders of a table of positions (1, N, D): of the grid of patches, and of the other rows about it."""
    for others in (1, 0, 2, 5):
        side = math.isqrt(max(count - others, 0))
        if side < 2 or side * side != count - others:
            continue
        grid = torch.arange(others, count).view(side, side)
        first = torch.arange(others)
        named = (
            ("weights-grid-transposed", "the grid of positions transposed, columns first", grid.T),
            ("weights-mirrored", "the grid of positions mirrored left to right", grid.flip(1)),
            ("weights-mirrored", "the grid of positions upside down", grid.flip(0)),
            ("weights-reversed", "the grid of positions turned by 180 degrees", grid.flip(0, 1)),
            ("weights-mirrored", "the grid of positions turned by 90 degrees", grid.rot90(1)),
            ("weights-mirrored", "the grid of positions turned by 270 degrees", grid.rot90(3)),
        )
        for id, phrase, order in named:  # noqa: A001
            hint = "rows of positions stand in the order of the patches, row by row"
            yield Change(id, phrase, hint, _index(1, torch.cat([first, order.flatten()])))
        if others:
            last = torch.cat([torch.arange(others, count), first])
            phrase = (
                "the rows of the other tokens after the patches' rows" if others > 1 else "the class token's row last"
            )
            yield Change("weights-rolled", phrase, "the class token's row is the first one", _index(1, last))
            turned = torch.cat([first, torch.arange(others, count).flip(0)])
            yield Change("weights-reversed", "the patches' rows back to front", "keep their order", _index(1, turned))


def _of_kernel(shape: tuple[int, ...]) -> Changes:
    """Orders of a patch kernel (D, C, H, W)."""
    reverse = torch.arange(shape[1]).flip(0)
    hint = "the model's images have their channels in this order: RGB for torchvision's weights"
    yield Change("weights-channels-reversed", "the channels in reverse (BGR for RGB)", hint, _index(1, reverse))
    yield Change("weights-mirrored", "the kernel mirrored left to right", "don't flip it", lambda t: t.flip(3))
    yield Change("weights-mirrored", "the kernel upside down", "don't flip it", lambda t: t.flip(2))
    yield Change("weights-reversed", "the kernel turned by 180 degrees", "don't flip it", lambda t: t.flip(2, 3))
    if shape[2] == shape[3]:
        hint = "a kernel is (features, channels, height, width)"
        turn: Turn = lambda t: t.transpose(2, 3)  # noqa: E731
        yield Change("weights-grid-transposed", "the kernel's height and width exchanged", hint, turn)
    names = {"c": shape[1], "h": shape[2], "w": shape[3]}
    for source, target in itertools.permutations(itertools.permutations(names), 2):
        order = _reordered([names[name] for name in source], [source.index(name) for name in target])
        before, after = f"({' '.join(source)})", f"({' '.join(target)})"
        phrase, hint = f"the patch's values rearranged {before} -> {after}", f"put them back: {after} -> {before}"
        yield Change("weights-rearranged", phrase, hint, _in_patch(order))


def _in_patch(order: torch.Tensor) -> Turn:
    return lambda tensor: tensor.flatten(1).index_select(1, order).view(tensor.shape)


def _transposed(shape: tuple[int, ...]) -> Changes:
    """Axes in another order, written into the old shape; without a change of shape that is a plain transpose."""
    if len(shape) > _MOST_PERMUTED:
        return
    for axes in list(itertools.permutations(range(len(shape))))[1:]:
        is_plain = [shape[axis] for axis in axes] == list(shape)
        how = "transposed" if len(shape) == 2 else f"axes in the order {', '.join(map(str, axes))}"
        phrase = how if is_plain else f"{how} and written into the old shape: reshaped where a transpose is due"
        hint = f"use .permute{axes}" if len(shape) > 2 else "transpose it: state[name] = state[name].T"
        yield Change("weights-transposed", phrase, hint, _permuted(axes, shape))


def _permuted(axes: tuple[int, ...], shape: tuple[int, ...]) -> Turn:
    return lambda tensor: tensor.permute(axes).reshape(shape)


def _along(axis: int, name: str, length: int, heads: tuple[int, ...]) -> Changes:
    """Orders along one axis: thirds exchanged, heads interleaved, back to front."""
    if length % 3 == 0:
        thirds = torch.arange(length).view(3, -1)
        for order in list(itertools.permutations(range(3)))[1:]:
            held = ", ".join(_QKV[n] for n in order)
            phrase = f"{name} in the order {held}, where q, k, v is expected"
            hint = "concatenate query, key and value in the order that the model takes them apart in"
            yield Change("weights-qkv-order", phrase, hint, _index(axis, thirds[list(order)].flatten()))
    for count in heads:
        if length % count == 0 and 1 < count < length:
            yield from _interleaved(axis, name, {"h": count, "d": length // count})
        if length % (3 * count) == 0 and count > 1:
            yield from _interleaved(axis, name, {"3": 3, "h": count, "d": length // 3 // count})
    if length % 3 == 0 and length > 3:
        yield from _interleaved(axis, name, {"3": 3, "d": length // 3})
    flip = torch.arange(length).flip(0)
    yield Change("weights-reversed", f"{name} back to front", f"flip its {name}", _index(axis, flip))


def _interleaved(axis: int, name: str, sizes: dict[str, int]) -> Changes:
    for source, target in itertools.permutations(itertools.permutations(sizes), 2):
        order = _reordered([sizes[n] for n in source], [source.index(n) for n in target])
        before, after = f"({' '.join(source)})", f"({' '.join(target)})"
        heads = f", h={sizes['h']}" if "h" in sizes else ""
        hint = f'einops.rearrange(w, "{after} ... -> {before} ..."{heads})' if axis == 0 else f"{after} -> {before}"
        phrase = f"{name} rearranged {before} -> {after}{heads}"
        yield Change("weights-heads-interleaved", phrase, hint, _index(axis, order))


@functools.lru_cache(maxsize=1024)
def _order_of(sizes: tuple[int, ...], axes: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(math.prod(sizes)).view(sizes).permute(axes).flatten()


def _reordered(sizes: Sequence[int], axes: Sequence[int]) -> torch.Tensor:
    return _order_of(tuple(sizes), tuple(axes))


def _rolled(expected: torch.Tensor, found: torch.Tensor, axis: int, name: str) -> Changes:
    length = expected.shape[axis]
    first = found.select(axis, 0)
    alike = (expected.movedim(axis, 0).flatten(1) == first.flatten()).all(1) if found.ndim > 1 else expected == first
    for start in alike.nonzero().flatten().tolist()[:3]:
        if start:
            by = length - start if start > length // 2 else -start
            hint = f"torch.roll(w, {-by}, {axis})"
            yield Change("weights-rolled", f"{name} rolled by {by}", hint, _roll(by, axis))


def _roll(by: int, axis: int) -> Turn:
    return lambda tensor: tensor.roll(by, axis)


def in_no_known_order(expected: torch.Tensor, found: torch.Tensor) -> Found | None:
    """Tells whether `found` holds the values of `expected` in some other order, and along which axis."""
    if not _may_be_permuted(expected, found) or not torch.equal(
        expected.flatten().sort().values, found.flatten().sort().values
    ):
        return None
    for axis, length in enumerate(expected.shape):
        order = _matching(*(tensor.movedim(axis, 0).reshape(length, -1) for tensor in (expected, found)))
        if order is not None:
            name = axis_name(axis, tuple(expected.shape))
            moved = [n for n, old in enumerate(order.tolist()) if n != old]
            which = ", ".join(f"{n} holds {int(order[n])}" for n in moved[:3]) + " ..." * (len(moved) > 3)
            return Found("weights-rearranged", f"{name} in another order", "put them back", which)
    return Found("weights-rearranged", "the same values in another order", "put them back")


def _matching(expected: torch.Tensor, found: torch.Tensor) -> torch.Tensor | None:
    """Returns which row of `expected` every row of `found` is, or None if one of them is no row of it."""
    where = {row.numpy().tobytes(): n for n, row in _rows(expected)}
    order = [where.get(row.numpy().tobytes()) for _, row in _rows(found)]
    known = [n for n in order if n is not None]
    return torch.tensor(known) if len({*known}) == len(order) else None


def _rows(tensor: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    return enumerate(tensor.contiguous().cpu())
