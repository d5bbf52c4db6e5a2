"""One forward pass of both models in step, with a measurement at every aligned point.

A *free* pass lets the candidate go on with its own tensors: errors accumulate. A *forced* pass hands it the reference's
tensors at every aligned point where the two differ: each measurement then shows what has gone wrong since the point
before, and nothing else. That is the isolated error of a module, or of the glue between two modules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parity.measuring import Measurement, compare, compare_all, noise_ratio
from parity.tracing import Event, Point, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from parity.alignment import Alignment
    from parity.tracing import Tensors

OUTPUT = Point("", 0, "leave")


@dataclass(frozen=True)
class Pass:
    """What was measured in one pass, by point of the reference, in the order of the candidate's run.

    Attributes:
        measured: distances at the aligned points and, last, at the models' outputs (`OUTPUT`).
        noise: noise ratios at the points where the two models' bits differ.
        reference_output: the reference's logits (B, classes).
        candidate_output: the candidate's.
    """

    measured: dict[Point, Measurement]
    noise: dict[Point, float | None]
    reference_output: torch.Tensor = field(repr=False)
    candidate_output: torch.Tensor = field(repr=False)

    @property
    def identical(self) -> bool:
        """Whether every point has the same bits."""
        return all(measurement.identical for measurement in self.measured.values())


class _Follower:
    """A run that goes just as far as somebody else asks; events that nobody has asked for yet wait."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._waiting: dict[Point, Tensors] = {}

    def until(self, point: Point) -> Tensors | None:
        while point not in self._waiting:
            event = self.run.advance()
            if event is None:
                return None
            self._waiting[event.point] = event.tensors
        return self._waiting.pop(point)


def in_step(
    reference: Run,
    candidate: Run,
    alignment: Alignment,
    *,
    truth: Run | None = None,
    forced: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> Pass:
    """Runs both models in step and measures at every aligned point.

    Args:
        reference: a run of the reference that watches the aligned modules.
        candidate: the same of the candidate.
        alignment: which module is which.
        truth: a run of the reference in float64, for noise ratios; it is run only if bits differ.
        forced: hand the reference's tensors to the candidate wherever its own differ.
        progress: called at every point.

    Raises:
        ParityError: one of the models failed.
    """
    expected_run, true_run = _Follower(reference), _Follower(truth) if truth else None
    measured: dict[Point, Measurement] = {}
    noise: dict[Point, float | None] = {}
    try:
        substitute: Tensors | None = None
        while (event := candidate.advance(substitute)) is not None:
            substitute = None
            point = alignment.to_reference(event.point)
            expected = expected_run.until(point)
            assert expected is not None, f"aligned modules are called equally often, yet there is no {point}"
            measured[point] = _measure(expected, event)
            if not measured[point].identical:
                if true_run and expected and (exact := true_run.until(point)):
                    noise[point] = noise_ratio(expected[0], event.tensors[0], exact[0])
                if forced and measured[point].problem is None:
                    substitute = _fitting(expected, event)
            progress()
        outputs = reference.finish(), _output(candidate)
        measured[OUTPUT] = compare(*outputs)
        if true_run and not measured[OUTPUT].identical:
            noise[OUTPUT] = noise_ratio(*outputs, true_run.run.finish())
    finally:
        for run in (reference, candidate, truth):
            if run:
                run.close()
    return Pass(measured, noise, outputs[0].detach(), outputs[1].detach())


def _output(run: Run) -> torch.Tensor:
    assert run.output is not None
    return run.output


def _fitting(expected: Tensors, event: Event) -> Tensors:
    """Returns one reference tensor for every tensor of the candidate's event.

    What leaves a module is its first tensor (the second one of an attention is its weights, which not every
    implementation returns). What enters may be one tensor in one model and several copies of it in the other.
    """
    count = 1 if event.point.moment == "leave" else len(event.tensors)
    return [*expected, *expected[-1:] * count][:count]


def _measure(expected: Tensors, event: Event) -> Measurement:
    if not expected or not event.tensors:
        return compare_all(expected, event.tensors)
    fitting = _fitting(expected, event)
    return compare_all(fitting, event.tensors[: len(fitting)])
