"""Finding out which argument is which: building with sizes that tell, until the tensors are the reference's."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.models.options import CONTRADICTING, LEFT, Option
from parity.models.quantities import distance, heads_in_all, heads_of, totals
from parity.models.reference import build_reference
from parity.models.signatures import EMPTY
from parity.models.slots import Slot, learn
from parity.models.state import state_shapes, without_initial_values
from parity.models.words import RATES, SIDES, SIZES, meanings, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from parity.models.state import Shape

    Assignment = dict[str, Option]

# Sizes of which each has a prime of its own (width 11, MLP 7, classes 17, patches 5, tokens 37), so that a tensor's
# shape tells which of them it comes from. Heads of 11 features, and a grid of 6 by 6.
_TELLING = {
    "image_size": 30, "patch_size": 5, "num_layers": 3, "num_heads": 4, "hidden_dim": 44, "mlp_dim": 308,
    "num_classes": 17, "representation_size": None, "dropout": 0.13, "attention_dropout": 0.21,
}  # fmt: skip
_PRIMES = (11, 7, 17, 5, 37, 13)

_MOST_BUILDS = 100
_MOST_IN_VAIN = 60  # builds, while none has succeeded
_MOST_SECONDS = 1.0
_MOST_FORMS = 12
_FARTHEST = 19  # above the least cost of all arguments, of an assignment that is still tried
# what an argument has to gain to be what its name doesn't say: about one kind of tensor that becomes right
_CLEARLY = 0.5
# of a model that cannot be run on the images it was built for, or whose heads are others
_UNFIT = 0.5

# quantities of which a model has one, so that no second argument is the same; a side of an image is an exception
_SAME = {"mlp_ratio": "mlp_dim", "num_tokens": "tokens", "num_patches": "tokens", "patches_per_side": "tokens"}
_SHARED = {*RATES, "head_width"}


def telling(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a small configuration in which all sizes can be told apart."""
    found = {**config, **_TELLING}
    if config.get("representation_size"):
        found["representation_size"] = 26
    return found


@dataclasses.dataclass
class Tried:
    """What became of an assignment: how far its tensors are from the reference's; None: it cannot be built."""

    distance: float | None
    error: BaseException | None = None
    heads: int | None = None


class Probe:
    """Builds a candidate without values at one configuration and compares its tensors with the reference's.

    Attributes:
        builds: how many it has built.
    """

    def __init__(
        self, config: Mapping[str, Any], make: Callable[[dict[str, Any]], Any], given: Mapping[str, Any]
    ) -> None:
        """Prepares builds.

        Args:
            config: sizes of the reference.
            make: builds the candidate from values by path.
            given: values that are fixed.
        """
        self.config, self._make, self._given = config, make, given
        self.builds = 0
        self._seconds = 0.0
        self._goal = totals(
            state_shapes(build_reference({key: value for key, value in config.items() if key != "in_channels"})),
            _PRIMES,
        )
        self._known: dict[Any, Tried] = {}

    def values(self, assignment: Assignment) -> dict[str, Any]:
        """Returns what is given to every slot, by path."""
        values = {path: option.of(self.config) for path, option in assignment.items()}
        return {path: value for path, value in values.items() if value is not EMPTY} | dict(self._given)

    def tried(self, assignment: Assignment) -> Tried:
        """Builds the candidate as assigned."""
        key = tuple(sorted((path, id(option)) for path, option in assignment.items()))
        if key not in self._known:
            began = time.process_time()
            self._known[key] = self._try(assignment)
            self._seconds += time.process_time() - began
        return self._known[key]

    @property
    def is_spent(self) -> bool:
        """Whether it has built enough."""
        return self.builds >= _MOST_BUILDS or self._seconds >= _MOST_SECONDS

    def forget(self) -> None:
        """Forgets what was tried, as there are new slots."""
        self._known.clear()

    def _try(self, assignment: Assignment) -> Tried:
        self.builds += 1
        try:
            module = self.built(self.values(assignment))
            shapes = state_shapes(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001  (a constructor can raise anything)
            return Tried(None, error)
        far = distance(totals(shapes, _PRIMES), self._goal)
        heads = None
        try:
            with _quiet():
                heads = heads_in_all(module, self.config["image_size"])
        except (Exception, SystemExit):  # noqa: BLE001
            far += _UNFIT
        if heads:
            far += _UNFIT * (heads != self.config["num_heads"] * self.config["num_layers"])
        elif (named := heads_of(module)) is not None:
            heads = named
            far += _UNFIT * (named != self.config["num_heads"])
        return Tried(far, heads=heads)

    def shapes(self, values: Mapping[str, Any]) -> list[Shape] | None:
        """Returns the shapes of all tensors if the candidate is given these values by path; None if it raises."""
        self.builds += 1
        try:
            return list(state_shapes(self.built({**values, **self._given})).values())
        except (Exception, SystemExit):  # noqa: BLE001
            return None

    def built(self, values: Mapping[str, Any]) -> nn.Module:
        """Builds the candidate, without values and in silence."""
        with _quiet(), torch.random.fork_rng(devices=[]), without_initial_values():
            module = self._make(dict(values))
        if not isinstance(module, nn.Module):
            raise TypeError(type(module).__name__)
        return module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _moved_by(before: list[Shape], after: list[Shape], layers: int) -> tuple[str, ...]:
    """Returns the quantities that change tensors as was seen, the likeliest first."""
    if len(before) != len(after):
        return ("num_layers",)
    changed = [math.prod(new) / math.prod(old) for old, new in zip(before, after, strict=True) if new != old]
    if not changed:
        return ("num_heads", "dropout", "head_width", "image_size", "patch_size")
    if len(changed) >= layers:  # one or more tensors of every block
        of_all = len(changed) * 2 >= len(before)
        return ("hidden_dim",) if of_all else ("mlp_dim", "mlp_ratio", "head_width", "num_heads")
    if {*changed} <= {2.0, 0.5}:
        return ("num_classes", "in_channels", "patch_vector", "representation_size", "num_patches")
    if {*changed} & {4.0, 0.25}:
        return ("patch_size", "image_size", "patches_per_side")
    return ("image_size", "num_tokens", "num_patches", "patches_per_side")


class Search:
    """Looks for the assignment of options to slots whose tensors are the reference's."""

    def __init__(self, probe: Probe, slots: Callable[[], dict[str, tuple[Slot, list[Option]]]]) -> None:
        """Prepares a search.

        Args:
            probe: what builds.
            slots: returns the slots and their options by path; asked again where building has shown more of them.
        """
        self.probe, self._slots = probe, slots
        self.open = slots()

    def likeliest(self, most: int = 1) -> Iterator[Assignment]:
        """Yields assignments without a contradiction, by how far-fetched they are."""
        paths = sorted(self.open, key=lambda path: (len(self.open[path][1]) > 1, self._least(path)))
        found = 0
        least = sum(map(self._least, paths))
        for cost in range(least, least + _FARTHEST):
            for assignment in self._of_cost(paths, cost, {}, set()):
                yield assignment
                found += 1
                if found >= most:
                    return

    def _least(self, path: str) -> int:
        return min((option.cost for option in self.open[path][1]), default=0)

    def _of_cost(self, paths: list[str], cost: int, chosen: Assignment, taken: set[str]) -> Iterator[Assignment]:
        if cost < sum(map(self._least, paths)):
            return
        if not paths:
            if cost == 0:
                yield dict(chosen)
            return
        path, rest = paths[0], paths[1:]
        for option in self.open[path][1] or [LEFT]:
            held = self._held(path, option)
            if option.cost > cost or (held and held in taken):
                continue
            yield from self._of_cost(
                rest, cost - option.cost, chosen | {path: option}, taken | ({held} if held else set())
            )

    def _held(self, path: str, option: Option) -> str | None:
        """Returns what no other argument may be as well, if this one is that."""
        if option.quantity is None or option.quantity in _SHARED:
            return None
        held = _SAME.get(option.quantity, option.quantity)
        parent, _, name = path.rpartition(".")
        if held in ("image_size", "patch_size") and {*words(name)} & SIDES:
            return None
        return f"{parent}.{held}"

    def narrow(self) -> None:
        """Leaves arguments whose names say nothing only what fits the tensors that they change, one at a time.

        All sizes are equal at first, so that whatever has to divide another does; then one is doubled or halved.
        """
        unsaid = self._unsaid()
        unnamed = [path for path in self.open if path in unsaid and self._is_number(path)]
        if not unnamed:
            return
        for usual, other in ((4, 8), (8, 4)):
            equal = {key: usual for key, value in _TELLING.items() if isinstance(value, int)}
            for likely in itertools.islice(self._forms(), _MOST_FORMS):
                values = {path: option.of({**_TELLING, **equal}) for path, option in likely.items()}
                values = {path: value for path, value in values.items() if value is not EMPTY}
                values |= dict.fromkeys(unnamed, usual)
                before = self.probe.shapes(values)
                if before:
                    break
            for path in unnamed if before else ():
                after = self.probe.shapes({**values, path: other})
                if before and after:
                    allowed = _moved_by(before, after, usual)
                    slot, found = self.open[path]
                    ranked = {quantity: rank for rank, quantity in enumerate(allowed)}
                    self.open[path] = (
                        slot,
                        [
                            dataclasses.replace(option, cost=ranked.get(option.quantity or "", 0) + option.cost)
                            for option in found
                            if option.quantity in ranked or option.quantity is None
                        ],
                    )

    def _forms(self) -> Iterator[Assignment]:
        """Yields what the names say, in all the forms that it may be wanted in."""
        unsaid = self._unsaid()
        paths = [path for path, (_, found) in self.open.items() if found and path not in unsaid]
        every = [[o for o in self.open[path][1] if o.quantity == self.open[path][1][0].quantity] for path in paths]
        for chosen in itertools.product(*every):
            yield dict(zip(paths, chosen, strict=True))

    def _unsaid(self) -> set[str]:
        """Returns the arguments whose names mean nothing, or the same as another's."""
        named = {path for path, (slot, found) in self.open.items() if found and meanings(slot.name)}
        held = {path: self._held(path, self.open[path][1][0]) for path in named}
        counts = Counter(held.values())
        doubled = {path for path in named if held[path] is not None and counts[held[path]] > 1}
        return self.open.keys() - named | doubled

    def _is_number(self, path: str) -> bool:
        return any(option.quantity in SIZES for option in self.open[path][1])

    def run(self) -> tuple[Assignment | None, Tried]:
        """Returns the best assignment and what became of it; without one, the likeliest and its error."""
        start, tried = self._first()
        if start is None or tried.distance is None:
            return start, tried
        while tried.distance and not self.probe.is_spent:
            better = self._better(start, tried.distance)
            if better is None:
                break
            start, tried = better
            assert tried.distance is not None
        return start, tried

    def _first(self) -> tuple[Assignment | None, Tried]:
        """Returns the likeliest assignment that can be built; slots that building shows are added."""
        likeliest, first_error = None, Tried(None)
        self.narrow()
        begun = self.probe.builds
        while self.probe.builds - begun < _MOST_IN_VAIN and not self.probe.is_spent:
            for assignment in self.likeliest(_MOST_IN_VAIN):
                tried = self.probe.tried(assignment)
                if learn(tried.error):
                    self.probe.forget()
                    self.open = self._slots()
                    self.narrow()
                    break
                if likeliest is None or likeliest.keys() != assignment.keys():
                    likeliest, first_error = assignment, tried
                if tried.distance is not None:
                    return assignment, tried
                if self.probe.builds - begun >= _MOST_IN_VAIN or self.probe.is_spent:
                    break
            else:
                break
        return likeliest, first_error

    def _better(self, start: Assignment, least: float) -> tuple[Assignment, Tried] | None:
        """Returns the best of the assignments that differ from `start` in an argument, or in two that change places."""
        best: tuple[float, float, Assignment, Tried] | None = None
        for path, option in self._changes(start):
            if self.probe.is_spent:
                break
            changed = self._with(start, path, option)
            if changed is None:
                continue
            tried = self.probe.tried(changed)
            learn(None)
            if tried.distance is None:
                continue
            gain = least - tried.distance
            was = start[path]
            is_another = option.quantity is not None and option.quantity != was.quantity
            needed = _CLEARLY if is_another else 1e-9
            if is_another and was.quantity is not None and was.cost == 0:
                needed = max(_CLEARLY, least / 2)  # the name says something else
            if gain >= needed and (best is None or (tried.distance, option.cost) < best[:2]):
                best = tried.distance, option.cost, changed, tried
                if gain >= _CLEARLY:
                    break
        return best and (best[2], best[3])

    def _changes(self, start: Assignment) -> Iterator[tuple[str, Option]]:
        """Yields the other options of every argument, first those of arguments whose names say nothing."""
        unsaid = self._unsaid()
        every = [
            (path, option)
            for path in start
            for option in self.open[path][1]
            if option is not start[path] and (option.cost < CONTRADICTING or path in unsaid)
        ]
        yield from sorted(every, key=lambda change: (change[0] not in unsaid, change[1].cost))

    def _with(self, start: Assignment, path: str, option: Option) -> Assignment | None:
        """Returns `start` with another option, and with what stands in its way moved to its next one."""
        held = self._held(path, option)
        changed = start | {path: option}
        in_the_way = [p for p, o in start.items() if p != path and held and self._held(p, o) == held]
        for other in in_the_way:
            taken = {self._held(p, o) for p, o in changed.items() if p != other}
            free = [
                o
                for o in self.open[other][1]
                if o is not start[other] and (self._held(other, o) not in taken or not o.quantity)
            ]
            if not free:
                return None
            changed[other] = free[0]
        return changed

    def equals(self, found: Assignment, least: float) -> dict[str, list[str]]:
        """Returns what else an argument could be with the very same tensors, and no less likely by its name."""
        same: dict[str, list[str]] = {}
        for path, option in itertools.islice(self._changes(found), 60):
            changed = self._with(found, path, option)
            slot, _ = self.open[path]
            if option.cost > found[path].cost or not option.quantity or changed is None or not slot.is_required:
                continue
            tried = self.probe.tried(changed)
            if tried.distance is not None and tried.distance <= least and not self.probe.is_spent:
                same.setdefault(path, []).append(option.quantity)
        return same
