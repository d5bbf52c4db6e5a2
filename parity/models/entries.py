"""The entries of a weight map: two tensors or slices of tensors, and the layout step between them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import einops

from parity.errors import MappingError

if TYPE_CHECKING:
    import torch

# bounds along the first axes of a tensor, as `split` reads them
Box = tuple[tuple[int, int], ...]

IDENTITY = "identity"


@dataclass(frozen=True)
class Entry:
    """The same values on both sides, and the layout step between them.

    Attributes:
        reference: a tensor's name, or a slice of it: `name[0:64]` (rows), `name[:, 0:64]` (columns).
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


def split(part: str) -> tuple[str, Box]:
    """Splits `name[a:b, c:d]` into the name and the bounds along each axis; (0, -1) means a whole axis."""
    match = re.fullmatch(r"(.*?)\[([\d:, ]+)\]", part) if part.endswith("]") else None
    if match is None:
        return part, ()
    bounds = []
    for axis in match[2].split(","):
        start, _, stop = axis.strip().partition(":")
        bounds.append((int(start or 0), int(stop or -1)))
    return match[1], tuple(bounds)


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
    except (einops.EinopsError, ValueError) as error:
        raise MappingError(f"the layout {layout!r} doesn't fit a tensor of shape {tuple(tensor.shape)}") from error


def cut(tensor: torch.Tensor, box: Box) -> torch.Tensor:
    """Returns the part of a tensor within the bounds of `split`; storage is shared."""
    for axis, (start, stop) in enumerate(box):
        tensor = tensor.narrow(axis, start, (tensor.shape[axis] if stop < 0 else stop) - start)
    return tensor
