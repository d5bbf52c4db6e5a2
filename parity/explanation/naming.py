"""Names the bugs of a candidate that is another function than its reference: the ViT's side of the search.

The reference is torchvision's ViT, or one of another class. That is first explained itself, as a candidate is: what it
does otherwise than torchvision's are its traits, and only what the candidate does otherwise than both is a cause.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from parity.diagnosis import is_another_function, open_in_train_mode
from parity.explanation.case import Case
from parity.explanation.causes.absences import absences
from parity.explanation.causes.places import in_words, joined, named, nearest
from parity.explanation.proof import Explanation, Proof
from parity.explanation.proving import proved
from parity.explanation.stand_in import NoStandInError, attention_widths, stand_in
from parity.explanation.train_mode.dropouts import knows_every_mask, proved_in_train_mode
from parity.explanation.wording import blocks_in_words, point_in_words, unexplained_in_words
from parity.mapping import trace_uses
from parity.models import split
from parity.tracing import with_functions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from parity.diagnosis import Check
    from parity.explanation.search import Unexplained
    from parity.progress import Progress
    from parity.tracing import Subject

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
            found = _in_words(*proved(case, until - time.process_time()), case)
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
    proof, unexplained = proved(seen, seconds, to_the_end=False)
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
