"""The orchestrator: takes a reference and a candidate through every step and returns a report."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchvision

from parity.diagnosis import verdict as diagnosis
from parity.diagnosis.checks import DTYPES, Models, Steps, run_check
from parity.diagnosis.doubts import find_doubts
from parity.diagnosis.shapes import compare_shapes
from parity.errors import MappingError, ParityError, listed
from parity.explanation.naming import Case, explain
from parity.mapping.inferring import find as find_map
from parity.mapping.setup import fitting_batch, ready, set_up, values_for
from parity.models import candidate as candidates
from parity.models import inputs
from parity.models.reference import unverifiable
from parity.models.state import assigned, fingerprint, unregistered
from parity.models.weight_map import cut, split
from parity.report.report import Report, Top
from parity.tracing.alignment import align
from parity.tracing.run import MODES, ambient_kept, call_order, in_mode
from parity.training.backward import Subject
from parity.training.beyond import look_beyond, modes_of, require_known
from parity.training.gradients import registration
from parity.training.learning import Classroom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from parity.diagnosis.verdict import Check, Doubts
    from parity.explanation.proof import Explanation
    from parity.findings import Cause
    from parity.mapping.setup import Setup
    from parity.models.inputs import Inputs
    from parity.models.weight_map import WeightMap
    from parity.tracing.alignment import Alignment
    from parity.tracing.run import Point


# looking for a cause may take that long, in seconds of the processor, however quick the comparison was
_LEAST_SECONDS = 20.0


@ambient_kept()
def check(
    candidate: str | nn.Module | Callable[..., Any],
    reference: str | nn.Module = "vit_b_16",
    *,
    overrides: Mapping[str, Any] | None = None,
    candidate_args: Mapping[str, Any] | None = None,
    weights: str | None = None,
    mapping: str | Path | None = None,
    input: str = "random",  # noqa: A002  (the option's name)
    batch: int = 3,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "cpu",
    modes: Sequence[str] = tuple(MODES),
    phases: Sequence[str] = ("forward",),
    steps: int = 20,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Report:
    """Compares `candidate` with `reference`, layer by layer, and gives a verdict.

    Both models run in float64 (same function?) and in `dtype` (same bits?), in every mode. Whatever belongs to the
    caller is put back afterwards: a module's own tensors and modes, torch's random state and flags.

    Args:
        candidate: a module, a class or function that returns one, `package.module:callable` or `file.py:callable`.
        reference: the name of a torchvision ViT, or a module.
        overrides: settings of the reference to change, such as `{"image_size": 384}`.
        candidate_args: arguments for the candidate's constructor that the configuration cannot tell.
        weights: `synthetic`, `official`, a member of torchvision's weights enum or a path; by default `synthetic` for a
            name, and its own weights for a module.
        mapping: path of a written weight map.
        input: `random`, or the path of a picture or of a folder of pictures.
        batch: images in the batch.
        seed: of synthetic weights, random images and dropout.
        dtype: the dtype under test beside float64: float32, bfloat16 or float16; float64 for nothing beside it.
        device: where to run; on `meta`, which has no values, only shapes are compared.
        modes: names of `tracing.MODES`, for the forward pass.
        phases: names of `phases.PHASES`: what is compared beside the forward pass, which is always looked at.
        steps: of the trajectories that the phase `training` compares.
        progress: told what is being done, how many points are done, and of how many (0: not known).

    Raises:
        ParityError: an option, a file or the candidate is unusable; the message says what to do.
    """
    started = time.perf_counter()
    timings: dict[str, float] = {}
    _require_known(dtype, device, modes, seed, phases, steps)
    with _timed(timings, "build"):
        setup = set_up(candidate, reference, overrides or {}, candidate_args, weights, seed)
        module = candidates.build_without_values(setup.candidate)
    path = Path(mapping) if mapping else None
    wanted = _Wanted(path, seed, dtype, device, modes, phases, steps, isinstance(reference, str), progress)
    shown = inputs.make(input, setup.weights, setup.image_size, batch, seed)
    only_batch = None
    try:
        report = _compare(setup, module, shown, wanted, timings)
    except ParityError:
        only_batch = fitting_batch(module, shown.images)
        if only_batch is None:
            raise
    if only_batch is not None:  # the error is gone, and what it kept alive
        note = f"the candidate takes batches of {only_batch} only, so such a batch is compared"
        shown = inputs.make("random", setup.weights, setup.image_size, only_batch, seed)
        report = _compare(setup, module, shown, wanted, timings, note)
    timings["total"] = time.perf_counter() - started
    return report


@dataclass(frozen=True)
class _Wanted:
    """What is to be compared, and how: the options of `check` that its first steps don't need."""

    mapping: Path | None
    seed: int
    dtype: str
    device: str
    modes: Sequence[str]
    phases: Sequence[str]
    steps: int
    by_name: bool
    progress: Callable[[str, int, int], None]


def _compare(
    setup: Setup, module: nn.Module, shown: Inputs, wanted: _Wanted, timings: dict[str, float], *notes: str
) -> Report:
    """Finds the weight map of two models that are built, compares them and reports."""
    began = time.process_time()
    seed, dtype, progress = wanted.seed, wanted.dtype, wanted.progress
    kinds = registration(setup.reference), registration(module)
    about = _about(setup, shown.describe(), timings)
    about["notes"] = [*notes, *_notes(setup, module)]
    try:
        found = find_map(setup.reference, module, wanted.mapping, images=shown.images, build=setup.candidate.build)
    except MappingError as error:
        left_over = error.unmapped_reference, error.unmapped_candidate
        return Report("inconclusive", [f"no weight map: {error}", *about["notes"]], **about, left_over=left_over)

    about |= {"mapping": found, "parameters": _mapped(found, setup.reference)}
    if wanted.device == "meta":
        verdict, reasons, layers = compare_shapes(setup.reference, module, found, shown.images)
        return Report(verdict, reasons, layers=layers, **about)

    with contextlib.ExitStack() as stack:
        with _timed(timings, "weights"):
            progress(f"weights {setup.weights.source}", 0, 0)
            state = {name: t.to(wanted.device) for name, t in setup.weights.state_dict(setup.reference).items()}
            stack.enter_context(assigned(setup.reference, state))
            # which most passes want, so that most have nothing to switch
            stack.enter_context(in_mode(setup.reference, train=False))
        images = shown.images.to(wanted.device)
        with _timed(timings, "align"), MODES["eval-grad"].active(setup.reference):
            calls = call_order(setup.reference, images, "reference", inside=True)
            held = {k: t.to(wanted.device) for k, t in values_for(module, found, seed).items()} | found.apply(state)
            before = fingerprint(held)
            module, candidate_calls = ready(module, setup.candidate, held, images, stack)
            stack.enter_context(in_mode(module, train=False))
            sides = setup.reference, module, found, calls, candidate_calls
            alignment = align(*sides)
        models = Models(setup.reference, module, images, seed)

        plan = [
            (MODES[mode], name)
            for name in dict.fromkeys(("float64", dtype))
            for mode in modes_of(wanted.phases, wanted.modes)
        ]
        points = 2 * len(alignment.pairs)
        checks: list[Check] = []
        for mode, name in plan:
            label = f"forward/{mode.name}/{name}"
            step = Steps(progress, label, done=len(checks) * points, to_do=len(plan) * points)
            with _timed(timings, label):
                checks.append(run_check(models, alignment, mode, name, checks, step))
        with _timed(timings, "doubts"):
            doubts = find_doubts(models, checks, dtype, found, synthetic=setup.is_synthetic)
            after = fingerprint(held)
        places = diagnosis.origins(checks, alignment)
        seconds = max(time.process_time() - began, _LEAST_SECONDS)
        explanation = _explanation(setup, models, state, found, checks, sides, seconds, timings, progress)
        beyond = look_beyond(
            wanted.phases,
            Subject(models, alignment, found, *kinds, dtype),
            Classroom(setup.config if wanted.by_name else None, setup.candidate, wanted.steps, bool(shown.pictures)),
            checks,
            doubts,
            timings,
            progress,
        )
    doubts = _if_written_to([name for name, checksum in before.items() if after[name] != checksum], doubts)
    verdict, reasons = beyond.combined(*diagnosis.decide(checks, places, doubts, alignment))
    reasons += [*explanation.unexplained, explanation.sentence(setup.name)] if explanation else []
    return Report(
        verdict,
        reasons,
        **about,
        unverifiable=unverifiable(setup.reference, found),
        checks=[*checks, *beyond.checks],
        layers=diagnosis.layers(checks, alignment),
        origins=[*places, *beyond.places],
        causes=[*_causes(explanation, checks, alignment), *beyond.causes],
        explanation=explanation,
        top5=_top5(checks, shown.pictures, setup.weights.categories),
        peak_memory=_peak_memory(),
    )


def assert_parity(
    candidate: str | nn.Module | Callable[..., Any],
    reference: str | nn.Module = "vit_b_16",
    *,
    require: str = "equivalent",
    **options: Any,
) -> Report:
    """Raises AssertionError, with the whole report, unless `check` finds the candidate to be the reference.

    Args:
        candidate: as in `check`.
        reference: as in `check`.
        require: `equivalent` (the same function) or `identical` (the same bits as well).
        options: the other arguments of `check`.
    """
    if require not in ("equivalent", "identical"):
        raise ParityError(f"require={require!r}: expected 'equivalent' or 'identical'")
    report = check(candidate, reference, **options)
    accepted = ("identical",) if require == "identical" else ("identical", "equivalent")
    if report.verdict not in accepted:
        raise AssertionError(f"{report}")
    return report


def _explanation(
    setup: Setup,
    models: Models,
    state: Mapping[str, torch.Tensor],
    found: WeightMap,
    checks: list[Check],
    sides: tuple[nn.Module, nn.Module, WeightMap, list[Point], list[Point]],
    seconds: float,
    timings: dict[str, float],
    progress: Callable[[str, int, int], None],
) -> Explanation | None:
    """Looks for what makes the candidate another function, if it is one of a ViT's, for so many seconds at most."""
    if not (setup.config and diagnosis.is_another_function(checks, found)):
        return None
    progress("looking for the cause", 0, 0)
    with _timed(timings, "explanation"):
        shown = next(check for check in checks if check.exact and check.free and not check.mode.train)
        # a module that is called more often than its counterpart may be the cause
        alignment = align(*sides, equal_calls=False).without(shown.elsewhere)
        return explain(Case(models, setup.config, state, found, alignment, sides[-1], shown.mode), seconds)


def _causes(explanation: Explanation | None, checks: list[Check], alignment: Alignment) -> list[Cause]:
    if explanation and explanation.complete:
        return [*explanation.causes]
    return [*(explanation.causes if explanation else ()), *diagnosis.casts(checks, alignment)]


def _if_written_to(weights: list[str], doubts: Doubts) -> Doubts:
    if not weights:
        return doubts
    fault = f"the candidate writes to its own weights as it runs: {listed(weights)}"
    return dataclasses.replace(doubts, unusable=(), faults=(fault, *doubts.faults))


def _notes(setup: Setup, module: nn.Module) -> list[str]:
    """Says what is odd about the candidate before anything is compared."""
    notes = list(setup.candidate.notes)
    lists = unregistered(module)
    if lists:
        what = "is a plain list or attribute that holds layers torch doesn't know of"
        notes.append(f"{listed(lists)} {what}: their weights are in no state dict and no optimizer; use nn.ModuleList")
    if isinstance(setup.reference, type(module)):
        notes.append(f"the candidate is a {type(module).__name__}, the reference's own class: a model beside itself")
    return notes


def _about(setup: Setup, images: str, timings: dict[str, float]) -> dict[str, Any]:
    """Returns what every report says, whatever comes of the check."""
    return {
        "reference": {"name": setup.name, "config": setup.config, "weights": setup.weights.source},
        "candidate": {
            "name": setup.candidate.name,
            "config": setup.candidate.arguments,
            "defaults": list(setup.candidate.defaults),
        },
        "environment": _environment(),
        "inputs": images,
        "timings": timings,
    }


def _mapped(found: WeightMap, reference: nn.Module) -> int:
    """Returns how many values of the reference have a counterpart."""
    state: dict[str, torch.Tensor] = reference.state_dict()
    left_out = (cut(state[name], box) for name, box in map(split, found.unmapped_reference))
    return sum(tensor.numel() for tensor in state.values()) - sum(tensor.numel() for tensor in left_out)


def _top5(checks: list[Check], pictures: tuple[str, ...], categories: Sequence[str]) -> list[Top]:
    shown = next((check.free for check in reversed(checks) if check.free), None)
    if shown is None:
        return []

    def best(logits: torch.Tensor) -> tuple[tuple[str, float], ...]:
        values, classes = logits.double().softmax(-1).topk(min(5, len(logits)))
        names = [categories[c] if categories else f"class {c}" for c in classes.tolist()]
        return tuple(zip(names, values.tolist(), strict=True))

    rows = zip(pictures, shown.reference_output, shown.candidate_output, strict=False)
    return [Top(name, best(expected), best(found)) for name, expected, found in rows]


def _require_known(dtype: str, device: str, modes: Sequence[str], seed: int, phases: Sequence[str], steps: int) -> None:
    require_known(phases, steps)
    if not 0 <= seed < 2**63:
        raise ParityError(f"--seed {seed}: expected a whole number from 0 to 2**63 - 1")
    if dtype not in DTYPES:
        raise ParityError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}")
    for mode in modes:
        if mode not in MODES:
            raise ParityError(f"--modes {mode}: expected some of {', '.join(MODES)}")
    if device == "meta" and set(phases) != {"forward"}:
        raise ParityError("--device meta: it has shapes and no values, which only --phases forward can compare")
    try:
        torch.empty(1, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ParityError(f"--device {device}: it has no float64 tensors ({reason}); use --device cpu") from error


def _environment() -> dict[str, Any]:
    capability = re.search(r"CPU capability usage: (\S+)", torch.__config__.show())
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cpu_capability": capability[1] if capability else "unknown",
    }


def _peak_memory() -> int | None:
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def _timed(timings: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timings[step] = time.perf_counter() - started
