"""The backward phase: does every parameter, and the image, get the gradient that the reference gives it?

Two losses, a random projection of the logits and cross-entropy, are differentiated in both models in eval mode. The
reference's gradients go through the weight map and are compared as forward tensors are: the same function in float64?
the same bits in the dtype under test? Where they differ, `blame` runs both models once more to see where that begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from parity.diagnosis import DTYPES, Beyond, PhaseCheck, Row, not_compared, worst_of
from parity.errors import ParityError, listed
from parity.findings import Cause
from parity.models import BUFFER, FROZEN, PARAMETER, split
from parity.tracing import Mode, compare
from parity.training.blame import blame
from parity.training.gradients import NO_GRADIENT, Comparison, Pairs, Task, cross_entropy, differentiate, projection

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.tracing import Models, Subject
    from parity.training.gradients import Gradient, Passed

EVAL = Mode("eval-grad", grad=True, backward=True)
LOSSES = {"projection": projection, "cross-entropy": cross_entropy}

# A gradient is a sum over the images, so two show whatever depends on there being several. Of a model whose gradients
# take more memory than this in float64, what its layers keep for the backward pass of two would be too much.
_MOST_IMAGES = 2
_LARGE = 4 * 2**30


def look(subject: Subject, progress: Callable[[str], None]) -> Beyond:
    """Compares gradients in eval mode; `progress` is told what is being done."""
    beyond = Beyond()
    models = subject.models
    for name, loss in LOSSES.items():
        progress(f"backward/{name}")
        task = Task(few_images(models), models.seed, EVAL, loss(models.seed))
        is_known = any(check.verdict == "divergent" for check in beyond.checks)
        why = "an earlier comparison has shown that gradients differ" if is_known else None
        beyond.add(compare_gradients(subject, task, f"backward/{name}", skipped=why))
    return beyond


def few_images(models: Models) -> torch.Tensor:
    """Returns as many of the images as gradients are compared for."""
    size = 8 * sum(parameter.numel() for parameter in models.reference.parameters())
    return models.images[: 1 if size > _LARGE else _MOST_IMAGES]


def compare_registration(subject: Subject) -> Beyond:
    """Compares which tensors are trained: parameters, frozen parameters and buffers."""
    different: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for entry in subject.mapping.entries:
        kinds = (
            subject.held.reference_kinds.get(split(entry.reference)[0], PARAMETER),
            subject.held.candidate_kinds.get(split(entry.candidate)[0], PARAMETER),
        )
        if kinds[0] != kinds[1]:
            different.setdefault(kinds, []).append((entry.reference, entry.candidate))
    causes, rows = [], []
    for (ours, theirs), names in different.items():
        where, own = tuple(reference for reference, _ in names), [candidate for _, candidate in names]
        identifier = {BUFFER: "parameter-as-buffer", FROZEN: "frozen-parameter"}.get(theirs, "trained-parameter")
        trained = "so that it is trained" if theirs == PARAMETER else "so that it is never trained"
        statement = f"{listed(own)} is a {theirs} of the candidate, {trained}; the reference has a {ours}"
        causes.append(Cause(identifier, statement, where, hint=_HINTS.get(theirs, "")))
        rows += [Row(reference, candidate, f"a {theirs}, not a {ours}") for reference, candidate in names]
    check = PhaseCheck(
        "registration", "divergent" if rows else "identical", len(subject.mapping.entries), rows=tuple(rows)
    )
    return Beyond([check], causes)


_HINTS = {
    BUFFER: "register it as nn.Parameter(tensor)",
    FROZEN: "leave requires_grad at True",
    PARAMETER: "freeze it with requires_grad_(False)",
}


def compare_gradients(subject: Subject, task: Task, name: str, *, skipped: str | None = None) -> Beyond:
    """Compares all gradients of a task in float64 and in the dtype under test.

    Args:
        subject: who is compared.
        task: what is differentiated.
        name: of the checks, without the dtype.
        skipped: why it need not be done.
    """
    labels = [f"{name}/{dtype}" for dtype in dict.fromkeys(("float64", subject.dtype))]
    if skipped:
        return Beyond([not_compared(label, skipped) for label in labels])
    truth: dict[str, torch.Tensor] = {}
    expected = differentiate(subject.models.reference, task, torch.float64, "reference", truth.__setitem__)
    comparison = Comparison(Pairs.of(subject.mapping), truth)
    try:
        passed = _of_candidate(subject, task, torch.float64, comparison)
    except ParityError as error:
        return _failed(subject, task, labels, error)
    logits = compare(expected.logits, passed.logits)
    if not logits.same_function:
        return Beyond([not_compared(label, "the logits differ already, and gradients with them") for label in labels])
    beyond = Beyond()
    if passed.has_changed_its_input:
        beyond.causes.append(written_to_input())
    exact = comparison.finish(subject.without_gradient)
    beyond.checks.append(_as_check(labels[0], exact))
    if beyond.checks[0].verdict == "divergent":
        beyond.add(blame(subject.models, subject.alignment, Pairs.of(subject.mapping), task, subject.frozen,
                         [gradient for gradient in exact if gradient.what], labels[0]))  # fmt: skip
        beyond.checks += [not_compared(label, "float64 has shown that gradients differ") for label in labels[1:]]
    else:
        beyond.checks += [_inexact(subject, task, label, truth) for label in labels[1:]]
    return beyond


def _of_candidate(subject: Subject, task: Task, dtype: torch.dtype, comparison: Comparison) -> Passed:
    return differentiate(subject.models.candidate, task, dtype, "candidate", comparison.take, frozen=subject.frozen)


def _failed(subject: Subject, task: Task, labels: list[str], error: ParityError) -> Beyond:
    """Tells a candidate that cannot be differentiated at all from one that runs in float32 only."""
    try:
        _of_candidate(subject, task, torch.float32, Comparison(Pairs({}), {}))
    except ParityError:
        cause = Cause(
            "backward-fails",
            f"the candidate cannot be trained: {f'{error}'.partition(' Hint:')[0]}",
            ("",),
            hint="change no tensor in place that a backward pass still needs",
        )
        rest = [not_compared(label, "the candidate cannot be differentiated") for label in labels[1:]]
        return Beyond([PhaseCheck(labels[0], "divergent", why=f"{error}"), *rest], [cause])
    why = f"the candidate runs in float32 and not in float64: {error}"
    return Beyond([not_compared(label, why) for label in labels])


def _inexact(subject: Subject, task: Task, label: str, truth: dict[str, torch.Tensor]) -> PhaseCheck:
    """Compares gradients in the dtype under test."""
    dtype = DTYPES[label.rpartition("/")[2]]
    expected: dict[str, torch.Tensor] = {}
    try:
        differentiate(subject.models.reference, task, dtype, "reference", expected.__setitem__)
    except ParityError as error:
        return not_compared(label, f"{error}")
    resolution = torch.finfo(torch.bfloat16).eps if task.autocast else None
    comparison = Comparison(Pairs.of(subject.mapping), truth, expected, resolution)
    try:
        _of_candidate(subject, task, dtype, comparison)
    except ParityError as error:
        return PhaseCheck(label, "divergent", why=f"{error}")
    return _as_check(label, comparison.finish(subject.without_gradient))


def _as_check(label: str, found: list[Gradient]) -> PhaseCheck:
    wrong = sorted((gradient for gradient in found if gradient.what), key=lambda g: g.what != NO_GRADIENT)
    is_same = all(gradient.measurement.identical for gradient in found)
    noise = max((gradient.noise for gradient in found if gradient.noise is not None), default=None)
    inert = sum(gradient.is_inert for gradient in found)
    return PhaseCheck(
        label,
        "divergent" if wrong else "identical" if is_same else "equivalent",
        points=len(found),
        worst=worst_of([gradient.measurement for gradient in found if not gradient.is_inert]),
        noise=None if label.endswith("float64") else 1.0 if is_same else noise,
        why=f"{inert} gradients are rounding alone: nothing depends on their parameters" if inert else None,
        rows=tuple(Row(g.reference, g.candidate, g.what, g.measurement.relative, g.noise) for g in wrong),
    )


def written_to_input() -> Cause:
    """Returns the cause of a candidate that changes its images."""
    statement = "the candidate writes to the images that it is given, which others may still need"
    return Cause("input-in-place", statement, ("the input",), hint="images = images + ..., and no += on them")
