"""Where both models look: what the class token attends to, block by block, and what has come of it behind the last.

A map has a letter for each patch of the image: Z for the largest value, a step of the alphabet for each 26th of it that
is missing, a dot for less than half of one; small letters stand for values below zero.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from parity.errors import ParityError
from parity.tracing import MODES, AttentionWeights, attention_written_out, bare_run, grid_of, pooled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from parity.tracing import Subject

_MOST_PICTURES = 4
_SIDE = 16  # rows and columns of a map at most
_STEPS = 26


@dataclass(frozen=True)
class PatchMap:
    """A number for each patch.

    Attributes:
        largest: the largest of them, their signs left out.
        patches: a text for each row of patches, as they lie in the image.
    """

    largest: float
    patches: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """What the class token has of each patch; of a model without one, the mean of all tokens.

    Attributes:
        reference: its map.
        candidate: its map; None where no attention of it was found.
        difference: the candidate's less the reference's; None likewise.
    """

    reference: PatchMap | None
    candidate: PatchMap | None
    difference: PatchMap | None


@dataclass(frozen=True)
class AttentionMaps:
    """Where both models look in one picture, in float32 and with the same weights.

    Attributes:
        picture: what is shown to them.
        blocks: the mean of all heads, block by block.
        rollout: the same followed through all blocks (Abnar and Zuidema, arXiv 2005.00928).
        why: why the candidate has no maps, or an empty text.
    """

    picture: str
    blocks: tuple[Look, ...]
    rollout: Look
    why: str


def attention_maps(subject: Subject, pictures: tuple[str, ...]) -> list[AttentionMaps]:
    """Returns where both models look in the first pictures, or in a random image where there are none.

    There are none where the reference's attention is not found.

    Args:
        subject: who is compared.
        pictures: names of the first images of the batch.
    """
    return list(_maps(subject, pictures[:_MOST_PICTURES] or ("a random image",)))


def _maps(subject: Subject, pictures: tuple[str, ...]) -> Iterator[AttentionMaps]:
    models = subject.models
    pixels = models.images.shape[-2], models.images.shape[-1]
    for picture, image in zip(pictures, models.images, strict=False):
        ours, _ = _of(models.reference, image[None], models.seed, "reference")
        grid = grid_of(len(ours[0]), pixels) if ours else None
        if grid is None:
            return
        theirs, why = _of(models.candidate, image[None], models.seed, "candidate")
        theirs = [weights for weights in theirs if grid_of(len(weights), pixels) == grid]
        if not theirs:
            why = why or "no softmax of it is over as many keys as there are tokens"
        if theirs and subject.alignment.rolled == len(theirs[0]):  # the class token is the last one
            theirs = [weights.roll((1, 1), (0, 1)) for weights in theirs]
        pairs = itertools.zip_longest(ours, theirs)
        blocks = tuple(_look(*(None if one is None else _on(one, grid) for one in pair)) for pair in pairs)
        rollout = _look(*(_on(_rollout(every), grid) if every else None for every in (ours, theirs)))
        yield AttentionMaps(picture, blocks, rollout, why)


def _of(model: nn.Module, image: torch.Tensor, seed: int, owner: str) -> tuple[list[torch.Tensor], str]:
    """Returns what a model's tokens attend to in an image (1, C, H, W), or why it cannot be shown one alone."""
    made: list[AttentionWeights] = []

    @contextlib.contextmanager
    def around(_: nn.Module) -> Iterator[None]:
        made.append(AttentionWeights())
        with attention_written_out(), made[-1]:
            yield

    # with grad there is no native kernel either, in whatever release
    mode = dataclasses.replace(MODES["eval-grad"], fastpath=False)
    try:
        bare_run(model, image, mode, torch.float32, seed, owner, around=around)
    except ParityError as error:
        return [], f"{error}"
    return made[-1].found, ""


def _rollout(blocks: list[torch.Tensor]) -> torch.Tensor:
    """Follows attention through all blocks, the residual streams counted as half of each."""
    alike = [weights for weights in blocks if weights.shape == blocks[0].shape]
    with_stream = [(weights + torch.eye(len(weights), dtype=weights.dtype)) / 2 for weights in alike]
    return functools.reduce(lambda below, block: block @ below, with_stream)


def _on(weights: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Returns what the class token has of each patch, as they lie in the image: (N, N) to (h, w)."""
    leading = len(weights) - math.prod(grid)
    row = weights[0] if leading else weights.mean(0)
    return pooled(row[leading:].reshape(grid), *(min(_SIDE, side) for side in grid))


def _look(reference: torch.Tensor | None, candidate: torch.Tensor | None) -> Look:
    difference = None if reference is None or candidate is None else candidate - reference
    return Look(*(None if values is None else _drawn(values) for values in (reference, candidate, difference)))


def _drawn(values: torch.Tensor) -> PatchMap:
    largest = float(values.abs().max())
    if not math.isfinite(largest):
        return PatchMap(largest, ())
    steps = (values / (largest or 1) * _STEPS).round().int().tolist()
    return PatchMap(float(f"{largest:.3g}"), tuple("".join(map(_letter, row)) for row in steps))


def _letter(step: int) -> str:
    return "." if step == 0 else chr(ord("A") + step - 1) if step > 0 else chr(ord("a") - step - 1)
