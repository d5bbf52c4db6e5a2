"""The changes of a catalogue are tried at a place where a bent model and the candidate differ: alone, then together.

What is nearest to the place comes first, and what was found elsewhere before that. Knows no ViT.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from parity.explanation.bending import Change
from parity.explanation.following import OUTPUT
from parity.explanation.solving import rounded, solve
from parity.tracing import in_layout_of_reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import torch

    from parity.errors import Failures
    from parity.explanation.bending import Kind
    from parity.explanation.following import Follower, Outcome, Start
    from parity.tracing import Point

    Proposal = tuple[Change, ...]  # of one kind, with one value

# How many changes are tried together at one place, of how many that have an effect there, how many groups of them at
# most, and how many of those that come closest are tried with one more.
_MOST_AT_ONCE, _MOST_EFFECTIVE, _MOST_COMBINATIONS, _KEPT = 4, 120, 2500, 20

# how many of those that leave the same error, since they mean the same, go into combinations
_MOST_ALIKE = 2

# of how many that go as far as each other it is looked at which leaves the least to be explained
_MOST_AS_FAR = 8

# how many starting values a number may have to be tried as they are, beside a tensor that is read off the candidate
_FEW_STARTS = 3

# What leaves so small a part of the error may be right, and another change be impossible without it, such as the eps of
# a norm that is missing. From so many of those the search goes on.
# Where no shape fits, whatever makes it fit is close, and of those there are more.
_CLOSE, _MOST_CLOSE, _MOST_OF_A_SHAPE = 0.1, 6, 40


class TooLateError(Exception):
    """The time is over."""


class Trials:
    """Tries changes at one place where the bent model and the candidate differ.

    Args:
        follower: of the candidate.
        kinds: the catalogue.
        until: time of the processor at which to give up.
        start: where the stage begins.
        base: the run that came to the place.
        failures: takes what could not be tried; a cause that raises is no cause.
    """

    def __init__(
        self,
        follower: Follower,
        kinds: Sequence[Kind],
        until: float,
        start: Start,
        base: Outcome,
        failures: Failures,
    ) -> None:
        assert base.dirty is not None
        self._failures = failures
        self._follower = follower
        self._kinds = kinds
        self.until = until
        self._start = start
        self._base = base
        self._target = base.dirty
        self._effective: list[Proposal] = []
        self._close: list[tuple[float, Proposal]] = []
        self._fitting: list[Proposal] = []
        self.best: Outcome | None = None

    def _require_time(self) -> None:
        if time.process_time() > self.until:
            raise TooLateError

    def _run(self, changes: Iterable[Change], until: Point | None = None, ignored: str | None = None) -> Outcome:
        self._require_time()
        made = (*self._base.changes, *changes)
        return self._follower.follow(self._start, made, until=until, ignored=ignored)

    def ignoring(self) -> Outcome | None:
        """Doesn't look at the module: where everything after it agrees, something else passes there than it seems."""
        if self._target == OUTPUT:
            return None
        outcome = self._run((), ignored=self._target.module)
        if outcome.clean.keys() <= self._base.clean.keys():
            return None
        self._follower.ignored.add(self._target.module)
        return outcome

    def singles(self, usual: tuple[Change, ...]) -> Outcome | None:
        """Tries one kind after the other, at every place that leads to the target."""
        alike: Counter[float] = Counter()  # proposals by the error they leave: those of one error do the same
        own = {kind.key for kind in self._kinds if not kind.fit}
        known = {(c.kind.key, c.value) for c in (*self._base.changes, *usual) if c.kind.key in own}
        alike_so_far: list[Outcome] = []  # that go as far as the best one
        for proposal in self._proposals(usual):
            self._fitting += [proposal] * (proposal[0].kind.fit is not None and _is_open(proposal))
            outcome, error = self._tried([proposal])
            if math.isfinite(error) and error != self._base.error and alike[error] < _MOST_ALIKE:
                alike[error] += 1
                self._effective.append(proposal)
                if error < _CLOSE * self._base.error:
                    self._close.append((error, proposal))
            if outcome and (self.best is None or len(outcome.clean) > len(self.best.clean)):
                self.best, alike_so_far = outcome, [outcome]
                # what was found elsewhere explains no less here
                if outcome.dirty is None or (proposal[0].kind.key, proposal[0].value) in known:
                    return self.best
            elif outcome and self.best and outcome.clean.keys() == self.best.clean.keys():
                alike_so_far.append(outcome)
        if len(alike_so_far) > 1:
            self.best = min(alike_so_far[:_MOST_AS_FAR], key=self._stops_onward)
        return self.best

    def _stops_onward(self, outcome: Outcome) -> float:
        """Counts the places where a run differs from the candidate, given the candidate's own tensor at each."""
        given, stops = set(self._follower.given), 0
        try:
            while outcome.dirty and outcome.dirty != OUTPUT and outcome.dirty not in self._follower.given:
                self._require_time()
                stops += 1
                self._follower.given.add(outcome.dirty)
                outcome = self._follower.follow(self._start, outcome.changes)
        finally:
            self._follower.given.intersection_update(given)
        return stops if outcome.dirty is None else math.inf

    def from_close(self, usual: tuple[Change, ...]) -> Outcome | None:
        """Makes one of the changes that come close, and tries the others from there."""
        most = _MOST_CLOSE if math.isfinite(self._base.error) else _MOST_OF_A_SHAPE
        for _, proposal in sorted(self._close, key=lambda pair: pair[0])[:most]:
            base = self._run(itertools.chain.from_iterable(self._settled([proposal]) or ()))
            trials = Trials(self._follower, self._kinds, self.until, self._start, base, self._failures)
            found = trials.singles(usual) or (None if math.isfinite(self._base.error) else trials._fitted_beside())
            if found:
                return found
        return None

    def _fitted_beside(self) -> Outcome | None:
        """Makes one of the changes that have an effect, and reads a tensor off what the candidate has then."""
        for proposal in _of_each_id_in_turn(self._effective)[:_MOST_EFFECTIVE]:
            for fitting in self._fitting:
                group = (proposal, fitting)
                outcome = self._tried(group)[0] if _fit_together(group) else None
                if outcome:
                    return outcome
        return None

    def combinations(self) -> Outcome | None:
        """Tries two kinds at once that each have an effect on the target, then what comes closest with one more."""
        effective = _of_each_id_in_turn(self._effective)[:_MOST_EFFECTIVE]
        place = {proposal: n for n, proposal in enumerate(effective)}
        best: list[tuple[Proposal, ...]] = [(proposal,) for proposal in effective]
        for _ in range(1, _MOST_AT_ONCE):
            # without open values is quicker
            groups = sorted(
                {*filter(_fit_together, _extended(best, effective))},
                key=lambda group: (sum(map(_is_open, group)), sum(map(place.__getitem__, group))),
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
        outcome = None
        causes = " and ".join(dict.fromkeys(proposal[0].kind.id for proposal in group))
        with self._failures.kept(f"the cause {causes} could not be tried", besides=TooLateError):
            settled = self._settled(group)
            outcome = None if settled is None else self._run(itertools.chain.from_iterable(settled))
        if outcome is None:
            return None, math.inf
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
                for kind_ in self._kinds:
                    self._require_time()  # there may be many that fit nowhere
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
        # one tensor leaves the last module and the model: what is done to it is done once
        places = [place for place in places if place or len(places) == 1]
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
        if not fits:
            return self._solved(group, open_)
        starts = [group[n][0].kind.start for n in open_ if n not in fits]
        if len(fits) > 1 or any(len(values) > _FEW_STARTS for values in starts):
            return None
        others = [n for n in open_ if n not in fits]
        settled = (self._fitted(_with(group, others, v), fits[0]) for v in itertools.product(*starts))
        return next(filter(None, settled), None)

    def _fitted(self, group: Sequence[Proposal], number: int) -> list[Proposal] | None:
        """Reads a tensor off what the candidate has at the target, if the operation leads straight there."""
        change, *more = group[number]
        operation = next(iter(change.kind.variants))
        leads_here = self._base.bend.done.get((change.place, operation), ((), None))[1] is self._base.passing
        if more or not leads_here:
            return None
        others = [c for n, proposal in enumerate(group) if n != number for c in proposal]
        outcome = self._run(others, until=self._target)
        if outcome.dirty != self._target or outcome.passing is None:
            return None
        arguments, result = outcome.bend.done.get((change.place, operation), ((), None))
        if result is not outcome.passing or len(arguments[0]) < 2:
            return None
        assert change.kind.fit is not None
        observed = self._follower.observed(self._target)
        assert observed is not None
        wanted = in_layout_of_reference(
            observed,
            outcome.passing,
            self._target,
            self._follower.alignment,
        )
        if wanted.shape != outcome.passing.shape:
            return None
        value = change.kind.fit(wanted, *arguments)
        if value is None:
            return None
        return [(Change(change.kind, change.place, value),) if n == number else p for n, p in enumerate(group)]

    def _solved(self, group: Sequence[Proposal], open_: list[int]) -> list[Proposal] | None:
        """Finds numbers by Gauss-Newton steps on the candidate's distance at the target, from several starts."""

        def residual(values: Sequence[float]) -> torch.Tensor | None:
            made = itertools.chain.from_iterable(_with(group, open_, values))
            outcome = self._run(made, until=self._target)
            if outcome.dirty != self._target or outcome.fitted is None:
                return None
            observed = self._follower.observed(self._target)
            assert observed is not None
            if observed.shape != outcome.fitted.shape:
                return None
            return (outcome.fitted - observed).flatten()

        starts = itertools.product(*(group[n][0].kind.start for n in open_))
        best = solve(residual, starts)
        if best is None:
            return None
        names = [group[n][0].kind.named for n in open_]
        observed = self._follower.observed(self._target)
        assert observed is not None
        return _with(group, open_, rounded(residual, best, float(observed.norm()), names))


def _with(group: Sequence[Proposal], numbers: Sequence[int], values: Sequence[float]) -> list[Proposal]:
    """Returns a group of which the proposals of these numbers have these values."""
    new = dict(zip(numbers, values, strict=True))
    return [
        tuple(Change(c.kind, c.place, new[n]) for c in proposal) if n in new else proposal
        for n, proposal in enumerate(group)
    ]


def _is_open(proposal: Proposal) -> bool:
    return proposal[0].kind.has_value and proposal[0].value is None


def _of_each_id_in_turn(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Returns the first proposal of each kind's id, then the second of each, and so on, in their order."""
    seen: Counter[str] = Counter()
    turns = []
    for number, proposal in enumerate(proposals):
        turns.append((seen[proposal[0].kind.id], number))
        seen[proposal[0].kind.id] += 1
    return [proposals[number] for _, number in sorted(turns)]


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
        {key for c in proposal for key in c.operations} | {(c.kind.id, c.place) for c in proposal} for proposal in group
    ]
    return sum(map(len, taken)) == len(set().union(*taken))
