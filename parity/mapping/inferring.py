"""Finding the weight map between two models that nobody has written one for.

What the shapes, the operations and their order leave open is decided by running: both models go in step, in float64 and
with synthetic weights, up to the end of the first block, once for every map that is possible. The right one agrees, and
that no other does is the proof that it is the only one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from parity.errors import MappingError, ParityError, listed
from parity.mapping.effects import with_effects
from parity.mapping.images import image_shape
from parity.mapping.matching import match
from parity.mapping.symmetries import rescaled
from parity.mapping.uses import trace_uses
from parity.mapping.ways import ATTENTION, POSITIONS
from parity.models import (
    WeightMap,
    assigned,
    by_name,
    configuration_of,
    expand,
    lacks_values,
    read_map,
    require_bijection,
    require_separate,
    split,
    state_shapes,
    synthetic,
    uniform,
    without_values,
)
from parity.tracing import MODES, OUTPUT, Point, Run, align, ambient_kept, compare, first_that_runs, held_in, steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity.mapping.uses import Uses
    from parity.mapping.ways import Matches, Way
    from parity.models import Shapes
    from parity.tracing import Alignment

PROVED, CLOSEST, SYMMETRIC = "unique by proof", "the closest by far", "by an attention's symmetries"
BY_NAME, AMBIGUOUS = "by name only", "ambiguous"

_WRITE = "`parity map -o FILE` and --mapping FILE"

_BREAKS = "weights loaded by these names would break the model"

# Errors of a block's few dozen points, summed: rounding makes some 1e-14, a wrong map 0.1 to 1 and more.
_AGREES = 1e-9

# How many times closer than every other map one must be to be told apart from them where none agrees.
_CLEARLY = 5.0

# What an error counts at most, shapes that cannot be compared included.
_MOST = 10.0


@ambient_kept()
def infer_mapping(
    reference: nn.Module,
    candidate: nn.Module,
    path: Path | None = None,
    *,
    images: torch.Tensor | None = None,
    build: Callable[[], nn.Module] | None = None,
) -> WeightMap:
    """Finds the weight map between two modules.

    Neither module is changed; both are run, on weights of their own making.

    Args:
        reference: the model taken as right.
        candidate: the model under test, on any device.
        path: a written map to use. Without it equal names are tried, then the maps that are shipped, then the map is
            inferred from what both models do with their tensors.
        images: two images or more (B, C, H, W) that both take; by default random ones that the reference takes.
        build: builds the candidate anew, with values in its buffers, should it have none.

    Returns:
        The map. Tensors without a counterpart are listed in it, with what it means that they have none.

    Raises:
        ParityError: the file cannot be read, or a model cannot be run.
        MappingError: a written map is no bijection, or no attention of the one corresponds to one of the other.
    """
    if path is not None:
        written = expand(read_map(path), state_shapes(reference), state_shapes(candidate), str(path))
        require_separate(written, reference, candidate)
        if written.is_complete:
            return written
        return with_effects(
            written, reference, candidate, (_fitting_images(reference) if images is None else images)[:2]
        )
    try:
        return by_name(reference, candidate)
    except MappingError as error:
        unnamed = error.with_traceback(None)  # a traceback keeps every caller's tensors alive
    images = _fitting_images(reference) if images is None else images
    try:
        return _inferred(reference, candidate, images, build)
    except MappingError:
        if isinstance(candidate, type(reference)):  # the same code: what the names leave over says more
            raise unnamed from None
        raise


def _inferred(
    reference: nn.Module, candidate: nn.Module, images: torch.Tensor, build: Callable[[], nn.Module] | None
) -> WeightMap:
    """Infers the map in one direction or the other: which layouts are tried depends on who is taken as right."""
    there: WeightMap | MappingError
    try:
        there = _infer_at_once(reference, candidate, images, build)
    except MappingError as error:
        there = error.with_traceback(None)
    if not configuration_of(reference) and not _is_proved(there):  # torchvision's layouts are known
        with contextlib.suppress(ParityError):
            back = _infer_at_once(candidate, reference, images, None)
            if _is_proved(back):
                return back.invert()
    if isinstance(there, MappingError):
        raise there
    return there


def _is_proved(found: WeightMap | MappingError) -> bool:
    return isinstance(found, WeightMap) and found.certainty == PROVED and found.is_complete and not found.unused


def _infer_at_once(
    reference: nn.Module, candidate: nn.Module, images: torch.Tensor, build: Callable[[], nn.Module] | None
) -> WeightMap:
    try:
        return _infer(reference, candidate, images[:2], build)
    except ParityError as error:
        if len(images) <= 2 or isinstance(error, MappingError):
            raise
        return _infer(reference, candidate, images, build)  # a hard-wired batch


def _fitting_images(reference: nn.Module) -> torch.Tensor:
    return uniform("images to map by", (2, *image_shape(reference)))


def _infer(
    reference: nn.Module, candidate: nn.Module, images: torch.Tensor, build: Callable[[], nn.Module] | None
) -> WeightMap:
    _, ours = _traced(reference, images, "reference", None)
    module, theirs = _traced(candidate, images, "candidate", build)
    buffers = [{name for name, _ in model.named_buffers()} for model in (reference, module)]
    matches = match(ours, theirs, (buffers[0], buffers[1]))
    if not matches.choices.get(ATTENTION):
        raise MappingError(
            "no projections to query, key and value that correspond to the reference's were found in the candidate; "
            f"it uses {listed([str(view) for op in theirs.operations for view in op.views])}; "
            "write a map and give it with --mapping FILE",
            state_shapes(reference),
            state_shapes(module),
        )
    mapped = {split(entry.candidate)[0] for entry in _as_map(ours, theirs, matches, matches.defaults()).entries}
    if build is not None and lacks_values(module, besides=mapped | dict(module.named_parameters()).keys()):
        module = build()
    trial = _Trial(reference, module, images, ours, theirs, matches)
    try:
        decision = trial.decide()
    except ParityError:
        if build is None or not lacks_values(module):
            raise
        decision = dataclasses.replace(trial, candidate=build()).decide()
    found = _as_map(ours, theirs, matches, decision.chosen, decision.certainty, tuple(theirs.unused))
    require_bijection(found, state_shapes(reference), state_shapes(module))
    if not found.is_complete:
        found = with_effects(found, reference, module, images)
    return dataclasses.replace(
        found,
        warnings=(*matches.warnings, *decision.warnings, *_out_of_order(found)),
        undecided=tuple(decision.undecided),
        meaning=_meanings(found, matches, state_shapes(reference), state_shapes(module)),
    )


def _meanings(found: WeightMap, matches: Matches, ours: Shapes, theirs: Shapes) -> dict[str, str]:
    """Says what each tensor without a counterpart is, and which one of the other side is the closest to it."""
    meanings = dict.fromkeys(found.unmapped_reference, "not used by the forward pass")
    meanings |= matches.left_reference | matches.left_candidate | matches.left_meaning
    left = {name: split(name)[0] for name in (*found.unmapped_candidate, *found.unused)}
    for name in found.unmapped_reference:
        tensor = split(name)[0]
        alike = [other for other in left.values() if math.prod(theirs[other]) == math.prod(ours[tensor])]
        close = alike[:1] or difflib.get_close_matches(tensor, left.values(), n=1, cutoff=0.5)
        if close:
            meanings[name] += f" (the closest is {close[0]} {theirs[close[0]]}, this is {ours[tensor]})"
    return meanings


def _traced(
    model: nn.Module, images: torch.Tensor, owner: str, build: Callable[[], nn.Module] | None
) -> tuple[nn.Module, Uses]:
    """Traces a model on the meta device; with values where it refuses that."""
    with contextlib.suppress(ParityError), without_values(model):
        return model, trace_uses(model, images.to("meta"), owner)
    if build is not None and lacks_values(model):
        model = build()
    return model, trace_uses(model, images, owner)


def _as_map(
    ours: Uses,
    theirs: Uses,
    matches: Matches,
    chosen: dict[str, Way],
    certainty: str = "",
    unused: tuple[str, ...] = (),
) -> WeightMap:
    used = [view.name for op in ours.operations for view in op.views]
    place = {name: n for n, name in enumerate(dict.fromkeys([*used, *(view.name for view in ours.free)]))}
    entries = [*matches.fixed, *(entry for way in chosen.values() for entry in way.entries)]
    entries.sort(key=lambda entry: place[split(entry.reference)[0]])
    left = [*matches.left_reference, *ours.unused, *(name for way in chosen.values() for name in way.left_reference)]
    extra = [*matches.left_candidate, *(name for way in chosen.values() for name in way.left_candidate)]
    left += _forgotten(ours, [*(entry.reference for entry in entries), *left])
    extra += _forgotten(theirs, [*(entry.candidate for entry in entries), *extra])
    return WeightMap(tuple(entries), "inferred from use", certainty, tuple(left), tuple(extra), unused)


def _forgotten(uses: Uses, parts: list[str]) -> list[str]:
    """Returns the tensors in use of which no part is among `parts`."""
    known = {split(part)[0] for part in parts}
    views = (*(view for op in uses.operations for view in op.views), *uses.free)
    return list(dict.fromkeys(view.name for view in views if view.name not in known))


@dataclass
class _Decision:
    """Which way of every group was chosen.

    Attributes:
        chosen: the way, by group.
        certainty: how sure that is.
        warnings: what is to be said about it, a sentence each.
        undecided: names of the reference's tensors that other ways, as good as these, map to something else.
    """

    chosen: dict[str, Way]
    certainty: str = PROVED
    warnings: list[str] = dataclasses.field(default_factory=list)
    undecided: list[str] = dataclasses.field(default_factory=list)

    def is_as_sure_as(self, certainty: str) -> None:
        """Lowers the certainty to this one."""
        order = (AMBIGUOUS, BY_NAME, SYMMETRIC, CLOSEST, PROVED)
        self.certainty = min(self.certainty, certainty, key=order.index)


@dataclass(frozen=True)
class _Trial:
    """Runs both models in step under one map after the other."""

    reference: nn.Module
    candidate: nn.Module
    images: torch.Tensor
    ours: Uses
    theirs: Uses
    matches: Matches

    def decide(self) -> _Decision:
        """Chooses the way of every group with the smallest error."""
        decision = _Decision(self.matches.defaults())
        chosen = decision.chosen
        before, after = self._around_first_attention(self._align(chosen))
        if after is None:  # nothing of one block alone can be seen: all at once, at the logits
            stages = [(list(chosen), OUTPUT)]
        else:
            others = [name for name in chosen if name != ATTENTION]
            stages = [(others, before or after), ([ATTENTION], after)]
        waiting: list[str] = []
        for groups, until in stages:
            if not self._decide_stage([*waiting, *groups], until, decision, is_last=until == stages[-1][1]):
                waiting += groups
        warnings = decision.warnings
        for name, way in chosen.items():
            if way.by_name < 0:
                warnings.append(f"the names contradict what the tensors do: {way.contradiction}; {_BREAKS}")
            elif name == POSITIONS and way is not self.matches.choices[name][0]:
                warnings.append("the class token is the last token, and its position the last row")
        return decision

    def _decide_stage(self, groups: list[str], until: Point, decision: _Decision, *, is_last: bool) -> bool:
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
        for _, tier in itertools.groupby(sorted(options, key=_rarity), key=_rarity):
            measured += [self._errors(chosen | option, until) for option in tier]
            shared = set.intersection(*map(set, measured))
            # what is the same whatever is chosen says nothing about the choice
            telling = [p for p in shared if max(m[p] for m in measured) - min(m[p] for m in measured) > _AGREES]
            errors = [sum(m[p] for p in telling) for m in measured]
            best, second = (*sorted(errors), math.inf)[:2]
            if telling and second > max(_CLEARLY * best, _AGREES):
                break
        if not telling and not is_last:
            return False
        options = sorted(options, key=_rarity)[: len(measured)]
        ranked = sorted(range(len(options)), key=errors.__getitem__)
        if telling and second > max(_CLEARLY * best, _AGREES):
            chosen |= options[ranked[0]]
            decision.is_as_sure_as(PROVED if best <= _AGREES else CLOSEST)
            return True
        near = sorted(n for n in ranked if errors[n] <= max(_CLEARLY * best, _AGREES))
        symmetric: list[int] = []
        if best > _AGREES and until != OUTPUT and ATTENTION in groups:
            kept = [
                n for n in near if _rarity(options[n]) == 0
            ]  # tokens that are mixed up have symmetries of rare ways
            for with_shift in (False, True):  # what positions turn, for one, has the first symmetry alone
                kept = [n for n in kept if self._keeps_symmetries(chosen | options[n], until, with_shift=with_shift)]
                symmetric = kept or symmetric
            near = symmetric or near
        votes = [sum(way.by_name for way in options[n].values()) for n in near]
        chosen |= options[near[votes.index(max(votes))]]
        if len(symmetric) == 1:
            decision.is_as_sure_as(SYMMETRIC)
            return True
        doubt = (
            f"the {' and '.join(groups)} cannot be told by running: {len(near)} ways are {best:.1e} or little more off"
        )
        if not symmetric and best > _AGREES:
            parts = [name for name in groups if name != POSITIONS]
            decision.undecided += [entry.reference for name in parts for entry in chosen[name].entries]
        decision.is_as_sure_as(BY_NAME if max(votes) > 0 else AMBIGUOUS)
        how = "it is taken from the names" if max(votes) > 0 else f"write the right one with {_WRITE}"
        decision.warnings.append(f"{doubt}; {how}")
        return True

    def _keeps_symmetries(self, chosen: dict[str, Way], until: Point, *, with_shift: bool) -> bool:
        """Whether the candidate gives the same up to `until` under weights that no attention tells from each other."""
        state = self._values(until)
        others = rescaled(state, self.ours, with_shift=with_shift)
        partner = next(c for c, r in self._align(chosen).pairs.items() if r == until.module)
        if others is None:
            return False
        outcomes = []
        for values in (state, others):
            with contextlib.suppress(ParityError):
                held = self._mapped(_as_map(self.ours, self.theirs, self.matches, chosen), values)
                outcomes.append(first_that_runs(functools.partial(self._outcome, held, partner, until), torch.float64))
        return len(outcomes) == 2 and compare(*outcomes, ulp=False).relative <= _AGREES

    def _outcome(self, values: dict[str, torch.Tensor], partner: str, until: Point, attempt: int) -> torch.Tensor:
        """Returns what passes a point of the candidate's run."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(MODES["eval-grad"].active(self.candidate))
            stack.enter_context(assigned(self.candidate, values))
            stack.enter_context(held_in(self.candidate, torch.float64, attempt))
            run = Run(self.candidate, self.images.double(), {partner}, 0, "candidate")
            stack.callback(run.close)
            while (event := run.advance()) is not None:
                if event.point.moment == until.moment and event.tensors:
                    return event.tensors[0].detach().clone()
        raise ParityError("the candidate doesn't come to this point")

    def _align(self, chosen: dict[str, Way]) -> Alignment:
        found = _as_map(self.ours, self.theirs, self.matches, chosen)
        return align(self.reference, self.candidate, found, self.ours.order, self.theirs.order)

    def _around_first_attention(self, alignment: Alignment) -> tuple[Point | None, Point | None]:
        """Returns the last aligned point of the reference before its first attention, and the first one after it.

        What the attention gives shows in the projection that takes it.
        """
        aligned = set(alignment.pairs.values())
        number, first = next(item for item in enumerate(self.ours.operations) if item[1].kind == "attention")
        output = next((op.at for op in self.ours.operations[number + 1 :] if op.kind == "matrix"), 0)
        before = [point for point in self.ours.order[: first.at] if point.module in aligned]
        after = [point for point in self.ours.order[max(first.until, output) :] if point.module in aligned]
        return before[-1] if before else None, after[0] if after else None

    def _errors(self, chosen: dict[str, Way], until: Point) -> dict[Point, float]:
        """Returns the errors that arise at every point up to `until`, each of them at most 10."""
        try:
            return first_that_runs(functools.partial(self._run, chosen, until, torch.float64), torch.float64)
        except ParityError:  # it may not run in float64
            return first_that_runs(functools.partial(self._run, chosen, until, torch.float32), torch.float32)

    def _run(self, chosen: dict[str, Way], until: Point, dtype: torch.dtype, attempt: int) -> dict[Point, float]:
        alignment = self._align(chosen)
        found = _as_map(self.ours, self.theirs, self.matches, chosen)
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
            for point, _, _, measurement in steps(*runs, alignment, forced=True):
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
        """Returns synthetic weights for as much of the reference as is run."""
        only = None
        if until != OUTPUT:
            reached = self.ours.order.index(until)
            needed = [op for op in self.ours.operations if op.at <= reached]
            only = {view.name for op in needed for view in op.views} | {view.name for view in self.ours.free}
        return _neutral(
            synthetic(self.reference, 0, only=only), self.matches.left_reference | self.matches.left_meaning
        )


def _rarity(option: dict[str, Way]) -> int:
    return max(way.rarity for way in option.values())


def _neutral(values: dict[str, torch.Tensor], left_over: dict[str, str]) -> dict[str, torch.Tensor]:
    """Gives tensors that only one side has the values under which they do least: shifts 0, scales 1, projections I."""
    what = {split(name)[0]: meaning for name, meaning in left_over.items()}
    for name, tensor in values.items():
        if name in what and tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1]:
            nn.init.eye_(tensor)
        elif name in what and sum(length > 1 for length in tensor.shape) <= 1:
            tensor.fill_(1.0 if what[name].endswith(("scale", "norm")) and "bias" not in name else 0.0)
    return values


def _out_of_order(found: WeightMap) -> list[str]:
    """Says where tensors whose names differ by numbers alone are used in another order than that of their numbers."""
    earlier: dict[str, tuple[list[int], str]] = {}
    warnings = []
    names = dict.fromkeys(split(entry.candidate)[0].rpartition(".")[0] for entry in found.entries)
    for name in filter(None, names):
        skeleton, numbers = re.sub(r"\d+", "#", name), [int(n) for n in re.findall(r"\d+", name)]
        before = earlier.get(skeleton)
        if before and before[0] > numbers:
            warnings.append(f"{before[1]} is used before {name}, whatever their numbers say; {_BREAKS}")
        earlier[skeleton] = numbers, name
    return warnings[:3]
