"""What becomes of a tensor's axes when it is sliced, reordered or reshaped before it is used."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from parity.mapping.uses.operations import Axes, View

_SLICING = frozenset(("chunk", "split", "split_with_sizes", "tensor_split", "narrow"))
_REPEATING = frozenset(("expand", "expand_as", "broadcast_to", "repeat", "tile"))


def own_axes(shape: Sequence[int]) -> Axes:
    """Returns the axes of a tensor that is used as it is stored."""
    return tuple((axis,) for axis in range(len(shape)))


def axes_after(name: str, axes: Axes | None, before: torch.Tensor, after: torch.Tensor, args: Any) -> Axes | None:
    """Returns what the axes of a value are made of after it has been sliced or reshaped; None if that can't be said."""
    if axes is None or len(axes) != before.ndim:
        return None
    if name == "__getitem__":
        return _indexed(axes, args[1])
    if name in ("select", "unbind"):
        taken = (args[1] if len(args) > 1 else 0) % before.ndim
        return axes[:taken] + axes[taken + 1 :]
    added = after.ndim - before.ndim
    if name in _REPEATING and all(n in (m, 1) for n, m in zip(before.shape, after.shape[added:], strict=True)):
        return ((),) * added + axes
    if name in _SLICING or after.shape == before.shape:
        return axes if not added else None
    return _reshaped(axes, before, after) if after.numel() == before.numel() else None


def _reshaped(axes: Axes, before: torch.Tensor, after: torch.Tensor) -> Axes:
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


def _indexed(axes: Axes, index: Any) -> Axes | None:
    """Returns the axes that are left of a value after it is indexed by numbers, slices, None and an ellipsis."""
    index = index if isinstance(index, tuple) else (index,)
    named = sum(isinstance(step, (int, slice)) for step in index)
    left = list(axes)
    made: list[tuple[int, ...]] = []
    for step in index:
        if isinstance(step, bool):
            return None
        if step is None:
            made.append(())
        elif step is Ellipsis:
            made += [left.pop(0) for _ in range(len(axes) - named)]
        elif isinstance(step, slice):
            made.append(left.pop(0))
        elif isinstance(step, int):
            left.pop(0)
        else:
            return None
    return (*made, *left)


def rows_of(view: View, before: torch.Tensor, after: torch.Tensor) -> tuple[int, int] | None:
    """Returns where a value that is a slice of a vector begins, and its length; None for another value."""
    if before.ndim == after.ndim == 1 and view.shape == before.shape and after.stride() == (1,):
        return int(after.storage_offset() - before.storage_offset()), len(after)
    return view.rows if after.numel() == before.numel() else None


def joined_axis(name: str, args: Any, kwargs: Any, result: torch.Tensor) -> int:
    """Returns the axis of its result along which a call joins tensors."""
    if name in ("hstack", "vstack"):
        return min(result.ndim - 1, int(name == "hstack"))
    return int(args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))) % result.ndim


def axis_order(before: torch.Tensor, after: torch.Tensor) -> tuple[int, ...] | None:
    """Returns for every axis of `after` the axis of `before` that it is."""
    axes = {
        (length, stride): axis for axis, (length, stride) in enumerate(zip(before.shape, before.stride(), strict=True))
    }
    order = [axes.get(pair) for pair in zip(after.shape, after.stride(), strict=True)]
    if len(axes) != before.ndim or None in order or len(set(order)) != len(order):
        return None
    return tuple(axis for axis in order if axis is not None)


def leading_item(name: str, args: Any, whole: torch.Tensor) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Returns which item of the first axes a view is a part of, and what that is indexed by; nothing if it is none."""
    index = args[1] if name == "__getitem__" and isinstance(args[1], tuple) else ()
    numbers = tuple(itertools.takewhile(lambda step: isinstance(step, int) and not isinstance(step, bool), index))
    if not numbers or len(numbers) == len(index):
        return (), ()
    return tuple(n % length for n, length in zip(numbers, whole.shape, strict=False)), index[len(numbers) :]


def item_of(name: str, args: Any, whole: torch.Tensor, position: int, pieces: int) -> tuple[int, ...]:
    """Returns which item of the first axes a view is; nothing if it is none."""
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        is_item = all(isinstance(step, int) and not isinstance(step, bool) for step in index)
        return tuple(step % length for step, length in zip(index, whole.shape, strict=False)) if is_item else ()
    if name == "select" and len(args) > 2 and args[1] == 0:
        return (int(args[2]) % len(whole),)
    if name == "unbind" and pieces == len(whole):
        return (position,)
    return ()
