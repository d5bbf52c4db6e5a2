"""Why a candidate of the same function is less accurate: it leaves its dtype, or torch computes in fewer digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.diagnosis.checks import run_check
from parity.diagnosis.verdict import in_words_of
from parity.errors import listed
from parity.findings import Cause
from parity.tracing import BACKENDS, full_float32

if TYPE_CHECKING:
    from parity.diagnosis.verdict import Check
    from parity.tracing import Alignment, Subject


def causes_of_rounding(subject: Subject, checks: list[Check]) -> list[Cause]:
    """Names what makes the candidate less accurate, as far as it is the candidate's casts or torch's settings.

    Args:
        subject: who is compared, with weights in place.
        checks: all that were made.
    """
    return _casts(checks, subject.alignment) or _fewer_digits(subject, checks)


def _casts(checks: list[Check], alignment: Alignment) -> list[Cause]:
    """Returns a cause for the first place where a divergent run leaves its dtype for a narrower one."""
    candidates = {reference: candidate for candidate, reference in alignment.pairs.items()}
    for check in checks:
        if check.free and check.free.narrowed and check.verdict == "divergent":
            point, dtype, is_autocast = check.free.narrowed
            where, hint = f"{in_words_of(point)} (candidate: {candidates[point.module]})", "take the cast away"
            statement = f"{where} is {dtype}"
            if is_autocast:
                statement = f"the forward pass computes in {dtype}, under torch.autocast, from {where} on"
                hint = "put torch.autocast around the call, not into forward"
            kept = f"the reference stays in {check.name.rpartition('/')[2]}"
            return [Cause("hidden-cast", f"{statement}; {kept}", (point.module,), hint=hint)]
    return []


def _fewer_digits(subject: Subject, checks: list[Check]) -> list[Cause]:
    """Returns a cause where the candidate is as accurate as the reference if torch computes float32 with all digits.

    Source: torch's notes on numerical accuracy. Its convolutions on a GPU use TF32 unless they are told not to, its
    products don't.
    """
    on_gpu = subject.models.images.is_cuda
    reduced = [backend for backend in BACKENDS if backend.reduced_to and backend.name.startswith("mkldnn") != on_gpu]
    noisy = next((check for check in checks if check.noisy and not check.like), None)
    exact = [check for check in checks if check.exact]
    if noisy is None or subject.dtype != "float32" or not reduced or any(c.verdict == "divergent" for c in exact):
        return []
    with full_float32():
        full = run_check(subject.models, subject.alignment, noisy.mode, subject.dtype, exact, lambda: None)
    if full.verdict == "divergent":
        return []
    point = noisy.noisy[0]
    ways = listed([f"{backend.told} is {backend.value!r}" for backend in reduced])
    statement = f"torch computes some of the candidate's operations with fewer digits than float32 has ({ways})"
    without = "with all of them it is as accurate as the reference"
    hint = f"before a comparison of bits, {listed([f'{b.told} = {b.full!r}' for b in reduced])}"
    return [Cause("reduced-float32", f"{statement}; {without}", (point.module,), hint=hint)]
