"""Names the bugs of a candidate that is another function than its reference: the ViT's side of the search.

The reference is torchvision's ViT, or one of another class. That is first explained itself, as a candidate is: what it
does otherwise than torchvision's are its traits, and only what the candidate does otherwise than both is a cause.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from parity.diagnosis import is_another_function, open_in_train_mode
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
from parity.explanation.causes.places import in_words, joined, named, nearest
from parity.explanation.causes.solved import features
from parity.explanation.depths import by_depth, by_line
from parity.explanation.formulas.replaying import Graft
from parity.explanation.functions_apart import with_portions_of_functions
from parity.explanation.grafts import Grafts
from parity.explanation.own_parts.extras import extra_kinds
from parity.explanation.own_parts.layers import modules_with_more
from parity.explanation.proof import Explanation, Group, Proof, grouped, prove
from parity.explanation.search import Search, distance_of
from parity.explanation.second_proof import others
from parity.explanation.stand_in import NoStandInError, attention_widths, stand_in
from parity.explanation.train_mode.dropouts import knows_every_mask, proved_in_train_mode
from parity.explanation.train_mode.regrafting import recorded
from parity.explanation.wording import blocks_in_words, in_words_beside, point_in_words, unexplained_in_words, when
from parity.mapping import trace_uses
from parity.models import split, tensors_of
from parity.tracing import SAME_FUNCTION_BOUND, first_that_runs, with_functions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from parity.diagnosis import Check
    from parity.explanation.bending import Change, Kind
    from parity.explanation.following import Follower
    from parity.explanation.search import Unexplained
    from parity.progress import Progress
    from parity.tracing import Alignment, Subject

# how many places without an explanation are listed; those behind the first are often but its consequence
_MOST_PLACES = 5

# looking for a cause may take that long, in seconds of the processor, however quick the comparison was
_LEAST_SECONDS = 20.0

# the part of that time in which the traits of a reference must be found
_FOR_TRAITS = 0.25

_NONE_FOR = "causes are changes to a ViT like torchvision's, and none are looked for"


def explain(
    subject: Subject,
    name: str,
    config: Mapping[str, Any] | None,
    checks: list[Check],
    seconds: float,
    progress: Progress,
) -> tuple[Explanation | None, list[str]]:
    """Finds the changes to the reference that make it the candidate, and proves them.

    Args:
        subject: who is compared.
        name: of the reference.
        config: torchvision's arguments of a reference that is given by name; None for another one.
        checks: of the forward pass.
        seconds: of the processor, how long the comparison took; looking takes no longer, and at least a while.
        progress: told what is being done.

    Returns:
        The explanation, and what there is to say, a sentence each. There is none if the candidate is the same function,
        or one of the two no ViT like torchvision's.

    Raises:
        ParityError: one of the models cannot be run in float64.
    """
    is_other, in_training = is_another_function(checks, subject.mapping), open_in_train_mode(checks)
    if not (is_other or in_training):
        return None, []
    exact = [check for check in checks if check.exact and check.free]
    check = next((check for check in exact if not check.mode.train), in_training or exact[0])
    limit = max(seconds, _LEAST_SECONDS)
    until = time.process_time() + limit
    with progress.step("explanation", "looking for the cause"):
        widths = _widths_of_stages(subject)
        if widths:
            stages = joined(map(str, widths))
            return None, [f"{_NONE_FOR}: your model has attention of several widths ({stages}), as a ViT of stages has"]
        if config is not None:
            alignment = with_functions(subject.aligned_anyhow(), subject.layers_as_functions()).without(check.elsewhere)
            case = Case(subject, config, check.mode, alignment, _has_tokens(check, "candidate"))
        else:
            try:
                case = _before_stand_in(subject, check, limit * _FOR_TRAITS)
            except NoStandInError as error:
                why = f"{_NONE_FOR}: {name} {error}"
                return None, [why] if is_other or not (in_training and in_training.skipped) else []
        if is_other:
            found = _in_words(*_proved(case, until - time.process_time()), case)
            trained = [other for other in exact if other.mode.train]
            agrees = not check.mode.train and any(other.verdict in ("identical", "equivalent") for other in trained)
            found = dataclasses.replace(found, in_eval_mode_alone=agrees and bool(found.phrases))
        else:
            found = Explanation((), complete=True, minimal=True, residual=0.0, agreement=_agreement(exact))
        with_training: Explanation | None = None
        if in_training and found.complete and _random_ones(found) <= {"dropout-in-eval"}:
            with case.failures.kept("what differs in train mode could not be explained"):
                with_training = _with_train_mode(found, case, in_training, until - time.process_time())
    if not (is_other or with_training):
        return None, case.failures.told()
    found = with_training or found
    if config is None:  # its places are the stand-in's
        found = dataclasses.replace(found, changes=())
    told, sentences = case.failures.told(), found.sentences(name)
    return found, [*sentences, *told] if found.agreement else [*told, *sentences]


def _widths_of_stages(subject: Subject) -> list[int]:
    """Returns how many features the attentions of the candidate take, if not all take as many."""
    if not subject.mapping.unmapped_candidate:
        return []
    widths = attention_widths(trace_uses(subject.models.candidate, subject.models.images, "candidate"))
    return widths if len(widths) > 1 else []


def _in_words(proof: Proof, unexplained: Sequence[Unexplained], case: Case) -> Explanation:
    sentences = [unexplained_in_words(place, case.names) for place in unexplained[:_MOST_PLACES]]
    return proof.explanation(
        lambda places: in_words(places, case.config, case.names), lambda place: named(place, case.names), sentences
    )


def _random_ones(found: Explanation) -> set[str]:
    """Returns the causes that draw random numbers."""
    return {change.kind.id for change in found.changes if change.kind.is_random}


def _agreement(exact: Sequence[Check]) -> str:
    """Says how the models agree in eval mode, as the beginning of a sentence."""
    made = [check for check in exact if not check.mode.train]
    plain = [check for check in made if check.mode.name == "eval"] or made
    verdict = "identical" if all(check.verdict == "identical" for check in plain) else "equivalent"
    return f"{verdict} in eval mode" if made else "eval mode not compared"


def _with_train_mode(found: Explanation, case: Case, check: Check, seconds: float) -> Explanation | None:
    """Returns the explanation of eval mode with what differs in train mode alone; None if there is no such thing.

    What drops in eval mode is looked for anew, since the reference may drop there in train mode.
    """
    proof = proved_in_train_mode(case, [change for change in found.changes if not change.kind.is_random], seconds)
    if proof is None:
        return None
    is_same = proof.is_complete and not proof.needed
    if (is_same and (found.causes or check.skipped)) or (check.skipped and not knows_every_mask(case)):
        return None
    more = proof.explanation(blocks_in_words, lambda place: nearest(place, case.names), unexplained=())
    return found.with_train_mode(more)


def _before_stand_in(subject: Subject, check: Check, seconds: float) -> Case:
    """Finds who stands for the reference, and the reference's traits.

    Raises:
        NoStandInError: there is nobody, or the traits don't make it the reference.
    """
    stands = stand_in(subject)
    reference = stands.before_reference(subject)
    seen = Case(reference, stands.config, check.mode, reference.aligned_anyhow(), _has_tokens(check, "reference"))
    names = {entry.reference: entry.candidate for entry in stands.mapping.entries}
    names |= {ours: theirs for theirs, ours in seen.alignment.pairs.items()}
    proof, unexplained = _proved(seen, seconds, to_the_end=False)
    if not proof.is_complete or not all(group.changes for group in proof.needed):
        where = f"at {point_in_words(unexplained[0].point, names)}" if unexplained else "somewhere"
        raise NoStandInError(f"is another function {where}, by none of the known changes")
    candidate = stands.before_candidate(subject)
    alignment = candidate.aligned_anyhow()
    elsewhere = {theirs for theirs, ours in subject.alignment.pairs.items() if ours in check.elsewhere}
    alignment = alignment.without({ours for theirs, ours in alignment.pairs.items() if theirs in elsewhere})
    found = [change for group in proof.needed for change in group.changes]
    # what the stand-in has from the candidate, the reference is without
    mapped, more = ({split(e.reference)[0] for e in m.entries} for m in (stands.mapping, candidate.mapping))
    had = sorted(more - mapped)
    traits = [*found, *(c for c in absences(had, stands.config) if c.place not in {trait.place for trait in found})]
    reference_case = dataclasses.replace(seen, traits=tuple(found))
    has_tokens = _has_tokens(check, "candidate")
    return Case(candidate, stands.config, check.mode, alignment, has_tokens, tuple(traits), names, reference_case)


def _has_tokens(check: Check, owner: str) -> bool:
    """Whether what a model returns, (B, N, D), has an axis for tokens."""
    return check.free is not None and getattr(check.free, f"{owner}_output").dim() > 2


def _proved(case: Case, seconds: float, *, to_the_end: bool = True) -> tuple[Proof, list[Unexplained]]:
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
    return found


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
