"""The changes that make the reference the candidate, found, and proved on two sets of weights and images."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from parity.errors import Failures, ParityError
from parity.explanation.arrangement import (
    adds_positions_outside,
    explains_more,
    is_outside_blocks,
    with_class_token_last,
)
from parity.explanation.bending import undoing
from parity.explanation.bent_vit import BentViT
from parity.explanation.block_order import left_out, parts_apart, used_instead, uses_of_blocks, with_lines
from parity.explanation.case import Case, Widened
from parity.explanation.causes.absences import absences
from parity.explanation.causes.catalogue import catalogue
from parity.explanation.causes.head import EVERY_TOKEN
from parity.explanation.causes.solved import features
from parity.explanation.depths import by_depth, by_line
from parity.explanation.formulas.replaying import Graft
from parity.explanation.functions_apart import with_portions_of_functions
from parity.explanation.grafts import RANDOM_NUMBERS, Grafts
from parity.explanation.own_parts.extras import extra_kinds
from parity.explanation.own_parts.layers import modules_with_more
from parity.explanation.proof import Group, Proof, grouped, prove
from parity.explanation.search import Search, distance_of
from parity.explanation.second_proof import others
from parity.explanation.train_mode.regrafting import recorded
from parity.explanation.wording import in_words_beside, point_in_words, when
from parity.mapping import trace_uses
from parity.models import split, tensors_of
from parity.tracing import SAME_FUNCTION_BOUND, first_that_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from parity.explanation.bending import Change, Kind
    from parity.explanation.following import Follower
    from parity.explanation.search import Unexplained
    from parity.tracing import Alignment, Subject


def proved(case: Case, seconds: float, *, to_the_end: bool = True) -> tuple[Proof, list[Unexplained]]:
    """Finds changes that explain a candidate, and what of it they leave unexplained.

    Args:
        case: what is to be explained.
        seconds: of the processor, that looking may take.
        to_the_end: go on behind a place that nothing explains.
    """
    until = time.process_time() + seconds
    found = first_that_runs(lambda attempt: _attempted(case, seconds, attempt, to_the_end), torch.float64)
    turned = with_class_token_last(case, found[0])
    if turned:
        left = until - time.process_time()
        other = first_that_runs(lambda attempt: _attempted(turned, left, attempt, to_the_end), torch.float64)
        found = other if explains_more(other[0], found[0]) else found
    if any(group.id == RANDOM_NUMBERS for group in found[0].needed) and not case.mode.no_dropout:
        found = _proved_beside_dropouts(case, until, to_the_end=to_the_end) or found
    return found


def _proved_beside_dropouts(case: Case, until: float, *, to_the_end: bool) -> tuple[Proof, list[Unexplained]] | None:
    """Explains a candidate that draws in eval mode by what it does otherwise where its dropouts keep everything.

    What is left is where it drops. None if there are random numbers that no dropout draws, or that have no name.
    """
    quiet = dataclasses.replace(case, mode=dataclasses.replace(case.mode, no_dropout=True))
    proof, _ = proved(quiet, until - time.process_time(), to_the_end=to_the_end)
    if not proof.is_complete or any(change.kind.is_random for group in proof.needed for change in group.changes):
        return None
    earlier = _Earlier(held={change: () for group in proof.needed for change in group.changes})
    left = until - time.process_time()
    found, unexplained = first_that_runs(
        lambda attempt: _attempted(case, left, attempt, to_the_end, earlier), torch.float64
    )
    if not found.is_complete or any(group.id == RANDOM_NUMBERS for group in found.needed):
        return None
    lines = {(group.phrase, group.where): group.source for group in proof.needed}
    needed = [dataclasses.replace(g, source=lines.get((g.phrase, g.where)) or g.source) for g in found.needed]
    return dataclasses.replace(found, needed=tuple(needed)), unexplained


@dataclass(frozen=True)
class _Earlier:
    """What earlier searches have found.

    Attributes:
        refuted: kinds that explain the weights and images of the checks alone.
        held: changes that explain others as well, with the lines of the candidate's source that they come from.
    """

    refuted: frozenset[tuple[str, str, str]] = frozenset()
    held: Mapping[Change, tuple[str, ...]] = field(default_factory=dict)


def _attempted(
    case: Case,
    seconds: float,
    attempt: int,
    to_the_end: bool,  # noqa: FBT001
    earlier: _Earlier = _Earlier(),
) -> tuple[Proof, list[Unexplained]]:
    """Searches and proves, on the weights and images of the checks and on others that are drawn then.

    Causes that explain those of the checks alone are refuted, and the search begins again without them. Where a place
    stays unexplained, the others are proved each from the compared point before it to the one behind it.
    """
    until = time.process_time() + seconds
    proof, search, model, alignment = _searched(case, seconds, attempt, to_the_end, earlier)
    changes = [change for group in proof.needed for change in group.changes]
    if not changes:
        return proof, search.unexplained
    again = others(case, case.mode, attempt, model)
    residual = again.residual(changes) if proof.is_complete else math.inf
    if residual <= SAME_FUNCTION_BOUND:
        moved = again.moved(search.changes, search, alignment, lambda: _own_kinds(case.subject, case.config)[0])
        if not moved:
            return proof, search.unexplained
        earlier = dataclasses.replace(earlier, refuted=earlier.refuted | {change.kind.key for change in moved})
        other = _attempted(case, until - time.process_time(), attempt, to_the_end, earlier)
        return other if other[0].is_complete else (proof, search.unexplained)
    wrong = again.refuted(search.changes, search, alignment)
    suspects = _likeliest(wrong) or [change.kind for change in wrong]
    if proof.is_complete:
        proof, suspects = dataclasses.replace(proof, residual=residual), suspects or _likeliest(changes)
    if not suspects:
        return proof, search.unexplained
    refuted = earlier.refuted | {kind.key for kind in suspects}
    held = [change for change in search.changes if wrong and change not in wrong and change.kind.key not in refuted]
    earlier = _Earlier(refuted, {change: search.sources.get(change, ()) for change in held})
    return _attempted(case, until - time.process_time(), attempt, to_the_end, earlier)


def _likeliest(wrong: Sequence[Change]) -> list[Kind]:
    """Returns the kinds of those of some changes that the first weights and images alone may have made fit."""
    grafted = [change for change in wrong if isinstance(change.value, Graft)]
    solved = [change.kind for change in wrong if change.kind.has_value]
    asking = [change.kind for change in grafted if change.value.asks]
    return asking or [kind for kind in solved if kind.fit] or solved or [change.kind for change in grafted]


def _searched(
    case: Case,
    seconds: float,
    attempt: int,
    to_the_end: bool,  # noqa: FBT001
    earlier: _Earlier,
) -> tuple[Proof, Search, BentViT, Alignment]:
    case = with_portions_of_functions(case, attempt)
    subject, models, weights = case.subject, case.subject.models, Widened(case.subject.held.reference)
    images = models.images.double()
    failures = case.failures
    order, rearranged = tuple(range(case.config["num_layers"])), None
    sharing: list[tuple[Group, dict[str, str]]] = []
    with failures.kept("the order of the blocks could not be read"):
        order, rearranged, sharing = uses_of_blocks(case)
    shared = used_instead(sharing)
    model = BentViT(case.config, weights, order, case.traits, shared)
    known = list(earlier.held)
    with failures.kept("what the tensors that the candidate lacks mean could not be said"):
        left = [name for name in left_out(subject.mapping, order if rearranged else None) if name not in shared]
        lacking = absences(left, case.config)
        known += [change for change in lacking if change.kind.key not in earlier.refuted and change not in known]
    kinds = [*catalogue(case.config), *(EVERY_TOKEN if case.has_tokens else ())]
    alignment = case.alignment.without(parts_apart(sharing))
    with failures.kept("what the candidate does with tensors of its own could not be read", besides=ParityError):
        own, beside = _own_kinds(subject, case.config)
        kinds, alignment = [*own, *kinds], alignment.without(beside)
    refuted = earlier.refuted | _of_constants(subject, case.config)
    kinds = [kind for kind in (*undoing(case.traits), *kinds) if kind.key not in refuted]
    with contextlib.ExitStack() as stack:
        stack.enter_context(case.candidate_in(case.mode, attempt))
        grafts, watching = None, Failures()
        with watching.kept("the candidate's operations could not be watched"):
            grafts = _grafts(case, model, earlier.refuted) if to_the_end else None
        observations = stack.enter_context(case.observed(images, alignment))
        search = Search(
            model, images, models.seed, observations, kinds, known, seconds, failures, grafts,
            {"encoder"} if adds_positions_outside(observations) else (),
        )  # fmt: skip
        search.sources.update(earlier.held)
        with failures.kept("the search for causes ended before the end", besides=ParityError):
            search.run(to_the_end=to_the_end)
        case.ignored.update(search.ignored)
        sharing = with_lines(sharing, case, search.lines_with)
        sources = {c: search.sources.get(c) or search.lines_with(_used_at(c.place, case)) for c in search.changes}

        def groups(changes: Sequence[Change]) -> list[Group]:
            found = by_depth(grouped(sorted(changes, key=when), sources), case.config["num_layers"])
            found = by_line(found, sources)
            found = in_words_beside(found, case.traits)
            return [*([rearranged] if rearranged else []), *(group for group, _ in sharing), *found]

        def error(chosen: Sequence[Group]) -> float:
            used = order if rearranged in chosen else None
            both = used_instead(found for found in sharing if found[0] in chosen)
            bent = BentViT(case.config, weights, used, case.traits, both)
            changes = [change for group in chosen for change in group.changes]
            return distance_of(bent, images, changes, observations.output(), models.seed, failures)

        if search.unexplained:
            failures.sentences.update(watching.sentences)
        if search.unexplained and not to_the_end:
            return Proof((), math.inf, ()), search, model, alignment
        proof = prove(groups(search.changes), error, is_outside_blocks)
        if not proof.is_complete:
            proof = prove(groups([change for change in search.changes if search.holds(change)]), error,
                          is_outside_blocks)  # fmt: skip
        return proof, search, model, alignment


def _used_at(place: str, case: Case) -> set[str]:
    """Returns the candidate's tensors that correspond to those of a module, or to those beside a tensor."""
    is_tensor = place in case.subject.held.reference
    module = place.rpartition(".")[0] if is_tensor else place
    names = ((split(entry.reference)[0], split(entry.candidate)[0]) for entry in case.subject.mapping.entries)
    found = {theirs: ours[len(module) + 1 :] for ours, theirs in names if module and ours.startswith(f"{module}.")}
    return {theirs for theirs, inner in found.items() if not (is_tensor and "." in inner)}


def _grafts(case: Case, model: BentViT, refuted: frozenset[tuple[str, str, str]]) -> Callable[[Follower], Grafts]:
    """Returns who finds what the candidate, held in float64, does in other ways than the catalogue knows."""
    subject, candidate = case.subject, case.subject.models.candidate
    recording = recorded(case, case.mode)

    def bent() -> BentViT:
        return BentViT(case.config, Widened(subject.held.reference), model.order, case.traits, model.shared)

    whole = {entry.candidate: entry.reference for entry in subject.mapping.entries}
    weights = {**tensors_of(candidate), **subject.held.candidate}  # with buffers that nobody compares
    return functools.partial(
        Grafts, bent, subject.held.reference, recording, weights, whole, refuted,
        functools.partial(point_in_words, names=case.names),
    )  # fmt: skip


def _of_constants(subject: Subject, config: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """Returns the kinds that take for constants what a tensor may hold that the candidate alone has learned."""
    own = {split(name)[0] for name in subject.mapping.unmapped_candidate}
    is_learned = not own.isdisjoint(dict(subject.models.candidate.named_parameters()))
    return {kind.key for kind in features(config)} if is_learned else set()


def _own_kinds(subject: Subject, config: Mapping[str, Any]) -> tuple[list[Kind], set[str]]:
    """Returns entries for the tensors of the candidate that the reference has no counterpart of.

    Besides, the modules of the reference that the candidate has something beside.
    """
    if not subject.mapping.unmapped_candidate:
        return [], set()
    candidate = subject.models.candidate
    used = trace_uses(candidate, subject.models.images, "candidate")
    kinds = extra_kinds(used, subject.mapping, tensors_of(candidate), config)
    return kinds, modules_with_more(used, subject.mapping)
