"""The third question: does the candidate hold the reference's weights? And what do both models give as they are?"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from parity.errors import ParityError
from parity.findings import Cause
from parity.models import assigned, said_numbers
from parity.tracing import MODES, SAME_FUNCTION_BOUND, bare_run, compare
from parity.transfer.answer import OwnWeights, Tensor, named
from parity.transfer.finding import by_pattern
from parity.transfer.naming import Namer, seen_together

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import nn

    from parity.models import Brought, WeightMap
    from parity.progress import Progress
    from parity.tracing import Measurement, Subject
    from parity.transfer.finding import Found

    State = Mapping[str, torch.Tensor]

# Of differences that undo each other each alone must show this many times more than all of them together, or nothing is
# known of its being undone.
_SHOWS = 1000.0

# A difference that shows in no output is made so many times larger; if it still shows nothing, nothing depends on it.
_TIMES = 10.0

_MOST_RUNS = 16  # groups of tensors whose own effect is measured


def compare_states(mapping: WeightMap, reference: State, own: State, source: str) -> OwnWeights:
    """Compares two state dicts tensor by tensor, and names what is wrong; nothing is run.

    Args:
        mapping: which tensor is which.
        reference: the one whose tensors are taken as right.
        own: the other.
        source: where that one comes from.
    """
    found = _Differences(mapping, reference, own, None)
    causes = tuple(Cause(group.id, group.statement, group.names, None, None, group.hint) for group in found.groups)
    return OwnWeights("different" if causes else "same", source, len(found.names), None, found.tensors, causes)


def compare_weights(subject: Subject, brought: Brought, progress: Progress) -> OwnWeights:
    """Compares the weights that the candidate brings with the reference's, and runs both models as they are.

    Args:
        subject: who is compared; both models hold the reference's weights.
        brought: the candidate's own.
        progress: told what is being done.
    """
    with progress.step("own weights", "comparing the candidate's own weights"):
        found = _Differences(subject.mapping, subject.held.reference, brought.state, subject.models.reference)
        runs = _Runs(subject, brought.state)
        as_is = runs.error({})
        lacking = (f"not compared, since the candidate's weights lack it: {named(found.lacking)}",) * bool(
            found.lacking
        )
        if not found.tensors:
            return OwnWeights("same", brought.source, len(found.names), as_is, notes=lacking)
        residual = runs.error(found.right)
        causes = []
        for n, group in enumerate(found.groups):
            effect = runs.error(found.without(group.names)) if n < _MOST_RUNS else None
            causes.append(Cause(group.id, group.statement, group.names, _size(residual), _size(effect), group.hint))
        answer = OwnWeights("different", brought.source, len(found.names), as_is, found.tensors, tuple(causes))
        silent = [cause for cause in causes if cause.without is not None and cause.without <= SAME_FUNCTION_BOUND]
        if answer.agrees_as_is and (why := _why_it_is_the_same(runs, found, as_is)):
            notes = (f"{why}: {cause.statement}" for cause in causes)
            return dataclasses.replace(answer, verdict="same", causes=(), notes=(*notes, *lacking))
        notes = (f"no output shows that {named(cause.where)} differ" for cause in silent)
        return dataclasses.replace(answer, notes=(*notes, *lacking))


class _Differences:
    """The tensors of a candidate that are not what they should be.

    Attributes:
        names: those of all tensors that were compared.
        lacking: those that have no values to compare.
        own: the candidate's, in float32.
        right: what those that differ should be, by name.
        tensors: what is wrong with each.
        groups: the same, put together.
    """

    def __init__(self, mapping: WeightMap, reference: State, own: State, model: nn.Module | None) -> None:
        expected = mapping.apply(reference)
        self.own = {k: t.to(expected[k]) for k, t in own.items() if k in expected and t.is_floating_point()}
        self.names, self.lacking = list(self.own), [name for name in expected if name not in self.own]
        self.right = {name: expected[name] for name in self.own if not torch.equal(self.own[name], expected[name])}
        namer = Namer(mapping, reference, expected, self.own, *_geometry(model))
        found = seen_together({name: namer.name(name) for name in self.right})
        pairs = [
            (Tensor(name, namer.reference_of(name), f.id, str(f), _relative(self.own[name], self.right[name])), f)
            for name in self.right
            for f in found[name]
        ]
        self.tensors = tuple(tensor for tensor, _ in pairs)
        self.groups = _grouped(pairs, len(self.names))

    def without(self, names: Collection[str], times: float = 1.0) -> dict[str, torch.Tensor]:
        """Returns what makes every tensor right but `names`, which are off `times` as far as they are."""
        off = {name: self.right[name] + times * (self.own[name] - self.right[name]) for name in names}
        return {**self.right, **(off if times != 1.0 else {name: self.own[name] for name in names})}


def _why_it_is_the_same(runs: _Runs, found: _Differences, as_is: Measurement | None) -> str | None:
    """Says why both models agree as they are although some tensors differ; None if nobody knows.

    Either nothing depends on what differs: made larger, it still shows nothing. Or the differences make up for each
    other: each alone would show; a tensor that holds such a pair by itself shows where only its first third is mended.
    """
    least = _SHOWS * max(_size(as_is) or 0.0, SAME_FUNCTION_BOUND)
    undone = False
    for alike in by_pattern(found.right).values():
        alone = runs.error(found.without(alike))
        third = {name: _partly(found.own[name], found.right[name]) for name in alike}
        if any(e and e.relative > least for e in (alone, runs.error({**found.right, **third}))):
            undone = True
        elif not (alone and alone.same_function and _is_same(runs.error(found.without(alike, times=_TIMES)))):
            return None
    return "it makes up for what else differs" if undone else "no output depends on it"


def _is_same(measurement: Measurement | None) -> bool:
    return measurement is not None and measurement.same_function


def _partly(own: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    third = max(len(own) // 3, 1)
    return torch.cat([right[:third], own[third:]])


def compare_as_they_are(
    reference: nn.Module, weights: State, candidate: nn.Module, own: State, images: torch.Tensor, seed: int
) -> OwnWeights | None:
    """Runs both models with the weights that they have, where nobody knows which tensor is which.

    Returns:
        What is known of the weights without comparing any; None if one of the models cannot be run.
    """
    with contextlib.suppress(ParityError), assigned(reference, weights), assigned(candidate, own):
        models = ((reference, "reference"), (candidate, "candidate"))
        logits = [_logits(model, owner, images, seed) for model, owner in models]
        return OwnWeights("set aside", "as they are", 0, compare(logits[0], logits[1], ulp=False))
    return None


def _logits(model: nn.Module, owner: str, images: torch.Tensor, seed: int) -> torch.Tensor:
    run = bare_run(model, images, MODES["eval"], torch.float64, seed, owner)
    assert run.output is not None
    return run.output


class _Runs:
    """Runs both models in float64, the candidate with weights of its own."""

    def __init__(self, subject: Subject, own: State) -> None:
        self._models = subject.models
        self._own = own
        self._expected = self._logits(subject.models.reference, "reference")

    def _logits(self, model: nn.Module, owner: str) -> torch.Tensor:
        return _logits(model, owner, self._models.images, self._models.seed)

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


def _geometry(reference: nn.Module | None) -> tuple[tuple[int, ...], int | None]:
    """Returns the numbers of heads to reckon with, and the width of a token, as the reference's modules tell them."""
    modules = list(reference.modules()) if reference else []
    told = set(said_numbers(reference, "num_heads")) if reference else set()
    norms = [m.normalized_shape[-1] for m in modules if isinstance(m, torch.nn.LayerNorm)]
    width = max(norms, key=norms.count) if norms else None
    return tuple(sorted(told)) or (2, 3, 4, 6, 8, 12, 16), width


@dataclass(frozen=True)
class _Group:
    """One thing that is wrong with several tensors."""

    id: str
    statement: str
    names: tuple[str, ...]
    hint: str


def _grouped(differing: Sequence[tuple[Tensor, Found]], count: int) -> list[_Group]:
    """Puts the tensors together that have the same thing wrong with them; the worst one's own detail is told."""
    members: dict[tuple[str, str], list[tuple[Tensor, Found]]] = defaultdict(list)
    for tensor, found in differing:
        members[found.id, found.phrase].append((tensor, found))
    groups = []
    for (id, phrase), pairs in members.items():  # noqa: A001
        names = tuple(dict.fromkeys(tensor.candidate for tensor, _ in pairs))
        worst, shown = max(pairs, key=lambda pair: pair[0].relative)
        detail = shown.detail if len(names) == 1 or not shown.detail else f"{worst.candidate}: {shown.detail}"
        which = f"all {count} tensors" if len(names) == count > 1 else named(names)
        groups.append(_Group(id, f"{which}: {phrase}{f' ({detail})' if detail else ''}", names, shown.hint))
    return groups
