"""What a phase beyond the forward pass finds, and what becomes of the verdict with it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from parity.diagnosis.verdict import Verdict
from parity.tracing import IDENTICAL, Measurement

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from parity.diagnosis.verdict import Place
    from parity.findings import Cause

PHASES = ("forward", "backward", "training", "conditions")

# How a recipe differs (initial values, weight decay): it is named, and the models are the same function all the same.
OTHER_RECIPE: Literal["other recipe"] = "other recipe"
NOT_COMPARED: Literal["not compared"] = "not compared"

Outcome = Verdict | Literal["not compared", "other recipe"]


@dataclass(frozen=True)
class Row:
    """One tensor or place where a phase sees a difference.

    Attributes:
        reference: its name in the reference.
        candidate: its name in the candidate.
        relative: how far apart the two are, relative; None where that is not a number's business.
        noise: the candidate's error by the reference's own, outside float64.
        what: the difference, in words.
    """

    reference: str
    candidate: str
    what: str
    relative: float | None = None
    noise: float | None = None


@dataclass(frozen=True)
class PhaseCheck:
    """One comparison of a phase, such as `backward/cross-entropy/float64`.

    Attributes:
        name: phase, what is compared, and the dtype if there is one.
        verdict: this comparison's own answer.
        points: how many tensors or places were compared.
        worst: the largest distance among them.
        noise: the largest noise ratio among them, outside float64.
        why: why it was not made, or how it was made where that is not the plain way.
        rows: what differs.
    """

    name: str
    verdict: Outcome
    points: int = 0
    worst: Measurement | None = None
    noise: float | None = None
    why: str | None = None
    rows: tuple[Row, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the check as the JSON report's row of the same keys as a forward check's."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "why": self.why,
            "max_abs": self.worst.max_abs if self.worst else None,
            "relative": self.worst.relative if self.worst else None,
            "max_ulp": self.worst.max_ulp if self.worst else None,
            "identical": self.worst.identical if self.worst else None,
            "noise_ratio": self.noise,
            "points": self.points,
            "rows": [asdict(row) for row in self.rows],
        }


def not_compared(name: str, why: str) -> PhaseCheck:
    """Returns a check that was not made, with the reason."""
    return PhaseCheck(name, NOT_COMPARED, why=why)


@dataclass
class Beyond:
    """Everything that the phases beyond the forward pass have found.

    Attributes:
        checks: their comparisons.
        causes: what explains the differences.
        places: where gradients begin to differ.
    """

    checks: list[PhaseCheck] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)

    def add(self, other: Beyond) -> None:
        """Takes in what another phase has found; what is found twice is one cause."""
        self.checks += other.checks
        self.places += other.places
        known = {(cause.id, cause.where) for cause in self.causes}
        self.causes += [cause for cause in other.causes if (cause.id, cause.where) not in known]

    def without_causes(self, ids: Collection[str]) -> Beyond:
        """Returns what was found without the causes of these ids, which are explained elsewhere."""
        return Beyond(self.checks, [cause for cause in self.causes if cause.id not in ids], self.places)

    def combined(self, verdict: Verdict, reasons: list[str]) -> tuple[Verdict, list[str]]:
        """Returns the verdict of all phases and its reasons, given those of the forward phase."""
        if not self.checks:
            return verdict, reasons
        divergent = [check for check in self.checks if check.verdict == "divergent"]
        sentences = [f"{cause.id}: {cause.statement}" for cause in self.causes]
        if divergent:
            names = ", ".join(check.name for check in divergent)
            found = [*sentences, f"not the same beyond the forward pass: {names}"]
            return "divergent", [*reasons, *found] if verdict == "divergent" else [*found, *reasons]
        more = [*sentences, *self._summary(), *self._left_out()]
        silent = [phase for phase in PHASES if self._of(phase) and not any(map(_has_numbers, self._of(phase)))]
        if verdict in ("identical", "equivalent") and silent:
            return "inconclusive", [f"nothing of the phase {phase} could be compared" for phase in silent] + more
        if verdict == "identical" and any(c.verdict in ("equivalent", OTHER_RECIPE) for c in self.checks):
            verdict = "equivalent"
        return verdict, [*reasons, *more]

    def _of(self, phase: str) -> list[PhaseCheck]:
        return [check for check in self.checks if check.name.startswith(f"{phase}/")]

    def _left_out(self) -> Iterator[str]:
        names: dict[str | None, list[str]] = defaultdict(list)
        for check in self.checks:
            if check.verdict == NOT_COMPARED:
                names[check.why].append(check.name)
        for why, members in names.items():
            yield f"not compared: {', '.join(members)}, since {why}"

    def _summary(self) -> Iterator[str]:
        for phase in PHASES:
            checks = [check for check in self._of(phase) if check.verdict != NOT_COMPARED]
            if checks and all(check.verdict == "identical" for check in checks):
                yield f"{phase}: the same bits in all {len(checks)} comparisons"
            elif checks:
                exact = max((c.worst.relative for c in checks if c.worst and c.name.endswith("float64")), default=0.0)
                noise = max((c.noise or 1.0 for c in checks), default=1.0)
                yield f"{phase}: in float64 no error beyond {exact:.1e}, noise ratio at most {noise:.2f}"


def _has_numbers(check: PhaseCheck) -> bool:
    """Whether values were compared: that every module follows `train()` alone says little about a training."""
    is_of_a_dtype = isinstance(getattr(torch, check.name.rpartition("/")[2], None), torch.dtype)
    return is_of_a_dtype and check.verdict != NOT_COMPARED


def worst_of(measured: list[Measurement]) -> Measurement:
    """Returns the largest distance."""
    return max(measured, key=lambda m: (not m.identical, m.relative), default=IDENTICAL)
