"""Which pixel of a patch each weight of the patches' projection meets, whatever a model does to its images before.

Two models that take their images differently agree under no map at all; but a weight still meets the pixel that it is
for. What a change of a pixel does to the sum of all that is projected is then, up to a factor of that pixel's own, what
the weights for it add up to, and that tells them apart when it is measured under a few draws of the weights.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from parity.errors import ParityError
from parity.models import WeightMap, assigned
from parity.tracing import MODES, FunctionCalls, Layer, bare_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from parity.mapping.uses.ways import Way

    Values = Mapping[str, torch.Tensor]

# Under so many draws of the weights each pixel is looked at.
_DRAWS = 16

# How like the weights' own a pixel's effects must be, as a cosine: others of so many numbers have less.
_ALIKE = 0.95

# Effects of a pixel that are so small beside the others' tell nothing, such as of one that is clamped.
_TOO_SMALL = 1e-6


@dataclass(frozen=True)
class Told:
    """A way that is told from the others by the pixels.

    Attributes:
        way: the way.
        is_exact: each weight meets its own pixel, and not one that is mirrored or of another channel.
    """

    way: Way
    is_exact: bool


def effects_on_sums(images: torch.Tensor, made: torch.Tensor) -> torch.Tensor | None:
    """Returns what each pixel of some images does to sums of all that is made of them; None if nobody can tell.

    There are two of them: the sum of all, and the one in which each is counted as often as its place is from the first.
    """
    if not made.requires_grad:
        return None
    places = torch.arange(made.numel(), dtype=made.dtype, device=made.device).reshape(made.shape)
    sums = made.sum(), (made * places).sum()
    effects = [torch.autograd.grad(one, images, retain_graph=True, allow_unused=True)[0] for one in sums]
    return None if any(effect is None for effect in effects) else torch.stack(effects)


def told_by_what_is_taken(
    ways: list[Way],
    weight: torch.Tensor,
    candidate: nn.Module,
    values: Values,
    images: torch.Tensor,
) -> Told | None:
    """Finds the one way under which the projection takes each pixel of the first patch where the kernel has its weight.

    Args:
        ways: of one entry each, which has the reference's kernel whole.
        weight: that kernel, (out, C, height, width).
        candidate: whose projection it is.
        values: of its tensors.
        images: that it takes, (B, C, H, W).

    Returns:
        The way; None if there is none, something else is done to the images, or patches go column by column.
    """
    (_, _, height, width), (rows, columns) = weight.shape, images.shape[-2:]
    taken = _taken(ways[0].entries[0].candidate, candidate, values, images)
    if taken is None or taken.ndim != len("BNF") or taken.shape[1] < 2 or taken.shape[2] != weight[0].numel():
        return None
    pixels, beside = taken[0, :2].round().long()
    row, column = pixels // columns % rows, pixels % columns
    is_first = int(row.max()) < height and int(column.max()) < width
    if not (torch.equal(taken[0, 0].long(), pixels) and is_first) or int(beside.min()) // columns % rows >= height:
        return None
    met = (pixels // (rows * columns) * height + row) * width + column
    numbers = torch.arange(weight[0].numel(), dtype=torch.float64).reshape(weight.shape[1:]).expand(weight.shape)
    for way in ways:
        (placed,) = WeightMap(way.entries, "").apply({way.entries[0].reference: numbers}).values()
        placed = placed.squeeze()
        each = placed[0] if torch.equal(placed[0], placed[-1]) else placed[:, 0]
        if torch.equal(each.long(), met):
            return Told(way, is_exact=True)
    return None


def _taken(weight: str, candidate: nn.Module, values: Values, images: torch.Tensor) -> torch.Tensor | None:
    """Returns what is multiplied with a weight of the candidate's, of images with a number of its own at each pixel."""
    taken: list[torch.Tensor] = []
    numbered = torch.arange(images.numel(), dtype=torch.float32, device=images.device).reshape(images.shape)
    with (
        contextlib.suppress(ParityError),
        assigned(candidate, dict(values)),
        FunctionCalls(candidate, {weight: Layer("conv_proj")}, lambda _, tensor: taken.append(tensor)),
    ):
        bare_run(candidate, numbered, MODES["eval-grad"], torch.float32, 0, "candidate")
    return taken[0].detach() if taken else None


def told_by_pixels(
    ways: list[Way], weight: torch.Tensor, effect: Callable[[torch.Tensor], torch.Tensor | None]
) -> Told | None:
    """Finds the one way under which each weight meets its own pixel, or else one with another row, column or channel.

    Args:
        ways: of one entry each, which has the reference's kernel whole.
        weight: that kernel, (out, C, height, width).
        effect: returns what each pixel does, (2, B, C, H, W), under a kernel that is mapped by the first way, if
            anything.

    Returns:
        The way; None if there is none, or several. Where the patches go column by column, it may be the image whose
        rows and columns are exchanged, and the most usual of both ways is taken.
    """
    generator = torch.Generator().manual_seed(0)
    kernels = [torch.randn(weight.shape, generator=generator) for _ in range(_DRAWS)]
    effects = [found for kernel in kernels if (found := effect(kernel)) is not None]
    if len(effects) < _DRAWS:
        return None
    height, width = weight.shape[2:]
    each = torch.stack(effects)[:, :, 0]
    seen = each[:, 0, :, :height, :width].flatten(1)
    expected = torch.stack([kernel.sum(0).flatten() for kernel in kernels])
    sizes = seen.norm(dim=0)
    if seen.shape != expected.shape or not sizes.isfinite().all() or not sizes.any():
        return None
    telling = sizes > _TOO_SMALL * sizes.max()
    alike = torch.nn.functional.normalize(seen[:, telling], dim=0).T @ torch.nn.functional.normalize(expected, dim=0)
    cosines, met = alike.abs().max(1)
    if cosines.min() < _ALIKE:
        return None
    pixels = telling.nonzero().flatten()
    placed = {way.name: _other_places(ways[0], way, weight)[met] for way in ways}
    own = [way for way in ways if torch.equal(placed[way.name], pixels)]
    if height == width and _go_by_columns(each, height):
        turned = pixels // height**2 * height**2 + pixels % height * height + pixels // height % height
        usual = next((way for way in ways if way in own or torch.equal(placed[way.name], turned)), None)
        return Told(usual, is_exact=False) if usual else None
    moved = [way for way in ways if _moves_by_axes(pixels, placed[way.name], weight.shape[1:])]
    fitting = own or moved
    return Told(fitting[0], is_exact=bool(own)) if len(fitting) == 1 else None


def _other_places(first: Way, way: Way, weight: torch.Tensor) -> torch.Tensor:
    """Returns for each place of the kernel under the first way which place of it is the same weight under another."""
    numbers = torch.arange(weight[0].numel(), dtype=torch.float64).reshape(weight.shape[1:]).expand(weight.shape)
    one, other = (
        next(iter(WeightMap(of.entries, "").apply({of.entries[0].reference: numbers}).values())).flatten().long()
        for of in (first, way)
    )
    places = torch.empty(weight[0].numel(), dtype=torch.long)
    places[one] = other
    return places


def _go_by_columns(effects: torch.Tensor, side: int) -> bool:
    """Whether the patch to the right of the first one comes farther behind it than the one below."""
    corners = ((0, 0), (0, side), (side, 0))
    blocks = [effects[..., row : row + side, column : column + side] for row, column in corners]
    if any(block.shape != blocks[0].shape for block in blocks):
        return False
    first, right, below = (block[:, 1] / block[:, 0] for block in blocks)
    farther = ((right - first).abs() > (below - first).abs()).double()
    return bool(farther.mean() > 1 / 2)


def _moves_by_axes(pixels: torch.Tensor, met: torch.Tensor, shape: torch.Size) -> bool:
    """Whether channel, row and column of what each pixel meets depend on its own channel, row and column alone."""
    _, height, width = shape
    for one, of in ((height * width, shape[0]), (width, height), (1, width)):
        before, after = (places // one % of for places in (pixels, met))
        pairs = {*zip(before.tolist(), after.tolist(), strict=True)}
        if len({own for own, _ in pairs}) != len(pairs):
            return False
    return True
