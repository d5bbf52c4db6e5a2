"""Which of all maps that are possible is right: both models are run under one after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from parity.errors import ParityError
from parity.mapping.apart import require_images_apart
from parity.mapping.decisions import AMBIGUOUS, BY_NAME, CLOSEST, PROVED, SYMMETRIC, Decision, likeliest, rarity, votes
from parity.mapping.pixels import effects_on_sums, told_by_pixels, told_by_what_is_taken
from parity.mapping.symmetries import rescaled
from parity.mapping.uses.ways import ATTENTION, PATCHES, POSITIONS
from parity.models import WeightMap, assigned, split, synthetic, whole
from parity.tracing import MODES, OUTPUT, Point, Run, align, bare_run, compare, first_that_runs, held_in, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from parity.mapping.pixels import Told
    from parity.mapping.uses.gathering import Uses
    from parity.mapping.uses.ways import Matches, Way
    from parity.tracing import Alignment

T = TypeVar("T")

_WRITE = "`parity map -o FILE` and --mapping FILE"

BREAKS = "weights loaded by these names would break the model"

# Errors of a block's few dozen points, summed: rounding makes some 1e-14, a wrong map 0.1 to 1 and more.
_AGREES = 1e-9

# How many times closer than every other map one must be to be told apart from them where none agrees.
_CLEARLY = 5.0

# What an error counts at most, shapes that cannot be compared included.
_MOST = 10.0


def as_map(
    ours: Uses,
    theirs: Uses,
    matches: Matches,
    chosen: dict[str, Way],
    certainty: str = "",
    unused: tuple[str, ...] = (),
) -> WeightMap:
    """Puts the map together that one way of every group makes; what nobody has mapped is left out by name.

    Args:
        ours: what the reference does with its tensors.
        theirs: what the candidate does with its own.
        matches: the entries of every map, and the groups.
        chosen: a way of every group.
        certainty: how sure that is.
        unused: tensors that the candidate never uses.
    """
    used = [view.name for op in ours.operations for view in op.views]
    place = {name: n for n, name in enumerate(dict.fromkeys([*used, *(view.name for view in ours.free)]))}
    entries = [*matches.fixed, *(entry for way in chosen.values() for entry in way.entries)]
    entries.sort(key=lambda entry: place[split(entry.reference)[0]])
    left = [
        *matches.left_reference,
        *map(whole, ours.unused),
        *(name for way in chosen.values() for name in way.left_reference),
    ]
    extra = [*matches.left_candidate, *(name for way in chosen.values() for name in way.left_candidate)]
    left += _forgotten(ours, [*(entry.reference for entry in entries), *left])
    extra += _forgotten(theirs, [*(entry.candidate for entry in entries), *extra])
    return WeightMap(
        tuple(entries), "inferred from use", certainty, tuple(left), tuple(extra), tuple(map(whole, unused))
    )


def _forgotten(uses: Uses, parts: list[str]) -> list[str]:
    """Returns the tensors in use of which no part is among `parts`."""
    known = {split(part)[0] for part in parts}
    views = (*(view for op in uses.operations for view in op.views), *uses.free)
    return list(dict.fromkeys(whole(view.name) for view in views if view.name not in known))


@dataclass(frozen=True)
class Trial:
    """Runs both models in step under one map after the other.

    Attributes:
        any_batch: go on where the images of the batch act on each other.
    """

    reference: nn.Module
    candidate: nn.Module
    images: torch.Tensor
    ours: Uses
    theirs: Uses
    matches: Matches
    any_batch: bool = True
    _drawn: dict[Point, dict[str, torch.Tensor]] = dataclasses.field(default_factory=dict)

    def decide(self) -> Decision:
        """Chooses the way of every group with the smallest error.

        Raises:
            ImagesMixError: none agrees, and the images of the batch act on each other.
        """
        decision = Decision(self.matches.defaults())
        chosen = decision.chosen
        before, after = self._around_first_attention(self._align(chosen))
        if after is None:  # nothing of one block alone can be seen: all at once, at the logits
            stages = [(list(chosen), OUTPUT)]
        else:
            others = [name for name in chosen if name != ATTENTION]
            stages = [(others, before or after), ([n for n in chosen if n == ATTENTION], after)]
        waiting: list[str] = []
        for groups, until in stages:
            if not self._decide_stage([*waiting, *groups], until, decision, is_last=until == stages[-1][1]):
                waiting += groups
        warnings = decision.warnings
        for name, way in chosen.items():
            if way.by_name < 0:
                warnings.append(f"the names contradict what the tensors do: {way.contradiction}; {BREAKS}")
            elif name == POSITIONS and way is not self.matches.choices[name][0]:
                warnings.append("the class token is the last token, and its position the last row")
        return decision

    def _decide_stage(self, groups: list[str], until: Point, decision: Decision, *, is_last: bool) -> bool:
        """Chooses the ways of `groups` by the errors up to `until`, unless nothing up to there depends on them.

        Returns:
            Whether they are chosen.
        """
        chosen = decision.chosen
        options = [
            dict(zip(groups, ways, strict=True))
            for ways in itertools.product(*(self.matches.choices[name] for name in groups))
        ]
        if len(options) < 2:
            return True
        measured: list[dict[Point, float]] = []
        for number, (_, tier) in enumerate(itertools.groupby(sorted(options, key=rarity), key=rarity)):
            if number == 1:
                self._require_images_apart()
            measured += [self._errors(chosen | option, until) for option in tier]
            shared = set.intersection(*map(set, measured))
            # what is the same whatever is chosen says nothing about the choice
            telling = [p for p in shared if max(m[p] for m in measured) - min(m[p] for m in measured) > _AGREES]
            errors = [sum(m[p] for p in telling or shared) for m in measured]
            best, second = (*sorted(errors), math.inf)[:2]
            if telling and second > max(_CLEARLY * best, _AGREES):
                break
        is_clear = bool(telling) and second > max(_CLEARLY * best, _AGREES)
        if PATCHES in groups and not is_clear and (told := self._by_pixels(chosen)):
            chosen[PATCHES] = told.way
            decision.is_as_sure_as(PROVED if told.is_exact else CLOSEST)
            return self._decide_stage([n for n in groups if n != PATCHES], until, decision, is_last=is_last)
        if not telling and not is_last:
            return False
        options = sorted(options, key=rarity)[: len(measured)]
        ranked = sorted(range(len(options)), key=errors.__getitem__)
        if is_clear:
            chosen |= options[ranked[0]]
            decision.is_as_sure_as(PROVED if best <= _AGREES else CLOSEST)
        else:
            self._decide_otherwise(groups, options, errors, until, decision)
        return True

    def _by_pixels(self, chosen: dict[str, Way]) -> Told | None:
        """Returns how the patches are projected, as far as the pixels tell that which each weight meets."""
        ways, alignment = self.matches.choices[PATCHES], self._align(chosen)
        names = {entry.reference for way in ways for entry in way.entries}
        weight = self.reference.state_dict().get(next(iter(names)))
        if len(names) == 1 and weight is not None and weight.ndim == 4:
            found = as_map(self.ours, self.theirs, self.matches, chosen)
            values = self._mapped(found, self._values(OUTPUT))
            if told := told_by_what_is_taken(ways, weight, self.candidate, values, self.images):
                return told
        at = next(op.at for op in self.ours.operations if op.kind == "matrix")
        in_step = self._reached_in_step(alignment)
        point = next((point for point in self.ours.order[at:] if point in in_step), None)
        if len(names) > 1 or weight is None or weight.ndim != 4 or point is None:
            return None
        partner = next(c for c, r in alignment.pairs.items() if r == point.module)
        found = as_map(self.ours, self.theirs, self.matches, chosen | {PATCHES: ways[0]})
        state = dict(self._values(point))

        def effect(kernel: torch.Tensor) -> torch.Tensor | None:
            held = self._mapped(found, state | {ways[0].entries[0].reference: kernel})
            images = self.images.clone().requires_grad_()
            with contextlib.suppress(ParityError):  # as a whole, so that all is there for the way back
                return self._at(point, partner, held, images, 1, functools.partial(effects_on_sums, images))
            return None

        return told_by_pixels(ways, weight, effect)

    def _decide_otherwise(
        self, groups: list[str], options: list[dict[str, Way]], errors: list[float], until: Point, decision: Decision
    ) -> None:
        """Chooses among ways that their errors up to `until` don't tell apart: by symmetries, logits or names."""
        chosen, best = decision.chosen, min(errors)
        near = [n for n, error in enumerate(errors) if error <= max(_CLEARLY * best, _AGREES)]
        symmetric: list[int] = []
        if best > _AGREES and until != OUTPUT and ATTENTION in groups:
            # tokens that are mixed up have symmetries of rare ways
            kept = [n for n in near if rarity(options[n]) == 0]
            symmetric = [n for n in kept if self._keeps_symmetries(chosen | options[n], until)]
            near = symmetric or near
            # what positions turn, for one, has the first symmetry alone
            shifted = [n for n in symmetric if self._keeps_symmetries(chosen | options[n], until, ["key"])]
            # a softmax over the queries takes the query's bias away, as if it were the key's; its weights sum up to
            # something else, and nothing but the names is left
            named = likeliest(near, options)
            if shifted and (
                named in shifted
                or votes(options[named]) <= 0
                or any(self._keeps_symmetries(chosen | options[n], until, ["value"]) for n in shifted)
            ):
                near = symmetric = shifted
        named_by = max(votes(options[n]) for n in near)
        chosen |= options[likeliest(near, options)]
        if len(symmetric) == 1:
            decision.is_as_sure_as(SYMMETRIC)
            return
        if until != OUTPUT:
            shown = self._agreeing_at_the_end(chosen, [option for option in options if not rarity(option)])
            if len(shown) == 1:
                chosen |= shown[0]
                return
        self._require_images_apart()
        left = f"{len(near)} ways leave an error of {best:.1g} or not much more"
        doubt = f"the {' and '.join(groups)} cannot be told by running: {left}"
        if not symmetric and best > _AGREES:
            parts = [name for name in groups if name != POSITIONS]
            decision.undecided += [entry.reference for name in parts for entry in chosen[name].entries]
        decision.is_as_sure_as(BY_NAME if named_by > 0 else AMBIGUOUS)
        how = "it is taken from the names" if named_by > 0 else f"write the right one with {_WRITE}"
        decision.warnings.append(f"{doubt}; {how}")

    def _agreeing_at_the_end(self, chosen: dict[str, Way], options: list[dict[str, Way]]) -> list[dict[str, Way]]:
        """Returns the options under which the logits agree, whatever can be compared before them."""
        state = self._values(OUTPUT)
        expected = self._logits(self.reference, state, self.images)
        agreeing = []
        for option in options:
            with contextlib.suppress(ParityError):
                held = self._mapped(as_map(self.ours, self.theirs, self.matches, chosen | option), state)
                found = self._logits(self.candidate, held, self.images)
                agreeing += [option] * (compare(expected, found, ulp=False).relative <= _AGREES)
        return agreeing

    def _require_images_apart(self) -> None:
        if self.any_batch or len(self.images) == 1:
            return
        found = as_map(self.ours, self.theirs, self.matches, self.matches.defaults())
        values = self._mapped(found, self._values(OUTPUT))
        require_images_apart(lambda images: self._logits(self.candidate, values, images), self.images, _AGREES)

    def _logits(self, model: nn.Module, values: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        owner = "reference" if model is self.reference else "candidate"
        with assigned(model, values):
            output = bare_run(model, images, MODES["eval-grad"], torch.float64, 0, owner).output
        assert output is not None
        return output

    def _keeps_symmetries(self, chosen: dict[str, Way], until: Point, shifted: Collection[str] = ()) -> bool:
        """Whether the candidate gives the same up to `until` under weights that no attention tells from each other."""
        state = self._values(until)
        others = rescaled(state, self.ours, shifted)
        partner = next(c for c, r in self._align(chosen).pairs.items() if r == until.module)
        if others is None:
            return False
        outcomes = []
        for values in (state, others):
            with contextlib.suppress(ParityError):
                held = self._mapped(as_map(self.ours, self.theirs, self.matches, chosen), values)
                outcomes.append(first_that_runs(functools.partial(self._outcome, held, partner, until), torch.float64))
        return len(outcomes) == 2 and compare(*outcomes, ulp=False).relative <= _AGREES

    def _outcome(self, values: dict[str, torch.Tensor], partner: str, until: Point, attempt: int) -> torch.Tensor:
        """Returns what passes a point of the candidate's run."""
        return self._at(until, partner, values, self.images.double(), attempt, lambda passed: passed.detach().clone())

    def _at(
        self,
        until: Point,
        partner: str,
        values: dict[str, torch.Tensor],
        images: torch.Tensor,
        attempt: int,
        read: Callable[[torch.Tensor], T],
    ) -> T:
        """Returns what is read off the tensor that passes a point of the candidate's run, before that ends."""
        with contextlib.ExitStack() as stack:
            mode = dataclasses.replace(MODES["eval-grad"], backward=images.requires_grad)
            stack.enter_context(mode.active(self.candidate))
            stack.enter_context(assigned(self.candidate, values))
            stack.enter_context(held_in(self.candidate, images.dtype, attempt))
            run = Run(self.candidate, images, {partner}, 0, "candidate")
            stack.callback(run.close)
            while (event := run.advance()) is not None:
                if event.point.moment == until.moment and event.tensors:
                    return read(event.tensors[0])
        raise ParityError("the candidate doesn't come to this point")

    def _align(self, chosen: dict[str, Way]) -> Alignment:
        found = as_map(self.ours, self.theirs, self.matches, chosen)
        return align(self.reference, self.candidate, found, self.ours.order, self.theirs.order)

    def _around_first_attention(self, alignment: Alignment) -> tuple[Point | None, Point | None]:
        """Returns the last aligned point of the reference before its first attention, and the first one after it.

        What the attention gives shows in the projection that takes it.
        """
        aligned = set(alignment.pairs.values())
        number, first = next(item for item in enumerate(self.ours.operations) if item[1].kind == "attention")
        output = next((op.at for op in self.ours.operations[number + 1 :] if op.kind == "matrix"), 0)
        before = [point for point in self.ours.order[: first.at] if point.module in aligned]
        in_step = self._reached_in_step(alignment)
        after = [point for point in self.ours.order[max(first.until, output) :] if point in in_step]
        return before[-1] if before else None, after[0] if after else None

    def _reached_in_step(self, alignment: Alignment) -> set[Point]:
        """Returns the points of the reference that the candidate comes to before any that is later in the reference."""
        place = {point: number for number, point in enumerate(self.ours.order)}
        theirs = [alignment.to_reference(point) for point in self.theirs.order if point.module in alignment.pairs]
        latest = itertools.accumulate((place.get(point, 0) for point in theirs), max)
        return {point for point, last in zip(theirs, latest, strict=True) if place.get(point) == last}

    def _errors(self, chosen: dict[str, Way], until: Point) -> dict[Point, float]:
        """Returns the errors that arise at every point up to `until`, each of them at most 10."""
        try:
            return first_that_runs(functools.partial(self._run, chosen, until, torch.float64), torch.float64)
        except ParityError:  # it may not run in float64
            return first_that_runs(functools.partial(self._run, chosen, until, torch.float32), torch.float32)

    def _run(self, chosen: dict[str, Way], until: Point, dtype: torch.dtype, attempt: int) -> dict[Point, float]:
        alignment = self._align(chosen)
        found = as_map(self.ours, self.theirs, self.matches, chosen)
        state = self._values(until)
        values = self._mapped(found, state)
        watched = set(alignment.pairs.values()), set(alignment.pairs)
        images = self.images.to(dtype)
        errors: dict[Point, float] = {}
        with contextlib.ExitStack() as stack:
            stack.enter_context(MODES["eval-grad"].active(self.reference, self.candidate))
            for model, held in ((self.reference, state), (self.candidate, values)):
                stack.enter_context(assigned(model, held))
                stack.enter_context(held_in(model, dtype, attempt))
            runs = (
                Run(self.reference, images, watched[0], 0, "reference"),
                Run(self.candidate, images, watched[1], 0, "candidate"),
            )
            for run in runs:
                stack.callback(run.close)
            for point, *_, measurement in steps(*runs, alignment, forced=True):
                errors[point] = min(measurement.relative, _MOST)
                if point == until:
                    break
            if until == OUTPUT:
                found_output = runs[1].output
                assert found_output is not None
                errors[OUTPUT] = min(compare(runs[0].finish(), found_output).relative, _MOST)
        return errors

    def _mapped(self, found: WeightMap, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns the candidate's values for the reference's; what has no counterpart does as little as it can."""
        entries = tuple(entry for entry in found.entries if split(entry.reference)[0] in state)
        mapped = dataclasses.replace(found, entries=entries).apply(state)
        extra = {split(name)[0] for name in found.unmapped_candidate} & dict(self.candidate.named_parameters()).keys()
        left = self.matches.left_candidate | self.matches.left_meaning
        return _neutral(synthetic(self.candidate, 0, only=extra), left) | mapped

    def _values(self, until: Point) -> dict[str, torch.Tensor]:
        """Returns synthetic weights for as much of the reference as is run, which are drawn once for all ways."""
        if until not in self._drawn:
            self._drawn.clear()  # of a large model once is enough
            only = None
            if until != OUTPUT:
                reached = self.ours.order.index(until)
                needed = [op for op in self.ours.operations if op.at <= reached]
                only = {view.name for op in needed for view in op.views} | {view.name for view in self.ours.free}
            left_over = self.matches.left_reference | self.matches.left_meaning
            self._drawn[until] = _neutral(synthetic(self.reference, 0, only=only), left_over)
        return self._drawn[until]


def _neutral(values: dict[str, torch.Tensor], left_over: dict[str, str]) -> dict[str, torch.Tensor]:
    """Gives tensors that only one side has the values under which they do least: shifts 0, scales 1, projections I."""
    what = {split(name)[0]: meaning for name, meaning in left_over.items()}
    for name, tensor in values.items():
        if name in what and tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1]:
            nn.init.eye_(tensor)
        elif name in what and sum(length > 1 for length in tensor.shape) <= 1:
            tensor.fill_(1.0 if what[name].endswith(("scale", "norm")) and "bias" not in name else 0.0)
    return values
