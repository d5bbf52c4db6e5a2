"""The third question: does the candidate hold the reference's weights? And what do both models give as they are?"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from parity.errors import ParityError
from parity.findings import Cause
from parity.models import assigned
from parity.tracing import MODES, SAME_FUNCTION_BOUND, bare_run, compare
from parity.transfer.naming import Namer, seen_together

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

    from parity.models import Brought
    from parity.progress import Progress
    from parity.tracing import Measurement, Subject
    from parity.transfer.finding import Found

    State = Mapping[str, torch.Tensor]

# Changes that undo each other leave rounding of float32 behind, some 1e-7 of the logits. Each of them alone must show
# this many times more, or nothing is known of its being undone.
_UNDONE_BOUND = 1e-6
_SHOWS = 1000.0

_MOST_RUNS = 16  # groups of tensors whose own effect is measured


@dataclass(frozen=True)
class Tensor:
    """One of the candidate's tensors that is not what it should be; the JSON report's entry of the same keys.

    Attributes:
        candidate: its name.
        reference: what it should be, by its name in the reference.
        cause: the id of what is wrong with it, as in `Cause`.
        statement: what is wrong with it.
        relative: norm(c - r) / norm(r).
    """

    candidate: str
    reference: str
    cause: str
    statement: str
    relative: float


@dataclass(frozen=True)
class OwnWeights:
    """What is known of the weights that a candidate brings.

    Attributes:
        verdict: `same`; `different`; or `set aside`, where they were not compared.
        source: where they come from.
        count: tensors that were compared.
        as_is: how far the logits of both models are apart as they are, in float64; None where they could not be run.
        tensors: those that differ.
        causes: the same, grouped by what is wrong with them.
        notes: what else there is to say, a sentence each.
    """

    verdict: Literal["same", "different", "set aside"]
    source: str
    count: int = 0
    as_is: Measurement | None = None
    tensors: tuple[Tensor, ...] = ()
    causes: tuple[Cause, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Returns the entry `weights` of the JSON report."""
        keys = "relative", "max_abs", "identical"
        return {
            "verdict": self.verdict,
            "source": self.source,
            "compared": self.count,
            "as_is": {key: getattr(self.as_is, key) for key in keys} if self.as_is else None,
            "tensors": [vars(tensor) for tensor in self.tensors],
            "notes": self.notes,
        }

    def sentences(self) -> list[str]:
        """Returns what there is to say, the most important first."""
        if self.verdict == "set aside":
            return list(self.notes)
        return [self.summary(), *self.notes]

    def summary(self) -> str:
        """Says in one sentence whether the weights are the same, and what that does to the logits."""
        logits = "they could not be run"
        if self.as_is:
            size = self.as_is.problem or f"differ by {self.as_is.max_abs:.2g} (relative {self.as_is.relative:.2g})"
            logits = "their logits are the same bits" if self.as_is.identical else f"their logits {size}"
        as_they_are = f"as both models are, in float64, {logits}"
        if not self.tensors:
            return f"the weights are the same, the candidate's own in all {self.count} tensors; {as_they_are}"
        names = [tensor.candidate for tensor in self.tensors]
        which = _named(names)
        verb = "differs" if len({*names}) == 1 else "differ"
        return f"{which} {verb} ({len({*names})} of {self.count} tensors); {as_they_are}"


def compare_weights(subject: Subject, brought: Brought, progress: Progress) -> OwnWeights:
    """Compares the weights that the candidate brings with the reference's, tensor by tensor, and names what is wrong.

    Args:
        subject: who is compared; both models hold the reference's weights.
        brought: the candidate's own.
        progress: told what is being done.
    """
    with progress.step("own weights", "comparing the candidate's own weights"):
        expected = subject.mapping.apply(subject.held.reference)
        own = {name: tensor.float() for name, tensor in brought.state.items() if tensor.is_floating_point()}
        names = [name for name in expected if name in own]
        differing = [name for name in names if not torch.equal(own[name].to(expected[name].device), expected[name])]
        runs = _Runs(subject, brought.state)
        as_is = runs.error({})
        if not differing:
            return OwnWeights("same", brought.source, len(names), as_is)
        namer = Namer(subject.mapping, subject.held.reference, expected, own, *_geometry(subject.models.reference))
        found = seen_together({name: namer.name(name) for name in differing})
        tensors = tuple(
            Tensor(name, namer.reference_of(name), f.id, str(f), _relative(own[name], expected[name]))
            for name in differing
            for f in found[name]
        )
        right = {name: expected[name] for name in differing}
        groups = _grouped(tensors, found, len(names))
        residual = runs.error(right)
        effects = [runs.error({k: v for k, v in right.items() if k not in group.names}) if n < _MOST_RUNS else None
                   for n, group in enumerate(groups)]  # fmt: skip
        causes = tuple(
            Cause(group.id, group.statement, group.names, _size(residual), _size(effect), group.hint)
            for group, effect in zip(groups, effects, strict=True)
        )
        if as_is and as_is.relative <= _UNDONE_BOUND and _is_undone(runs, as_is, own, right):
            undone = "they make up for each other: the weights are arranged otherwise, and do the same"
            return OwnWeights("same", brought.source, len(names), as_is, tensors, (), (undone, *_said(causes)))
        inert = [cause for cause in causes if cause.without is not None and cause.without <= SAME_FUNCTION_BOUND]
        notes = [f"no output shows that {_named(cause.where)} differ" for cause in inert]
        return OwnWeights("different", brought.source, len(names), as_is, tensors, causes, tuple(notes))


def _said(causes: Iterable[Cause]) -> list[str]:
    return [cause.statement for cause in causes]


def _is_undone(runs: _Runs, as_is: Measurement, own: State, right: State) -> bool:
    """Whether the differences make up for each other: both models agree, and each difference alone would show.

    A tensor that holds such a pair by itself shows where only its first third is mended.
    """

    def shows(names: Sequence[str]) -> bool:
        others = {name: tensor for name, tensor in right.items() if name not in names}
        third = {name: _partly(own[name], right[name]) for name in names}
        errors = (runs.error(others), runs.error({**right, **third}))
        return any(error and error.relative > _SHOWS * max(as_is.relative, SAME_FUNCTION_BOUND) for error in errors)

    return all(shows(names) for names in _by_pattern(right).values())


def _partly(own: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    third = max(len(own) // 3, 1)
    return torch.cat([right[:third], own[third:].to(right)])


class _Runs:
    """Runs both models in float64, the candidate with weights of its own."""

    def __init__(self, subject: Subject, own: State) -> None:
        self._models = subject.models
        self._own = own
        self._expected = self._logits(subject.models.reference, "reference")

    def _logits(self, model: nn.Module, owner: str) -> torch.Tensor:
        run = bare_run(model, self._models.images, MODES["eval"], torch.float64, self._models.seed, owner)
        assert run.output is not None
        return run.output

    def error(self, mended: State) -> Measurement | None:
        """Returns how far the logits are apart if `mended` are held instead of the candidate's own."""
        held = {name: t.to(self._models.images.device) for name, t in (dict(self._own) | dict(mended)).items()}
        with contextlib.suppress(ParityError), assigned(self._models.candidate, held):
            return compare(self._expected, self._logits(self._models.candidate, "candidate"), ulp=False)
        return None


def _size(measurement: Measurement | None) -> float | None:
    return measurement.relative if measurement else None


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return compare(expected, found, ulp=False).relative


def _geometry(reference: nn.Module) -> tuple[tuple[int, ...], int | None]:
    """Returns the numbers of heads to reckon with, and the width of a token, as the reference's modules tell them."""
    attributes = "num_heads", "num_attention_heads", "n_heads", "heads", "nhead"
    told = {n for m in reference.modules() for key in attributes if isinstance(n := getattr(m, key, None), int)}
    norms = [m.normalized_shape[-1] for m in reference.modules() if isinstance(m, torch.nn.LayerNorm)]
    width = max(norms, key=norms.count) if norms else None
    return tuple(sorted(told)) or (2, 3, 4, 6, 8, 12, 16), width


@dataclass(frozen=True)
class _Group:
    """One thing that is wrong with several tensors."""

    id: str
    statement: str
    names: tuple[str, ...]
    hint: str


def _grouped(tensors: Sequence[Tensor], found: Mapping[str, list[Found]], count: int) -> list[_Group]:
    """Puts the tensors together that have the same thing wrong with them; the worst one's own detail is told."""
    members: dict[tuple[str, str], list[tuple[Tensor, Found]]] = defaultdict(list)
    for tensor in tensors:
        for f in found[tensor.candidate]:
            if str(f) == tensor.statement:
                members[f.id, f.phrase].append((tensor, f))
    groups = []
    for (id, phrase), pairs in members.items():  # noqa: A001
        names = tuple(dict.fromkeys(tensor.candidate for tensor, _ in pairs))
        worst, shown = max(pairs, key=lambda pair: pair[0].relative)
        detail = shown.detail if len(names) == 1 or not shown.detail else f"{worst.candidate}: {shown.detail}"
        which = f"all {count} tensors" if len(names) == count > 1 else _named(names)
        groups.append(_Group(id, f"{which}: {phrase}{f' ({detail})' if detail else ''}", names, shown.hint))
    return groups


_MOST_NAMES = 4


def _named(names: Iterable[str]) -> str:
    """Lists tensors, those of all blocks together."""
    shown = []
    for pattern, alike in _by_pattern(names).items():
        shown += alike if len(alike) < 3 else [f"{pattern} ({len(alike)} blocks)"]
    most = shown[:_MOST_NAMES]
    rest = len(shown) - len(most)
    return f"{', '.join(most)} and {rest} more" if rest else ", ".join(most)


def _by_pattern(names: Iterable[str]) -> dict[str, list[str]]:
    """Groups names that differ only in their first number, which is the block's."""
    patterns: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        patterns[re.sub(r"\d+", "{i}", name, count=1)].append(name)
    return patterns
