"""Which of all maps that are possible was chosen, and how sure that is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parity.mapping.uses.ways import Way

PROVED, CLOSEST, SYMMETRIC = "unique by proof", "the closest by far", "by an attention's symmetries"
BY_NAME, AMBIGUOUS = "by name only", "ambiguous"


@dataclass
class Decision:
    """Which way of every group was chosen.

    Attributes:
        chosen: the way, by group.
        certainty: how sure that is.
        warnings: what is to be said about it, a sentence each.
        undecided: names of the reference's tensors that other ways, as good as these, map to something else.
    """

    chosen: dict[str, Way]
    certainty: str = PROVED
    warnings: list[str] = dataclasses.field(default_factory=list)
    undecided: list[str] = dataclasses.field(default_factory=list)

    def is_as_sure_as(self, certainty: str) -> None:
        """Lowers the certainty to this one."""
        order = (AMBIGUOUS, BY_NAME, SYMMETRIC, CLOSEST, PROVED)
        self.certainty = min(self.certainty, certainty, key=order.index)


def votes(option: dict[str, Way]) -> int:
    """Returns how many names speak for the ways of an option, less those that speak against them."""
    return sum(way.by_name for way in option.values())


def likeliest(numbers: Sequence[int], options: Sequence[dict[str, Way]]) -> int:
    """Returns the first of those of some options that most names speak for."""
    return max(numbers, key=lambda n: votes(options[n]))


def rarity(option: dict[str, Way]) -> int:
    """Returns how rare the rarest way of an option is among models."""
    return max(way.rarity for way in option.values())
