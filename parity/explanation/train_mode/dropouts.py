"""What a candidate does otherwise in train mode alone: where it drops, at which rate, and what is dropped as a whole.

The reference's dropouts are traits of the bent model, which follows the candidate's run in train mode. Both draw by
size, so that dropouts at the same place drop the same elements, and those that differ say so.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from parity.explanation.bending import Bend, Change, Memo, undoing
from parity.explanation.bent_vit import BentViT
from parity.explanation.block_order import parts_apart, used_instead, uses_of_blocks
from parity.explanation.case import Case, Widened, block_of
from parity.explanation.causes.dropouts import (
    SPOTS,
    Dropping,
    fitting,
    is_known_layout,
    laid_out,
    layouts,
    own_dropouts,
    shapes_at_spots,
    sizes,
)
from parity.explanation.causes.places import joined
from parity.explanation.following import IMAGES
from parity.explanation.proof import Group, Proof, prove
from parity.explanation.search import Search, distance_of
from parity.explanation.second_proof import others
from parity.explanation.train_mode.alone import done_alone
from parity.explanation.train_mode.inside import dropping_inside
from parity.explanation.train_mode.regrafting import graft_groups, hidden_operations, in_train_mode, with_grafts
from parity.tracing import (
    ACTIVATION,
    SAME_FUNCTION_BOUND,
    Mode,
    first_that_runs,
    outer_modules,
    sites_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from parity.explanation.causes.dropouts import Spot
    from parity.tracing import Alignment, Site

TRAIN = Mode("train", train=True, grad=True)

# modules of torchvision's that are a dropout, or an activation before which another model may have it
_HOLLOW = re.compile(r"(^|\.)dropout$|\.mlp\.[124]$")
_BRANCHES = ("attention", "MLP")
_TAKE_AWAY = "take it away, or give it a rate of 0"


@dataclass(frozen=True)
class _Found:
    """What is known of a model in train mode.

    Attributes:
        proof: what it does otherwise than the bent model.
        dropouts: all that it drops, as changes of a model that drops nothing.
    """

    proof: Proof
    dropouts: Mapping[Change, Dropping]


def proved_in_train_mode(case: Case, known: Sequence[Change], seconds: float) -> Proof | None:
    """Finds the dropouts that make the reference the candidate in train mode too, on two sets of weights and images.

    Args:
        case: what is to be explained.
        known: what makes it the candidate in eval mode.
        seconds: of the processor, that looking may take.

    Returns:
        The proof; None if it isn't known what a reference drops that another one stands for.

    Raises:
        ParityError: one of the models cannot be run in train mode.
    """
    dropouts = None
    if case.reference is not None:
        reference = case.reference
        seen = first_that_runs(lambda attempt: _attempted(reference, (), None, seconds, attempt), torch.float64)
        if not seen.proof.is_complete:
            return None
        dropouts = seen.dropouts
    until = time.process_time() + seconds

    def proved(changes: Sequence[Change]) -> Proof:
        left = until - time.process_time()
        return first_that_runs(functools.partial(_attempted, case, changes, dropouts, left), torch.float64).proof

    proof = proved(known)
    earlier = [_before_the_dropout(change) for change in known]
    if earlier != [*known] and (proof.needed or not proof.is_complete):
        other = proved(earlier)
        if other.is_complete and not (proof.is_complete and len(proof.needed) <= len(other.needed)):
            return other
    return proof if proof.is_complete else _with_more(case, known, proof, proved)


def _with_more(case: Case, known: Sequence[Change], proof: Proof, proved: Callable[[Sequence[Change]], Proof]) -> Proof:
    """Returns a proof with dropout in the candidate's own head, or with what it does in train mode alone besides.

    Args:
        case: what is to be explained.
        known: what makes it the candidate in eval mode.
        proof: what was found of its dropouts, which isn't all, and is returned if no other one is complete.
        proved: looks for them beside such changes.
    """
    for changes, cause in dropping_inside(known, _masks(case)):
        other = proved(changes)
        if other.is_complete:
            return Proof((cause(), *other.needed), other.residual, (proof.residual, *other.without))
    alone = first_that_runs(functools.partial(done_alone, case), torch.float64)
    if alone is None:
        return proof
    with alone.undone(case):
        without = proved(known)
    if not without.is_complete:
        return proof
    return Proof((alone.group(), *without.needed), without.residual, (proof.residual, *without.without))


def _before_the_dropout(change: Change) -> Change:
    """Returns an activation behind the MLP as one before its last dropout, which eval mode can't tell apart."""
    if change.kind.id != "extra-activation" or not change.place.endswith(".mlp"):
        return change
    (variant,) = change.kind.variants.values()
    return Change(dataclasses.replace(change.kind, variants={"enter": variant}, only=""), f"{change.place}.4")


def knows_every_mask(case: Case) -> bool:
    """Returns whether the bent model can draw each mask as the candidate does."""
    wholes = shapes_at_spots(sizes(case.config, case.subject.models.images))
    return all(is_known_layout(site.shape, wholes) for site in _masks(case))


def _attempted(
    case: Case, known: Sequence[Change], dropouts: Mapping[Change, Dropping] | None, seconds: float, attempt: int
) -> _Found:
    models, images = case.subject.models, case.subject.models.images.double()
    wholes, drawn = _shapes(case, known, images), _masks(case)
    layout = layouts(Counter(site.shape for site in drawn), wholes, case.config["num_layers"])
    turned = case.alignment.rolled is not None
    own = (
        own_dropouts(case.config, layout, turned=turned)
        if dropouts is None
        else laid_out(dropouts, layout, turned=turned)
    )
    all_possible = (dataclasses.replace(d, turned=turned) for d in _possible(case, drawn, own, layout, wholes))
    possible = {dropping.kind.key: dropping for dropping in all_possible}
    alignment = case.alignment.without(_drawn_elsewhere(case.alignment, drawn, own, wholes))
    order, _, sharing = uses_of_blocks(case)
    alignment = alignment.without(parts_apart(sharing))
    weights, shared = Widened(case.subject.held.reference), used_instead(sharing)
    model = BentViT(case.config, weights, order, (*case.traits, *own), shared)
    kinds = [*undoing(own), *(dropping.kind for dropping in possible.values())]
    mode = dataclasses.replace(TRAIN, by_size=True)
    with case.candidate_in(mode, attempt):
        grafts = in_train_mode(case, known, mode)
    hidden = hidden_operations(model, images, known)
    in_grafts = graft_groups(grafts, hidden, own)
    known, usual = with_grafts(known, grafts), with_grafts(known, (graft for graft in grafts if not graft.drawings))
    with case.candidate_in(mode, attempt), case.observed(images, alignment) as observations:
        search = Search(
            model, images, models.seed, observations, kinds, known, seconds, case.failures, ignored=case.ignored
        )
        search.run(to_the_end=False)
        events = [_event(change, own, possible) for change in search.changes if change not in known]
        usual += [event.change for event in events if event.is_of_layout]

        def error(chosen: Sequence[Group]) -> float:
            made = [*usual, *(change for group in chosen for change in group.changes)]
            return distance_of(model, images, made, observations.output(), models.seed, case.failures)

        found = [event for event in events if not event.is_of_layout]
        kept = {c: d for c, d in own.items() if not any(event.change.takes_the_place_of(c) for event in events)}
        proof = prove([*(group for group in in_grafts if group.changes), *_groups(found, kept.values())], error)
    again = others(case, mode, attempt, model)
    made = [*usual, *(change for group in proof.needed for change in group.changes)]
    residual = again.residual(made) if proof.is_complete else math.inf
    if residual > SAME_FUNCTION_BOUND:
        wrong = again.refuted(search.changes, search, alignment)
        held = [event for event in found if search.holds(event.change) and event.change not in wrong]
        with torch.no_grad(), mode.active():
            proof = prove([*(group for group in in_grafts if group.changes), *_groups(held, kept.values())], error)
        proof = dataclasses.replace(proof, residual=residual) if proof.is_complete else proof
    replaced = set().union(*(keys for change, keys in hidden.items() if change not in {g.usual for g in grafts}))
    if any((c.place, d.spot.operation) in replaced for c, d in own.items()):
        proof = dataclasses.replace(proof, residual=math.inf)  # whether the candidate drops that, too, isn't known
    proof = proof.with_more(group for group in in_grafts if not group.changes)
    changed = {event.change: event.has for event in events if event.has}
    return _Found(proof, {**kept, **changed})


def _shapes(case: Case, known: Sequence[Change], images: torch.Tensor) -> dict[Spot, tuple[int, ...]]:
    """Returns the shape of what may be dropped at each spot of a model with these changes."""
    model = BentViT(case.config, Widened(case.subject.held.reference), traits=case.traits)
    passing: dict[Spot, tuple[int, ...]] = {}
    tensor, bend = images, Bend(passed={IMAGES: images})
    with torch.no_grad():
        for stage in model.stages:
            bend = Bend(known, memo=Memo(), calls=bend.calls, traits=case.traits, passed=bend.passed)
            tensor = model.run(stage, tensor, bend)
            for spot, ((place, operation), (arguments, result)) in itertools.product(SPOTS, bend.done.items()):
                values = [arguments[n] for n in spot.arguments if n < len(arguments)] or [result]
                if operation == spot.operation and re.search(spot.only, place) and isinstance(values[0], torch.Tensor):
                    passing.setdefault(spot, tuple(values[0].shape))
    return shapes_at_spots(sizes(case.config, images), passing)


def _masks(case: Case) -> list[Site]:
    """Returns the masks that the candidate draws, axes of length 1 left out of their shapes."""
    models = case.subject.models
    sites = sites_of(models.candidate, models.images, TRAIN, models.seed, "candidate")
    drawn = [site for site in sites if site.kind != ACTIVATION and 0 < site.rate < 1]
    return [dataclasses.replace(site, shape=tuple(n for n in site.shape if n > 1)) for site in drawn]


def _possible(
    case: Case, drawn: Sequence[Site], own: Mapping[Change, Dropping], layout: Mapping[Spot, tuple[int, ...]],
    wholes: Mapping[Spot, tuple[int, ...]],
) -> list[Dropping]:  # fmt: skip
    """Returns what the masks may drop, single elements first, except what the reference drops as well."""
    pairs = case.alignment.pairs
    blocks: dict[tuple[float, tuple[int, ...]], set[int | None]] = defaultdict(set)
    for site in drawn:
        inside = (block_of(pairs.get(name, "")) for name in (*outer_modules(site.module), site.module))
        blocks[site.rate, site.shape].add(next((number for number in inside if number is not None), None))
    usual = {(dropping.spot, dropping.rate, dropping.shape) for dropping in own.values()}
    found = []
    for (rate, shape), numbers in blocks.items():
        within = frozenset(number for number in numbers if number is not None) if None not in numbers else frozenset()
        for spot, shared in fitting(shape, wholes):
            is_possible = not within or spot.part in _BRANCHES
            if is_possible and (spot, rate, shape) not in usual:
                found.append(Dropping(spot, rate, shape, "" if shape == layout[spot] else shared, within))
            if is_possible and spot.axes == "BHNN" and len(shape) == len("BNN") and not shared:  # heads before images
                images, heads, *tokens = wholes[spot]
                found.append(Dropping(spot, rate, (heads, images, *tokens), "", within))
    return sorted(found, key=lambda dropping: (bool(dropping.shared), SPOTS.index(dropping.spot)))


def _drawn_elsewhere(
    alignment: Alignment, drawn: Sequence[Site], own: Mapping[Change, Dropping], wholes: Mapping[Spot, tuple[int, ...]]
) -> set[str]:
    """Returns modules of the reference whose output needn't be the candidate's, since a dropout may stand outside."""
    tokens = sorted(next(whole for spot, whole in wholes.items() if spot.axes == "BND"))
    inside = Counter(
        name for site in drawn if sorted(site.shape) == tokens for name in (*outer_modules(site.module), site.module)
    )
    expected = Counter(
        name for change, dropping in own.items() if dropping.spot.axes == "BND"
        for name in (*outer_modules(change.place), change.place)
    )  # fmt: skip
    return {
        reference
        for candidate, reference in alignment.pairs.items()
        if _HOLLOW.search(reference)
        or (reference.endswith((".self_attention", ".mlp")) and inside[candidate] != expected[reference])
    }


@dataclass(frozen=True)
class _Event:
    """A dropout that is another than the reference's, at one place."""

    change: Change
    spot: Spot
    has: Dropping | None
    had: Dropping | None

    @property
    def is_of_layout(self) -> bool:
        """Whether only the layout of the mask is another one."""
        has, had = self.has, self.had
        return has is not None and had is not None and has.rate == had.rate and not has.shared


def _event(change: Change, own: Mapping[Change, Dropping], possible: Mapping[tuple[str, str, str], Dropping]) -> _Event:
    had = next((dropping for trait, dropping in own.items() if change.takes_the_place_of(trait)), None)
    has = None if change.kind.undoes else possible[change.kind.key]
    spot = (has or had or possible[change.kind.key]).spot
    return _Event(change, spot, has, had)


def _groups(events: Sequence[_Event], kept: Iterable[Dropping]) -> Iterator[Group]:
    """Yields the causes.

    A dropout that is missing at one spot and too many at another is one cause, and so is what is the same at several
    spots of the same blocks.

    Args:
        events: what is dropped otherwise.
        kept: the reference's dropouts that the candidate has as well.
    """
    twice = {dropping.spot.words for dropping in kept}
    at_spot: dict[tuple[Spot, str | None, bool], list[_Event]] = defaultdict(list)
    for event in events:
        at_spot[event.spot, event.has.shared if event.has else None, event.had is None].append(event)
    findings = list(at_spot.values())
    missing = [finding for finding in findings if finding[0].has is None]
    moved = []
    for finding in findings:
        partners = [other for other in missing if _could_be_moved(other, finding)]
        if partners:
            partner = min(partners, key=lambda other: _rates(other, "had") != _rates(finding, "has"))
            missing.remove(partner)
            moved += [finding, partner]
            yield _moved(finding, partner)
    alike: dict[tuple[object, ...], list[_Event]] = defaultdict(list)
    for finding in findings:
        if finding not in moved:
            shared = finding[0].has.shared if finding[0].has else None
            alike[shared, _rates(finding, "has"), _rates(finding, "had"), _blocks(finding)] += finding
    for finding in alike.values():
        yield _named(finding, is_one_more={event.spot.words for event in finding} <= twice)


def _could_be_moved(missing: Sequence[_Event], extra: Sequence[_Event]) -> bool:
    has, had = extra[0].has, extra[0].had
    is_extra = has is not None and not has.shared and had is None
    return is_extra and missing[0].spot.part == extra[0].spot.part and _blocks(missing) == _blocks(extra)


def _blocks(finding: Sequence[_Event]) -> frozenset[int | None]:
    return frozenset(block_of(event.change.place) for event in finding)


def _rates(finding: Sequence[_Event], side: str) -> str:
    """Returns the rates of what the candidate `has`, or the reference `had`, in words."""
    rates = sorted({dropping.rate for event in finding if (dropping := getattr(event, side))})
    return " to ".join(f"{rate:g}" for rate in dict.fromkeys((*rates[:1], *rates[-1:])))


def _moved(extra: Sequence[_Event], missing: Sequence[_Event]) -> Group:
    here, there = extra[0].spot, missing[0].spot
    owner = re.match(r"the \w+'s ", here.words)
    instead = there.words
    if here.words.replace(" before ", " after ") == there.words:
        instead = "afterwards"
    elif owner and instead.startswith(owner[0]):
        instead = f"its {instead[owner.end() :]}"
    rates = _rates(extra, "has"), _rates(missing, "had")
    at_rate = f" at rate {rates[0]}" if rates[0] != rates[1] else ""
    is_next = SPOTS.index(here) - SPOTS.index(there) in (1, -1) and here.axes == there.axes
    return _grouped(
        (*extra, *missing),
        "dropout-order" if is_next else "dropout-elsewhere",
        f"dropout acts on {here.words}{at_rate}, not on {instead}".replace("not on afterwards", "not afterwards"),
        f"one of rate {rates[1]} on {there.words}",
        there.hint,
    )


def _named(finding: Sequence[_Event], *, is_one_more: bool) -> Group:
    has, had, rate, usual = finding[0].has, finding[0].had, _rates(finding, "has"), _rates(finding, "had")
    spots = dict.fromkeys(event.spot for event in finding)
    words = joined(spot.words for spot in spots)
    hint = "; ".join(dict.fromkeys(spot.hint for spot in spots)) if had else _TAKE_AWAY
    if has is None:
        return _grouped(finding, "dropout-missing", f"dropout is missing on {words}", f"one of rate {usual}", hint)
    if has.shared:
        is_depth = has.shared.startswith(("whole images", "whole tokens")) and has.spot.part in _BRANCHES
        id_ = "stochastic-depth" if is_depth else "dropout-shape" if had else "dropout-extra"
        phrase = f"dropout of rate {rate} on {words} drops {has.shared}"
        instead = f"one of rate {usual} that drops single elements" if had else "none there"
        return _grouped(finding, id_, phrase, instead, hint)
    if had:
        return _grouped(finding, "dropout-rate", f"dropout on {words} has rate {rate}", f"rate {usual}", hint)
    more, instead = ("one more ", "no other there") if is_one_more else ("", "none there")
    return _grouped(finding, "dropout-extra", f"{more}dropout of rate {rate} acts on {words}", instead, hint)


def _grouped(finding: Sequence[_Event], id: str, phrase: str, instead: str, hint: str) -> Group:  # noqa: A002
    changes = tuple(event.change for event in finding)
    return Group(changes, id, phrase, instead, hint, tuple(dict.fromkeys(change.place for change in changes)))
