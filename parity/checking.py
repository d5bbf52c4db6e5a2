"""The orchestrator: takes a reference and a candidate through every step and returns a report."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import math
import platform
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from torch import nn

from parity import candidate as candidates
from parity import diagnosis, inputs, measuring, passes
from parity import reference as references
from parity.alignment import align
from parity.diagnosis import Check, Doubts
from parity.errors import MappingError, ParityError, listed
from parity.mapping import find as find_map
from parity.report import Report, Top
from parity.state import assigned, fingerprint, hold, lacks_values
from parity.tracing import MODES, Ambient, DropoutMasks, Mode, Run, call_order, can_switch_fastpath, cast, first_tensor
from parity.weights import of_module as own_weights
from parity.weights import resolve as resolve_weights
from parity.weights import uniform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from parity.alignment import Alignment
    from parity.candidate import Candidate
    from parity.mapping import WeightMap
    from parity.tracing import Point
    from parity.weights import Weights

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
        device: where to run.
        modes: names of `tracing.MODES`.
        progress: told what is being done, how many points are done, and of how many (0: not known).

    Raises:
        ParityError: an option, a file or the candidate is unusable; the message says what to do.
    """
    started = time.perf_counter()
    timings: dict[str, float] = {}
    _require_known(dtype, device, modes)
    if not 0 <= seed < 2**63:
        raise ParityError(f"--seed {seed}: expected a whole number from 0 to 2**63 - 1")
    with _timed(timings, "build"):
        setup = _set_up(candidate, reference, overrides or {}, candidate_args, weights, seed)
        shown = inputs.make(input, setup.weights, setup.image_size, batch, seed)
        module = candidates.build_without_values(setup.candidate)
    about: dict[str, Any] = {
        "reference": {"name": setup.name, "config": setup.config, "weights": setup.weights.source},
        "candidate": {
            "name": setup.candidate.name,
            "config": setup.candidate.arguments,
            "defaults": list(setup.candidate.defaults),
        },
        "environment": _environment(),
        "inputs": shown.describe(),
        "timings": timings,
    }
    try:
        found = find_map(setup.reference, module, Path(mapping) if mapping else None)
    except MappingError as error:
        return Report(
            "inconclusive",
            [f"no weight map: {error}"],
            **about,
            unmapped_reference=error.unmapped_reference,
            unmapped_candidate=error.unmapped_candidate,
        )

    with contextlib.ExitStack() as stack:
        stack.enter_context(_ambient_kept())
        with _timed(timings, "weights"):
            progress(f"weights {setup.weights.source}", 0, 0)
            state = {name: t.to(device) for name, t in setup.weights.state_dict(setup.reference).items()}
            stack.enter_context(assigned(setup.reference, state))
            stack.enter_context(assigned(setup.twin, state))
        images = shown.images.to(device)
        with _timed(timings, "align"), MODES["eval"].active(setup.reference):
            calls = call_order(setup.reference, images, "reference")
            before = fingerprint(state)
            module, candidate_calls = _ready(module, setup.candidate, found.apply(state), images, stack)
            alignment = align(setup.reference, module, found, calls, candidate_calls)
        models = _Models(setup.reference, module, setup.twin, images, seed)

        plan = [(MODES[mode], name) for name in dict.fromkeys(("float64", dtype)) for mode in modes]
        points = 2 * len(alignment.pairs)
        checks: list[Check] = []
        for mode, name in plan:
            label = f"forward/{mode.name}/{name}"
            step = _Steps(progress, label, done=len(checks) * points, to_do=len(plan) * points)
            with _timed(timings, label):
                checks.append(_run_check(models, alignment, mode, name, checks, step))
        with _timed(timings, "doubts"):
            doubts = _doubts(models, checks, dtype, synthetic=setup.is_synthetic)
            after = fingerprint(state)
    written = [name for name, checksum in before.items() if after[name] != checksum]
    if written:
        fault = f"the candidate writes to its own weights as it runs: {listed(written)}"
        doubts = dataclasses.replace(doubts, unusable=(), faults=(fault, *doubts.faults))

    places = diagnosis.origins(checks, alignment)
    verdict, reasons = diagnosis.decide(checks, places, doubts)
    timings["total"] = time.perf_counter() - started
    return Report(
        verdict,
        reasons,
        **about,
        mapping=found,
        parameters=sum(tensor.numel() for tensor in state.values()),
        checks=checks,
        layers=diagnosis.layers(checks, alignment),
        origins=places,
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
    report = check(candidate, reference, **options)
    if require not in ("equivalent", "identical"):
        raise ParityError(f"require={require!r}: expected 'equivalent' or 'identical'")
    accepted = ("identical",) if require == "identical" else ("identical", "equivalent")
    if report.verdict not in accepted:
        raise AssertionError(f"{report}")
    return report


@dataclass(frozen=True)
class Pair:
    """Two models that hold the same weights in the same storage, in eval mode, and their weight map."""

    reference: nn.Module
    candidate: nn.Module
    mapping: WeightMap
    config: dict[str, Any]


def build_pair(
    candidate: str | Callable[..., Any],
    reference: str = "vit_b_16",
    *,
    overrides: Mapping[str, Any] | None = None,
    weights: str = "synthetic",
    seed: int = 0,
) -> Pair:
    """Builds a reference and a candidate with one copy of their weights, to be run as one likes.

    Args:
        candidate: as in `check`, but no module that is built already.
        reference: the name of a torchvision ViT.
        overrides: as in `check`.
        weights: as in `check`.
        seed: of synthetic weights.

    Raises:
        ParityError: as in `check`, and MappingError where no weight map is found.
    """
    setup = _set_up(candidate, reference, overrides or {}, None, weights, seed)
    module = candidates.build_without_values(setup.candidate)
    found = find_map(setup.reference, module)
    state = setup.weights.state_dict(setup.reference)
    hold(setup.reference, state)
    found.load(module, state, assign=True)
    return Pair(setup.reference.eval(), module.eval(), found, setup.config)


@dataclass
class _Steps:
    """Counts points and passes the count on."""

    progress: Callable[[str, int, int], None]
    what: str
    done: int
    to_do: int

    def __call__(self) -> None:
        self.done += 1
        self.progress(self.what, self.done, self.to_do)


@dataclass(frozen=True)
class _Setup:
    """Reference, candidate and weights, agreed on one configuration; `twin` is the reference once more.

    The twin runs in float64 while the reference runs in another dtype. All three get the same storage.
    """

    name: str
    config: dict[str, Any]
    reference: nn.Module
    twin: nn.Module
    weights: Weights
    candidate: Candidate
    is_synthetic: bool

    @property
    def image_size(self) -> int:
        return int(self.config.get("image_size", 224))


@dataclass(frozen=True)
class _Models:
    """Everything a pass needs, with weights in place."""

    reference: nn.Module
    candidate: nn.Module
    twin: nn.Module
    images: torch.Tensor
    seed: int

    @property
    def all(self) -> tuple[nn.Module, ...]:
        return self.reference, self.candidate, self.twin


def _set_up(
    candidate: str | nn.Module | Callable[..., Any],
    reference: str | nn.Module,
    overrides: Mapping[str, Any],
    candidate_args: Mapping[str, Any] | None,
    weights: str | None,
    seed: int,
) -> _Setup:
    if isinstance(reference, nn.Module):
        if overrides:
            raise ParityError(
                "--set changes a reference that is given by name; this one is a module that is built already"
            )
        if weights not in (None, "synthetic"):
            raise ParityError(
                f"weights={weights!r} belong to a reference given by name; load them into the module instead"
            )
        config = references.configuration_of(reference)
        chosen = resolve_weights("synthetic", "", seed) if weights else own_weights(reference)
        if isinstance(candidate, nn.Module) and {*candidate.modules()} & {*reference.modules()}:
            candidate = _sharing_copy(candidate)  # one module cannot be at two places of its run at a time
        found = candidates.resolve(candidate, config, candidate_args)
        name, module = type(reference).__name__, reference
    else:
        name = reference
        config = references.configuration(name, overrides)
        chosen = resolve_weights(weights or "synthetic", name, seed)
        config |= {key: value for key, value in chosen.config.items() if key not in overrides}
        config |= {rate: p for rate, p in references.CHECKED_DROPOUT.items() if rate not in overrides}
        found = candidates.resolve(candidate, config, candidate_args)
        # a candidate that takes no dropout is compared without
        config |= {rate: 0.0 for rate in references.RATES if rate not in {*overrides, *found.settings}}
        module = references.build(config)
    return _Setup(name, config, module, _sharing_copy(module), chosen, found, chosen.source.startswith("synthetic"))


def _sharing_copy(module: nn.Module) -> nn.Module:
    """Returns a second module of the same structure that holds the very same tensors."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


def _ready(
    module: nn.Module,
    candidate: Candidate,
    state: dict[str, torch.Tensor],
    images: torch.Tensor,
    stack: contextlib.ExitStack,
) -> tuple[nn.Module, list[Point]]:
    """Holds `state` in the candidate until the stack unwinds, and returns it with the order of its modules' calls.

    If tensors are left without values, or it cannot be run, it is built anew on a real device.
    """
    with contextlib.ExitStack() as trial:
        trial.enter_context(assigned(module, state))
        if not lacks_values(module):
            with contextlib.suppress(ParityError), MODES["eval"].active(module):
                order = call_order(module, images, "candidate")
                stack.push(trial.pop_all())
                return module, order
    module = candidate.build()
    stack.enter_context(assigned(module, state))
    with MODES["eval"].active(module):
        return module, call_order(module, images, "candidate")


def _run_check(
    models: _Models,
    alignment: Alignment,
    mode: Mode,
    dtype: str,
    earlier: list[Check],
    progress: Callable[[], None],
) -> Check:
    name = f"forward/{mode.name}/{dtype}"
    exact = dtype == "float64"
    if not mode.fastpath and not can_switch_fastpath():
        why = f"torch {torch.__version__} has no switch for the native attention kernel"
        return Check(name, mode, exact, skipped=why)
    run = functools.partial(_run_pass, models, dtype=DTYPES[dtype], progress=progress)
    if not exact:  # what float64 has shown of this mode holds for every dtype
        same = next(check for check in earlier if check.mode.name == mode.name)
        if same.skipped:
            return dataclasses.replace(same, name=name, exact=False)
        free = run(alignment.without(same.elsewhere), same.mode)
        return Check(name, same.mode, exact, free, elsewhere=same.elsewhere)

    free = run(alignment, mode)
    if mode.train and not free.measured[passes.OUTPUT].same_function:
        with_same_masks = dataclasses.replace(mode, same_masks=True)
        aligned = run(alignment, with_same_masks)
        if aligned.measured[passes.OUTPUT].relative < free.measured[passes.OUTPUT].relative / 1000:
            mode, free = with_same_masks, aligned
        elif _drops_alike_elsewhere(models, mode):
            why = "both drop at the same rates and as often, but over another layout, so that masks cannot be aligned"
            return Check(name, mode, exact, skipped=why)
    elsewhere = _drawn_elsewhere(free)
    if elsewhere:
        alignment = alignment.without(elsewhere)
        free = run(alignment, mode)
    check = Check(name, mode, exact, free, elsewhere=elsewhere)
    is_first = not any(other.free for other in earlier)
    is_off = is_first or not all(m.same_function for m in free.measured.values())
    if free.identical or not is_off or any(other.dirty for other in earlier):
        return check
    return dataclasses.replace(check, forced=run(alignment, mode, forced=True))


def _drawn_elsewhere(free: passes.Pass) -> frozenset[str]:
    """Returns the modules that are off by far although the logits agree, in float64; none if the logits don't."""
    if not free.measured[passes.OUTPUT].same_function:
        return frozenset()
    return frozenset(
        point.module for point, m in free.measured.items() if m.problem or m.relative > measuring.ELSEWHERE_BOUND
    )


def _drops_alike_elsewhere(models: _Models, mode: Mode) -> bool:
    """Whether both models draw as many dropout masks of the same sizes and rates, but in other shapes."""
    drawn = []
    for model, owner in ((models.reference, "reference"), (models.candidate, "candidate")):
        with mode.active(model), DropoutMasks() as masks:
            Run(model, models.images, set(), models.seed, owner).finish()
        drawn.append(masks.drawn)
    sizes = [sorted((rate, math.prod(shape)) for rate, shape in masks) for masks in drawn]
    return sizes[0] == sizes[1] and sorted(drawn[0]) != sorted(drawn[1])


def _run_pass(
    models: _Models,
    alignment: Alignment,
    mode: Mode,
    dtype: torch.dtype,
    progress: Callable[[], None],
    *,
    forced: bool = False,
    late: bool = True,
) -> passes.Pass:
    images = models.images.to(dtype)
    watched = set(alignment.pairs.values()), set(alignment.pairs)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mode.active(*models.all))
        stack.enter_context(cast(models.reference, dtype))
        stack.enter_context(cast(models.candidate, dtype, late=late))
        truth = None
        if dtype != torch.float64:
            stack.enter_context(cast(models.twin, torch.float64))
            truth = Run(models.twin, models.images.double(), watched[0], models.seed, "reference")
        try:
            return passes.in_step(
                Run(models.reference, images, watched[0], models.seed, "reference"),
                Run(models.candidate, images, watched[1], models.seed, "candidate"),
                alignment,
                truth=truth,
                forced=forced,
                progress=progress,
            )
        except ParityError:
            if not late or dtype != torch.float64:
                raise
    # perhaps a block's parameters are used without calling the block
    return _run_pass(models, alignment, mode, dtype, progress, forced=forced, late=False)


def _bare_run(
    model: nn.Module,
    images: torch.Tensor,
    mode: Mode,
    dtype: torch.dtype,
    seed: int,
    owner: str,
    *,
    late: bool = True,
) -> Run:
    """Runs a model to its end with nobody watching."""
    try:
        with mode.active(model), cast(model, dtype, late=late):
            run = Run(model, images.to(dtype), set(), seed, owner)
            run.finish()
    except ParityError:
        if not late or dtype != torch.float64:
            raise
        return _bare_run(model, images, mode, dtype, seed, owner, late=False)
    return run


def _doubts(models: _Models, checks: list[Check], dtype: str, *, synthetic: bool) -> Doubts:
    """Looks for what the checks cannot show, and for what would make them worthless."""
    made = [check for check in checks if check.free]
    unusable: list[str] = []
    faults: list[str] = []
    blind: list[str] = []
    for check in [check for check in made if check.name.endswith(dtype)][:1]:
        assert check.free is not None
        for model, owner, watched in (
            (models.reference, "reference", check.free.reference_output),
            (models.candidate, "candidate", check.free.candidate_output),
        ):
            unusable += _unsteady(model, owner, watched, models, check.mode, DTYPES[dtype])
    measured = [m for check in made if check.free for m in check.free.measured.values()]
    if any(m.problem == measuring.NOT_FINITE for m in measured):
        unusable.append(
            "the reference itself has values that are not finite (NaN or infinity); use other weights or inputs"
        )
    if not unusable:
        faults += _faults_on_other_batches(models)
    for check in made[:1]:
        assert check.free is not None
        why = measuring.is_degenerate(check.free.reference_output)
        if why:
            blind.append(
                f"the reference's logits {why}, so no comparison of them could have failed; use weights that make a "
                "difference, such as --weights synthetic (torchvision's fresh models have a head of zeros)"
            )
    dead = [] if synthetic else _dead_parameters(models)
    if dead:
        blind.append(
            f"{len(dead)} parameters of the reference have no effect on its logits (gradient exactly 0), so wrong ones "
            f"would not show: {listed(dead)}"
        )
    return Doubts(tuple(unusable), tuple(blind), tuple(faults))


def _faults_on_other_batches(models: _Models) -> list[str]:
    """Compares the bare logits of other images, in batches of one, of two and of the checks' own size.

    A mistake may depend on the batch's size, and a model that remembers something answers an old question.
    """
    faults = []
    size = models.images.shape[-1]
    for batch in sorted({1, 2, len(models.images)}):
        images = uniform(f"{models.seed}/other batch {batch}", (batch, 3, size, size)).to(models.images.device)
        for dtype in (torch.float32, torch.float64):  # float64 only if the bits differ in float32
            mode, seed = MODES["eval"], models.seed
            expected = _bare_run(models.reference, images, mode, dtype, seed, "reference")
            try:
                found = _bare_run(models.candidate, images, mode, dtype, seed, "candidate")
            except ParityError as error:
                faults.append(f"a batch of {batch} is not possible: {error}")
                break
            assert expected.output is not None
            assert found.output is not None
            measurement = measuring.compare(expected.output, found.output)
            if found.has_changed_its_input:
                faults.append("the candidate writes to the images it is given, which others may still need")
            if measurement.identical:
                break
            if dtype == torch.float64 and not measurement.same_function:
                size_of = measurement.problem or f"relative error {measurement.relative:.2g}"
                faults.append(f"not the same function on other images in a batch of {batch}: logits with {size_of}")
    return list(dict.fromkeys(faults))


def _unsteady(
    model: nn.Module, owner: str, watched: torch.Tensor, models: _Models, mode: Mode, dtype: torch.dtype
) -> list[str]:
    """Checks that a bare run, without hooks, has the bits of the watched one."""
    run = functools.partial(_bare_run, model, models.images, mode, dtype, models.seed, owner)
    first = run().output
    assert first is not None
    if torch.equal(first, watched) or not measuring.is_finite(watched):
        return []
    second = run().output
    assert second is not None
    if torch.equal(first, second):
        return [f"watching the {owner}'s modules changes its result; it must not look at its own hooks"]
    return [f"the {owner} is not deterministic: two runs on the same input, weights and random state differ"]


def _dead_parameters(models: _Models) -> list[str]:
    """Returns the parameters of the reference whose gradient, for a random projection of the logits, is exactly 0."""
    model, alive = models.reference, set()

    def note(name: str, parameter: torch.Tensor) -> None:
        if parameter.grad is not None and bool(parameter.grad.any()):
            alive.add(name)
        parameter.grad = None  # only one gradient at a time takes memory

    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if hasattr(parameter, "register_post_accumulate_grad_hook"):  # since torch 2.1
            parameter.register_post_accumulate_grad_hook(functools.partial(note, name))  # type: ignore[no-untyped-call]
    training = model.training
    try:
        with torch.enable_grad():
            logits = first_tensor(model.eval()(models.images[:1]))
            assert logits is not None
            direction = uniform(f"{models.seed}/projection", tuple(logits.shape)).to(logits)
            torch.autograd.backward((logits * direction).sum())
    finally:
        model.train(training)
        for name, parameter in parameters.items():
            note(name, parameter)
    return [name for name in parameters if name not in alive]


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


def _require_known(dtype: str, device: str, modes: Sequence[str]) -> None:
    if dtype not in DTYPES:
        raise ParityError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}")
    for mode in modes:
        if mode not in MODES:
            raise ParityError(f"--modes {mode}: expected some of {', '.join(MODES)}")
    if device == "meta":
        raise ParityError("--device meta: it has shapes and no values, so nothing can be compared; use --device cpu")
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
def _ambient_kept() -> Iterator[None]:
    """Puts back what a candidate's constructor or forward pass may change for everybody."""
    ambient, threads = Ambient.now(), torch.get_num_threads()
    try:
        yield
    finally:
        ambient.restore()
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _timed(timings: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timings[step] = time.perf_counter() - started
