"""One check: both models in one mode and dtype, once free and, where they differ, once forced."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections import Counter
from typing import TYPE_CHECKING

import torch

from parity.diagnosis.verdict import OTHER_LAYOUT, Check
from parity.errors import ParityError
from parity.tracing import (
    ACTIVATION,
    ELSEWHERE_BOUND,
    MODES,
    OUTPUT,
    Mode,
    Pass,
    Run,
    can_switch_fastpath,
    first_that_runs,
    fixed_sites,
    held_in,
    in_step,
    sites_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from parity.diagnosis.bare import BareRuns
    from parity.progress import Progress
    from parity.tracing import Alignment, Models, Subject

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


_NOT_IN_FLOAT64 = "the candidate runs in float32 and not in float64"


def run_checks(subject: Subject, modes: Sequence[str], bare: BareRuns, progress: Progress) -> list[Check]:
    """Makes a check in every mode, first in float64 and then in the dtype under test.

    A mode in which both models do the same operations as in one before has its results.

    Args:
        subject: who is compared.
        modes: names of `MODES`.
        bare: shows the operations of both models.
        progress: told every point that is done.

    Raises:
        ParityError: one of the models failed.
    """
    plan = [(MODES[mode], dtype) for dtype in dict.fromkeys(("float64", subject.dtype)) for mode in modes]
    points = 2 * len(subject.alignment.pairs)
    checks: list[Check] = []
    for number, (mode, dtype) in enumerate(plan):
        label = f"forward/{mode.name}/{dtype}"
        done = itertools.count(number * points + 1)
        point_done = functools.partial(_tell_next, progress, label, done, len(plan) * points)
        with progress.step(label), _other_modes_told(mode, [check.mode.name for check in checks]):
            made = [check for check in checks if check.exact == (dtype == "float64") and not check.like]
            like = bare.like(mode, [check.mode for check in made if check.free]) if _can_run_in(mode) else None
            if like:
                same = next(check for check in made if check.mode.name == like)
                checks.append(dataclasses.replace(same, name=label, mode=mode, like=like))
            else:
                checks.append(run_check(subject.models, subject.alignment, mode, dtype, checks, point_done))
        progress.found(checks[-1])
    return checks


@contextlib.contextmanager
def _other_modes_told(mode: Mode, made: Sequence[str]) -> Iterator[None]:
    """Adds to an error in one mode which others are possible."""
    try:
        yield
    except ParityError as error:
        others = ",".join(name for name in dict.fromkeys(made) if name != mode.name)
        if not others:
            raise
        raise ParityError(f"{error}; that is in the mode {mode.name}, --modes {others} leaves it out") from error


def _tell_next(progress: Progress, what: str, done: Iterator[int], to_do: int) -> None:
    progress.tell(what, next(done), to_do)


def run_check(
    models: Models,
    alignment: Alignment,
    mode: Mode,
    dtype: str,
    earlier: list[Check],
    progress: Callable[[], None],
) -> Check:
    """Runs both models in `mode` and `dtype` and measures at every aligned point.

    Args:
        models: with weights in place.
        alignment: which module is which.
        mode: how to run them.
        dtype: one of `DTYPES`; a mode's float64 check comes before the others.
        earlier: the checks that were made before.
        progress: called at every point.

    Raises:
        ParityError: one of the models failed.
    """
    name = f"forward/{mode.name}/{dtype}"
    exact = dtype == "float64"
    if not _can_run_in(mode):
        why = f"torch {torch.__version__} has no switch for the native attention kernel"
        return Check(name, mode, exact, skipped=why)
    run = functools.partial(_run_pass, models, dtype=DTYPES[dtype], progress=progress)
    if exact:
        return _run_exact(models, alignment, Check(name, mode, exact), earlier, run)
    with_truth = functools.partial(
        run, with_truth=True, spread=not any(other.free and other.free.sizes for other in earlier)
    )
    # what float64 has shown of this mode holds for every dtype
    same = next(check for check in earlier if check.mode.name == mode.name)
    if same.skipped and not same.skipped.startswith(_NOT_IN_FLOAT64):
        return dataclasses.replace(same, name=name, exact=False)
    # only in float64 values are as close as it takes to be dropped alike
    mode = dataclasses.replace(mode, no_dropout=True) if same.mode.by_value else same.mode
    compared = alignment.without(same.elsewhere)
    # the truth is wanted where bits differ, which they hardly do if they are the same in float64
    is_alike = same.free is not None and same.free.identical
    free = run(compared, mode) if is_alike else with_truth(compared, mode)
    if is_alike and not free.identical:
        free = with_truth(compared, mode)
    check = Check(name, mode, exact, free, elsewhere=same.elsewhere)
    if mode.train and check.noisy and same.verdict != "divergent" and not mode.no_dropout:
        for way in _ways_to_drop_alike(models, mode):
            if way.by_size:  # which draws the same masks in every dtype
                return dataclasses.replace(check, mode=way, free=with_truth(compared, way))
    return check


def _can_run_in(mode: Mode) -> bool:
    return mode.fastpath or can_switch_fastpath()


def _run_exact(
    models: Models, alignment: Alignment, check: Check, earlier: list[Check], run: Callable[..., Pass]
) -> Check:
    """Makes a float64 check: free, with aligned dropout masks if need be, and forced where bits differ."""
    mode = check.mode
    try:
        free = run(alignment, mode)
    except ParityError as error:
        _run_pass(models, alignment, mode, torch.float32, lambda: None)  # is it float64 that it cannot do?
        return dataclasses.replace(check, skipped=f"{_NOT_IN_FLOAT64}: {error}")
    if mode.train and not free.measured[OUTPUT].same_function:
        with_same_masks = dataclasses.replace(mode, same_masks=True)
        aligned = run(alignment, with_same_masks)
        if _is_closer(aligned, free):
            mode, free = with_same_masks, aligned
        else:
            for way in (ways := _ways_to_drop_alike(models, mode)):
                aligned = run(alignment, way)
                if _is_closer(aligned, free):
                    mode, free = way, aligned
                    break
            else:
                if any(way.by_size for way in ways):
                    return dataclasses.replace(check, skipped=OTHER_LAYOUT)
    elsewhere = _drawn_elsewhere(free, alignment)
    if elsewhere:
        alignment = alignment.without(elsewhere)
        free = run(alignment, mode)
    check = dataclasses.replace(check, mode=mode, free=free, elsewhere=elsewhere)
    is_first = not any(other.free for other in earlier)
    is_off = is_first or not all(m.same_function for m in free.measured.values())
    if free.identical or not is_off or any(other.dirty for other in earlier):
        return check
    spread = not any(other.forced and other.forced.places for other in earlier)
    return dataclasses.replace(check, forced=run(alignment, mode, forced=True, spread=spread))


def _drawn_elsewhere(free: Pass, alignment: Alignment) -> frozenset[str]:
    """Returns the modules that are off by far although the logits agree, in float64.

    If the logits don't agree, only those that are paired by place alone and whose tensors have other shapes.
    """
    if not free.measured[OUTPUT].same_function:
        return frozenset(p.module for p, m in free.measured.items() if m.problem and p.module in alignment.by_place)
    return frozenset(point.module for point, m in free.measured.items() if m.problem or m.relative > ELSEWHERE_BOUND)


def _is_closer(one: Pass, other: Pass) -> bool:
    """Whether the logits of one pass agree far better than another's."""
    return one.measured[OUTPUT].relative < other.measured[OUTPUT].relative / 1000


def _ways_to_drop_alike(models: Models, mode: Mode) -> list[Mode]:
    """Returns modes in which both models may drop the same, if they draw as many numbers at the same rates.

    By size only if they draw in other ways, in other shapes or another order, since a mask that is used twice is then
    as good as two. Numbers that the candidate fixes itself are no such way.
    """
    drawn = []
    for model, owner in ((models.reference, "reference"), (models.candidate, "candidate")):
        sites = [s for s in sites_of(model, models.images, mode, models.seed, owner) if s.kind != ACTIVATION]
        drawn.append((sites, Counter[float]()))
        for site in sites:
            drawn[-1][1][site.rate] += site.size
    (ours, usual), (theirs, numbers) = drawn
    if usual != numbers or fixed_sites(models.candidate, models.images, mode, models.seed, "candidate"):
        return []
    by_size, by_value = dataclasses.replace(mode, by_size=True), dataclasses.replace(mode, by_value=True)
    is_same = [(s.kind, s.shape) for s in ours] == [(s.kind, s.shape) for s in theirs]
    return [by_value] if is_same else [by_size, by_value]


def _run_pass(
    models: Models,
    alignment: Alignment,
    mode: Mode,
    dtype: torch.dtype,
    progress: Callable[[], None],
    *,
    forced: bool = False,
    with_truth: bool = False,
    spread: bool = False,
) -> Pass:
    images = models.images.to(dtype)
    watched = set(alignment.pairs.values()), set(alignment.pairs)

    def run(attempt: int) -> Pass:
        with contextlib.ExitStack() as stack:
            twins = (models.twin,) if with_truth else ()
            stack.enter_context(mode.active(models.reference, models.candidate, *twins))
            stack.enter_context(held_in(models.reference, dtype, models.way if dtype == torch.float64 else 0))
            stack.enter_context(held_in(models.candidate, dtype, attempt))
            truth = None
            if with_truth:
                stack.enter_context(held_in(models.twin, torch.float64, models.way))
                truth = Run(models.twin, models.images.double(), watched[0], models.seed, "reference", inside=True)
            return in_step(
                Run(models.reference, images, watched[0], models.seed, "reference", inside=True),
                Run(models.candidate, images, watched[1], models.seed, "candidate"),
                alignment,
                truth=truth,
                forced=forced,
                pixels=(images.shape[-2], images.shape[-1]) if spread else None,
                progress=progress,
            )

    return first_that_runs(run, dtype)
