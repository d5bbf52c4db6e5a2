"""From what a weight map leaves over to a plan under which both models are the same function, tried and proved."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from parity.folding.drafts import Draft, alike, neutral, role_of, slots, units
from parity.folding.fillings import fillings
from parity.folding.folds import ways
from parity.folding.sides import attention_scale, in_float64
from parity.models import rearranged, split
from parity.tracing import SAME_FUNCTION_BOUND, compare

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from parity.folding.fillings import Filling
    from parity.folding.folds import Way
    from parity.folding.sides import Side
    from parity.folding.undoing import Effect
    from parity.models import WeightMap

    State = Mapping[str, torch.Tensor]

# how many combinations of values for what only the target has are tried; each is a forward pass of the target
_MOST_TRIALS = 64


@dataclass(frozen=True)
class Fold:
    """What becomes of tensors that are alike, one in each block, on the source's side: a way for each.

    `rest` has the values that are left in the tensors; what is not in it keeps its own.
    """

    words: str
    names: tuple[tuple[str, ...], ...]
    ways: tuple[Way, ...]
    rest: Mapping[str, torch.Tensor]

    def apply(self, draft: Draft) -> None:
        """Takes the effect of the tensors into others, and leaves them with their values of `rest`."""
        for names, way in zip(self.names, self.ways, strict=True):
            way.step(draft, self.rest)
            for name in names:
                if name in self.rest:
                    draft[name] = self.rest[name]

    @property
    def sentence(self) -> str:
        """Says which tensors, and what becomes of them."""
        return f"{alike([name for names in self.names for name in names])}: {self.words}"


@dataclass(frozen=True)
class Plan:
    """How a state dict of the source becomes one of the target.

    Attributes:
        source: whose weights are moved.
        target: to whom.
        mapping: from the source's tensors to the target's.
        effects: of changes that weights can undo; those of the reference, which is the source if `forward`.
        forward: from the reference to the candidate.
        fixed: values of tensors that only the target has, known from what the source does without them.
        folds: on the source's side.
        unfolded: what only the source has, and no fold was found for.
        fillings: on the target's side.
        errors: of the logits in float64, with the weights that are moved and with others; empty if nothing is folded.
    """

    source: Side
    target: Side
    mapping: WeightMap
    forward: bool
    effects: Sequence[Effect] = ()
    fixed: Mapping[str, torch.Tensor] = field(default_factory=dict)
    folds: Sequence[Fold] = ()
    unfolded: Sequence[str] = ()
    fillings: Sequence[Filling] = ()
    errors: tuple[float, ...] = field(default=(), compare=False)

    @property
    def sentences(self) -> list[str]:
        """Says what is folded, a sentence each."""
        undone: dict[str, list[str]] = defaultdict(list)
        for effect in self.effects:
            if not (self.forward and effect.parts == effect.lost):  # whose effect a fold has taken elsewhere
                undone[effect.words] += effect.parts
        effects = [f"{alike(parts)}: {words}" for words, parts in undone.items()]
        return [*(fold.sentence for fold in self._folds), *effects, *(f.words for f in self.fillings if f.words)]

    @property
    def _folds(self) -> list[Fold]:
        """The folds of what no filling takes."""
        moved = {name for filling in self.fillings for name in filling.moved}
        return [fold for fold in self.folds if moved.isdisjoint(itertools.chain(*fold.names))]

    @property
    def is_proved(self) -> bool:
        """Whether the logits agree with both sets of weights."""
        return bool(self.errors) and max(self.errors) <= SAME_FUNCTION_BOUND

    def apply(self, state: State) -> dict[str, torch.Tensor]:
        """Returns the target's state dict, every tensor of it, in the dtype of `state`."""
        draft = Draft(state)
        for fold in self._folds:
            fold.apply(draft)
        for effect in self.effects if self.forward else ():
            effect.undone(draft)
        mapped = Draft(self.mapping.apply(draft.state))
        values = [value for filling in self.fillings for value in filling.values]
        for name in {split(part)[0] for part, _ in values}:
            self._make_room(mapped, name, draft)
        for part, value in values:
            mapped[part] = value(draft, mapped)
        for effect in () if self.forward else reversed(self.effects):
            effect.seen(mapped)
        own, twins = self.target.own, self.target.twins
        whole = {**mapped.state, **{name: mapped.state[one] for name, one in twins.items() if one in mapped.state}}
        left = {name: tensor for name, tensor in own.items() if not tensor.is_meta}
        return {name: whole[name] if name in whole else left[name] for name in own if name in whole or name in left}

    def _make_room(self, mapped: Draft, name: str, draft: Draft) -> None:
        """Makes a tensor of which the map knows a part, or nothing, as large as the target has it."""
        dtype = next(tensor.dtype for tensor in draft.state.values() if tensor.is_floating_point())
        mapped.state[name] = torch.zeros(self.target.own[name].shape, dtype=dtype)
        for entry in self.mapping.entries:
            if split(entry.candidate)[0] == name:
                mapped[entry.candidate] = rearranged(draft[entry.reference], entry.layout)


def plan_folds(plan: Plan, weights: State) -> Plan:
    """Finds folds for whatever the map of `plan` leaves over, and proves them as far as that can be done.

    The effects of `plan` may be but consequences of what is left over, whose values were random when they were found;
    so plans without them are tried as well.

    Args:
        plan: without folds.
        weights: the source's, which are to be moved.

    Returns:
        A plan whose `errors` say how far the two models are apart under it; the first one tried if none is proved.

    Raises:
        ParityError: one of the models cannot be run.
    """
    first: Plan | None = None
    bases = [plan] if plan.mapping.is_complete else [plan, dataclasses.replace(plan, effects=())]
    for base in bases if plan.effects else bases[:1]:
        for tried in itertools.islice(_plans(base, in_float64(weights)), _MOST_TRIALS):
            if tried.is_proved:
                return tried
            first = first or tried
    assert first is not None
    return first


def _plans(plan: Plan, real: State) -> Iterator[Plan]:
    """Yields one plan after the other, measured."""
    source, target = plan.source, plan.target
    lost = [name for effect in plan.effects for name in effect.lost] if plan.forward else []
    left = units(dict.fromkeys((*plan.mapping.unmapped_reference, *lost)), source.uses)
    gaps = units(_gaps(plan), target.uses)
    options = [fillings(gap, target, source, slots(left), plan.fixed) for gap in gaps]
    for rest in _rests(left, source, attention_scale(source, target)):
        others = in_float64(source.other_weights(real))
        folds, unfolded = _folds(source, left, rest, real, others)
        wanted = [[source.logits(real)], [source.logits(others, n) for n in range(len(source.batches))]]
        for chosen in _without_repetition(options):
            tried = dataclasses.replace(plan, folds=folds, unfolded=unfolded, fillings=chosen)
            yield dataclasses.replace(tried, errors=_errors(tried, (real, others), wanted))


def _errors(plan: Plan, states: Sequence[State], wanted: Sequence[Sequence[torch.Tensor]]) -> tuple[float, ...]:
    """Returns the largest error of the logits with each set of weights, and ends where one is too large."""
    errors: list[float] = []
    for state, batches in zip(states, wanted, strict=True):
        moved = plan.apply(state)
        errors.append(0.0)
        for n, logits in enumerate(batches):
            errors[-1] = max(errors[-1], compare(logits, plan.target.logits(moved, n), ulp=False).relative)
            if errors[-1] > SAME_FUNCTION_BOUND:
                return tuple(errors)
    return tuple(errors)


def _rests(left: Sequence[Sequence[tuple[str, ...]]], source: Side, scale: float) -> Iterator[dict[str, torch.Tensor]]:
    """Yields the values that may be left in what only the source has; a number may stand for attention's scale."""
    own, uses = Draft(source.own), source.uses
    names = [name for group in left for each in group for name in each]
    rest = {name: neutral(name, uses, own[name]).double() for name in names}
    yield rest
    numbers = {name: torch.full_like(value, scale) for name, value in rest.items() if value.numel() == 1}
    if numbers:
        yield rest | numbers


def _folds(
    source: Side,
    left: Sequence[Sequence[tuple[str, ...]]],
    rest: Mapping[str, torch.Tensor],
    real: State,
    others: dict[str, torch.Tensor],
) -> tuple[list[Fold], list[str]]:
    """Returns, for each group of tensors that only the source has, the first way that leaves its logits as they are.

    What holds `rest` in `real` anyway is given it in `others` too, and what is a copy of another tensor is one there.
    The second list has what no way was found for.
    """
    found: list[Fold] = []
    unfolded: list[str] = []
    for group in left:
        names = [name for each in group for name in each]
        if all(role_of(name, source.uses).kind == "unused" for name in names):
            continue
        drafts = [_after(found, state) for state in (others, real)]
        options = zip(*(ways(each, source.uses) for each in group), strict=False)
        folds = [Fold(each[0].words, tuple(group), each, rest) for each in options]
        is_at_rest = all(torch.equal(drafts[1][name], rest[name].reshape(drafts[1][name].shape)) for name in names)
        before = [source.logits(draft.state) for draft in drafts]
        tried = folds[:1] if is_at_rest else folds
        fold = next((fold for fold in tried if _leaves_alone(fold, source, drafts, before)), None)
        if fold is None and is_at_rest:
            others |= _after(folds[:1], others).state
            fold = dataclasses.replace(folds[0], words="does nothing with these weights, and left out")
        if fold is None and (copies := _copies(names, real, left)):
            others |= {split(name)[0]: others[copy] for name, copy in copies.items()}
            same = alike([*copies.values()])
            fold = dataclasses.replace(folds[0], words=f"the same as {same} in these weights, and left out", rest={})
        if fold:
            found.append(fold)
        else:
            unfolded.append(alike(names))
    return found, unfolded


def _copies(names: Sequence[str], state: State, left: Sequence[Sequence[tuple[str, ...]]]) -> dict[str, str]:
    """Returns for each tensor another one of the same values that is not left over; nothing if one has none."""
    copies: dict[str, str] = {}
    others = state.keys() - {name for group in left for each in group for name in each}
    for name in names:
        same = (other for other in others if name in state and torch.equal(state[other], state[name]))
        copy = next(same, None)
        if copy is None:
            return {}
        copies[name] = copy
    return copies


def _after(folds: Sequence[Fold], state: State) -> Draft:
    draft = Draft(state)
    for fold in folds:
        fold.apply(draft)
    return draft


def _leaves_alone(fold: Fold, source: Side, drafts: Sequence[Draft], logits: Sequence[torch.Tensor]) -> bool:
    """Returns whether a fold leaves the source's logits as they are, with each set of its weights."""
    changed = (source.logits(_after([fold], draft.state).state) for draft in drafts)
    return all(compare(was, now, ulp=False).same_function for was, now in zip(logits, changed, strict=True))


def _gaps(plan: Plan) -> list[str]:
    """Returns what only the target has; a tensor's further names are none."""
    names = (*plan.mapping.unmapped_candidate, *plan.mapping.unused)
    return [name for name in names if split(name)[0] in plan.target.own and split(name)[0] not in plan.target.twins]


def _without_repetition(options: Sequence[Sequence[Filling]]) -> Iterator[tuple[Filling, ...]]:
    """Yields every choice of one filling for each gap in which no tensor is used for two."""
    for chosen in itertools.product(*options):
        moved = [name for filling in chosen for name in filling.moved]
        if len(moved) == len({*moved}):
            yield chosen
