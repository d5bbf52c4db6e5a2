"""Causes are tried again on weights and images that the search has not seen, drawn after the causes were fixed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from parity.explanation.bent_vit import BentViT
from parity.explanation.case import Widened
from parity.explanation.formulas.replaying import Graft
from parity.explanation.search import Search, distance_of
from parity.models import assigned, split, synthetic, uniform, with_parts
from parity.tracing import bare_run

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from parity.explanation.bending import Change, Kind
    from parity.explanation.case import Case
    from parity.tracing import Alignment, Mode


@dataclass(frozen=True)
class Others:
    """Other weights and images, and how both models are run with them.

    Attributes:
        case: what is explained.
        mode: in which the candidate is run.
        attempt: of the ways to hold it in float64.
        model: the bent model of these weights.
        own: the candidate's weights.
        images: in float64.
    """

    case: Case
    mode: Mode
    attempt: int
    model: BentViT
    own: Mapping[str, torch.Tensor]
    images: torch.Tensor

    def residual(self, changes: Sequence[Change]) -> float:
        """Returns how far the bent model with some changes is from the candidate, at the logits."""
        models = self.case.subject.models
        with assigned(models.candidate, self.own):
            candidate = bare_run(
                models.candidate, self.images, self.mode, torch.float64, models.seed, "candidate", first=self.attempt
            )
        assert candidate.output is not None
        made = self._on_these(changes)
        with self.mode.active():
            return distance_of(self.model, self.images, made, candidate.output, models.seed, self.case.failures)

    def refuted(self, changes: Sequence[Change], before: Search, alignment: Alignment) -> list[Change]:
        """Returns those of some changes that lead to a point where the models differ here, and didn't before.

        Args:
            changes: that were found.
            before: the search that found them.
            alignment: which module is which.
        """
        models, again = self.case.subject.models, self._on_these(changes)
        with (
            assigned(models.candidate, self.own),
            self.case.candidate_in(self.mode, self.attempt),
            self.case.observed(self.images, alignment) as observations,
        ):
            search = Search(
                self.model, self.images, models.seed, observations, (), again, failures=self.case.failures,
                ignored=before.ignored,
            )  # fmt: skip
            search.run()
        known = {place.point for place in before.unexplained}
        since = [place.since for place in search.unexplained if place.point not in known]
        return [change for change in changes if any(change.operations & operations for operations in since)]

    def _on_these(self, changes: Sequence[Change]) -> list[Change]:
        return [
            dataclasses.replace(change, value=change.value.on(self.own)) if isinstance(change.value, Graft) else change
            for change in changes
        ]

    def moved(
        self, changes: Sequence[Change], before: Search, alignment: Alignment, own_kinds: Callable[[], list[Kind]]
    ) -> list[Change]:
        """Returns those of some changes whose tensors come of what the candidate alone has learned, so are not fixed.

        Args:
            changes: that hold on these weights.
            before: the search that found them.
            alignment: which module is which.
            own_kinds: returns what the candidate may do with the tensors that it alone has, as it holds them then.
        """
        solved = [change for change in changes if isinstance(change.value, torch.Tensor)]
        learned = _learned_alone(self.case) if solved else {}
        if not learned:
            return []
        elsewhere = dataclasses.replace(self, own={**self.own, **learned})
        known = {_which(kind) for kind in own_kinds()}
        with assigned(self.case.subject.models.candidate, elsewhere.own):
            kinds = {_which(kind): kind for kind in own_kinds()}
        if any(_which(change.kind) in known - kinds.keys() for change in changes):
            return []  # what the candidate has besides cannot be followed to other values
        there = {
            change: dataclasses.replace(change, kind=kinds[_which(change.kind)])
            if _which(change.kind) in known else change
            for change in changes
        }  # fmt: skip
        wrong = elsewhere.refuted(list(there.values()), before, alignment)
        return [change for change in solved if there[change] in wrong]


def others(case: Case, mode: Mode, attempt: int, like: BentViT) -> Others:
    """Draws other weights and images; what of the weights has no counterpart stays as it is.

    Args:
        case: what is explained.
        mode: in which the candidate is run.
        attempt: of the ways to hold it in float64.
        like: the bent model of the search.
    """
    subject, models = case.subject, case.subject.models
    drawn = synthetic(models.reference, models.seed + 1)
    state = with_parts(subject.held.reference, drawn, (entry.reference for entry in subject.mapping.entries))
    own = subject.mapping.updated(subject.held.candidate, state)
    images = uniform(f"{models.seed}/second proof", tuple(models.images.shape)).to(models.images.device)
    model = BentViT(case.config, Widened(state), like.order, like.traits, like.shared)
    return Others(case, mode, attempt, model, own, images.double())


def _learned_alone(case: Case) -> dict[str, torch.Tensor]:
    """Draws what the candidate has learned and the reference has no counterpart of."""
    subject, models = case.subject, case.subject.models
    learned = dict(models.candidate.named_parameters()).keys()
    names = {split(name)[0] for name in subject.mapping.unmapped_candidate} & learned
    drawn = synthetic(models.candidate, models.seed + 1, only=names)
    return {name: tensor.to(subject.held.candidate[name]) for name, tensor in drawn.items()}


def _which(kind: Kind) -> Hashable:
    return kind.key, *kind.variants
