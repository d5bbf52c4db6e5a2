"""Comparing both models, with nobody watching, on images and weights that those of the checks are unlike."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import torch

from parity.diagnosis.pictures import unlike_random, with_large_values
from parity.errors import ParityError, listed
from parity.models import assigned, is_graph, sharing_copy, uniform
from parity.tracing import MODES, SAME_FUNCTION_BOUND, bare_run, compare, is_finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from parity.diagnosis.branches import Branches
    from parity.tracing import Measurement, Models, Run, Subject

# A relative distance of logits in float32 that is more than rounding, where the reference doesn't amplify that; and how
# far images are moved, relative, to see how much it does.
_SUSPICIOUS, _NEARBY = 1e-5, 1e-13


def faults_on_other_images(subject: Subject, branches: Branches, *, singly: bool = False) -> list[str]:
    """Compares the bare logits on images that those of the checks are unlike, and with weights of large values.

    A mistake may depend on values or on the batch's size, and a model that remembers something answers an old question.

    Args:
        subject: who is compared.
        branches: notes which ways the candidate takes.
        singly: show only one image at a time.

    Returns:
        What is wrong, a sentence each.
    """
    models = subject.models
    compared = _Compared(models, branches)
    for what, images in unlike_random(models.images, models.seed):
        if len(images) == 1 or not singly:
            compared.show(images, f"on {what}")
    compared.show_in_inference_mode(images, f"on {what}")
    large = with_large_values(subject.held.reference)
    own = subject.mapping.updated(subject.held.candidate, large)
    with assigned(models.reference, large), assigned(models.candidate, own):
        compared.show(models.images[:1], "with weights three to twelve times as large")
    faults = compared.faults
    if compared.differing:
        faults.append(f"not the same function, as other inputs show: {listed(compared.differing, 3)}")
    return list(dict.fromkeys(faults))


class _Compared:
    """Compares the bare logits of both models on whatever they are shown.

    Args:
        models: who is compared.
        branches: notes which the candidate takes.

    Attributes:
        differing: what they are not the same function on, in words.
        faults: what else the candidate does wrong, a sentence each.
    """

    def __init__(self, models: Models, branches: Branches) -> None:
        self.differing: list[str] = []
        self.faults: list[str] = []
        self._models = models
        self._branches = branches
        self._shown: tuple[torch.Tensor, torch.dtype, torch.Tensor] | None = None
        self._returned: tuple[torch.Tensor, torch.Tensor] | None = None
        self._places: dict[tuple[Any, ...], torch.Tensor] = {}

    def show(self, images: torch.Tensor, when: str) -> None:
        """Runs both models on (B, C, H, W) images and notes how they differ.

        In float32, and once more in float64 if a whole batch differs, or if others do by more than rounding makes. A
        candidate that cannot take them as they are laid out in memory, which is no other function, is given a copy.
        """
        images = _of_possible_size(self._models, images.to(self._models.images.device))
        try:
            self._note(images, f"{when}{_layout_of(images)}, in a batch of {len(images)}", self._found)
        except ParityError as error:
            if images.is_contiguous():
                self.faults.append(f"it fails {when}, in a batch of {len(images)}: {error}")
            else:
                self.show(images.contiguous(), when)

    def show_in_inference_mode(self, images: torch.Tensor, when: str) -> None:
        """Does the same with a copy of the candidate in `torch.inference_mode`, where it may fail.

        The tensors that it makes there and keeps would be of no use elsewhere.
        """
        images = _of_possible_size(self._models, images.to(self._models.images.device))
        with contextlib.suppress(Exception):  # of a model that nobody can copy, among others
            copy = sharing_copy(self._models.candidate)
            if copy is not self._models.candidate:
                found = functools.partial(self._run, copy, owner="candidate", around=lambda _: torch.inference_mode())
                self._note(images, f"{when}, in torch.inference_mode", found)

    def _note(self, images: torch.Tensor, when: str, found: Callable[[torch.Tensor, torch.dtype], Run]) -> None:
        single = self._compared(images, torch.float32, found)
        is_whole = len(images) == len(self._models.images)
        if single is None or single.identical or not (is_whole or single.problem or single.relative > _SUSPICIOUS):
            return
        double = self._compared(images, torch.float64, found) or single
        is_rounding = double.same_function and not single.problem and single.relative <= _SUSPICIOUS
        if not is_rounding and not (double.problem or single.problem):
            amplified = max(1.0, self._amplification(images))
            bounds = SAME_FUNCTION_BOUND * amplified, _SUSPICIOUS * amplified
            is_rounding = double.relative <= bounds[0] and single.relative <= bounds[1]
        if not is_rounding:
            worse = single if double.same_function else double  # one that remembers differs in one of the two alone
            self.differing.append(f"{when} ({worse.problem or f'relative error {worse.relative:.2g}'})")

    def _compared(
        self, images: torch.Tensor, dtype: torch.dtype, found: Callable[[torch.Tensor, torch.dtype], Run]
    ) -> Measurement | None:
        """Measures the distance of the logits; None where the reference's are not finite."""
        expected = self._expected(images, dtype)
        if not is_finite(expected):
            return None
        output = found(images, dtype).output
        assert output is not None
        return compare(expected, output, ulp=False)

    def _expected(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Returns the reference's logits, which are known for the images that were shown last."""
        if self._shown is None or self._shown[0] is not images or self._shown[1] != dtype:
            output = self._run(self._models.reference, images, dtype, "reference").output
            assert output is not None
            self._shown = images, dtype, output
        return self._shown[2]

    def _found(self, images: torch.Tensor, dtype: torch.dtype) -> Run:
        """Runs the candidate, and notes what it does to tensors that it has been given or has returned.

        Batches that are laid out alike lie at one place in memory, which is nothing to know them by.
        """
        kind = images.shape, images.stride(), dtype
        place = self._places.setdefault(kind, torch.empty_like(images, dtype=dtype))
        found = self._run(self._models.candidate, images, dtype, "candidate", lambda _: self._branches, place)
        assert found.output is not None
        if found.has_changed_its_input:
            self.faults.append("the candidate writes to the images it is given, which others may still need")
        if self._returned and not torch.equal(*self._returned):
            self.faults.append("the candidate's next call overwrites the logits that it has returned; return a copy")
        self._returned = (found.output, found.output.clone()) if is_finite(found.output) else None
        return found

    def _run(
        self, model: nn.Module, images: torch.Tensor, dtype: torch.dtype, owner: str,
        around: Any = contextlib.nullcontext, place: torch.Tensor | None = None,
    ) -> Run:  # fmt: skip
        return bare_run(model, images, MODES["eval"], dtype, self._models.seed, owner, around=around, place=place)

    def _amplification(self, images: torch.Tensor) -> float:
        """Returns how many times as much the reference's logits change, relative, as the images do."""
        moved = 1 + _NEARBY * uniform("nearby", tuple(images.shape)).to(images.device).double()
        logits = [
            self._run(self._models.reference, shown, torch.float64, "reference").output
            for shown in (images.double(), images.double() * moved)
        ]
        assert logits[0] is not None
        assert logits[1] is not None
        return compare(logits[0], logits[1], ulp=False).relative / _NEARBY


def _layout_of(images: torch.Tensor) -> str:
    if images.is_contiguous():
        return ""
    is_usual = images.is_contiguous(memory_format=torch.channels_last)
    return ", in channels_last layout" if is_usual else ", laid out column by column"


def _of_possible_size(models: Models, images: torch.Tensor) -> torch.Tensor:
    """Returns a batch of the checks' own size for a candidate that may take no other."""
    if not is_graph(models.candidate):
        return images
    size = len(models.images)
    return images.repeat(-(-size // len(images)), 1, 1, 1)[:size]
