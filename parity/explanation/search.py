"""The search for an explanation: which changes to a bendable model make it the candidate?

The bent model follows the candidate from observed point to observed point. Where the two agree, it goes on with the
candidate's own tensor; where they don't, the changes of a catalogue are tried on the operations that lead there, alone,
then in pairs, then in threes, and numbers that are not known beforehand are solved for. Knows no ViT.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import torch

from parity.explanation.bending import Bend, Change, Memo, unwatched
from parity.explanation.facts import facts
from parity.tracing.layouts import in_layout_of, in_layout_of_reference
from parity.tracing.measuring import SAME_FUNCTION_BOUND, compare
from parity.tracing.run import Point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from parity.explanation.bending import Bendable, Kind
    from parity.explanation.observing import Observations

    Proposal = tuple[Change, ...]  # of one kind, with one value
    Residual = Callable[[Sequence[float]], torch.Tensor | None]

OUTPUT = Point("", 0, "leave")

# How many changes are tried together at one place, of how many that have an effect there, how many groups of them at
# most, and how many of those that come closest are tried with one more.
_MOST_AT_ONCE, _MOST_EFFECTIVE, _MOST_COMBINATIONS, _KEPT = 4, 120, 2500, 20

# how many of those that leave the same error, since they mean the same, go into combinations
_MOST_ALIKE = 2

# a number that was solved for is given with as few digits as reproduce the candidate this much less exactly, at most
_AS_GOOD = 4.0

# what the order of operations alone makes in float64, relative
_ROUNDING = 2e-15


# what torch raises where changes don't fit together, so that shapes differ
_MISFITS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError)


class _TooLateError(Exception):
    """The time is over."""


class _Stop(Exception):  # noqa: N818  (no error: the run has seen enough)
    """Ends a run of the bent model."""


@dataclass(frozen=True)
class Start:
    """Where a stage of the bent model begins.

    Attributes:
        stage: its number.
        tensor: what enters it.
        random: torch's random state.
        calls: how often each module was entered and left before.
    """

    stage: int
    tensor: torch.Tensor
    random: torch.Tensor
    calls: Mapping[tuple[str, str], int] = field(default_factory=dict)


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


@dataclass(frozen=True)
class Unexplained:
    """A point where the candidate differs, given its own tensors at all points before, and no change explains it.

    Attributes:
        point: of the reference.
        error: relative.
        facts: how the two tensors are related, as far as that can be said.
    """

    point: Point
    error: float
    facts: list[str]


class Search:
    """Explains one run of a candidate.

    Args:
        model: the reference, bendable, in float64.
        images: what both were shown, in float64.
        seed: of the candidate's random state.
        observations: of the candidate's run.
        kinds: the catalogue.
        known: changes that are certain before anything is tried.
        seconds: of the processor, after which to give up trying.
    """

    def __init__(
        self,
        model: Bendable,
        images: torch.Tensor,
        seed: int,
        observations: Observations,
        kinds: Sequence[Kind],
        known: Sequence[Change] = (),
        seconds: float = math.inf,
    ) -> None:
        self.changes = tuple(known)
        self.unexplained: list[Unexplained] = []
        self.tried = 0
        self._model = model
        self._images = images
        self._random = torch.Generator().manual_seed(seed).get_state()
        self._observations = observations
        self.alignment = observations.alignment
        self.kinds = kinds
        self.until = time.process_time() + seconds
        self.memo = Memo()
        self.given: set[Point] = set()  # where the candidate's tensor is taken whatever it is
        self.ignored: set[str] = set()  # modules where the candidate has another thing than its place says
        self._restored: dict[Point, torch.Tensor] = {}
        self._compared: dict[tuple[Point, int], tuple[float, torch.Tensor]] = {}

    # --- following the candidate

    def run(self) -> None:
        """Follows the candidate to its end; `changes` then holds what explains it, `unexplained` what nothing does."""
        start = Start(0, self._images, self._random)
        before: tuple[Change, ...] = ()
        for number, stage in enumerate(self._model.stages):
            self._observations.reach(number)
            known = self.changes
            usual = self._translated(before, number)
            outcome = self.follow(start, (*known, *usual)) if usual else None
            if outcome is None or outcome.dirty:
                outcome = self.follow(start, known)
            while outcome.dirty:
                better = self._explained(start, outcome, usual)
                if better is None:
                    self.unexplained.append(self._unexplained(outcome))
                    self.given.add(outcome.dirty)
                    better = self.follow(start, outcome.changes)
                outcome = better
            self.changes = outcome.changes
            before = tuple(change for change in self.changes if change not in known and _is_in(change, stage))
            assert outcome.end is not None
            start = outcome.end
            self.memo.clear()
            self._compared.clear()
            self._restored.clear()

    def _unexplained(self, outcome: Outcome) -> Unexplained:
        assert outcome.dirty is not None
        observed = self.observed(outcome.dirty)
        known = [] if observed is None or outcome.fitted is None else facts(outcome.fitted, observed.to(outcome.fitted))
        return Unexplained(outcome.dirty, outcome.error, known)

    def error(self, model: Bendable, changes: Sequence[Change]) -> float:
        """Runs a whole bent model freely and returns its output's relative distance from the candidate's."""
        tensor, bend = self._images, Bend(changes)
        with _random_state(self._random):
            try:
                for stage in model.stages:
                    tensor = model.run(stage, tensor, bend)
            except _MISFITS:
                return math.inf  # the other changes don't fit together without one that is left out
        return compare(self._observations.output(), tensor, ulp=False).relative

    def _translated(self, changes: Iterable[Change], number: int) -> tuple[Change, ...]:
        """Returns the changes that were found in the stage before as they would be in this one."""
        earlier, here = (self._model.stages[n].partition("#")[0] for n in (max(number - 1, 0), number))
        if re.sub(r"\d+", "", earlier) != re.sub(r"\d+", "", here):
            return ()
        return tuple(Change(c.kind, c.place.replace(earlier, here), c.value) for c in changes)

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
        self.tried += 1
        walk = _Walk(self, start, changes, until, ignored)
        outcome = walk.outcome
        try:
            with _random_state(start.random):
                tensor = start.tensor
                for stage in self._model.stages[start.stage :]:
                    tensor = self._model.run(stage, tensor, outcome.bend)
                    outcome.end = outcome.end or Start(
                        start.stage + 1, tensor, torch.get_rng_state(), dict(outcome.bend.calls)
                    )
        except _Stop:
            pass
        except _MISFITS:
            outcome.clean.clear()  # these changes don't fit together
            outcome.dirty, outcome.error = OUTPUT, math.inf
        finally:
            outcome.bend.watch = unwatched  # a cycle would keep the tensors until the garbage collector comes by
        return outcome

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

    # --- looking for changes

    def _explained(self, start: Start, base: Outcome, usual: tuple[Change, ...]) -> Outcome | None:
        """Returns an outcome that goes further than `base`, or None."""
        trials = _Trials(self, start, base)
        self.memo.may_grow = False
        try:
            found = trials.ignoring() or trials.singles(usual) or trials.combinations()
        except _TooLateError:
            found = trials.best
        finally:
            self.memo.may_grow = True
        # the same run once more, to be kept
        return None if found is None else self.follow(start, found.changes)


class _Walk:
    """Compares what passes in a run of the bent model with what passed in the candidate's."""

    def __init__(
        self, search: Search, start: Start, changes: tuple[Change, ...], until: Point | None, ignored: str | None
    ) -> None:
        self.outcome = Outcome(changes, Bend(changes, self._watch, search.memo, start.calls))
        self._search = search
        self._until = until
        self._ignored = {ignored, *search.ignored}
        self._seen = 0  # operations up to the last clean point

    def _watch(self, point: Point, passing: torch.Tensor) -> torch.Tensor:
        observed = None if point.module in self._ignored else self._search.observed(point)
        if observed is None:
            return passing
        fitted = in_layout_of(observed, passing, point, self._search.alignment)
        if fitted.shape != observed.shape:
            is_rearranged = point.moment == "enter" and fitted.numel() == observed.numel()
            if is_rearranged or point in self._search.given:
                return passing  # such as an image and its patches
            self._stop(point, math.inf, passing, fitted)
        error = self._search.distance(point, passing, fitted, observed)
        if point in self._search.given:
            return self._search.taken(point, passing, observed)
        if error > SAME_FUNCTION_BOUND or point == self._until:
            self._stop(point, error, passing, fitted)
        self.outcome.clean[point] = None
        self._seen = len(self.outcome.bend.done)
        if self.outcome.end is not None:
            raise _Stop
        return self._search.taken(point, passing, observed)

    def _stop(self, point: Point, error: float, passing: torch.Tensor, fitted: torch.Tensor) -> NoReturn:
        outcome = self.outcome
        outcome.dirty, outcome.error, outcome.passing, outcome.fitted = point, error, passing, fitted
        outcome.recent = tuple(outcome.bend.done)[self._seen :]
        raise _Stop


class _Trials:
    """Tries changes at one place where the bent model and the candidate differ."""

    def __init__(self, search: Search, start: Start, base: Outcome) -> None:
        assert base.dirty is not None
        self._search = search
        self._start = start
        self._base = base
        self._target = base.dirty
        self._effective: list[Proposal] = []
        self.best: Outcome | None = None

    def _run(self, changes: Iterable[Change], until: Point | None = None, ignored: str | None = None) -> Outcome:
        if time.process_time() > self._search.until:
            raise _TooLateError
        made = (*self._base.changes, *changes)
        return self._search.follow(self._start, made, until=until, ignored=ignored)

    def ignoring(self) -> Outcome | None:
        """Doesn't look at the module: where everything after it agrees, something else passes there than it seems."""
        if self._target == OUTPUT:
            return None
        outcome = self._run((), ignored=self._target.module)
        if outcome.clean.keys() <= self._base.clean.keys():
            return None
        self._search.ignored.add(self._target.module)
        return outcome

    def singles(self, usual: tuple[Change, ...]) -> Outcome | None:
        """Tries one kind after the other, at every place that leads to the target."""
        alike: Counter[float] = Counter()  # proposals by the error they leave: those of one error do the same
        for proposal in self._proposals(usual):
            outcome, error = self._tried([proposal])
            if math.isfinite(error) and error != self._base.error and alike[error] < _MOST_ALIKE:
                alike[error] += 1
                self._effective.append(proposal)
            if outcome and (self.best is None or len(outcome.clean) > len(self.best.clean)):
                self.best = outcome
                if outcome.dirty is None:
                    break
        return self.best

    def combinations(self) -> Outcome | None:
        """Tries two kinds at once that each have an effect on the target, then what comes closest with one more."""
        del self._effective[_MOST_EFFECTIVE:]  # the nearest come first
        best: list[tuple[Proposal, ...]] = [(proposal,) for proposal in self._effective]
        for _ in range(1, _MOST_AT_ONCE):
            # without open values is quicker
            groups = sorted(
                {*filter(_fit_together, _extended(best, self._effective))},
                key=lambda group: (sum(map(_is_open, group)), [self._effective.index(part) for part in group]),
            )
            errors: list[tuple[float, int]] = []
            for number, group in enumerate(groups[:_MOST_COMBINATIONS]):
                outcome, error = self._tried(group)
                if outcome:
                    return outcome
                errors.append((error, number))
            best = [groups[number] for error, number in sorted(errors)[:_KEPT] if math.isfinite(error)]
        return None

    def _tried(self, group: Sequence[Proposal]) -> tuple[Outcome | None, float]:
        """Makes the changes of a group, with the values that fit best.

        Returns:
            The outcome if it goes further than the base, and the error at the target; infinite if it isn't reached.
        """
        settled = self._settled(group)
        if settled is None:
            return None, math.inf
        changes = tuple(itertools.chain.from_iterable(settled))
        outcome = self._run(changes)
        if outcome.goes_further_than(self._base):
            return outcome, 0.0
        return None, outcome.error if outcome.dirty == self._target else math.inf

    def _proposals(self, usual: tuple[Change, ...]) -> Iterator[Proposal]:
        """Yields what may be changed: what was found elsewhere first, then what is nearest to the target."""
        recent = dict.fromkeys(self._base.recent)
        others = [key for key in self._base.bend.done if key not in recent]
        found = {change.kind.key: change for change in (*self._base.changes, *usual)}
        made = {(change.kind.key, change.place) for change in self._base.changes}
        for operations in (list(reversed(recent)), list(reversed(others))):
            keys = dict.fromkeys(operations)
            for kind in found.values():
                for places in self._places(kind.kind, keys):
                    if not {(kind.kind.key, place) for place in places} & made:
                        yield tuple(Change(kind.kind, place, kind.value) for place in places)
            for is_solved in (False, True):
                for kind_ in self._search.kinds:
                    if kind_.has_value != is_solved or (kind_.key in found and not is_solved):
                        continue
                    for places in self._places(kind_, keys):
                        if not {(kind_.key, place) for place in places} & made:
                            yield tuple(Change(kind_, place) for place in places)

    def _places(self, kind: Kind, keys: dict[tuple[str, str], None]) -> Iterator[tuple[str, ...]]:
        """Yields the places where a kind is possible: all of them together, then each by itself."""
        if kind.at is not None:
            if any((kind.elsewhere.get(operation, kind.at), operation) in keys for operation in kind.variants):
                yield (kind.at,)
            return
        places = list(dict.fromkeys(
            place for place, operation in keys if operation in kind.variants and kind.fits(place)
        ))  # fmt: skip
        if len(places) > 1:
            yield tuple(places)
        yield from ((place,) for place in places)

    # --- finding values

    def _settled(self, group: Sequence[Proposal]) -> list[Proposal] | None:
        """Finds the values of the kinds in `group` that have one, given the others; None if there are none."""
        open_ = [n for n, proposal in enumerate(group) if _is_open(proposal)]
        if not open_:
            return list(group)
        fits = [n for n in open_ if group[n][0].kind.fit]
        if fits:
            return self._fitted(group, fits[0]) if len(open_) == 1 else None
        return self._solved(group, open_)

    def _fitted(self, group: Sequence[Proposal], number: int) -> list[Proposal] | None:
        """Reads a tensor off what the candidate has at the target, if the operation leads straight there."""
        change, *more = group[number]
        others = [c for n, proposal in enumerate(group) if n != number for c in proposal]
        outcome = self._run(others, until=self._target)
        if more or outcome.dirty != self._target or outcome.passing is None:
            return None
        operation = next(iter(change.kind.variants))
        arguments, result = outcome.bend.done.get((change.place, operation), ((), None))
        if result is not outcome.passing or len(arguments[0]) < 2:
            return None
        assert change.kind.fit is not None
        observed = self._search.observed(self._target)
        assert observed is not None
        wanted = in_layout_of_reference(
            observed,
            outcome.passing,
            self._target,
            self._search.alignment,
        )
        if wanted.shape != outcome.passing.shape:
            return None
        value = change.kind.fit(wanted, *arguments)
        return [(Change(change.kind, change.place, value),) if n == number else p for n, p in enumerate(group)]

    def _solved(self, group: Sequence[Proposal], open_: list[int]) -> list[Proposal] | None:
        """Finds numbers by Gauss-Newton steps on the candidate's distance at the target, from several starts."""

        def with_values(values: Sequence[float]) -> list[Proposal]:
            new = dict(zip(open_, values, strict=True))
            return [
                tuple(Change(c.kind, c.place, new[n]) for c in proposal) if n in new else proposal
                for n, proposal in enumerate(group)
            ]

        def residual(values: Sequence[float]) -> torch.Tensor | None:
            outcome = self._run(itertools.chain.from_iterable(with_values(values)), until=self._target)
            if outcome.dirty != self._target or outcome.fitted is None:
                return None
            observed = self._search.observed(self._target)
            assert observed is not None
            if observed.shape != outcome.fitted.shape:
                return None
            return (outcome.fitted - observed).flatten()

        starts = itertools.product(*(group[n][0].kind.start for n in open_))
        measured = []
        for values in itertools.islice(starts, 600):
            off = residual(values)
            if off is not None and bool(torch.isfinite(off).all()):
                measured.append((float(off.norm()), values))
        best: tuple[float, Sequence[float]] | None = None
        for _, values in sorted(measured)[:2]:
            found = _gauss_newton(residual, values)
            if best is None or found[0] < best[0]:
                best = found
        if best is None:
            return None
        names = [group[n][0].kind.named for n in open_]
        observed = self._search.observed(self._target)
        assert observed is not None
        rounding = _ROUNDING * float(observed.norm())
        return with_values(_rounded(residual, max(_AS_GOOD * best[0], rounding), best[1], names))


def _gauss_newton(residual: Residual, values: Sequence[float]) -> tuple[float, Sequence[float]]:
    """Lowers the norm of `residual` step by step; returns it with the values that give it."""
    off = residual(values)
    assert off is not None
    best = float(off.norm()), tuple(values)
    for _ in range(12):
        columns = []
        for n, value in enumerate(best[1]):
            step = abs(value) * 1e-3 or 1e-9
            sides = [residual([v + sign * step * (m == n) for m, v in enumerate(best[1])]) for sign in (1, -1)]
            if sides[0] is None or sides[1] is None:
                return best
            columns.append((sides[0] - sides[1]) / (2 * step))
        jacobian = torch.stack(columns, 1)
        # a step for each value in units of its own column, so that values of any size go together
        lengths = jacobian.norm(dim=0).clamp_min(1e-300)
        try:
            steps = torch.linalg.lstsq(jacobian / lengths, off[:, None]).solution[:, 0] / lengths
        except RuntimeError:
            return best
        new = [max(v - float(step), 0.0) if v >= 0 else v - float(step) for v, step in zip(best[1], steps, strict=True)]
        next_off = residual(new)
        if next_off is None or not float(next_off.norm()) < best[0] * 0.9:
            if next_off is not None and float(next_off.norm()) < best[0]:
                best = float(next_off.norm()), tuple(new)
            return best
        off, best = next_off, (float(next_off.norm()), tuple(new))
    return best


def _rounded(
    residual: Residual, bound: float, values: Sequence[float], names: Sequence[Mapping[str, float]]
) -> Sequence[float]:
    """Returns values that have a name, or as few digits as keep the residual's norm within `bound`."""
    values = list(values)
    for n, value in enumerate(values):
        choices = [named for named in names[n].values() if math.isclose(named, value, rel_tol=1e-6)]
        choices += [float(f"{value:.{digits}g}") for digits in range(1, 8)]
        for choice in (*choices, *([0.0] if abs(value) < 1e-13 else [])):
            trial = [choice if m == n else v for m, v in enumerate(values)]
            off = residual(trial)
            if off is not None and float(off.norm()) <= bound:
                values = trial
                break
    return values


def _is_open(proposal: Proposal) -> bool:
    return proposal[0].kind.has_value and proposal[0].value is None


def _extended(groups: Iterable[tuple[Proposal, ...]], by: Sequence[Proposal]) -> Iterator[tuple[Proposal, ...]]:
    """Yields every group with one more proposal, in the order of `by`."""
    place = {proposal: n for n, proposal in enumerate(by)}
    for group in groups:
        for proposal in by:
            if proposal not in group:
                yield tuple(sorted((*group, proposal), key=place.__getitem__))


def _fit_together(group: Sequence[Proposal]) -> bool:
    """Whether no two proposals change the same operation at the same place, or are of one kind there."""
    taken = [
        {(c.kind.elsewhere.get(op, c.place), op) for c in proposal for op in c.kind.variants}
        | {(c.kind.id, c.place) for c in proposal}
        for proposal in group
    ]
    return sum(map(len, taken)) == len(set().union(*taken))


def _is_in(change: Change, stage: str) -> bool:
    name = stage.partition("#")[0]
    return change.place == name or change.place.startswith(f"{name}.")


@contextlib.contextmanager
def _random_state(state: torch.Tensor) -> Iterator[None]:
    """Runs with torch's random generator in `state` and puts the caller's back."""
    before = torch.get_rng_state()
    torch.set_rng_state(state)
    try:
        yield
    finally:
        torch.set_rng_state(before)
