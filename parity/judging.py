"""From everything that was found to the report: the verdict, its reasons in their order, the causes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from parity.diagnosis import decide, if_the_map_is_right, layers
from parity.explanation import GRAFT
from parity.mapping import UNMAPPED, UNSEEN, logits_elsewhere, sizes_shown
from parity.models import split, tensors_of, unverifiable
from parity.report import Report, peak_memory, top5, with_code

if TYPE_CHECKING:
    from parity.diagnosis import AttentionMaps, Beyond, Check, Doubts, Mixing, Place, Verdict
    from parity.errors import Failures
    from parity.explanation import Explanation
    from parity.findings import Cause
    from parity.mapping import Setup
    from parity.question import Question
    from parity.tracing import Subject
    from parity.transfer import OwnWeights

# how sentences about a candidate begin of which only one image at a time is compared
ONE_ALONE = "one image alone"

NO_DOUBTS = "it could not be looked at whether these comparisons could have failed at all"
NO_WEIGHTS = "the candidate's own weights could not be compared"
NO_ATTENTION = "it could not be looked at where both models look"


@dataclass(frozen=True)
class Found:
    """What one check has found.

    Attributes:
        subject: who was compared.
        checks: of the forward pass.
        places: where the models differ.
        doubts: what the checks don't show.
        explanation: what causes the difference, if it was looked for.
        explained: what the explanation says, a sentence each.
        roundings: why the candidate is less accurate, as far as that is known.
        beyond: what the other phases have found.
        weights: what the comparison of the candidate's own weights has found, if there was one.
        attention: where both models look.
        failures: what could not be done.
        reference: its name.
        mixing: how the images of a batch act on each other, where no cause by name explains the difference.
    """

    subject: Subject
    checks: list[Check]
    places: list[Place]
    doubts: Doubts
    explanation: Explanation | None
    explained: list[str]
    roundings: list[Cause]
    beyond: Beyond
    weights: OwnWeights | None
    attention: list[AttentionMaps]
    failures: Failures
    reference: str
    mixing: Mixing | None = None

    @property
    def is_explained(self) -> bool:
        """Whether the causes explain the whole difference."""
        return self.explanation is not None and self.explanation.complete

    def decided(self) -> tuple[Verdict, list[str]]:
        """Returns the verdict on the forward pass, while both models hold their weights, and the reasons for it."""
        verdict, reasons = self._of_checks()
        if self.mixing is not None and not self.doubts.unusable:
            about = f"{ONE_ALONE}: " if self._is_alone else ""
            return "divergent", [self._mixed_in_words(), *(f"{about}{reason}" for reason in reasons)]
        is_open = self.explanation is None or not self.explanation.explains_eval_mode
        if verdict == "divergent" and (is_open or self._may_be_another_form()):
            with self.failures.kept("it could not be looked at what another weight map would change"):
                verdict, reasons = if_the_map_is_right(self.subject, self.places, reasons)
        return verdict, reasons

    def _mixed(self) -> Cause:
        """Returns as a cause that the images of a batch act on each other."""
        assert self.mixing is not None
        return self.mixing.cause(self.reference)

    def _mixed_in_words(self) -> str:
        """Says that the images of a batch act on each other, and what becomes of one alone."""
        assert self.mixing is not None
        is_right = not (
            self.doubts.faults or any(check.verdict not in ("identical", "equivalent") for check in self.checks)
        )
        return self.mixing.describe(self.reference, is_right_alone=self._is_alone and is_right)

    @property
    def _is_alone(self) -> bool:
        return len(self.subject.models.images) == 1

    def _may_be_another_form(self) -> bool:
        """Whether what explains the difference are the candidate's own operations on tensors without a counterpart."""
        found, explanation = self.subject.mapping, self.explanation
        is_named = explanation is None or explanation.by_name
        may_be = not is_named and bool(found.unmapped_reference and found.unmapped_candidate)
        return may_be and not self._is_explained_elsewhere()

    def _is_explained_elsewhere(self) -> bool:
        """Whether layers stand between each formula and what the candidate lacks, so that it is not that."""
        named = self.subject.models.reference.named_modules()
        layers = {name for name, module in named if module._parameters and not module._modules}  # noqa: SLF001
        order = [name for name in self.subject.alignment.order if name in layers]
        lacking = {split(name)[0].rpartition(".")[0] for name in self.subject.mapping.unmapped_reference}
        causes = self.explanation.causes if self.explanation else ()
        formulas = {place for cause in causes if cause.id == GRAFT for place in cause.where}
        if not formulas or not lacking | formulas <= {*order}:
            return False
        return all(abs(order.index(one) - order.index(other)) > 1 for one in lacking for other in formulas)

    def _of_checks(self) -> tuple[Verdict, list[str]]:
        """Returns the verdict and the reasons that the explanation leaves to be said."""
        explanation = self.explanation
        places = [] if explanation and explanation.is_of_train_mode else self.places
        doubts = self.doubts
        if self.is_explained and doubts.unmapped:  # whose causes say what that means
            doubts = replace(doubts, unmapped=tuple(self.subject.mapping.without_counterpart(in_short=True)))
        verdict, reasons = decide(self.checks, places, doubts, self.subject.alignment)
        if explanation and explanation.differs_in_train_mode and verdict in ("identical", "equivalent"):
            return "divergent", []  # the checks could not align the masks, which the explanation could
        return verdict, reasons

    def begins(self) -> list[Place]:
        """Returns where the models differ; of what differs in train mode alone, only the places of its causes.

        A candidate may drop behind another boundary than the reference, which is no error while both drop alike; once
        anything else is amiss they don't, and it looks like one.
        """
        if not (self.explanation and self.explanation.is_of_train_mode):
            return self.places
        named = {place for cause in self.explanation.causes for place in cause.where}
        inside = tuple(f"{place}." for place in named)
        at_causes = [place for place in self.places if place.reference in named]
        return at_causes or [place for place in self.places if place.reference.startswith(inside)] or self.places

    def causes(self) -> list[Cause]:
        """Returns what all phases have found, causes of the forward pass first."""
        named: list[Cause] = []
        with self.failures.kept("the causes could not be listed"):
            named = [self._mixed()] if self.mixing and (self._is_alone or not self.is_explained) else []
            named += self.explanation.causes if self.explanation else ()
            named += self.roundings
        return [*named, *self.beyond.causes, *(self.weights.causes if self.weights else ())]


def reported(question: Question, about: dict[str, Any], found: Found, verdict: Verdict, reasons: list[str]) -> Report:
    """Returns the report.

    Args:
        question: what was asked.
        about: what every report says.
        found: what was found.
        verdict: on the forward pass.
        reasons: for that.
    """
    failures, doubts, explained = found.failures, found.doubts, found.explained
    brought, weights = question.brought, question.setup.weights
    about["notes"] += [*doubts.notes, *weights.notes, *(brought.notes if brought else ())]
    verdict, reasons = _with_all_phases(question, about, found, verdict, reasons)
    files, reference = about["candidate"]["files"], question.setup.reference
    causes, top = [with_code(cause, files, reference) for cause in found.causes()], []
    with failures.kept("what both models see in the pictures could not be listed"):
        top = top5(found.checks, question.shown.pictures, weights.categories)
    begins = found.begins()
    is_agreement = found.explanation is not None and found.explanation.agreement != ""
    is_no_such_model = found.explanation is None and not about["mapping"].is_complete
    if (is_agreement or is_no_such_model) and not (doubts.unusable or doubts.faults):
        reasons, explained = [*explained, *reasons], []
    return Report(
        verdict,
        [*reasons, *explained, *failures.told()],
        **about,
        unverifiable=unverifiable(question.setup.reference, about["mapping"]),
        checks=[*found.checks, *found.beyond.checks],
        layers=layers(found.checks, found.subject.alignment, begins),
        origins=[*begins, *found.beyond.places],
        causes=causes,
        explanation=found.explanation,
        weights=found.weights,
        top5=top,
        attention=found.attention,
        peak_memory=peak_memory(),
    )


def _with_all_phases(
    question: Question, about: dict[str, Any], found: Found, verdict: Verdict, reasons: list[str]
) -> tuple[Verdict, list[str]]:
    """Returns the verdict on everything that was asked, and the reasons for it."""
    setup, mapping, doubts = question.setup, about["mapping"], found.doubts
    verdict, reasons = found.beyond.combined(verdict, reasons)
    if verdict in ("identical", "equivalent"):
        reasons += mapping.missing_without_effect()
    if NO_WEIGHTS in found.failures.sentences and verdict in ("identical", "equivalent"):
        verdict, reasons = "inconclusive", [NO_WEIGHTS, *reasons]
    if found.weights and not doubts.unusable:
        verdict, reasons = _with_own_weights(verdict, reasons, found.weights)
    if verdict == "divergent" and not found.is_explained:
        reasons = [*_another_architecture(setup, about["parameters"]), *reasons]
    if verdict in ("divergent", "inconclusive") and not doubts.unusable:
        other = sizes_shown(setup, question.module, UNSEEN if mapping.is_complete else UNMAPPED)
        beside = logits_elsewhere(question.module, setup.reference, question.shown.images)
        verdict, reasons = "divergent" if other else verdict, [*other, *beside, *reasons]
    return verdict, reasons


def _with_own_weights(verdict: Verdict, reasons: list[str], weights: OwnWeights) -> tuple[Verdict, list[str]]:
    """Returns the verdict about a candidate that brings these weights, and its reasons."""
    if weights.verdict == "set aside":
        return verdict, reasons
    is_other = weights.verdict == "different"
    said = [weights.summary(), *(cause.statement for cause in weights.causes), *weights.notes]
    if verdict == "divergent":
        if weights.tensors and weights.agrees_as_is:
            agree = "with the weights that they have both models agree: the candidate's make up for what its function"
            return verdict, [f"{agree} does otherwise; {said[0]}", *reasons]
        return verdict, [*reasons, f"{'and other weights: ' * is_other}{said[0]}", *said[1:]]
    # where the map itself is in doubt only the models as they are can tell
    is_shown = weights.as_is is not None and not weights.agrees_as_is
    if is_shown or (is_other and verdict != "inconclusive"):
        function = "the same function, " * (verdict != "inconclusive")
        what = "with other weights" if is_other else "with other values of what has no counterpart"
        return "divergent", [f"{function}{what}: {said[0]}", *said[1:], *reasons]
    return "equivalent" if weights.tensors and verdict == "identical" else verdict, [*reasons, *said]


# the share of the reference's values that a ViT with a few more or less parameters has counterparts of
_LEAST_IN_COMMON = 0.5


def _another_architecture(setup: Setup, mapped: int) -> list[str]:
    """Says that two models have little in common, where most of the reference's values have no counterpart."""
    share = mapped / max(sum(tensor.numel() for tensor in tensors_of(setup.reference).values()), 1)
    if share >= _LEAST_IN_COMMON:
        return []
    said = f"only {share:.0%} of the values of {setup.name} have a counterpart in your model"
    return [f"{said}: it is another architecture, and what follows says where the two part, not how to mend it"]
