"""Runs that no check is: the very first one of a module, and train mode without gradients."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import TYPE_CHECKING, TypeAlias

import torch

from parity.diagnosis.checks import DTYPES
from parity.errors import ParityError
from parity.tracing import MODES, bare_run, compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from parity.diagnosis.bare import BareRuns
    from parity.diagnosis.verdict import Check
    from parity.tracing import Mode, Subject

# is told whether to build it with initial values
Anew: TypeAlias = "Callable[[bool], contextlib.AbstractContextManager[nn.Module | None]]"

_WITHOUT_GRADIENTS = dataclasses.replace(MODES["train"], name="train without gradients", grad=False)


def faults_of_other_runs(subject: Subject, checks: list[Check], bare: BareRuns, anew: Anew) -> list[str]:
    """Says what the candidate does at its first call, and in train mode without gradients, that it does at no other.

    Args:
        subject: who is compared.
        checks: all that were made.
        bare: how both models run with nobody watching.
        anew: holds the candidate as it is when it has never been run; None if that can't be had.

    Returns:
        What is wrong, a sentence each.
    """
    faults = [_of_the_first_call(subject, bare, anew)]
    if any(check.mode.name == "train" and check.free and check.verdict != "divergent" for check in checks):
        faults.append(_without_gradients(subject, bare))
    return [fault for fault in faults if fault]


def _of_the_first_call(subject: Subject, bare: BareRuns, anew: Anew) -> str:
    usual = MODES["eval"]

    def first(dtype: torch.dtype) -> torch.Tensor | None:
        for with_values in (False, True):  # without, which is quicker, it may fail
            with anew(with_values) as module, contextlib.suppress(*[ParityError] * (not with_values)):
                if module is not None:
                    return _logits(subject, module, usual, dtype)
        return None

    later = functools.partial(_logits, subject, subject.models.candidate, usual)
    try:
        found = first(DTYPES[subject.dtype])
        if found is None or torch.equal(found, bare.of("candidate", usual).output):
            return ""
        relative = _distance(later(torch.float64), first(torch.float64))
    except ParityError as error:
        return f"its first call fails, and later ones don't: {error}"
    return f"its first call gives other logits than later ones (relative error {relative:.2g})" if relative else ""


def _without_gradients(subject: Subject, bare: BareRuns) -> str:
    """Compares train mode under `torch.no_grad` with train mode as it is, in which both models agree."""
    dtype, own, usual = DTYPES[subject.dtype], subject.models.candidate, MODES["train"]
    try:
        if torch.equal(_logits(subject, own, _WITHOUT_GRADIENTS, dtype), bare.of("candidate", usual).output):
            return ""
        distances = [
            _distance(*(_logits(subject, model, mode, torch.float64) for mode in (usual, _WITHOUT_GRADIENTS)))
            for model in (own, subject.models.reference)
        ]
    except ParityError as error:
        return f"it fails in train mode without gradients (torch.no_grad): {error}"
    if not distances[0] or distances[1]:  # or the reference does the same
        return ""
    return f"in train mode it is another function without gradients (torch.no_grad; relative error {distances[0]:.2g})"


def _logits(subject: Subject, model: nn.Module, mode: Mode, dtype: torch.dtype) -> torch.Tensor:
    """Runs a model with the random state of `BareRuns`."""
    models = subject.models
    owner = "reference" if model is models.reference else "candidate"
    output = bare_run(model, models.images, mode, dtype, models.seed + (not mode.train), owner).output
    assert output is not None
    return output.detach()


def _distance(one: torch.Tensor, other: torch.Tensor | None) -> float:
    """Returns the relative distance of logits in float64; 0 where that is rounding."""
    assert other is not None
    measured = compare(one, other, ulp=False)
    return 0.0 if measured.same_function else measured.relative
