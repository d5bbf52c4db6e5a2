"""What is known of the weights that a candidate brings, and how it is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from parity.transfer.finding import by_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable

    from parity.findings import Cause
    from parity.tracing import Measurement

# Changes that undo each other, computed in float32, leave some 1e-7 of the logits behind.
ROUNDING_BOUND = 1e-6

_MOST_NAMES = 4


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
    notes: tuple[str, ...] = ()

    @property
    def agrees_as_is(self) -> bool:
        """Whether both models, with the weights that they have, differ by no more than rounding in float32."""
        return self.as_is is not None and self.as_is.relative <= ROUNDING_BOUND

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

    def logits(self) -> str:
        """Says how far the logits of both models are apart as they are."""
        assert self.as_is is not None
        size = self.as_is.problem or f"differ by {self.as_is.max_abs:.2g} (relative {self.as_is.relative:.2g})"
        return f"as both models are, in float64, their logits {'are the same bits' if self.as_is.identical else size}"

    def summary(self) -> str:
        """Says in one sentence whether the weights are the same, and what that does to the logits."""
        as_they_are = f"; {self.logits()}" if self.as_is else ""
        if not self.tensors:
            return f"the weights are the same in all {self.count} tensors{as_they_are}"
        names = {tensor.candidate: None for tensor in self.tensors}
        verb = "differs" if len(names) == 1 else "differ"
        return f"{named(names)} {verb} ({len(names)} of {self.count} tensors){as_they_are}"


def named(names: Iterable[str]) -> str:
    """Lists tensors, those of all blocks together."""
    shown = []
    for pattern, alike in by_pattern(names).items():
        shown += alike if len(alike) < 3 else [f"{pattern} ({len(alike)} blocks)"]
    most = shown[:_MOST_NAMES]
    rest = len(shown) - len(most)
    return f"{', '.join(most)} and {rest} more" if rest else ", ".join(most)
