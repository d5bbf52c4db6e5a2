"""What a finding is: one nameable difference between a candidate and its reference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CodeLine:
    """A line of source: where it stands, such as `model.py:41`, and what it says."""

    at: str
    text: str


@dataclass(frozen=True)
class Cause:
    """One difference that explains what was measured; the JSON report's entry of the same keys.

    Attributes:
        id: a short name that doesn't change, such as `layer-norm-eps`.
        statement: the difference, in one sentence.
        where: the modules or tensors that it concerns, by their names in the reference.
        residual: the relative error that is left when the difference is taken away; None where that is not measured.
        without: the relative error when every other difference is taken away, and not this one; None likewise.
        hint: what to write instead, or an empty text.
        source: the lines of the candidate's source that it comes from, such as `model.py:41`, or an empty text.
        candidate_code: what these lines say, as far as they can be read.
        reference_code: the lines of the reference's source that do there what the candidate's should.
    """

    id: str
    statement: str
    where: tuple[str, ...]
    residual: float | None = None
    without: float | None = None
    hint: str = ""
    source: str = ""
    candidate_code: tuple[CodeLine, ...] = ()
    reference_code: tuple[CodeLine, ...] = ()
