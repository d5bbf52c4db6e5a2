"""What is known of one tensor that differs: what turns the tensor that is expected into the one that was found."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    Turn = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Found:
    """One change, recognised.

    Attributes:
        id: a short name that doesn't change, such as `weights-transposed`.
        phrase: what was found instead of what is expected, such as `transposed`.
        hint: how to mend it.
        detail: what is true of this tensor only, where others may have the same change.
    """

    id: str
    phrase: str
    hint: str = ""
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.phrase} ({self.detail})" if self.detail else self.phrase


@dataclass(frozen=True)
class Change:
    """One change, to be tried.

    Attributes:
        id: as in `Found`.
        phrase: as in `Found`.
        hint: as in `Found`.
        turn: makes of an expected tensor what the change makes of it.
    """

    id: str
    phrase: str
    hint: str
    turn: Turn


Changes = Iterator[Change]


def by_pattern(names: Iterable[str]) -> dict[str, list[str]]:
    """Groups names that differ only in their first number, which is the block's."""
    patterns: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        patterns[pattern_of(name)].append(name)
    return patterns


def pattern_of(name: str) -> str:
    """Returns what a tensor and its counterparts in the other blocks have in common."""
    return re.sub(r"\d+", "{i}", name, count=1)
