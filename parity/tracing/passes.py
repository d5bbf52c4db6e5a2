"""One forward pass of both models in step, with a measurement at every aligned point.

A *free* pass lets the candidate go on with its own tensors: errors accumulate. A *forced* pass hands it the reference's
tensors at every aligned point where the two differ: each measurement then shows what has gone wrong since the point
before, and nothing else. That is the isolated error of a module, or of the glue between two modules.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from parity.tracing.alignment import align, number_of_calls
from parity.tracing.layouts import in_layout_of, in_layout_of_reference
from parity.tracing.measuring import Measurement, compare, compare_all, noise_ratio
from parity.tracing.putting_together import Gathering, portions_of
from parity.tracing.run import Event, Point, Run, outer_modules
from parity.tracing.spread import Places, Sizes, places_of, sizes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from torch import nn

    from parity.models import WeightMap
    from parity.tracing.alignment import Alignment
    from parity.tracing.nested import Tensors

OUTPUT = Point("", 0, "leave")


class Narrowed(NamedTuple):
    """A point where the candidate's tensor is of a narrower dtype than the reference's: of which, and by autocast?"""

    point: Point
    dtype: torch.dtype
    under_autocast: bool


@dataclass(frozen=True)
class Pass:
    """What was measured in one pass, by point of the reference, in the order of the candidate's run.

    Attributes:
        measured: distances at the aligned points and, last, at the models' outputs (`OUTPUT`).
        noise: noise ratios at the points where the two models' bits differ.
        reference_output: the reference's logits (B, classes).
        candidate_output: the candidate's.
        narrowed: the first point where the candidate's tensor is of a narrower dtype than the reference's.
        sizes: how large errors are where modules are left with other bits, of a pass with a truth that keeps them.
        places: where in the tensors they sit, there and where glue has made an error, of a forced pass that keeps it.
    """

    measured: dict[Point, Measurement]
    noise: dict[Point, float | None]
    reference_output: torch.Tensor = field(repr=False)
    candidate_output: torch.Tensor = field(repr=False)
    narrowed: Narrowed | None = None
    sizes: Mapping[Point, Sizes] = field(default_factory=dict, repr=False)
    places: Mapping[Point, Places | None] = field(default_factory=dict, repr=False)

    @property
    def identical(self) -> bool:
        """Whether every point has the same bits."""
        return all(measurement.identical for measurement in self.measured.values())


class Follower:
    """A run that goes just as far as somebody else asks.

    Events that nobody has asked for yet wait; those that nobody will ask for any more are let go, so that memory
    doesn't grow with depth.

    Args:
        run: where nothing has been asked for yet.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.waiting: dict[Point, Tensors] = {}
        self._passed: set[Point] = set()
        self._left: dict[str, int] = {}  # modules that this run has left, and which of their calls it was
        self._left_by_other: dict[str, int] = {}

    def until(self, point: Point) -> Tensors | None:
        """Goes on to `point` and returns what passes it; None if the run never comes there."""
        while point not in self.waiting:
            if self._is_missed(point):
                return None
            event = self.run.advance()
            if event is None:
                return None
            if event.point.moment == "leave":
                self._left[event.point.module] = event.point.call
            if event.point in self._passed:
                self._passed.remove(event.point)
            elif event.point == point or not self._is_over(event.point):
                self.waiting[event.point] = event.tensors
        return self.waiting.pop(point)

    def passes(self, point: Point) -> None:
        """Is told that the other run has passed a point for which it asks nothing more."""
        if point in self.waiting:
            del self.waiting[point]
        else:
            self._passed.add(point)

    def leaves(self, point: Point) -> None:
        """Is told that the other run has left a module, and with it everything inside."""
        if point.moment == "leave":
            self._left_by_other[point.module] = point.call
            for waiting in [waiting for waiting in self.waiting if self._is_over(waiting)]:
                del self.waiting[waiting]

    def _is_over(self, point: Point) -> bool:
        """Whether the other run has left the module of `point`, or one around it."""
        return any(
            point.call <= self._left_by_other.get(name, -1) for name in (point.module, *outer_modules(point.module))
        )

    def _is_missed(self, point: Point) -> bool:
        """Whether this run has left what the other one stands in: not every mode calls what is inside."""
        return point.call <= self._left.get(point.module, -1) or any(
            self._left.get(name, -1) > self._left_by_other.get(name, -1) for name in outer_modules(point.module)
        )


def in_step(
    reference: Run,
    candidate: Run,
    alignment: Alignment,
    *,
    truth: Run | None = None,
    forced: bool = False,
    pixels: tuple[int, int] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Pass:
    """Runs both models in step and measures at every aligned point.

    Args:
        reference: a run of the reference that watches the aligned modules.
        candidate: the same of the candidate.
        alignment: which module is which.
        truth: a run of the reference in float64, for noise ratios; it is run only if bits differ.
        forced: hand the reference's tensors to the candidate wherever its own differ.
        pixels: height and width of the images, where it is to be kept how errors are spread over tensors.
        progress: called at every point.

    Raises:
        ParityError: one of the models failed.
    """
    true_run = Follower(truth) if truth else None
    measured: dict[Point, Measurement] = {}
    noise: dict[Point, float | None] = {}
    narrowed: Narrowed | None = None
    sizes: dict[Point, Sizes] = {}
    places: dict[Point, Places | None] = {}
    try:
        for point, tensors, expected, event, measurement in steps(reference, candidate, alignment, forced=forced):
            measured[point] = measurement
            is_spread = pixels is not None and not measurement.identical and measurement.problem is None
            is_left = point.moment == "leave"
            if pixels and is_spread and forced and (is_left or not measurement.is_clean):
                laid_out = in_layout_of_reference(event.tensors[0], tensors[0], point, alignment)
                places[point] = places_of(tensors[0], laid_out, pixels)
            narrowed = narrowed or _narrowed(point, event.tensors[0], expected[0], candidate)
            if true_run and measurement.identical:
                true_run.passes(point)
            elif true_run and (exact := true_run.until(point)):
                true_values = fitting(exact, event, point, alignment)[0]
                noise[point] = noise_ratio(expected[0], event.tensors[0], true_values)
                if is_spread and is_left and noise[point] is not None:
                    sizes[point] = sizes_of(expected[0], event.tensors[0], true_values)
            if true_run:
                true_run.leaves(point)
            progress()
        outputs = reference.finish(), _output(candidate)
        measured[OUTPUT] = compare(*outputs)
        if true_run and not measured[OUTPUT].identical:
            noise[OUTPUT] = noise_ratio(*outputs, true_run.run.finish())
    finally:
        for run in (reference, candidate, truth):
            if run:
                run.close()
    return Pass(measured, noise, outputs[0].detach(), outputs[1].detach(), narrowed, sizes, places)


def steps(
    reference: Run,
    candidate: Run,
    alignment: Alignment,
    *,
    forced: bool,
    measure: Callable[..., Measurement] = compare_all,
) -> Iterator[tuple[Point, Tensors, Tensors, Event, Measurement]]:
    """Runs both models in step to the candidate's end and yields what passes each aligned point.

    Args:
        reference: as in `in_step`, like the next two.
        candidate: likewise.
        alignment: likewise.
        forced: hand the reference's tensors to the candidate wherever its own differ.
        measure: tells how far the candidate's tensors are from the reference's, two lists of equal length.

    Yields:
        The point, the reference's tensors, the same in the layout of the candidate's, the candidate's event, and their
        distance.
        Points where no layout step that the shapes determine makes the two comparable are passed over.
    """
    beside = _Beside(reference, alignment, forced=forced)
    # the latest tensors stay alive, so that no other one can get their address
    last: tuple[tuple[int, ...] | None, Measurement, tuple[Tensors, Tensors]] | None = None
    substitute: Tensors | None = None
    while (passing := candidate.advance(substitute)) is not None:
        point = alignment.to_reference(passing.point)
        tensors, event, substitute = beside.at(point, passing)
        if not tensors or event is None or not event.tensors:
            continue
        expected = fitting(tensors, event, point, alignment)
        if point.moment == "enter" and is_rearranged(expected[0], event.tensors[0]):
            continue
        actual = event.tensors[: len(expected)]
        # what leaves one module often enters the next as it is
        identity = _identity(*expected, *actual)
        if last and identity and last[0] == identity:
            measurement = last[1]
        else:
            measurement = measure(expected, actual, ulp=actual[0].dtype != torch.float64)
            last = identity, measurement, (expected, actual)
        if forced and substitute is None and not measurement.identical and measurement.problem is None:
            substitute = [_laid_out_as(own, tensor) for own, tensor in zip(actual, expected, strict=True)]
        yield point, tensors, expected, event, measurement


class _Beside:
    """A run of the reference beside the candidate's, and what of it the candidate takes in portions.

    Args:
        reference: the run, where nothing has been asked for yet.
        alignment: which module is which.
        forced: whether the candidate is handed the reference's tensors.
    """

    def __init__(self, reference: Run, alignment: Alignment, *, forced: bool) -> None:
        self._run = Follower(reference)
        self._alignment = alignment
        self._gathering = Gathering(alignment)
        self._wholes: dict[Point, Tensors | None] = {}  # of which the candidate has had a portion
        self._forced = forced

    def at(self, point: Point, event: Event) -> tuple[Tensors | None, Event | None, Tensors | None]:
        """Returns what passes the reference, what passes the candidate, and what to hand over to that at once.

        The second is None until the candidate has come to the last portion, and the first where a mode calls a module
        more often than its counterpart.

        Args:
            point: of the reference.
            event: of the candidate.
        """
        portions = self._gathering.of(event.point)
        if portions is None:
            tensors = self._run.until(point)
            self._run.leaves(point)
            return tensors, event, None
        if point not in self._wholes:
            self._wholes[point] = self._run.until(point)
        wholes, substitute = self._wholes[point], None
        together = self._gathering.whole(event)
        if wholes and self._forced:
            whole = in_layout_of(wholes[0], wholes[0], point, self._alignment)
            values = portions.in_place_of(event, whole)
            substitute = [_laid_out_as(own, tensor) for own, tensor in zip(event.tensors, values, strict=True)]
        if together is not None:
            del self._wholes[point]
            self._run.leaves(point)
        return wholes, together, substitute


def _identity(*tensors: torch.Tensor) -> tuple[int, ...] | None:
    """Returns numbers that are the same while tensors are the same and hold the same values; None: nobody knows."""
    if any(tensor.is_inference() for tensor in tensors):  # which count no writes
        return None
    return tuple(number for t in tensors for number in (t.data_ptr(), t._version, *t.shape))  # noqa: SLF001


def _laid_out_as(own: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Returns the values in the strides of a model's own tensor, which a view of it may need."""
    is_laid_out = all(stride > 0 or length == 1 for length, stride in zip(own.shape, own.stride(), strict=True))
    if own.shape != values.shape or own.stride() == values.stride() or not is_laid_out:
        return values
    return torch.empty_strided(own.shape, own.stride(), dtype=values.dtype, device=values.device).copy_(values)


def _output(run: Run) -> torch.Tensor:
    assert run.output is not None
    return run.output


def align_with_portions(
    reference: nn.Module,
    candidate: nn.Module,
    mapping: WeightMap,
    reference_order: list[Point],
    candidate_order: list[Point],
    *,
    images: torch.Tensor,
    several: Collection[str],
) -> Alignment:
    """Aligns the modules of two models that can be run, those among them that the candidate calls for portions.

    Args:
        reference: as in `align`, like the next four.
        candidate: likewise.
        mapping: likewise.
        reference_order: likewise.
        candidate_order: likewise.
        images: to run both with.
        several: modules of the candidate where several tensors pass at once.
    """
    both = reference, candidate, mapping, reference_order, candidate_order
    once, anyhow = align(*both), align(*both, equal_calls=False)
    usual, calls = number_of_calls(reference_order), number_of_calls(candidate_order)
    watched = {c: r for c, r in anyhow.pairs.items() if usual[r] == 1 and (calls[c] > 1 or c in several)}
    if not watched:
        return once
    runs = (
        Run(reference, images, set(watched.values()), 0, "reference", inside=True),
        Run(candidate, images, set(watched), 0, "candidate"),
    )
    try:
        portions, apart = portions_of(anyhow, iter(runs[1].advance, None), calls, Follower(runs[0]).until)
    finally:
        for run in runs:
            run.close()
    return align(*both, portions=portions, apart=apart) if portions or apart else once


def fitting(expected: Tensors, event: Event, point: Point, alignment: Alignment) -> Tensors:
    """Returns one reference tensor for every tensor of the candidate's event.

    What enters a module may be one tensor in one model and several copies of it in the other; tensors
    of another shape than the first, such as a mask, are not compared.
    """
    first = event.tensors[0]
    if event.point.moment == "leave":
        return [in_layout_of(first, expected[0], point, alignment)]
    alike = list(itertools.takewhile(lambda tensor: tensor.shape == first.shape, event.tensors))
    fitting = [*expected, *expected[-1:] * len(alike)][: len(alike)]
    return [in_layout_of(first, tensor, point, alignment) for tensor in fitting]


def _narrowed(point: Point, actual: torch.Tensor, expected: torch.Tensor, candidate: Run) -> Narrowed | None:
    is_narrower = torch.finfo(actual.dtype).bits < torch.finfo(expected.dtype).bits
    return Narrowed(point, actual.dtype, candidate.is_under_autocast) if is_narrower else None


def is_rearranged(expected: torch.Tensor, actual: torch.Tensor) -> bool:
    """Whether the two hold equally many values in shapes that cannot be compared, such as an image and its patches."""
    return expected.shape != actual.shape and expected.numel() == actual.numel()
