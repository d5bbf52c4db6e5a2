"""One backward pass of a model: the gradient of every parameter and of the input, and what happens on the way."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from parity.errors import ParityError, described
from parity.models import cut, rearranged, slots, split, uniform
from parity.tracing import (
    NOISE_BOUND,
    SAME_FUNCTION_BOUND,
    Measurement,
    Run,
    compare,
    first_that_runs,
    held_in,
    noise_ratio,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from parity.models import Entry, WeightMap
    from parity.tracing import Mode, Point

    Loss = Callable[[torch.Tensor], torch.Tensor]
    Take = Callable[[str, torch.Tensor], None]

INPUT = "the input"  # the name of the gradient of the images

# what is wrong with one that is missing
NO_GRADIENT = "no gradient"


# Two right implementations agree in their gradients as closely as in their outputs. Measured over some forty of them,
# by tensor: up to 3.3e-15 at depth 3, 4.2e-15 at depth 12 (timm's ViT-B/16).
GRADIENT_BOUND = SAME_FUNCTION_BOUND

# A gradient that is this small beside the model's largest one, in float64, is rounding: no output depends on its
# parameter. Measured for a key's bias: 8e-17; the smallest real one of any tensor stands at 1e-3.
INERT = 1e-13

# The same in another dtype, in units of its own rounding. Measured for a key's bias in float32: 0.3 at ViT-B/16.
INERT_BEYOND_ROUNDING = 8.0


@dataclass(frozen=True)
class Task:
    """What is differentiated: a number made of the logits for some images.

    Attributes:
        images: (B, C, H, W) in float32.
        seed: of the run's random state.
        mode: how the model is run; its `backward` is set.
        loss: makes a number of the logits (B, classes).
        autocast: run forward under autocast with bfloat16, outside float64.
    """

    images: torch.Tensor
    seed: int
    mode: Mode
    loss: Loss
    autocast: bool = False


@dataclass
class Watch:
    """What is done at the watched modules of a run, and what is seen there.

    Attributes:
        modules: names of the modules to stop at.
        seen: told the point and the gradient that arrives there; returns another gradient to go on with, or None.
        points: all points that were passed, in order; whether a gradient could arrive there.
        without_grad: points at which the model had switched autograd off.
        recomputed: modules that were called once more during the backward pass.
    """

    modules: set[str]
    seen: Callable[[Point, torch.Tensor], torch.Tensor | None]
    points: dict[Point, bool] = field(default_factory=dict)
    without_grad: set[Point] = field(default_factory=set)
    recomputed: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Passed:
    """What a backward pass leaves behind besides gradients: logits, and whether the images were written to."""

    logits: torch.Tensor
    loss: torch.Tensor
    has_changed_its_input: bool


def projection(seed: int) -> Loss:
    """Returns the loss that sums up the logits, weighted at random: every gradient is of order 1."""

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return (logits * uniform(f"{seed}/projection", tuple(logits.shape)).to(logits)).sum()

    return loss


def cross_entropy(seed: int) -> Loss:
    """Returns the loss of classification, with random labels."""

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits.flatten(0, -2), labels(seed, logits.flatten(0, -2)))

    return loss


def labels(seed: int, logits: torch.Tensor) -> torch.Tensor:
    """Draws a class (B,) for every row of the logits (B, classes)."""
    ranks = uniform(f"{seed}/labels", tuple(logits.shape))
    return ranks.argmax(-1).to(logits.device)


def differentiate(
    model: nn.Module,
    task: Task,
    dtype: torch.dtype,
    owner: str,
    take: Take,
    *,
    frozen: Collection[str] = (),
    watch: Watch | None = None,
) -> Passed:
    """Runs a model forward and backward.

    Args:
        model: with weights in place; its parameters hold no gradients afterwards.
        task: what is differentiated.
        dtype: of weights and images.
        owner: who the model is, for messages.
        take: given every gradient as soon as it is there, so that no two need memory, by the parameter's name; the
            images' under `INPUT`. A parameter registered in two places is taken under both names; one that gets no
            gradient is not taken. Where it is told of a name once more, the later gradient is the right one.
        frozen: names of parameters that want no gradient.
        watch: what else to look at.

    Raises:
        ParityError: the model failed, forward or backward.
    """

    def run(attempt: int) -> Passed:
        with task.mode.active(model), held_in(model, dtype, max(attempt, 1)), _wanting(model, frozen):
            arrived: Counter[str] = Counter()
            passed = _backward(model, task, dtype, owner, _counted(take, arrived), watch)
            if max(arrived.values(), default=0) > 1:  # in pieces: what was taken first was not all
                passed = _backward(model, task, dtype, owner, take, watch, at_once=False)
            return passed

    return first_that_runs(run, dtype)


def _counted(take: Take, arrived: Counter[str]) -> Take:
    def counting(name: str, gradient: torch.Tensor) -> None:
        arrived[name] += 1
        take(name, gradient)

    return counting


@contextlib.contextmanager
def _wanting(model: nn.Module, frozen: Collection[str]) -> Iterator[None]:
    """Lets all floating-point parameters but the frozen ones want a gradient, and takes the gradients away again."""
    names = _names(model)
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in names]
    try:
        for parameter, own in names.items():
            parameter.grad = None
            parameter.requires_grad_(parameter.is_floating_point() and not set(own) & set(frozen))
        yield
    finally:
        for parameter, wanted, gradient in before:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient


def _backward(
    model: nn.Module,
    task: Task,
    dtype: torch.dtype,
    owner: str,
    take: Take,
    watch: Watch | None,
    *,
    at_once: bool = True,
) -> Passed:
    images = task.images.to(dtype).detach().clone().requires_grad_()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=task.autocast and dtype != torch.float64):
        run = Run(model, images, watch.modules if watch else set(), task.seed, owner)
    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        _advance(run, watch)
        logits = run.output
        assert logits is not None
        loss = task.loss(logits)
        names = _names(model)
        for parameter in names if at_once else ():
            can_hook = hasattr(parameter, "register_post_accumulate_grad_hook")  # since torch 2.1
            if parameter.requires_grad and can_hook:
                handles.append(parameter.register_post_accumulate_grad_hook(_taking(names[parameter], take)))  # type: ignore[no-untyped-call]
        if watch:
            handles += [
                module.register_forward_pre_hook(_noting(name, watch)) for name, module in model.named_modules()
            ]
        try:
            if loss.requires_grad:  # or nothing at all gets a gradient
                torch.autograd.backward(loss)
        except Exception as error:
            raise ParityError(f"the {owner}'s backward pass failed: {described(error)}") from error
        for parameter in names:
            _taking(names[parameter], take)(parameter)
        if images.grad is not None:
            take(INPUT, images.grad)
        return Passed(logits.detach(), loss.detach(), run.has_changed_its_input)
    finally:
        run.close()
        for handle in handles:
            handle.remove()


def _names(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    names: dict[nn.Parameter, list[str]] = defaultdict(list)
    for name, registry, key in slots(model):
        tensor = registry[key]
        if isinstance(tensor, nn.Parameter):
            names[tensor].append(name)
    return names


def _taking(names: list[str], take: Take) -> Callable[[torch.Tensor], None]:
    def hook(parameter: torch.Tensor) -> None:
        if parameter.grad is not None:
            gradient, parameter.grad = parameter.grad, None
            for name in names:
                take(name, gradient)

    return hook


def _noting(name: str, watch: Watch) -> Callable[..., None]:
    return lambda *_: watch.recomputed.add(name)


def _advance(run: Run, watch: Watch | None) -> None:
    """Runs to the end. At every watched point the model goes on with an alias of its tensor.

    The gradient that arrives at the alias is that of what follows the point alone, whatever else uses the tensor.
    """
    substitute: list[torch.Tensor] | None = None
    while (event := run.advance(substitute)) is not None:
        assert watch is not None
        substitute = None
        if len(event.tensors) != 1 and event.point.moment == "enter":
            continue
        if not run.grad_enabled:
            watch.without_grad.add(event.point)
        first = event.tensors[0].view_as(event.tensors[0])
        watch.points[event.point] = first.requires_grad and run.grad_enabled
        if watch.points[event.point]:
            first.register_hook(_seeing(event.point, watch))  # type: ignore[no-untyped-call]
            substitute = [first, *event.tensors[1:]]


def _seeing(point: Point, watch: Watch) -> Callable[[torch.Tensor], torch.Tensor | None]:
    return lambda gradient: watch.seen(point, gradient)


@dataclass(frozen=True)
class Pairs:
    """Which tensor of the candidate is made of which entries of the weight map."""

    entries: Mapping[str, tuple[Entry, ...]]

    @classmethod
    def of(cls, found: WeightMap) -> Pairs:
        """Sorts the entries of a map by the candidate's tensor."""
        entries = defaultdict(list)
        for entry in found.entries:
            entries[split(entry.candidate)[0]].append(entry)
        return cls({name: tuple(members) for name, members in entries.items()})


def moved(entry: Entry, values: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Returns the reference's side of an entry in the candidate's layout; None if its tensor is not in `values`."""
    source, box = split(entry.reference)
    return rearranged(cut(values[source], box), entry.layout) if source in values else None


@dataclass(frozen=True)
class Gradient:
    """What was measured of the gradient of one entry of the weight map, or of the images.

    Attributes:
        reference: the tensor, or slice of one, or `INPUT`.
        candidate: the same in the candidate.
        measurement: the distance.
        noise: the noise ratio, outside float64 and where bits differ.
        what: why it counts as wrong, in words; empty if it is right.
        is_inert: the reference's is rounding alone, since no output depends on the parameter.
    """

    reference: str
    candidate: str
    measurement: Measurement
    noise: float | None = None
    what: str = ""
    is_inert: bool = False


@dataclass
class Comparison:
    """Compares gradients one by one as a backward pass of the candidate makes them.

    Args:
        pairs: which is which.
        truth: the reference's gradients in float64, by tensor.
        expected: the reference's in the dtype under test; None where that is float64.
        resolution: of the narrowest dtype that is computed in outside float64; None for that of the gradients.
    """

    pairs: Pairs
    truth: Mapping[str, torch.Tensor]
    expected: Mapping[str, torch.Tensor] | None = None
    resolution: float | None = None
    found: dict[tuple[str, str], Gradient] = field(default_factory=dict)
    largest: float = field(init=False)

    def __post_init__(self) -> None:
        self.largest = max((float(g.abs().max()) for g in self.truth.values() if g.numel()), default=0.0)

    def take(self, name: str, gradient: torch.Tensor) -> None:
        """Measures a gradient of the candidate; `name` is its tensor's or `INPUT`."""
        for reference, candidate, exact, expected in self._parts(name):
            own = cut(gradient, split(candidate)[1])
            self.found[reference, candidate] = self._measured(reference, candidate, own, exact, expected)

    def finish(self, without: Collection[str]) -> list[Gradient]:
        """Returns all that was measured; what has no gradient although the reference's is not zero is wrong.

        Args:
            without: names of the candidate's tensors that want no gradient.
        """
        for name in (INPUT, *self.pairs.entries):
            for reference, candidate, exact, _ in self._parts(name):
                if (reference, candidate) not in self.found and name not in without and bool(exact.any()):
                    nothing = compare(exact, torch.zeros_like(exact), ulp=False)
                    self.found[reference, candidate] = Gradient(reference, candidate, nothing, what=NO_GRADIENT)
        return list(self.found.values())

    def _parts(self, name: str) -> Iterator[tuple[str, str, torch.Tensor, torch.Tensor | None]]:
        """Yields reference, candidate, the exact gradient and the expected one of every entry of a tensor."""
        expected = self.expected
        if name == INPUT and INPUT in self.truth:
            yield INPUT, INPUT, self.truth[INPUT], expected[INPUT] if expected else None
        for entry in self.pairs.entries.get(name, ()):
            exact = moved(entry, self.truth)
            if exact is not None:
                yield entry.reference, entry.candidate, exact, moved(entry, expected) if expected else None

    def _measured(
        self, reference: str, candidate: str, own: torch.Tensor, exact: torch.Tensor, expected: torch.Tensor | None
    ) -> Gradient:
        measurement = compare(exact if expected is None else expected, own, ulp=expected is not None)
        if own.numel() and float(exact.abs().max()) <= INERT * self.largest:
            resolution = self.resolution or torch.finfo(own.dtype).eps
            limit = INERT if expected is None else INERT_BEYOND_ROUNDING * resolution
            is_rounding = measurement.problem is None and float(own.abs().max()) <= limit * self.largest
            what = "" if is_rounding else "a gradient where the reference's is rounding alone"
            return Gradient(reference, candidate, measurement, what=what, is_inert=True)
        if expected is None:
            what = measurement.problem or ("" if measurement.relative <= GRADIENT_BOUND else "another gradient")
            return Gradient(reference, candidate, measurement, what=what)
        ratio = None if measurement.identical else noise_ratio(expected, own, exact)
        is_noisy = ratio is not None and ratio > NOISE_BOUND
        what = measurement.problem or ("less accurate than the reference" if is_noisy else "")
        return Gradient(reference, candidate, measurement, ratio, what)
