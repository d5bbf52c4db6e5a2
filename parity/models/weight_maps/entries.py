"""The entries of a weight map: two tensors or slices of tensors, and the layout step between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import einops

from parity.errors import MappingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch


class Bounds(NamedTuple):
    """Which items of an axis belong to a slice.

    Attributes:
        start: the first.
        stop: the one after the last; -1 for the end of the axis.
        every: 0, or after how many items the slice begins anew: items 0 to 2 of every 6.
    """

    start: int
    stop: int
    every: int = 0

    def items(self, length: int) -> list[int]:
        """Returns the items of an axis of `length` that belong to the slice."""
        stop = length if self.stop < 0 else self.stop
        starts = range(0, length, self.every) if self.every else (0,)
        return [first + n for first in starts for n in range(self.start, stop)]


# bounds along the first axes of a tensor, as `split` reads them
Box = tuple[Bounds, ...]

IDENTITY = "identity"


@dataclass(frozen=True)
class Entry:
    """The same values on both sides, and the layout step between them.

    Attributes:
        reference: a tensor's name, or a slice of it: `name[0:64]` (rows), `name[:, 0:64]` (columns), `name[0:16 of 48]`
            (16 rows of every 48, which is what a projection fused head by head has of each).
        candidate: the same on the other side.
        layout: `identity`, or an einops pattern with its sizes, from the reference's side to the candidate's.
    """

    reference: str
    candidate: str
    layout: str = IDENTITY

    def inverted(self) -> Entry:
        """Returns the entry in the other direction."""
        return Entry(self.candidate, self.reference, inverted(self.layout))


def inverted(layout: str) -> str:
    """Returns a layout step in the other direction."""
    if layout == IDENTITY:
        return layout
    pattern, *sizes = layout.split(",")
    left, right = pattern.split("->")
    return ",".join((f"{right.strip()} -> {left.strip()}", *sizes))


_BOUNDS = r" *\d{0,18} *: *\d{0,18} *(?:of *0*[1-9]\d{0,17} *)?"  # what torch takes for a length
_SLICE = re.compile(rf"(.*?)\[({_BOUNDS}(?:,{_BOUNDS})*)\]", re.DOTALL)


def whole(name: str) -> str:
    """Returns how a map writes a whole tensor: as its name, or as `name[:]` where that itself might read as a slice."""
    return f"{name}[:]" if name.endswith("]") else name


def split(part: str) -> tuple[str, Box]:
    """Splits `name[a:b, c:d of e]` into the name and the bounds along each axis.

    What stands in other brackets is part of the name.
    """
    match = _SLICE.fullmatch(part) if part.endswith("]") else None
    if match is None:
        return part, ()
    box = []
    for axis in match[2].split(","):
        bounds, _, every = axis.partition("of")
        start, _, stop = bounds.strip().partition(":")
        box.append(Bounds(int(start or 0), int(stop or -1), int(every or 0)))
    return match[1], tuple(box)


def rearranged(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """Carries out a layout step; `identity` returns the tensor itself.

    Raises:
        MappingError: the pattern doesn't fit the tensor.
    """
    if layout == IDENTITY:
        return tensor
    pattern, *sizes = (text.strip() for text in layout.split(","))
    try:
        lengths = {name.strip(): int(length) for name, length in (size.split("=") for size in sizes)}
        return einops.rearrange(tensor, pattern, **lengths).contiguous()
    except (einops.EinopsError, ValueError, TypeError) as error:
        raise MappingError(f"the layout {layout!r} doesn't fit a tensor of shape {tuple(tensor.shape)}") from error


def cut(tensor: torch.Tensor, box: Box) -> torch.Tensor:
    """Returns the part of a tensor within the bounds of `split`; storage is shared where its strides allow that."""
    if not box:
        return tensor
    inner = _within(tensor, box)
    lengths = [(stop - start) * (length // every) if every else (length if stop < 0 else stop) - start
               for length, (start, stop, every) in zip(tensor.shape, box, strict=False)]  # fmt: skip
    return inner.reshape(*lengths, *tensor.shape[len(box) :])


def put(values: torch.Tensor, tensor: torch.Tensor, box: Box) -> None:
    """Writes `values` into the part of `tensor` within the bounds of `split`."""
    inner = _within(tensor, box)
    inner.copy_(values.reshape(inner.shape))


def with_parts(
    state: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], parts: Iterable[str]
) -> dict[str, torch.Tensor]:
    """Returns the tensors of `state`, with the values of `other` in these parts, tensors or slices of them.

    Nothing is written to; a tensor is copied only where a part of it stays.
    """
    result = dict(state)
    for name, box in map(split, parts):
        if not box:
            result[name] = other[name].to(state[name])
            continue
        if result[name] is state[name]:
            result[name] = state[name].clone()
        put(cut(other[name].to(state[name]), box), result[name], box)
    return result


def _within(tensor: torch.Tensor, box: Box) -> torch.Tensor:
    """Returns the part within the bounds, in the tensor's own storage; an axis of some of every so many is two axes."""
    for axis, (start, stop, every) in reversed(list(enumerate(box))):
        inner = axis
        if every:
            tensor = tensor.view(*tensor.shape[:axis], -1, every, *tensor.shape[axis + 1 :])
            inner = axis + 1
        tensor = tensor.narrow(inner, start, (tensor.shape[inner] if stop < 0 else stop) - start)
    return tensor
