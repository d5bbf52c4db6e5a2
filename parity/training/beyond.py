"""Leads a check through the phases beyond the forward pass."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from parity.diagnosis import PHASES, Beyond, not_compared
from parity.errors import ParityError, told
from parity.training import backward, conditions, learning

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from parity.diagnosis import Check, Doubts
    from parity.progress import Progress
    from parity.tracing import Subject
    from parity.training.learning import Classroom

_MODES_NEEDED = ("eval-grad", "train")  # of the forward pass, where that phase itself isn't asked for


def modes_of(phases: Collection[str], modes: Sequence[str]) -> Sequence[str]:
    """Returns the modes of the forward pass to check: those asked for, or what the other phases build on."""
    return modes if "forward" in phases else _MODES_NEEDED


def look_beyond(
    phases: Collection[str],
    subject: Subject,
    classroom: Classroom,
    checks: list[Check],
    doubts: Doubts,
    progress: Progress,
) -> Beyond:
    """Makes the comparisons of every phase that is asked for.

    Args:
        phases: some of `diagnosis.PHASES`.
        subject: who is compared.
        classroom: what they learn from.
        checks: of the forward pass.
        doubts: about the forward pass; what makes that unusable makes these phases so as well.
        progress: told what is being done.
    """
    beyond = Beyond()
    elsewhere = frozenset().union(*(check.elsewhere for check in checks))
    subject = dataclasses.replace(subject, alignment=subject.alignment.of_wholes.without(elsewhere))
    if doubts.unusable:
        why = doubts.unusable[0]
        return Beyond([not_compared(f"{phase}/all", why) for phase in PHASES[1:] if phase in phases])
    if set(phases) & set(PHASES[1:]):
        beyond.add(_made("registration", functools.partial(backward.compare_registration, subject)))
    for phase, look in (
        ("backward", backward.look),
        ("training", functools.partial(learning.look, classroom=classroom)),
        ("conditions", functools.partial(conditions.look, config=classroom.config)),
    ):
        if phase in phases:
            known = len(beyond.checks)
            with progress.step(phase):
                beyond.add(_made(phase, functools.partial(look, subject, progress=progress.say)))
            for check in beyond.checks[known:]:
                progress.found(check)
    return beyond


def _made(name: str, look: Callable[[], Beyond]) -> Beyond:
    """Makes the comparisons of a phase; one that fails costs what was found before nothing."""
    try:
        return look()
    except Exception as error:  # noqa: BLE001  (no crash costs a verdict)
        return Beyond([not_compared(f"{name}/all", told(error))])


def require_known(phases: Collection[str], steps: int) -> None:
    """Refuses phases that there are not.

    Raises:
        ParityError: an unknown phase, or no steps.
    """
    for phase in phases:
        if phase not in PHASES:
            raise ParityError(f"--phases {phase}: expected some of {', '.join(PHASES)}")
    if steps < 1:
        raise ParityError(f"--steps {steps}: expected at least 1")
