"""Which images a model takes, and with which settings it was built, as its own forward pass shows."""

from __future__ import annotations

import contextlib
import itertools
import math
from typing import TYPE_CHECKING, Any

import torch

from parity.errors import ParityError
from parity.mapping.uses.gathering import trace_uses
from parity.models import (
    RATES,
    configuration_of,
    lacks_values,
    possible_images,
    said_numbers,
    said_patch,
    said_rate,
    without_initial_values,
    without_values,
)
from parity.streams import silenced
from parity.tracing import MODES, Run, in_float32, leaves

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from parity.mapping.uses.gathering import Uses
    from parity.mapping.uses.operations import Operation

Shape = tuple[int, int, int]

# how many shapes are tried with values on a model that cannot be run without
_MOST_WITH_VALUES = 12


def takes(module: nn.Module, images: torch.Tensor) -> bool:
    """Returns whether `module` can be run on images of this shape; it is run without values, in next to no time."""
    # what it makes itself has values if it can, since it may keep that
    for made in (contextlib.nullcontext(), without_initial_values()):
        with contextlib.suppress(ParityError), without_values(module), made, silenced():
            _output(module, images.to("meta"))
            return True
    return False


def fitting_batch(module: nn.Module, images: torch.Tensor) -> int | None:
    """Returns how many images `module` takes at once if its code fixes that, or None."""
    if takes(module, images):
        return None
    return next((n for n in (1, 2, 4, 8, 16, 32, 64) if takes(module, images[:1].expand(n, -1, -1, -1))), None)


_TO_BE_FOUND = "give that back first, or as `logits` of a dict"


def logits_elsewhere(module: nn.Module, reference: nn.Module, images: torch.Tensor) -> list[str]:
    """Says that logits are among several tensors that `module` gives back, but not where they are looked for."""
    given: list[list[tuple[int, ...]]] = []

    def note(_: nn.Module, __: Any, returned: Any) -> None:
        given.append([tuple(tensor.shape) for tensor in leaves(returned, torch.Tensor)])

    handle = module.register_forward_hook(note)
    try:
        with contextlib.suppress(ParityError), without_values(module), without_values(reference), silenced():
            first, wanted = (tuple(_output(model, images.to("meta")).shape) for model in (module, reference))
            others = given[-1] if given else []
            if first != wanted and wanted in others:
                compared = (
                    f"your model gives back {len(others)} tensors, of which the first, of shape {first}, is compared"
                )
                return [f"{compared}; another one has the shape of logits: {_TO_BE_FOUND}"]
    finally:
        handle.remove()
    return []


def _output(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with MODES["eval"].active(module), in_float32(module):
        return Run(module, images, set(), 0, "model").finish()


def image_shape(module: nn.Module) -> Shape:
    """Returns channels, height and width in pixels of the images that `module` takes; a likely shape if none is found.

    A torchvision model knows them. Of any other one it is tried what it says, and then what its tensors allow.
    """
    return shape_taken(module) or next(possible_images(module))


def shape_taken(module: nn.Module) -> Shape | None:
    """Returns channels, height and width in pixels of the images that `module` takes, the likeliest that were found."""
    known = configuration_of(module)
    if known:
        return 3, known["image_size"], known["image_size"]
    found = next((shape for shape in possible_images(module) if takes(module, torch.empty(2, *shape))), None)
    if found or lacks_values(module):
        return found
    for shape in itertools.islice(possible_images(module), _MOST_WITH_VALUES):
        with contextlib.suppress(ParityError), silenced():
            _output(module, torch.zeros(2, *shape))
            return shape
    return None


def require_same_images(module: nn.Module, shape: Shape) -> None:
    """Checks that a candidate takes the images that the reference takes, as far as what it takes can be found out.

    Args:
        module: the candidate.
        shape: channels, height and width of the reference's images, in pixels.

    Raises:
        ParityError: it takes others; the message says which.
    """
    if takes(module, torch.empty(2, *shape)):
        return
    own = shape_taken(module)
    if own is None or own == shape:
        return
    kinds = [(f"{n} channel{'s' * (n != 1)}", f"{height} x {width} pixels") for n, height, width in (own, shape)]
    theirs, ours = zip(*((one, other) for one, other in zip(*kinds, strict=True) if one != other), strict=True)
    raise ParityError(
        f"the candidate takes images of {' and '.join(theirs)}, the reference of {' and '.join(ours)}; build both for "
        "the same images, or put a module around the candidate that makes the one of the other"
    )


def settings_of(module: nn.Module, shape: Shape, *, trusting: bool = True) -> dict[str, Any]:
    """Reads the settings of a ViT of anybody's off what it does with its tensors.

    Args:
        module: the model, with or without values.
        shape: channels, height and width of its images, in pixels.
        trusting: take what attributes say for what a run doesn't show.

    Returns:
        What was found of torchvision's settings, under its names, and `in_channels`. Sizes are in pixels, tokens and
        features; those of images and patches that are no squares are (height, width).
    """
    settings: dict[str, Any] = {"image_size": _side(shape[1:]), "in_channels": shape[0]}
    uses, classes = _seen(module, shape)
    patch = said_patch(module) or (_patch_of(uses.operations, shape[0]) if uses else None)
    settings |= {"patch_size": _side(patch)} if patch else {}
    if uses:
        settings |= _widths(uses)
    settings |= {"num_classes": classes} if classes else {}
    for setting in ("num_layers", "num_heads", "hidden_dim", "mlp_dim", "num_classes"):
        said = None if setting in settings or not trusting else next(said_numbers(module, setting), None)
        settings |= {setting: said} if said else {}
    rates = {rate: said_rate(module, rate) for rate in RATES}
    return settings | {rate: p for rate, p in rates.items() if p is not None}


def _side(size: Iterable[int]) -> int | tuple[int, ...]:
    height, width = size
    return height if height == width else (height, width)


def _seen(module: nn.Module, shape: Shape) -> tuple[Uses | None, int | None]:
    """Returns what a model does with its tensors and how many logits an image has, as far as it can be run."""
    images = torch.zeros(2, *shape)
    for device in ("meta", "cpu"):
        without = without_values(module) if device == "meta" else contextlib.nullcontext()
        with contextlib.suppress(ParityError), without:
            uses = trace_uses(module, images.to(device), "reference")
            output = _output(module, images.to(device))
            return uses, output.shape[1] if output.ndim == 2 else None
    return None, None


def _patch_of(operations: list[Operation], channels: int) -> tuple[int, int] | None:
    """Returns height and width of a patch in pixels, by the first matrix that images are multiplied with."""
    matrix = next((op.projections[0].matrix for op in operations if op.projections), None)
    if matrix is None:
        return None
    if len(matrix.view.shape) == 4:
        height, width = matrix.view.shape[2:]
        return height, width
    side = math.isqrt(matrix.shape[1] // channels)
    return (side, side) if channels * side**2 == matrix.shape[1] else None


def _widths(uses: Uses) -> dict[str, Any]:
    """Returns numbers of blocks, heads and features, if there are blocks with an attention."""
    operations = uses.operations
    starts = [number for number, op in enumerate(operations) if op.kind == "attention"]
    if not starts:
        return {}
    width = operations[starts[0]].projections[0].matrix.shape[1]
    rows = operations[starts[0]].projections[0].matrix.shape[0]
    heads = uses.heads or (width // rows if rows < width else None)  # where each head has a projection of its own
    found = {"hidden_dim": width} | ({"num_heads": heads} if heads else {})
    again = {point.module for point in uses.order if point.call}
    if not any(view.name.startswith(f"{module}.") for module in again for op in operations for view in op.views):
        found["num_layers"] = len(starts)  # no block is used twice
    block = operations[starts[0] + 1 : starts[1] if len(starts) > 1 else None]
    shapes = [op.projections[0].matrix.shape for op in block if op.kind == "matrix"]
    hidden = next((a[0] for a, b in itertools.pairwise(shapes) if a == b[::-1] and a[1] == width), None)
    return found | ({"mlp_dim": hidden} if hidden else {})
