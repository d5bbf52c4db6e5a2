"""The orchestrator: takes a reference and a candidate through every step and returns a report."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
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
from parity.state import assigned, hold, lacks_values
from parity.tracing import MODES, Mode, Run, call_order, can_switch_fastpath, cast, first_tensor
from parity.weights import of_module as own_weights
from parity.weights import resolve as resolve_weights
from parity.weights import uniform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from parity.alignment import Alignment
    from parity.candidate import Candidate
    from parity.mapping import WeightMap
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
        dtype: the dtype under test: float32, bfloat16 or float16.
        device: where to run.
        modes: names of `tracing.MODES`.
        progress: told what is being done, how many points are done, and of how many (0: not known).

    Raises:
        ParityError: an option, a file or the candidate is unusable; the message says what to do.
    """
    started = time.perf_counter()
    timings: dict[str, float] = {}
    _require_known(dtype, device, modes)
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
        stack.enter_context(_random_state_kept())
        with _timed(timings, "weights"):
            progress(f"weights {setup.weights.source}", 0, 0)
            state = {name: t.to(device) for name, t in setup.weights.state_dict(setup.reference).items()}
            module = _with_values(module, setup.candidate, found.apply(state), stack)
            stack.enter_context(assigned(setup.reference, state))
            stack.enter_context(assigned(setup.twin, state))
        models = _Models(setup.reference, module, setup.twin, shown.images.to(device), seed)
        with _timed(timings, "align"), MODES["eval"].active(*models.all):
            calls = [
                call_order(model, models.images[:1], owner)
                for model, owner in ((setup.reference, "reference"), (module, "candidate"))
            ]
            alignment = align(setup.reference, module, found, *calls)

        plan = [(MODES[mode], name) for name in dict.fromkeys(("float64", dtype)) for mode in modes]
        points = 2 * len(alignment.pairs)
        checks: list[Check] = []
        for mode, name in plan:
            label = f"forward/{mode.name}/{name}"
            step = _Steps(progress, label, done=len(checks) * points, to_do=len(plan) * points)
            with _timed(timings, label):
                checks.append(_run_check(models, alignment, mode, name, checks, step))
        with _timed(timings, "doubts"):
            doubts = _doubts(models, checks, plan, dtype, synthetic=setup.is_synthetic)

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
        found = candidates.resolve(candidate, config, candidate_args)
        name, module = type(reference).__name__, reference
    else:
        name = reference
        config = references.configuration(name, overrides)
        chosen = resolve_weights(weights or "synthetic", name, seed)
        config |= {key: value for key, value in chosen.config.items() if key not in overrides}
        config |= {rate: references.CHECKED_DROPOUT for rate in references.RATES if rate not in overrides}
        found = candidates.resolve(candidate, config, candidate_args)
        # a candidate that takes no dropout is compared without
        config |= {rate: 0.0 for rate in references.RATES if rate not in {*overrides, *found.settings}}
        module = references.build(config)
    return _Setup(name, config, module, _sharing_copy(module), chosen, found, chosen.source.startswith("synthetic"))


def _sharing_copy(module: nn.Module) -> nn.Module:
    """Returns a second module of the same structure that holds the very same tensors."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


def _with_values(
    module: nn.Module, candidate: Candidate, state: dict[str, torch.Tensor], stack: contextlib.ExitStack
) -> nn.Module:
    """Holds `state` in the module until the stack unwinds; if tensors are left without values, in one built anew."""
    inner = contextlib.ExitStack()
    inner.enter_context(assigned(module, state))
    if lacks_values(module):
        inner.close()
        module = candidate.build()
        inner.enter_context(assigned(module, state))
    stack.push(inner)
    return module


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
        return Check(name, exact, skipped=f"torch {torch.__version__} has no switch for the native attention kernel")
    free = _run_pass(models, alignment, mode, DTYPES[dtype], progress)
    note = None
    if mode.train and not free.measured[passes.OUTPUT].same_function:
        aligned_mode = dataclasses.replace(mode, same_masks=True)
        aligned = _run_pass(models, alignment, aligned_mode, DTYPES[dtype], progress)
        if _agrees_better(aligned, free):
            mode, free = aligned_mode, aligned
            note = "dropout masks drawn in logical order, since the two models lay out memory differently"
    forced = None
    if exact and not free.identical and not any(check.dirty for check in earlier):
        is_first = not any(check.exact and check.free for check in earlier)
        if is_first or not all(m.same_function for m in free.measured.values()):
            forced = _run_pass(models, alignment, mode, DTYPES[dtype], progress, forced=True)
    return Check(name, exact, free, forced, note=note)


def _agrees_better(one: passes.Pass, other: passes.Pass) -> bool:
    """Whether the logits of `one` are closer together than those of `other`, beyond what rounding can do."""
    distances = [shown.measured[passes.OUTPUT].relative for shown in (one, other)]
    return distances[0] < distances[1] / 1000


def _run_pass(
    models: _Models,
    alignment: Alignment,
    mode: Mode,
    dtype: torch.dtype,
    progress: Callable[[], None],
    *,
    forced: bool = False,
) -> passes.Pass:
    images = models.images.to(dtype)
    references_watched, candidates_watched = set(alignment.pairs.values()), set(alignment.pairs)
    with (
        mode.active(*models.all),
        cast(models.reference, dtype),
        cast(models.candidate, dtype),
        contextlib.ExitStack() as s,
    ):
        truth = None
        if dtype != torch.float64:
            s.enter_context(cast(models.twin, torch.float64))
            truth = Run(models.twin, models.images.double(), references_watched, models.seed, "reference")
        return passes.in_step(
            Run(models.reference, images, references_watched, models.seed, "reference"),
            Run(models.candidate, images, candidates_watched, models.seed, "candidate"),
            alignment,
            truth=truth,
            forced=forced,
            progress=progress,
        )


def _doubts(
    models: _Models, checks: list[Check], plan: list[tuple[Mode, str]], dtype: str, *, synthetic: bool
) -> Doubts:
    """Looks for what would make the comparison worthless."""
    made = [(check, mode, name) for check, (mode, name) in zip(checks, plan, strict=True) if check.free]
    unusable: list[str] = []
    blind: list[str] = []
    for check, mode, name in [entry for entry in made if entry[2] == dtype][:1]:
        assert check.free is not None
        outputs = (models.reference, "reference", check.free.reference_output), (
            models.candidate, "candidate", check.free.candidate_output)  # fmt: skip
        for model, owner, watched in outputs:
            unusable += _unsteady(model, owner, watched, models, mode, DTYPES[name])
    if any(m.problem == measuring.NOT_FINITE for check, *_ in made for m in check.free.measured.values()):  # type: ignore[union-attr]
        unusable.append(
            "the reference itself has values that are not finite (NaN or infinity); use other weights or inputs"
        )
    for check, *_ in made[:1]:
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
    return Doubts(tuple(unusable), tuple(blind))


def _unsteady(
    model: nn.Module, owner: str, watched: torch.Tensor, models: _Models, mode: Mode, dtype: torch.dtype
) -> list[str]:
    """Checks that a bare run, without hooks, has the bits of the watched one."""

    def bare() -> torch.Tensor:
        with mode.active(model), cast(model, dtype):
            return Run(model, models.images.to(dtype), set(), models.seed, owner).finish().detach()

    first = bare()
    if torch.equal(first, watched) or not measuring.is_finite(watched):
        return []
    if torch.equal(first, bare()):
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
    shown = next((check.free for check in checks if check.free and not check.exact), None)
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
def _random_state_kept() -> Iterator[None]:
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


@contextlib.contextmanager
def _timed(timings: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    timings[step] = time.perf_counter() - started
