"""The one exception the harness raises for what its user can mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ParityError(ValueError):
    """Wrong input: an option, a file, a candidate that cannot be built or run. The message says what to do."""


class MappingError(ParityError):
    """The weight map is no bijection: tensors are missing, left over, or of another shape; the message lists them.

    Attributes:
        unmapped_reference: tensors of the reference without a counterpart.
        unmapped_candidate: tensors of the candidate without a counterpart.
    """

    def __init__(
        self, message: str, unmapped_reference: Iterable[str] = (), unmapped_candidate: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.unmapped_reference = tuple(unmapped_reference)
        self.unmapped_candidate = tuple(unmapped_candidate)


def listed(names: list[str], most: int = 6) -> str:
    """Joins `names` for a message, the first `most` of them and the number of the others."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
