"""The search for an explanation: which changes to a bendable model make it the candidate?

The bent model follows the candidate from observed point to observed point. Where the two agree, it goes on with the
candidate's own tensor; where they don't, the changes of a catalogue are tried on the operations that lead there, alone,
then in pairs, then in threes, and numbers that are not known beforehand are solved for. Knows no ViT.
"""

from __future__ import annotations

import functools
import math
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.errors import Failures
from parity.explanation.bending import Bend, Change
from parity.explanation.facts import facts
from parity.explanation.following import IMAGES, MISFITS, OUTPUT, Follower, Start, random_state
from parity.explanation.formulas.replaying import Graft
from parity.explanation.trying import TooLateError, Trials
from parity.tracing import compare, random_state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    import torch

    from parity.explanation.bending import Bendable, Key, Kind
    from parity.explanation.following import Outcome
    from parity.explanation.grafts import Difference, Grafts
    from parity.explanation.observing import Observations
    from parity.tracing import Point


# the parts of the time that is left in which causes may be tried at one place: alone, and then together; the latter for
# shorter where a formula is known and shapes are the same. Behind the logits there is no place that needs any.
_ALONE, _TOGETHER, _BESIDE_A_FORMULA = 0.5, 0.1, 0.04


@dataclass(frozen=True)
class Unexplained:
    """A point where the candidate differs, given its own tensors at all points before, and no change explains it.

    Attributes:
        point: of the reference.
        error: relative.
        facts: how the two tensors are related, as far as that can be said.
        is_finite: whether all that passes there in the candidate's run are numbers.
        since: the operations since the last point where both agree.
    """

    point: Point
    error: float
    facts: list[str]
    is_finite: bool = True
    since: frozenset[Key] = frozenset()


class Search:
    """Explains one run of a candidate.

    Args:
        model: the reference, bendable, in float64.
        images: what both were shown, in float64.
        seed: of the candidate's random state.
        observations: of the candidate's run.
        kinds: the catalogue; where it is empty, nothing is tried.
        known: changes that are certain before anything is tried.
        seconds: of the processor, after which to give up trying.
        failures: takes what could not be tried.
        grafts: given who follows the candidate, returns who finds what is in no catalogue.
        ignored: modules that are not looked at.
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
        failures: Failures | None = None,
        grafts: Callable[[Follower], Grafts] | None = None,
        ignored: Collection[str] = (),
    ) -> None:
        self.changes = tuple(known)
        self.unexplained: list[Unexplained] = []
        self.failures = failures or Failures()
        self._model = model
        self._images = images
        self._random = random_state_of(seed)
        self._observations = observations
        self._kinds = kinds
        self._until = time.process_time() + seconds
        self._follower = Follower(model, observations)
        self._follower.ignored.update(ignored)
        self._grafts = grafts(self._follower) if grafts else None
        self._why_not: dict[Point, str] = {}  # points where there is no graft
        self._passed: set[Key] = set()  # the operations behind which both were compared
        self.sources: dict[Change, tuple[str, ...]] = {}

    @property
    def ignored(self) -> set[str]:
        """The modules at which the candidate has another thing than their places say."""
        return self._follower.ignored

    def run(self, *, to_the_end: bool = True) -> None:
        """Follows the candidate; `changes` then holds what explains it, `unexplained` what nothing does.

        Args:
            to_the_end: go on behind a place that nothing explains.
        """
        start = Start(0, self._images, self._random, passed={IMAGES: self._images})
        before: tuple[Change, ...] = ()
        for number, stage in enumerate(self._model.stages):
            self._observations.reach(number)
            known = self.changes
            usual = self._translated(before, number)
            outcome = self._follower.follow(start, (*known, *usual)) if usual else None
            if outcome is None or outcome.dirty:
                outcome = self._follower.follow(start, known)
            while outcome.dirty:
                better = self._explained(start, outcome, usual, known) if self._kinds else None
                if better is None:
                    if outcome.dirty in self._follower.given:
                        return  # the candidate's own tensor doesn't fit there, so nobody gets past it
                    self.unexplained.append(self._unexplained(outcome))
                    if not (to_the_end and self.unexplained[-1].is_finite):
                        return
                    self._follower.given.add(outcome.dirty)
                    better = self._follower.follow(start, outcome.changes)
                outcome = better
            self.changes = outcome.changes
            before = tuple(change for change in self.changes if change not in known and _is_in(change, stage))
            self._passed.update(outcome.bend.done)
            assert outcome.end is not None
            start = outcome.end
            self._follower.forget()

    def holds(self, change: Change) -> bool:
        """Returns whether all that a change does leads to a point where the candidate was found to do the same."""
        return change.operations <= self._passed and not any(
            change.operations & place.since for place in self.unexplained
        )

    def lines_with(self, names: Collection[str]) -> tuple[str, ...]:
        """Returns the lines of the candidate's source that use one of these of its tensors, as far as they are seen."""
        lines: tuple[str, ...] = ()
        with Failures().kept("its operations could not be read"):
            lines = self._grafts.lines_with(names) if self._grafts else ()
        return lines

    def _is_finite_at(self, point: Point) -> bool:
        """Whether there are numbers to compare at a point; where there are none, there are none behind it either."""
        observed = self._follower.observed(point)
        return observed is None or bool(observed.isfinite().all())

    def _unexplained(self, outcome: Outcome) -> Unexplained:
        assert outcome.dirty is not None
        observed = self._follower.observed(outcome.dirty)
        known: list[str] = []
        if observed is not None and outcome.fitted is not None:
            with self.failures.kept(f"what is known of {outcome.dirty.module or 'the logits'} could not be said"):
                known = facts(outcome.fitted, observed.to(outcome.fitted))
        why_not = self._why_not.get(outcome.dirty)
        known = [*([why_not] if why_not else []), *known]
        since = frozenset(outcome.recent)
        return Unexplained(outcome.dirty, outcome.error, known, self._is_finite_at(outcome.dirty), since)

    def _translated(self, changes: Iterable[Change], number: int) -> tuple[Change, ...]:
        """Returns the changes that were found in the stage before as they would be in this one."""
        earlier, here = (self._model.stages[n].partition("#")[0] for n in (max(number - 1, 0), number))
        if re.sub(r"\d+", "", earlier) != re.sub(r"\d+", "", here):
            return ()
        return tuple(
            Change(c.kind, c.place.replace(earlier, here), c.value) for c in changes if not isinstance(c.value, Graft)
        )

    def _explained(
        self, start: Start, base: Outcome, usual: tuple[Change, ...], known: tuple[Change, ...]
    ) -> Outcome | None:
        """Returns an outcome that goes further than `base`, or None.

        Args:
            start: where the stage begins.
            base: the run that has stopped at a place.
            usual: what was found in the stage before.
            known: what was found before this stage.
        """
        trials = Trials(self._follower, self._kinds, self._until, start, base, self.failures)
        self._follower.memo.may_grow = False
        difference = self._difference(start, base)
        found: Outcome | None = None
        graft = functools.cache(lambda: self._grafted(start, base, difference))
        is_last = base.dirty == OUTPUT
        try:
            found = trials.ignoring()
            if found is None and base.dirty and self._is_finite_at(base.dirty):
                trials.until = self._share(1.0 if is_last else _ALONE)
                found = self._as_before(base, difference, graft) or trials.singles(usual)
            if found is None and base.dirty and self._is_finite_at(base.dirty):
                is_brief = math.isfinite(base.error) and graft() is not None
                trials.until = self._share(1.0 if is_last else _BESIDE_A_FORMULA if is_brief else _TOGETHER)
                found = trials.from_close(usual) or trials.combinations()
        except TooLateError:
            found = trials.best
        finally:
            self._follower.memo.may_grow = True
        if found is None or _is_by_chance(found, base, difference):
            found = graft()
            alone = found and self._without_names(start, found, known)
            found, difference = alone or (found, difference)
        if found and difference and difference.lines:
            self.sources |= self._sources(start, base, found, difference.lines)
        # the same run once more, to be kept
        return None if found is None else self._follower.follow(start, found.changes)

    def _sources(
        self, start: Start, base: Outcome, found: Outcome, lines: tuple[str, ...]
    ) -> dict[Change, tuple[str, ...]]:
        """Returns the lines that each new change comes from: of several kinds, those that one alone leaves.

        Args:
            start: where the stage begins.
            base: the run that had stopped at a place.
            found: the run that goes further.
            lines: those that differ between the candidate and `base`.
        """
        alike: dict[tuple[str, str, str], list[Change]] = defaultdict(list)
        for change in found.changes:
            if change not in base.changes:
                alike[change.kind.key].append(change)
        sources = {change: lines for members in alike.values() for change in members}
        for members in alike.values() if len(alike) > 1 else ():
            without = self._follower.follow(start, tuple(c for c in found.changes if c not in members))
            alone = self._lines_at(start, without)
            sources |= dict.fromkeys(members, alone or lines)
        return sources

    def _lines_at(self, start: Start, base: Outcome) -> tuple[str, ...]:
        """Returns the lines of the candidate's source that differ where a run has stopped."""
        difference = None
        with Failures().kept("its operations could not be read"):
            difference = self._grafts.at(start, base) if self._grafts and base.dirty else None
        return difference.lines if difference else ()

    def _without_names(
        self, start: Start, found: Outcome, known: tuple[Change, ...]
    ) -> tuple[Outcome, Difference] | None:
        """Returns a run that goes as far as one with a graft, by a formula instead of that and of a cause with a name.

        A name and a formula may take back what the other one does, so that they are true together only. Then the
        formula of the place where the name was found does for both.
        """
        named = [c for c in found.changes if c not in known and not isinstance(c.value, Graft)]
        for key in dict.fromkeys(change.kind.key for change in named):
            rest = tuple(c for c in found.changes if c.kind.key != key and (c in named or c in known))
            base = self._follower.follow(start, rest)
            difference = self._difference(start, base) if base.dirty else None
            alone = self._grafted(start, base, difference)
            if (
                alone
                and difference
                and (alone.dirty is None or (found.dirty and found.clean.keys() <= alone.clean.keys()))
            ):
                return alone, difference
        return None

    def _difference(self, start: Start, base: Outcome) -> Difference | None:
        """Returns what the candidate's own operations say of the place where a run has stopped."""
        assert base.dirty is not None
        if self._grafts is None or not self._is_finite_at(base.dirty):
            return None
        watching = Failures()
        difference: Difference | None = None
        with watching.kept("its operations could not be read"):
            difference = self._grafts.at(start, base)
        for why_not in (*watching.told(), *([difference.why_not] if difference else [])):
            self._why_not[base.dirty] = why_not
        return difference

    def _share(self, part: float) -> float:
        """Until when one place may be looked at, so that there is time for others."""
        now = time.process_time()
        return now + part * max(self._until - now, 0.0)

    def _as_before(
        self, base: Outcome, difference: Difference | None, graft: Callable[[], Outcome | None]
    ) -> Outcome | None:
        """Makes a graft where one that does the same has been made elsewhere."""
        grafts = {change.kind.key for change in base.changes if isinstance(change.value, Graft)}
        return graft() if difference is not None and difference.key in grafts else None

    def _grafted(self, start: Start, base: Outcome, difference: Difference | None) -> Outcome | None:
        """Carries out the candidate's own operations, and returns the outcome if it goes further than `base`."""
        if difference is None or not difference.is_possible:
            return None
        made = [self._follower.follow(start, (*base.changes, change)) for change in difference.changes]
        further = [outcome for outcome in made if outcome.goes_further_than(base)]
        return max(further, key=lambda outcome: (outcome.dirty is None, len(outcome.clean)), default=None)


def distance_of(
    model: Bendable,
    images: torch.Tensor,
    changes: Sequence[Change],
    output: torch.Tensor,
    seed: int,
    failures: Failures,
) -> float:
    """Runs a whole bent model freely and returns the relative distance of its output from a candidate's.

    Args:
        model: bendable, in float64.
        images: what the candidate was shown, in float64.
        changes: that are made.
        output: the candidate's.
        seed: of the candidate's random state.
        failures: takes what could not be tried.
    """
    tensor, bend = images, Bend(changes, traits=model.traits, passed={IMAGES: images})
    relative = math.inf
    with random_state(random_state_of(seed)), failures.kept("changes could not be made together"):
        try:
            for stage in model.stages:
                tensor = model.run(stage, tensor, bend)
        except MISFITS:
            return math.inf  # the other changes don't fit together without one that is left out
        relative = compare(output, tensor, ulp=False).relative
    return relative


def _is_by_chance(found: Outcome, base: Outcome, difference: Difference | None) -> bool:
    """Whether changes explain a place for this run alone.

    So do changes without random numbers where the candidate draws some, and an absence of a number (0 in its place)
    where the candidate bounds something instead.
    """
    if difference is None:
        return False
    new = [change for change in found.changes if change not in base.changes]
    is_bounded = difference.is_bounded and any(change.value == 0 for change in new if isinstance(change.value, float))
    return is_bounded or (difference.is_random and not any(change.kind.is_random for change in new))


def _is_in(change: Change, stage: str) -> bool:
    name = stage.partition("#")[0]
    return change.place == name or change.place.startswith(f"{name}.")
