"""Looking for the assignment of the reference's sizes to arguments whose tensors are the reference's."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING

from parity.models.constructors.holders import Slot, learn
from parity.models.constructors.options import CONTRADICTING, LEFT, Option
from parity.models.constructors.probing import CLEARLY, TELLING, Probe, Tried
from parity.models.constructors.signatures import EMPTY
from parity.models.constructors.slots import taken_of
from parity.models.constructors.words import RATES, SIDES, SIZES, meanings_at, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from parity.models.constructors.probing import Assignment
    from parity.models.state import Shape

_MOST_IN_VAIN = 60  # builds, while none has succeeded
_MOST_FORMS = 12
_FARTHEST = 19  # above the least cost of all arguments, of an assignment that is still tried
# quantities of which a model has one, so that no second argument is the same; a side of an image is an exception
_SAME = {"mlp_ratio": "mlp_dim", "mlp_widths": "mlp_dim", "heads_of_blocks": "num_heads",
         "head_hidden": "representation_size"}  # fmt: skip
_SHARED = {*RATES, "head_width", "inner_width", "key_heads"}
# quantities that go by the same names, so that only tensors tell which is meant
_NAMED_ALIKE = (
    {"num_patches", "patches_per_side", "num_tokens", "patch_size"},
    {"head_width", "inner_width"},
)


def _is_as_named(one: Option, other: Option) -> bool:
    """Returns whether two options are quantities that go by the same names."""
    return any({one.quantity, other.quantity} <= alike for alike in _NAMED_ALIKE)


def _moved_by(before: list[Shape], after: list[Shape], layers: int) -> tuple[str, ...]:
    """Returns the quantities that change tensors as was seen, the likeliest first."""
    if len(before) != len(after):
        return ("num_layers",)
    changed = [math.prod(new) / math.prod(old) for old, new in zip(before, after, strict=True) if new != old]
    if not changed:
        return ("num_heads", "dropout", "head_width", "image_size", "patch_size")
    if len(changed) >= layers:  # one or more tensors of every block
        of_all = len(changed) * 2 >= len(before)
        return ("hidden_dim",) if of_all else ("mlp_dim", "mlp_ratio", "inner_width", "head_width", "num_heads")
    lengths = [{*zip(old, new, strict=True)} for old, new in zip(before, after, strict=True) if new != old]
    is_token_left = all((2, 1) in length for length in lengths)  # as images are smaller than a patch
    if {*changed} <= {2.0, 0.5} and not is_token_left:
        of_heads = ("representation_size", "head_hidden")
        found = ("num_classes", "in_channels", "patch_vector", *of_heads, "num_patches", "inner_width")
        axes = [len(new) for old, new in zip(before, after, strict=True) if new != old]  # a bias goes with the classes
        first = "in_channels" if axes == [4] else "patch_vector" if axes == [2] else "num_classes"
        return tuple(sorted(found, key=lambda quantity: quantity != first))
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
        self._narrowed = set[str]()

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
        if option.quantity is None or option.quantity in _SHARED or option.is_again:
            return None
        held = _SAME.get(option.quantity, option.quantity)
        parent, _, name = path.rpartition(".")
        if held in ("image_size", "patch_size") and {*words(name)} & SIDES:
            return None
        return f"{'constants' if self.open[path][0].is_constant else parent}.{held}"

    def narrow(self) -> None:
        """Leaves arguments whose names say nothing only what fits the tensors that they change, one at a time.

        All sizes are equal at first, so that whatever has to divide another does; then one is doubled or halved.
        """
        unsaid = self._unsaid()
        unnamed = [path for path in self.open if path in unsaid and self._is_number(path)]
        self._narrowed |= {*unnamed}
        if not unnamed:
            return
        for usual, other in ((4, 8), (8, 4)):
            equal = {key: usual for key, value in TELLING.items() if isinstance(value, int)}
            for likely in itertools.islice(self._forms(), _MOST_FORMS):
                values = {path: option.of({**TELLING, **equal}) for path, option in likely.items()}
                values = {path: value for path, value in values.items() if value is not EMPTY}
                values |= dict.fromkeys(unnamed, usual)
                before = self.probe.shapes(values)
                if before:
                    break
            for path in unnamed if before else ():
                after = self.probe.shapes({**values, path: other})
                is_idle = before == after and bool(meanings_at(path))  # nothing but its name says what it is
                if before and after and not is_idle:
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
        found = [self.open[path][1] for path in paths]
        every = [[o for o in options if o.quantity == options[0].quantity and not o.is_again] for options in found]
        for chosen in itertools.product(*every):
            yield dict(zip(paths, chosen, strict=True))

    def _unsaid(self) -> set[str]:
        """Returns the arguments whose names mean nothing, or the same as another's."""
        named = {path for path, (slot, found) in self.open.items() if found and meanings_at(slot.path)}
        held = {path: self._held(path, self.open[path][1][0]) for path in named}
        counts = Counter(held.values())
        doubled = {path for path in named if held[path] is not None and counts[held[path]] > 1}
        return self.open.keys() - named | doubled | self._narrowed

    def _is_number(self, path: str) -> bool:
        slot, found = self.open[path]
        return not isinstance(slot.default, (tuple, list)) and any(option.quantity in SIZES for option in found)

    def run(self) -> tuple[Assignment | None, Tried]:
        """Returns the best assignment and what became of it; without one, the likeliest and its error."""
        start, tried = self._first()
        if tried.distance is None and any("." in path for path in self.open):
            self.probe.has_plain_numbers = True
            self.probe.forget()
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

    def with_choices(self, start: Assignment) -> Assignment:
        """Returns `start` with those choices, such as the name of a variant, whose tensors are nearest."""
        least = self.probe.tried(start).distance
        for path, (slot, found) in self.open.items():
            for option in found if isinstance(slot.default, (str, enum.Enum)) else ():
                tried = self.probe.tried(start | {path: option}).distance
                if tried is not None and (least is None or tried <= least - CLEARLY):
                    start, least = start | {path: option}, tried
        return start

    def _first(self) -> tuple[Assignment | None, Tried]:
        """Returns the likeliest assignment that can be built; slots that building shows are added."""
        likeliest, first_error = None, Tried(None)
        begun, is_narrowed = self.probe.builds, False
        while self.probe.builds - begun < _MOST_IN_VAIN and not self.probe.is_spent:
            for assignment in self.likeliest(_MOST_IN_VAIN):
                tried = self.probe.tried(assignment)
                if learn(tried.error, taken_of):
                    self.probe.forget()
                    self.open = self._slots()
                    begun, is_narrowed = self.probe.builds, False
                    break
                if not is_narrowed:
                    self.narrow()
                    begun, is_narrowed = self.probe.builds, True
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
            changed, tried = self._changed(start, path, option)
            learn(None, taken_of)
            if tried.distance is None:
                continue
            gain = least - tried.distance
            was = start[path]
            is_another = option.quantity is not None and option.quantity != was.quantity
            needed = CLEARLY if is_another else 1e-9
            if any(
                was.cost == 0 and was.quantity not in (None, changed[p].quantity) and not _is_as_named(was, changed[p])
                for p, was in start.items()
            ):
                needed = max(CLEARLY, least / 2)  # a name says something else
            if gain >= needed and (best is None or (tried.distance, option.cost) < best[:2]):
                best = tried.distance, option.cost, changed, tried
                if gain >= CLEARLY:
                    break
        return best and (best[2], best[3])

    def _changed(self, start: Assignment, path: str, option: Option) -> tuple[Assignment, Tried]:
        """Returns `start` with another option, and what became of it.

        Other arguments that were the same change along where that is nearer: keys and values are as wide as queries.
        """
        changed = self._with(start, path, option)
        if changed is None:
            return start, Tried(None)
        tried = self.probe.tried(changed)
        if tried.distance is None:  # what was left at its default may only go with the change
            changed = self._as_named(changed)
            tried = self.probe.tried(changed)
        along = {
            other: next((o for o in self.open[other][1] if o.quantity == option.quantity), was)
            for other, was in start.items()
            if other != path and was.quantity == start[path].quantity and option.quantity in meanings_at(other)
        }
        along = along if _is_as_named(start[path], option) and option.quantity in _SHARED else {}
        together = self.probe.tried(changed | along) if along else tried
        if together.distance is not None and (tried.distance is None or together.distance < tried.distance):
            return changed | along, together
        return changed, tried

    def _changes(self, start: Assignment) -> Iterator[tuple[str, Option]]:
        """Yields the other options of every argument.

        First come those that its name says as well, then those of arguments whose names say nothing, or no more.
        """
        unsaid = self._unsaid()
        every = [
            (path, option)
            for path in start
            for option in self.open[path][1]
            if option != start[path] and (option.cost < CONTRADICTING or path in unsaid) and not option.is_last
        ]
        doubt = {path: (path not in unsaid, not start[path].is_again) for path in start}
        yield from sorted(
            every,
            key=lambda change: (not _is_as_named(start[change[0]], change[1]), *doubt[change[0]], change[1].cost),
        )

    def _as_named(self, start: Assignment) -> Assignment:
        """Returns `start` with what is left at its default as its name says, as far as no other argument is that."""
        result = dict(start)
        for path, option in start.items():
            first, held = self.open[path][1][:1], {self._held(p, o) for p, o in result.items()}
            if option.quantity is None and first and first[0].quantity and self._held(path, first[0]) not in held:
                result[path] = first[0]
        return result

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

    def made_up(self, found: Assignment) -> list[str]:
        """Returns the arguments whose value neither their names nor any tensors bear out."""
        return [path for path, option in found.items() if option.quantity and self._is_made_up(path, option, found)]

    def without(self, found: Assignment, path: str) -> Assignment:
        """Returns `found` with an argument as its name says, if that can be built and no other is that; or without."""
        rest = {p: option for p, option in found.items() if p != path}
        held = {self._held(p, option) for p, option in rest.items()}
        for option in self.open[path][1]:
            is_said = option.quantity in meanings_at(path) and not option.is_again
            if is_said and self._held(path, option) not in held:
                said = rest | {path: option}
                if self.probe.tried(said).distance is not None:
                    return said
        return rest

    def _is_made_up(self, path: str, option: Option, found: Assignment) -> bool:
        meant = meanings_at(path)
        if self.open[path][0].is_required:
            return option.quantity not in meant and not self.probe.effect(found, path)
        is_first = option.quantity in (*meant[:1], *RATES)
        return not is_first and self.probe.effect(found, path) is None

    def equals(self, found: Assignment, least: float) -> dict[str, list[str]]:
        """Returns what else an argument could be with the very same tensors, and no less likely by its name."""
        same: dict[str, list[str]] = {}
        for path, option in itertools.islice(self._changes(found), 60):
            changed = self._with(found, path, option)
            slot, _ = self.open[path]
            is_other = option.quantity not in (None, found[path].quantity)
            if option.cost > found[path].cost or not is_other or changed is None or not slot.is_required:
                continue
            tried = self.probe.tried(changed)
            if tried.distance is not None and tried.distance <= least and not self.probe.is_spent:
                same.setdefault(path, []).append(str(option.quantity))
        return same
