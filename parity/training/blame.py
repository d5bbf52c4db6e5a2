"""Where gradients begin to differ: both models' backward passes, compared at every aligned point.

The candidate is handed the reference's own gradient wherever its own differs (teacher forcing, backwards), so that what
is measured at a point has gone wrong since the point after it, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from parity.diagnosis import Beyond, Place
from parity.errors import ParityError, listed
from parity.findings import Cause
from parity.models import split
from parity.tracing import OUTPUT, Event, Measurement, Point, compare, fitting, is_rearranged
from parity.training.gradients import GRADIENT_BOUND, NO_GRADIENT, Comparison, Watch, differentiate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from torch import nn

    from parity.tracing import Alignment, Models
    from parity.training.gradients import Gradient, Pairs, Task


@dataclass
class _Trail:
    """What a forced backward pass has shown, by point of the reference.

    Attributes:
        alignment: which module is which.
        expected: the reference's gradients.
        measured: how far the candidate's are from them.
        arrived: the points at which any gradient has arrived, comparable or not.
        watch: what was seen of the candidate's run.
    """

    alignment: Alignment
    expected: dict[Point, torch.Tensor] = field(default_factory=dict)
    measured: dict[Point, Measurement] = field(default_factory=dict)
    arrived: set[Point] = field(default_factory=set)
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(set(self.alignment.pairs), self.see)

    def see(self, point: Point, gradient: torch.Tensor) -> torch.Tensor | None:
        """Measures a gradient of the candidate and returns the reference's where it is another one."""
        there = self.alignment.to_reference(point)
        self.arrived.add(there)
        if there not in self.expected:
            return None
        expected = fitting([self.expected[there]], Event(point, [gradient]), there, self.alignment)[0]
        if point.moment == "enter" and is_rearranged(expected, gradient):
            return None
        self.measured[there] = measurement = compare(expected, gradient, ulp=False)
        return None if measurement.identical or measurement.problem else expected.to(gradient.dtype)

    @property
    def order(self) -> list[Point]:
        """All points in the order of the candidate's forward pass."""
        return [self.alignment.to_reference(point) for point in self.watch.points]

    def flows(self) -> dict[Point, bool]:
        """Returns for every point whether the candidate's tensor there was part of an autograd graph."""
        return {self.alignment.to_reference(point): flows for point, flows in self.watch.points.items()}

    def missing(self) -> list[list[Point]]:
        """Returns the stretches of neighbouring points at which no gradient arrives, in order of the forward pass."""
        hidden = {
            self.alignment.to_reference(point)
            for point in self.watch.without_grad
            if any(f"{point.module}.".startswith(f"{name}.") for name in self.watch.recomputed if name)
        }
        stretches: list[list[Point]] = []
        is_open = False
        for point in self.order:
            if point in self.arrived or point in hidden or not self._wants(point):
                is_open = False if point in self.arrived else is_open
                continue
            if not is_open:
                stretches.append([])
            stretches[-1].append(point)
            is_open = True
        return stretches

    def wrong(self) -> list[Point]:
        """Returns the points whose gradient is another one, in order of the forward pass.

        One that only lacks the share of a stretch without gradients behind it doesn't count.
        """
        lost = {point for stretch in self.missing() for point in stretch}
        found, is_after_lost = [], False
        for point in reversed(self.order):
            if point in lost:
                is_after_lost = True
            elif point in self.measured:
                if self.measured[point].relative > GRADIENT_BOUND and not is_after_lost:
                    found.append(point)
                is_after_lost = False
        return found[::-1]

    def _wants(self, point: Point) -> bool:
        return point in self.expected and bool(self.expected[point].any())


def blame(
    models: Models,
    alignment: Alignment,
    pairs: Pairs,
    task: Task,
    frozen: Collection[str],
    wrong: list[Gradient],
    check: str,
) -> Beyond:
    """Finds out where gradients begin to differ, and why.

    Args:
        models: with weights in place.
        alignment: which module is which.
        pairs: which tensor is which.
        task: what is differentiated.
        frozen: the candidate's parameters that want no gradient.
        wrong: the gradients that were found to be wrong when both models ran freely.
        check: the name of the check that shows it.
    """
    real = {name for name, _ in models.reference.named_modules()}
    alignment = alignment.without([name for name in alignment.pairs.values() if name not in real])
    trail = _Trail(alignment)
    truth: dict[str, torch.Tensor] = {}

    def note(point: Point, gradient: torch.Tensor) -> None:
        trail.expected[point] = gradient

    try:
        watch = Watch(set(alignment.pairs.values()), note)
        differentiate(models.reference, task, torch.float64, "reference", truth.__setitem__, watch=watch)
        comparison = Comparison(pairs, truth)
        differentiate(
            models.candidate, task, torch.float64, "candidate", comparison.take, frozen=frozen, watch=trail.watch
        )
        names = {gradient.candidate for gradient in wrong}
        own = [g for g in comparison.finish(frozen) if g.what and g.candidate in names]
    except ParityError:  # it cannot be watched; what is wrong is known all the same
        own = wrong
    if trail.watch.recomputed and trail.wrong() and _agree_where_masks_stay(models, pairs, task, frozen):
        places = [_place_of_error(trail, point, check) for point in trail.wrong()]
        return Beyond(places=places, causes=[_recomputed_otherwise(models.candidate, trail, wrong)])
    return _explained(trail, own or wrong, check)


def _agree_where_masks_stay(models: Models, pairs: Pairs, task: Task, frozen: Collection[str]) -> bool:
    """Returns whether all gradients are right once a mask drawn twice is the same mask both times."""
    task = replace(task, mode=replace(task.mode, by_size=True))
    truth: dict[str, torch.Tensor] = {}
    try:
        differentiate(models.reference, task, torch.float64, "reference", truth.__setitem__)
        comparison = Comparison(pairs, truth)
        differentiate(models.candidate, task, torch.float64, "candidate", comparison.take, frozen=frozen)
    except ParityError:
        return False
    return not any(gradient.what for gradient in comparison.finish(frozen))


def _recomputed_otherwise(candidate: nn.Module, trail: _Trail, wrong: list[Gradient]) -> Cause:
    again = [name for name, _ in candidate.named_modules() if name and name in trail.watch.recomputed]
    outermost = [name for name in again if not any(name.startswith(f"{other}.") for other in again)]
    statement = (
        f"gradient checkpointing recomputes {listed(outermost, 3)} with other dropout masks than "
        f"those of the forward pass; {len(wrong)} tensors get another gradient"
    )
    hint = "leave torch.utils.checkpoint's preserve_rng_state at True"
    return Cause("gradient-checkpointing", statement, tuple(g.reference for g in wrong), hint=hint)


def _explained(trail: _Trail, own: list[Gradient], check: str) -> Beyond:
    beyond = Beyond()
    lost = [gradient for gradient in own if gradient.what == NO_GRADIENT]
    stretches = trail.missing()
    if stretches:
        modules = [name for stretch in stretches for name in _outermost(stretch)]
        is_all = stretches[0][0] == trail.order[0]  # nothing in front of the blocks gets a gradient
        explained = [g for g in lost if is_all or any(g.reference.startswith(f"{name}.") for name in modules)]
        lost = [gradient for gradient in lost if gradient not in explained]
        beyond.places += [_place_of_loss(trail, stretch, check) for stretch in stretches]
        beyond.causes.append(_detached(trail, beyond.places, modules, explained))
    beyond.causes += _without(trail, lost)
    beyond.places += [_place_of_error(trail, point, check) for point in trail.wrong()]
    others = [gradient for gradient in own if gradient.what != NO_GRADIENT]
    if beyond.places and not beyond.causes:
        first = beyond.places[-1]  # the first one backwards
        names = tuple(dict.fromkeys(place.reference for place in beyond.places))
        statement = f"the gradient goes wrong {first.describe()}: relative error {first.isolated:.2g}"
        beyond.causes.append(Cause("gradient", statement, names))
    elif others and not beyond.causes:
        names = tuple(gradient.reference for gradient in others)
        worst = max(gradient.measurement.relative for gradient in others)
        statement = f"the gradient of {listed(list(names))} is another one: relative error {worst:.2g}"
        beyond.causes.append(Cause("gradient", statement, names))
    return beyond


def _detached(trail: _Trail, places: list[Place], modules: list[str], explained: list[Gradient]) -> Cause:
    why = ", where autograd is switched off," if trail.watch.without_grad else ""
    others = f" and at {len(places) - 1} places more" if len(places) > 1 else ""
    parameters = f"; {len(explained)} tensors are not trained by it" if explained else ""
    statement = (
        f"no gradient comes back {places[0].describe()}{why}{others}, so that {listed(modules, 3)} get none{parameters}"
    )
    return Cause("detached", statement, tuple(modules), hint="leave out detach(), .data and torch.no_grad() there")


def _without(trail: _Trail, lost: list[Gradient]) -> Iterator[Cause]:
    """Yields causes for parameters that alone get no gradient."""
    recomputed = [name for name in trail.watch.recomputed if name]
    checkpointed = [g for g in lost if any(split(g.candidate)[0].startswith(f"{name}.") for name in recomputed)]
    if checkpointed:
        names = tuple(gradient.reference for gradient in checkpointed)
        statement = (
            f"gradient checkpointing loses gradients: {len(names)} tensors of what is recomputed in the backward pass, "
            f"{listed([g.candidate for g in checkpointed], 3)}, get none"
        )
        hint = "torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)"
        yield Cause("gradient-checkpointing", statement, names, hint=hint)
    others = [gradient for gradient in lost if gradient not in checkpointed]
    if others:
        names = tuple(gradient.reference for gradient in others)
        statement = f"{listed([g.candidate for g in others])} gets no gradient, although it has an effect"
        yield Cause(
            "gradient-missing", statement, names, hint="use the parameter itself, not its .data or a detached copy"
        )


def _outermost(stretch: list[Point]) -> list[str]:
    """Returns the modules that lie in a stretch with both their ends, or with any if none does, outer ones only."""
    moments: dict[str, set[str]] = {}
    for point in stretch:
        moments.setdefault(point.module, set()).add(point.moment)
    whole = [name for name, seen in moments.items() if len(seen) == 2] or list(moments)
    return [name for name in whole if not any(name.startswith(f"{other}.") for other in whole)]


def _place_of_loss(trail: _Trail, stretch: list[Point], check: str) -> Place:
    """Returns the place behind the last point whose tensor still was part of a graph."""
    flows, order = trail.flows(), trail.order
    connected = [point for point in stretch if flows[point]]
    last = connected[-1] if connected else order[max(order.index(stretch[0]) - 1, 0)]
    return _place_after(trail, last, 1.0, check)


def _place_of_error(trail: _Trail, point: Point, check: str) -> Place:
    measurement = trail.measured[point]
    return _place_after(trail, point, measurement.relative, check, measurement.problem)


def _place_after(trail: _Trail, point: Point, size: float, check: str, problem: str | None = None) -> Place:
    """Returns the place between a point and the next one of the forward pass."""
    order = trail.order
    position = order.index(point) + 1
    following = order[position] if position < len(order) else OUTPUT
    is_module = following == Point(point.module, point.call, "leave")
    candidates = {reference: candidate for candidate, reference in trail.alignment.pairs.items()}
    return Place(
        "module" if is_module else "glue",
        point.module,
        candidates[point.module],
        before=_in_words(point),
        after=_in_words(following),
        isolated=size,
        check=check,
        problem=problem,
    )


def _in_words(point: Point) -> str:
    if point == OUTPUT:
        return "the logits"
    return f"the {'input' if point.moment == 'enter' else 'output'} of {point.module}"
