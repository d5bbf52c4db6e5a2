"""Whether the images of a batch act on each other, so that no weight map makes two models one function of a batch."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from parity.errors import ParityError
from parity.tracing import compare

if TYPE_CHECKING:
    from collections.abc import Callable


class ImagesMixError(Exception):
    """The images of a batch act on each other in the candidate: only one alone shows which map is right."""


def require_images_apart(logits: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, bound: float) -> None:
    """Raises ImagesMixError if an image has other logits alone than in the batch.

    Args:
        logits: returns those of some images.
        images: the batch.
        bound: what is rounding.
    """
    is_other = False
    with contextlib.suppress(ParityError):
        alone = torch.cat([logits(image[None]) for image in images])
        is_other = compare(logits(images), alone, ulp=False).relative > bound
    if is_other:
        raise ImagesMixError
