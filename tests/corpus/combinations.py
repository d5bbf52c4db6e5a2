"""Combinations: two to eight bugs at once, drawn at random, each in a place of its own.

In half of them a trait of another family of models is one of the bugs.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.corpus.bugs import BUGS
from tests.corpus.cases import SIZES, Case
from tests.corpus.hosts import HOSTS
from tests.corpus.planting import OverlapError, plant, write
from tests.corpus.slips import SLIPS
from tests.corpus.traits import TRAIT, TRAITS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.corpus.bug import Bug
    from tests.corpus.hosts import Host

COUNTS = (2, 3, 5, 8)
OF_EACH_COUNT = 15

# at most, so that there is something left to map
_MOST_WITH_OTHER_PARAMETERS = 2

_TRIES = 100

_FAINT = {"layer-norm-eps", "layer-norm-std-eps"}


@dataclass(frozen=True)
class Combination:
    """Several bugs in one host.

    Attributes:
        id: how tests name it.
        host: where they are planted.
        cases: each bug with its block, or with None for all of them.
    """

    id: str
    host: Host
    cases: tuple[Case, ...]

    @property
    def mapping(self) -> Path | None:
        """The host's written weight map; None where one is shipped, or has to be found since the tensors are others."""
        return self.host.mapping if all(case.bug.fits_the_map for case in self.cases) else None

    @property
    def has_trait(self) -> bool:
        """Whether one of the bugs is a trait of another family, which may have no name and be told by a formula."""
        return any(case.bug.category == TRAIT for case in self.cases)

    @property
    def expected(self) -> frozenset[str]:
        """The ids of all causes; `a|b` where either is right."""
        return frozenset(cause for case in self.cases for cause in case.expected)

    def without(self, case: Case) -> Combination:
        """Returns the combination without one of its bugs."""
        return Combination(self.id, self.host, tuple(other for other in self.cases if other is not case))

    def write(self, folder: Path) -> str:
        """Writes the planted model to `folder` and returns it as a candidate's name."""
        everywhere = [case.bug.edits_in(self.host) for case in self.cases if case.block is None]
        blocks = sorted({case.block for case in self.cases if case.block is not None})
        in_blocks = {
            block: [case.bug.edits_in(self.host, block) for case in self.cases if case.block == block]
            for block in blocks
        }
        return write(folder, self.host, everywhere, in_blocks)


def combinations() -> Iterator[Combination]:
    """Yields the same combinations every time: as many of each count, in hosts that take turns, then with traits.

    In every other one, whatever fits one block goes into the same block.
    """
    hosts, traits = itertools.cycle(HOSTS.values()), itertools.cycle(_TRAITS)
    for kind in ("bugs", "traits"):
        for count in COUNTS:
            for number in range(OF_EACH_COUNT):
                generator = random.Random(f"{count}/{number}")  # noqa: S311  (no secret)
                first = () if kind == "bugs" else (next(traits),)
                host = HOSTS[first[0].hosts[0]] if first else next(hosts)
                only_block = generator.randrange(SIZES["num_layers"]) if number % 2 else None
                cases = _drawn(host, first, count, only_block, generator)
                yield Combination(f"{count}-{kind}-{number}-{host.name}", host, cases)


def _drawn(
    host: Host, first: tuple[Bug, ...], count: int, only_block: int | None, generator: random.Random
) -> tuple[Case, ...]:
    """Draws bugs that fit together, from the beginning again if broad ones leave no room for enough of them."""
    for _ in range(_TRIES):
        cases = [Case(bug, host) for bug in first]
        for bug in generator.sample(_COMBINABLE, len(_COMBINABLE)):
            block = only_block if only_block is not None else generator.choice([None, *range(SIZES["num_layers"])])
            case = Case(bug, host, block if bug.fits_one_block else None)
            if host.name in bug.hosts and _fits(case, cases) and not (first and _is_swallowed(case, cases)):
                cases.append(case)
            if len(cases) == count:
                return tuple(cases)
    raise AssertionError(f"no {count} bugs fit together in {host.name}")


def _fits(case: Case, others: list[Case]) -> bool:
    """Whether a case begins where none of the others shows, and can be planted beside them."""
    if any(case.places & other.places for other in others):
        return False
    if sum(c.bug.changes_parameters for c in (case, *others)) > _MOST_WITH_OTHER_PARAMETERS:
        return False
    try:
        plant(case.host, [c.bug.edits_in(case.host, c.block) for c in (case, *others)])
    except OverlapError:
        return False
    return True


def _is_swallowed(case: Case, others: list[Case]) -> bool:
    """Whether a rounding may hide all that a faint bug does: one of them is the case, the other is among the others."""
    bugs = [c.bug for c in (case, *others)]
    roundings = [bug for bug in bugs if "hidden-cast" in bug.causes and bug.says != "float32"]
    return bool(roundings) and any(bug.says == "float32" or _FAINT & {*bug.causes} for bug in bugs)


def _is_combinable(bug: Bug) -> bool:
    """Whether a bug leaves shapes, blocks and determinism alone, so that others beside it can be told from it."""
    is_plain = bug.mode == "eval" and bug.dtype == "float64" and not bug.settings and not bug.spreads
    # a mask or another wiring may leave of the others nothing that shows
    is_alone = bug.category in ("blocks", "scores of attention", "wiring, norms and activations of other models")
    is_alone = is_alone or bug.id in _ONE_HOST_IS_ENOUGH
    return is_plain and not is_alone and "dropout-in-eval" not in bug.causes


_ONE_HOST_IS_ENOUGH = {bug.id for bugs in (*SLIPS.values(), TRAITS) for bug in bugs}
_COMBINABLE = [bug for bug in BUGS if _is_combinable(bug)]
_TRAITS = [bug for bug in BUGS if bug.category == TRAIT and not bug.spreads]
