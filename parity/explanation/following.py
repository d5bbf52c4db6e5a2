"""A bent model follows the candidate from observed point to observed point, up to the first where the two differ.

Where they agree, it goes on with the candidate's own tensor, so that what differs later is a difference of its own.
Knows no ViT.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import torch

from parity.explanation.bending import Bend, Memo, unwatched
from parity.explanation.formulas.replaying import Graft
from parity.tracing import SAME_FUNCTION_BOUND, Point, compare, in_layout_of, in_layout_of_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from parity.explanation.bending import Bendable, Change
    from parity.explanation.observing import Observations

IMAGES, OUTPUT = Point("", 0, "enter"), Point("", 0, "leave")

# what torch raises where changes don't fit together, so that shapes differ
MISFITS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError)


class _Stop(Exception):  # noqa: N818  (no error: the run has seen enough)
    """Ends a run of the bent model."""


@dataclass(frozen=True)
class Start:
    """Where a stage of the bent model begins.

    Attributes:
        stage: its number.
        tensor: what enters it.
        random: torch's random state.
        calls: how often each module was entered and left before, and each operation done.
        passed: what both models have had at points before: those of the last stage, the first and the last one of each
            other, and those where grafts begin.
        before: how many of these are not of the last stage.
    """

    stage: int
    tensor: torch.Tensor
    random: torch.Tensor
    calls: Mapping[tuple[str, str], int] = field(default_factory=dict)
    passed: Mapping[Point, torch.Tensor] = field(default_factory=dict)
    before: int = 0


@dataclass
class Outcome:
    """How far a run of the bent model has gone.

    Attributes:
        changes: that were made.
        clean: observed points at which it agreed with the candidate, in order.
        dirty: the first observed point at which it didn't, or None.
        error: relative, at that point.
        passing: the bent model's tensor at that point.
        fitted: the same in the candidate's layout.
        bend: what was done.
        recent: operations since the last clean point.
        end: where the next stage begins; None if the end of this one wasn't reached.
    """

    changes: tuple[Change, ...]
    bend: Bend
    clean: dict[Point, None] = field(default_factory=dict)
    dirty: Point | None = None
    error: float = 0.0
    passing: torch.Tensor | None = None
    fitted: torch.Tensor | None = None
    recent: tuple[tuple[str, str], ...] = ()
    end: Start | None = None

    def goes_further_than(self, other: Outcome) -> bool:
        """Whether it agrees wherever the other one did, and at the point where that one stopped as well."""
        return other.clean.keys() <= self.clean.keys() and (
            self.dirty is None or other.dirty in self.clean or len(self.clean) > len(other.clean)
        )


class Follower:
    """Runs a bendable model beside one run of a candidate, a stage at a time.

    Args:
        model: the reference, bendable, in float64.
        observations: of the candidate's run.
    """

    def __init__(self, model: Bendable, observations: Observations) -> None:
        self._model = model
        self.traits = model.traits
        self._observations = observations
        self.alignment = observations.alignment
        self.memo = Memo()
        self.given: set[Point] = set()  # where the candidate's tensor is taken whatever it is
        self.ignored: set[str] = set()  # modules where the candidate has another thing than its place says
        self._restored: dict[Point, torch.Tensor] = {}
        self._compared: dict[tuple[Point, int], tuple[float, torch.Tensor]] = {}

    def follow(
        self,
        start: Start,
        changes: tuple[Change, ...],
        *,
        until: Point | None = None,
        ignored: str | None = None,
    ) -> Outcome:
        """Runs a stage and on to the first observed point behind it; stops where it differs from the candidate.

        Args:
            start: where the stage begins.
            changes: that are made.
            until: stop at this point, clean or not, as if it differed.
            ignored: a module that is not looked at.
        """
        walk = _Walk(self, start, changes, until, ignored)
        outcome = walk.outcome
        try:
            with random_state(start.random):
                tensor = start.tensor
                for stage in self._model.stages[start.stage :]:
                    tensor = self._model.run(stage, tensor, outcome.bend)
                    outcome.end = outcome.end or self._end(start, tensor, outcome)
        except _Stop:
            pass
        except MISFITS:
            outcome.clean.clear()  # these changes don't fit together
            outcome.dirty, outcome.error = OUTPUT, math.inf
        finally:
            outcome.bend.watch = unwatched  # a cycle would keep the tensors until the garbage collector comes by
        return outcome

    def shared(self, start: Start, outcome: Outcome) -> dict[Point, torch.Tensor]:
        """Returns what both models have had in common at points before the one where they differ."""
        agreed = {*outcome.clean, *self.given}
        here = {point: tensor for point, tensor in outcome.bend.passed.items() if point in agreed}
        return {**start.passed, **here}

    def _end(self, start: Start, tensor: torch.Tensor, outcome: Outcome) -> Start:
        earlier, here = list(start.passed), self.shared(start, outcome)
        grafts = [change.value for change in outcome.changes if isinstance(change.value, Graft)]
        kept = {*earlier[: start.before + 1], *earlier[-1:], *(point for graft in grafts for point in graft.entering)}
        passed = {point: tensor for point, tensor in here.items() if point in kept or point not in start.passed}
        before = sum(point in kept for point in earlier)
        return Start(start.stage + 1, tensor, torch.get_rng_state(), dict(outcome.bend.calls), passed, before)

    def observed(self, point: Point) -> torch.Tensor | None:
        """Returns what passed a point of the candidate's run, in its own layout, if it was seen."""
        return self._observations.output() if point == OUTPUT else self._observations.at(point)

    def distance(self, point: Point, passing: torch.Tensor, fitted: torch.Tensor, observed: torch.Tensor) -> float:
        """Measures the distance at a point; what has been measured once is known."""
        known = self._compared.get((point, id(passing)))
        if known:
            return known[0]
        distance = compare(observed, fitted, ulp=False).distance
        if self.memo.may_grow:
            self._compared[point, id(passing)] = distance, passing
        return distance

    def taken(self, point: Point, passing: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        """Returns the candidate's tensor in the reference's layout: always the same one, so that results are kept."""
        if observed.numel() != passing.numel():
            return in_layout_of_reference(observed, passing, point, self.alignment)
        if point not in self._restored:
            self._restored[point] = in_layout_of_reference(observed, passing, point, self.alignment).to(passing.dtype)
        return self._restored[point]

    def forget(self) -> None:
        """Forgets what was computed and measured: the next stage has other tensors."""
        self.memo.clear()
        self._compared.clear()
        self._restored.clear()


class _Walk:
    """Compares what passes in a run of the bent model with what passed in the candidate's."""

    def __init__(
        self, follower: Follower, start: Start, changes: tuple[Change, ...], until: Point | None, ignored: str | None
    ) -> None:
        bend = Bend(changes, self._watch, follower.memo, start.calls, follower.traits, start.passed)
        self.outcome = Outcome(changes, bend)
        self._follower = follower
        self._until = until
        self._ignored = {ignored, *follower.ignored}
        self._seen = 0  # operations up to the last clean point

    def _watch(self, point: Point, passing: torch.Tensor) -> torch.Tensor:
        observed = None if point.module in self._ignored else self._follower.observed(point)
        if observed is None:
            return passing
        fitted = in_layout_of(observed, passing, point, self._follower.alignment)
        if fitted.shape != observed.shape:
            is_rearranged = point.moment == "enter" and fitted.numel() == observed.numel()
            if is_rearranged or point in self._follower.given:
                return passing  # such as an image and its patches
            self._stop(point, math.inf, passing, fitted)
        error = self._follower.distance(point, passing, fitted, observed)
        if point in self._follower.given:
            return self._follower.taken(point, passing, observed)
        if error > SAME_FUNCTION_BOUND or point == self._until:
            self._stop(point, error, passing, fitted)
        self.outcome.clean[point] = None
        self._seen = len(self.outcome.bend.done)
        if self.outcome.end is not None:
            raise _Stop
        return self._follower.taken(point, passing, observed)

    def _stop(self, point: Point, error: float, passing: torch.Tensor, fitted: torch.Tensor) -> NoReturn:
        outcome = self.outcome
        outcome.dirty, outcome.error, outcome.passing, outcome.fitted = point, error, passing, fitted
        outcome.recent = tuple(outcome.bend.done)[self._seen :]
        raise _Stop


@contextlib.contextmanager
def random_state(state: torch.Tensor) -> Iterator[None]:
    """Runs with torch's random generator in `state` and puts the caller's back."""
    before = torch.get_rng_state()
    torch.set_rng_state(state)
    try:
        yield
    finally:
        torch.set_rng_state(before)
