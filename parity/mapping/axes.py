"""What becomes of a tensor's axes when it is sliced, reordered or reshaped before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from parity.mapping.operations import Axes

_SLICING = frozenset(("chunk", "split", "split_with_sizes", "tensor_split", "narrow", "__getitem__"))


def own_axes(shape: Sequence[int]) -> Axes:
    """Returns the axes of a tensor that is used as it is stored."""
    return tuple((axis,) for axis in range(len(shape)))


def axes_after(
    name: str, axes: Axes | None, before: torch.Tensor, after: torch.Tensor, *, is_item: bool
) -> Axes | None:
    """Returns what the axes of a value are made of after it has been sliced or reshaped; None if that can't be said."""
    if axes is None or len(axes) != before.ndim:
        return None
    if is_item and after.ndim == before.ndim - 1:
        return axes[1:]
    if name in _SLICING or after.shape == before.shape:
        return axes if after.ndim == before.ndim else None
    if after.numel() != before.numel():
        return None
    made: list[tuple[int, ...]] = []
    position = 0
    lengths = [length for length in before.shape if length > 1]
    sources = [axis for axis, length in zip(axes, before.shape, strict=True) if length > 1]
    held = want = 1  # products of the lengths that were taken of both shapes, within which axes belong together
    group: tuple[int, ...] = ()
    for length in after.shape:
        if length == 1:
            made.append(())
            continue
        want *= length
        while held < want and position < len(lengths):
            held *= lengths[position]
            group += sources[position]
            position += 1
        made.append(group)
        if held == want:
            group, held, want = (), 1, 1
    return tuple(made)


def axis_order(before: torch.Tensor, after: torch.Tensor) -> tuple[int, ...] | None:
    """Returns for every axis of `after` the axis of `before` that it is."""
    axes = {
        (length, stride): axis for axis, (length, stride) in enumerate(zip(before.shape, before.stride(), strict=True))
    }
    order = [axes.get(pair) for pair in zip(after.shape, after.stride(), strict=True)]
    if len(axes) != before.ndim or None in order or len(set(order)) != len(order):
        return None
    return tuple(axis for axis in order if axis is not None)


def item_of(name: str, args: Any, whole: torch.Tensor, position: int, pieces: int) -> int | None:
    """Returns which item of the first axis a view is, if it is one."""
    if name == "__getitem__" and isinstance(args[1], int):
        return args[1] % len(whole)
    if name == "select" and len(args) > 2 and args[1] == 0:
        return int(args[2]) % len(whole)
    if name == "unbind" and pieces == len(whole):
        return position
    return None
