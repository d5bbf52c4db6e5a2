"""Whether the images of a batch act on each other in the candidate, which and where: it is run to find out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from parity.errors import ParityError, listed
from parity.findings import Cause
from parity.models import uniform
from parity.tracing import MODES, Crossing, bare_run, by_file, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from parity.tracing import Models, SourceLine

# how many images of a batch are looked at
_MOST = 3


@dataclass(frozen=True)
class Mixing:
    """How the images of a batch act on each other.

    Attributes:
        depends: of each image, on which others its logits depend; on none where all depend on how many there are.
        lines: of the candidate's source where that comes about, as far as they can be told.
    """

    depends: tuple[frozenset[int], ...]
    lines: tuple[SourceLine, ...] = ()

    def cause(self, reference: str) -> Cause:
        """Returns it as a cause; `reference` is the reference's name."""
        hint = "keep what is made of one image out of the others; each begins with the model's own tensors alone"
        on = "on no other image" if any(self.depends) else "on the image alone"
        statement = f"in a batch {self._in_words()}; in {reference} {on}"
        return Cause("images-mix", statement, (), hint=hint if any(self.depends) else "", source=self.source)

    def describe(self, reference: str, *, is_right_alone: bool) -> str:
        """Returns it in a sentence.

        Args:
            reference: its name.
            is_right_alone: the candidate treats an image that comes alone as the reference does.
        """
        alone = f"alone every image is treated as {reference} does; " if is_right_alone else ""
        what = "the images of a batch act on each other" if any(self.depends) else "the size of a batch matters"
        where = f" ({self.source})" if self.lines else ""
        return f"{what}: {alone}in a batch {self._in_words()}{where}"

    @property
    def source(self) -> str:
        """The lines, as a cause names them."""
        return by_file(self.lines)

    def _in_words(self) -> str:
        count = range(len(self.depends))
        if not any(self.depends):
            return "the logits of an image depend on how many images there are"
        for words, others in (
            ("all others", [{*count} - {n} for n in count]),
            ("those before it", [{*range(n)} for n in count]),
            ("those behind it", [{*count[n + 1 :]} for n in count]),
        ):
            if [*map(set, self.depends)] == others and len(count) > 2:
                return f"the logits of each image depend on {words} as well"
        each = [f"those of image {n} on {listed([*map(str, sorted(on))])}" for n, on in enumerate(self.depends) if on]
        return f"the logits of an image depend on other images, {listed(each)} (counted from 0)"


def mixing(models: Models) -> Mixing | None:
    """Returns how the images of a batch act on each other in the candidate, beyond rounding; None if they don't.

    Nothing is known of a candidate whose logits depend on the random state, that remembers what it was shown, or that
    takes batches of one size alone.

    Args:
        models: with weights in place.
    """
    with contextlib.suppress(ParityError):
        return _mixing(models)
    return None


def _mixing(models: Models) -> Mixing | None:
    images = models.images[:_MOST]
    if len(images) == 1:
        images = torch.cat([images, _others(models, _MOST - 1)])
    together = _logits(models, images)
    if together.shape[:1] != images.shape[:1]:
        return None
    alone = [_logits(models, images[n : n + 1]) for n in range(len(images))]
    if all(compare(together[n : n + 1], logits, ulp=False).same_function for n, logits in enumerate(alone)):
        return None
    if not compare(together, _logits(models, images, seed=models.seed + 1), ulp=False).same_function:
        return None
    depends: list[set[int]] = [set() for _ in images]
    for n, other in enumerate(_others(models, len(images))):
        changed = _logits(models, _exchanged(images, n, other))
        for m in range(len(images)):
            if m != n and not compare(together[m : m + 1], changed[m : m + 1], ulp=False).same_function:
                depends[m].add(n)
    return Mixing(tuple(map(frozenset, depends)), _lines(models, images, depends))


def _logits(models: Models, images: torch.Tensor, seed: int | None = None) -> torch.Tensor:
    seed = models.seed if seed is None else seed
    output = bare_run(models.candidate, images, MODES["eval"], torch.float64, seed, "candidate").output
    assert output is not None
    return output.detach()


def _others(models: Models, count: int) -> torch.Tensor:
    return uniform("images to exchange", (count, *models.images.shape[1:])).to(models.images)


def _exchanged(images: torch.Tensor, number: int, other: torch.Tensor) -> torch.Tensor:
    changed = images.clone()
    changed[number] = other
    return changed


def _lines(models: Models, images: torch.Tensor, depends: Sequence[set[int]]) -> tuple[SourceLine, ...]:
    """Returns the lines where one image first acts on another."""
    on = next(((min(others), m) for m, others in enumerate(depends) if others), None)
    if on is None:
        return ()
    others = _others(models, len(images))
    exchanged = [_exchanged(images, n, others[n]) for n in on]
    with contextlib.suppress(Exception):  # whatever kind of tensor it makes
        attempts: list[Crossing] = []

        def around(_: nn.Module) -> Crossing:
            attempts.append(Crossing(images, exchanged))
            return attempts[-1]

        bare_run(models.candidate, images, MODES["eval"], torch.float64, models.seed, "candidate", around=around)
        return attempts[-1].lines()
    return ()
