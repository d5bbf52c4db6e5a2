"""What a check has found out about a difference: its cause, in words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """One nameable difference between candidate and reference.

    Attributes:
        id: stable name of its kind, such as `layer-norm-eps`.
        statement: what the candidate does, what the reference does, and where.
        where: the reference's modules or tensors concerned.
        residual: relative error that is left when the reference is changed in the same way.
        without: relative error with all other causes accounted for and this one not.
        hint: how to mend it.
    """

    id: str
    statement: str
    where: tuple[str, ...]
    residual: float | None
    without: float | None
    hint: str
