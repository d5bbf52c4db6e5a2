"""The training phase: do both models learn alike?

Train mode with dropout, its gradients, some steps of two optimizers, a break in the middle, autocast and checkpointing
are compared by what they compute; initial values and the parameters that weight decay spares by their recipes.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from parity.diagnosis import DTYPES, Beyond, PhaseCheck, Row, not_compared, worst_of
from parity.errors import ParityError, listed
from parity.findings import Cause
from parity.models import split, uniform
from parity.tracing import IDENTICAL, NOISE_BOUND, Measurement, blocks_of, compare
from parity.training.backward import compare_gradients, few_images
from parity.training.gradients import INERT, INPUT, Pairs, Task, cross_entropy, differentiate, projection
from parity.training.recipes import compare_initialisation, compare_weight_decay, decayed
from parity.training.train_mode import HOW, TRAIN, compare_dropout, compare_modes
from parity.training.trajectories import RECIPES, TRAJECTORY_BOUND, Course, Learner, follow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from parity.diagnosis import Outcome
    from parity.models import Candidate
    from parity.tracing import Mode, Subject
    from parity.training.trajectories import Track

# of this machine's memory, as much as a trajectory may take
_MEMORY_SHARE = 0.7


@dataclass(frozen=True)
class Classroom:
    """What the training phase needs besides the two models.

    Attributes:
        config: of a torchvision reference that is given by name; None for another one.
        build: builds the reference with its initial values; None for a module that is built already.
        candidate: builds the candidate anew.
        steps: of a trajectory.
        pictures: whether the images are pictures, which are learnt from as they are; random ones are drawn anew.
    """

    config: dict[str, Any] | None
    build: Callable[[], nn.Module] | None
    candidate: Candidate
    steps: int
    pictures: bool


def look(subject: Subject, classroom: Classroom, progress: Callable[[str], None]) -> Beyond:
    """Makes all comparisons of the phase.

    Args:
        subject: who is compared.
        classroom: what they learn from.
        progress: told what is being done.
    """
    progress("training/modes")
    beyond = compare_modes(subject)
    progress("training/dropout")
    way, why, found = compare_dropout(subject)
    beyond.add(found)
    progress("training/initialisation")
    beyond.add(_initialisation(subject, classroom))
    beyond.add(compare_weight_decay(subject.mapping, subject.models.reference, subject.models.candidate))
    if way is None:
        beyond.checks += [not_compared(f"training/{name}", why) for name in ("gradients", *(r.name for r in RECIPES))]
        return beyond
    progress("training/gradients")
    models = subject.models
    task = Task(few_images(models), models.seed, way, cross_entropy(models.seed))
    gradients = compare_gradients(subject, task, "training/gradients")
    beyond.add(gradients)
    if any(check.verdict == "divergent" for check in gradients.checks):
        why = "gradients in train mode differ already"
        beyond.checks += [not_compared(f"training/{recipe.name}", why) for recipe in RECIPES]
        return beyond
    beyond.add(_trajectories(subject, classroom, way, progress))
    progress("training/autocast")
    beyond.add(_autocast(subject, task))
    progress("training/checkpointing")
    beyond.add(_checkpointing(subject, task))
    return beyond


def _initialisation(subject: Subject, classroom: Classroom) -> Beyond:
    return compare_initialisation(subject.mapping, classroom.build, classroom.candidate.build, subject.models.seed)


def _trajectories(subject: Subject, classroom: Classroom, way: Mode, progress: Callable[[str], None]) -> Beyond:
    models, beyond = subject.models, Beyond()
    inert = _inert(subject)
    shape = tuple(models.images.shape)

    def images(number: int) -> torch.Tensor:
        if classroom.pictures:
            return models.images
        return uniform(f"{models.seed}/batch {number}", shape).to(models.images.device)

    for recipe in RECIPES:
        course = Course(recipe, way, models.seed, classroom.steps, images)
        for name in dict.fromkeys(("float64", subject.dtype)):
            label = f"training/{recipe.name}/{name}"
            progress(label)
            why = _too_large(models.reference, name, images=models.images)
            beyond.add(
                Beyond([not_compared(label, why)]) if why else _trajectory(subject, classroom, course, label, inert)
            )
    return beyond


def _too_large(model: nn.Module, dtype: str, images: torch.Tensor) -> str | None:
    """Says that a trajectory doesn't fit into memory: both models with gradients and an optimizer's two states."""
    if images.device.type != "cpu" or not hasattr(os, "sysconf"):
        return None
    values = sum(parameter.numel() for parameter in model.parameters())
    each = 4 * torch.finfo(DTYPES[dtype]).bits // 8 * values
    needed = 2 * each + (4 * 8 * values if dtype != "float64" else 0)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed < _MEMORY_SHARE * there:
        return None
    return f"it would take {needed / 2**30:.0f} GiB of memory, and this machine has {there / 2**30:.0f}"


def _inert(subject: Subject) -> dict[str, torch.Tensor]:
    """Returns which values of the reference no output depends on: their gradient is rounding alone."""
    models = subject.models
    gradients: dict[str, torch.Tensor] = {}
    task = Task(models.images[:1], models.seed, dataclasses.replace(TRAIN, train=False), projection(models.seed))
    differentiate(models.reference, task, torch.float64, "reference", gradients.__setitem__)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    masks = {name: g.abs() <= INERT * largest for name, g in gradients.items() if name != INPUT}
    return {name: mask for name, mask in masks.items() if bool(mask.any())}


def _trajectory(
    subject: Subject, classroom: Classroom, course: Course, label: str, inert: Mapping[str, torch.Tensor]
) -> Beyond:
    """Compares one trajectory in one dtype, and in the dtype under test the resuming of it."""
    models = subject.models
    dtype = DTYPES[label.rpartition("/")[2]]
    decay = decayed(models.reference, subject.mapping)
    pairs = Pairs.of(subject.mapping)
    order = dict.fromkeys(split(entry.reference)[0] for entry in subject.mapping.entries)

    def learners(kind: torch.dtype) -> tuple[Learner, Learner]:
        return (
            Learner(models.reference, course, kind, "reference", order, decay[0]),
            Learner(models.candidate, course, kind, "candidate", pairs.entries, decay[1], subject.frozen),
        )

    is_resumed = dtype != torch.float64 and course.recipe == RECIPES[0]
    with tempfile.TemporaryFile() as file:
        saved = file if is_resumed else None
        try:
            track = follow(*learners(dtype), pairs, course.steps, inert, file=saved)
            if dtype != torch.float64 and not track.identical:
                truth = Learner(models.twin, course, torch.float64, "reference", order, decay[0])
                track = follow(*learners(dtype), pairs, course.steps, inert, truth, saved)
        except ParityError as error:
            return Beyond([not_compared(label, f"{error}")])
        beyond = Beyond([_as_check(label, track, HOW.get(course.mode))])
        if saved:
            beyond.add(_resumed(subject, classroom, course, track, saved, decay[1]))
    return beyond


def _as_check(label: str, track: Track, why: str | None) -> PhaseCheck:
    exact = label.endswith("float64")
    noise = max(track.apart, default=None)
    wrong = [(e, m) for e, m in track.worst.items() if exact and (m.problem or m.relative > TRAJECTORY_BOUND)]
    is_noisy = noise is not None and noise > NOISE_BOUND
    return PhaseCheck(
        label,
        "divergent" if wrong or is_noisy else "identical" if track.identical else "equivalent",
        points=len(track.losses) * (1 + len(track.worst)),
        worst=worst_of([*track.losses, *track.worst.values()]),
        noise=None if exact else 1.0 if track.identical else noise,
        why=why,
        rows=tuple(Row(e.reference, e.candidate, m.problem or "learns otherwise", m.relative) for e, m in wrong),
    )


def _resumed(
    subject: Subject, classroom: Classroom, course: Course, track: Track, file: BinaryIO, decay: frozenset[str]
) -> Beyond:
    """Loads what the candidate saved in the middle into a fresh one, which goes on; both have to end alike."""
    label = f"training/resume/{subject.dtype}"
    try:
        fresh = classroom.candidate.build()
    except ParityError as error:
        return Beyond([not_compared(label, f"{error}")])
    how = None
    if fresh is subject.models.candidate or classroom.candidate.build() is fresh:
        fresh, how = copy.deepcopy(subject.models.candidate), "in a copy, since the candidate is built already"
    fresh = fresh.to(subject.models.images.device)
    order = Pairs.of(subject.mapping).entries
    learner = Learner(fresh, course, DTYPES[subject.dtype], "candidate", order, decay, subject.frozen)
    try:
        with learner.learning():
            learner.load(file)
            for _ in range(course.steps // 2, course.steps):
                learner.step()
            after = learner.tensors()
            different = [name for name, tensor in track.final.items()
                         if name not in after or not torch.equal(after[name], tensor)]  # fmt: skip
    except (ParityError, RuntimeError) as error:
        reason = f"{error}".splitlines()[0]
        statement = f"training cannot be resumed from a saved state: {reason}"
        return Beyond([PhaseCheck(label, "divergent", why=reason)], [Cause("resume", statement, ("",))])
    rows = tuple(Row("", name, "another value after resuming") for name in different)
    causes = []
    if rows:
        statement = f"resumed from a saved state dict, training ends elsewhere: {listed(different)}"
        names = {split(entry.candidate)[0]: split(entry.reference)[0] for entry in subject.mapping.entries}
        hint = "load every tensor, with strict=True, and register what changes as a buffer or parameter"
        causes.append(Cause("resume", statement, tuple(names.get(name, name) for name in different), hint=hint))
    verdict: Outcome = "divergent" if rows else "identical"
    return Beyond(
        [PhaseCheck(label, verdict, len(track.final), IDENTICAL if not rows else None, why=how, rows=rows)], causes
    )


def _autocast(subject: Subject, task: Task) -> Beyond:
    """Compares the gradients of a step under autocast with bfloat16."""
    label = "training/autocast/bfloat16"
    found = compare_gradients(
        dataclasses.replace(subject, dtype="float32"), dataclasses.replace(task, autocast=True), label
    )
    checks = [dataclasses.replace(check, name=label) for check in found.checks if check.name.endswith("float32")]
    return Beyond(checks, found.causes)


def _checkpointing(subject: Subject, task: Task) -> Beyond:
    """Compares the candidate's gradients with those when its blocks are computed anew in the backward pass."""
    label, models = "training/checkpointing/float64", subject.models
    plain: dict[str, torch.Tensor] = {}
    measured: dict[str, Measurement] = {}
    switch = _switch(models.candidate)

    def measure(name: str, gradient: torch.Tensor) -> None:
        measured[name] = compare(plain[name], gradient)

    try:
        differentiate(models.candidate, task, torch.float64, "candidate", plain.__setitem__, frozen=subject.frozen)
        with switch or _checkpointed(models.candidate):
            differentiate(models.candidate, task, torch.float64, "candidate", measure, frozen=subject.frozen)
    except ParityError as error:
        return Beyond([not_compared(label, f"{error}")])
    lost = [name for name in plain if name not in measured and bool(plain[name].any())]
    wrong = [name for name, m in measured.items() if not m.same_function]
    rows = [Row("", name, "no gradient") for name in lost] + [
        Row("", name, "another gradient", measured[name].relative) for name in wrong
    ]
    worst = worst_of(list(measured.values()))
    causes = []
    if rows and switch:
        statement = f"with the candidate's own gradient checkpointing {listed(lost + wrong)} gets {rows[0].what}"
        causes.append(Cause("gradient-checkpointing", statement, tuple(lost + wrong)))
    verdict: Outcome = "divergent" if rows else "identical" if worst.identical else "equivalent"
    how = "by the candidate's own switch" if switch else "around its blocks"
    if rows and not switch:
        return Beyond([not_compared(label, "its blocks cannot be computed anew one by one")])
    return Beyond([PhaseCheck(label, verdict, len(plain), worst, why=how, rows=tuple(rows))], causes)


def _switch(model: nn.Module) -> contextlib.AbstractContextManager[None] | None:
    """Returns the candidate's own switch of gradient checkpointing, if it has one."""
    for on, off in (
        ("set_grad_checkpointing", "set_grad_checkpointing"),
        ("gradient_checkpointing_enable", "gradient_checkpointing_disable"),
    ):
        if callable(getattr(model, on, None)) and callable(getattr(model, off, None)):
            return _switched(model, on, off)
    return None


@contextlib.contextmanager
def _switched(model: nn.Module, on: str, off: str) -> Iterator[None]:
    getattr(model, on)()
    try:
        yield
    finally:
        getattr(model, off)(*([False] if on == off else []))


@contextlib.contextmanager
def _checkpointed(model: nn.Module) -> Iterator[None]:
    """Computes every block of the model anew in the backward pass."""
    blocks = [block for block in blocks_of(model) if "forward" not in vars(block)]
    try:
        for block in blocks:
            block.forward = _recomputed(block.forward)
        yield
    finally:
        for block in blocks:
            del block.forward


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: checkpoint(forward, *args, use_reentrant=False, **kwargs)
