"""All weight maps that are possible between two models, before one of them is chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parity.models import Entry

PATCHES, ATTENTION, POSITIONS = "order of a patch's pixels", "order of query, key and value", "place of the class token"
TOKENS = "order of the tokens"


@dataclass(frozen=True)
class Way:
    """One of several ways to map a group of tensors.

    Attributes:
        name: what it is, in words.
        entries: of all blocks.
        by_name: how many of the tensors' names speak for it, less those that speak against it.
        contradiction: in words, what the names would have had otherwise.
        left_reference: biases that only the reference has, or slices of them.
        left_candidate: biases that only the candidate has.
        rarity: 0 for what people usually choose; rarer ways are tried where no usual one holds.
    """

    name: str
    entries: tuple[Entry, ...]
    by_name: int = 0
    contradiction: str = ""
    left_reference: tuple[str, ...] = ()
    left_candidate: tuple[str, ...] = ()
    rarity: int = 0


def joined(ways: list[Way]) -> Way:
    """Makes the ways of all blocks, or of all parts of one, a single way."""
    return Way(
        ways[0].name,
        tuple(entry for way in ways for entry in way.entries),
        sum(way.by_name for way in ways),
        ways[0].contradiction,
        tuple(name for way in ways for name in way.left_reference),
        tuple(name for way in ways for name in way.left_candidate),
        max(way.rarity for way in ways),
    )


@dataclass
class Matches:
    """All maps that are possible between two models.

    Attributes:
        fixed: entries that are in each of them.
        choices: groups of entries of which exactly one way holds, by what is chosen.
        left_reference: tensors of the reference without a counterpart, and what it means that there is none.
        left_candidate: the same of the candidate.
        left_meaning: the same for what one of several ways leaves.
        warnings: a sentence each.
    """

    fixed: list[Entry] = field(default_factory=list)
    choices: dict[str, list[Way]] = field(default_factory=dict)
    left_reference: dict[str, str] = field(default_factory=dict)
    left_candidate: dict[str, str] = field(default_factory=dict)
    left_meaning: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def defaults(self) -> dict[str, Way]:
        """Returns for every group the way that is most usual, or that the names speak for."""
        return {name: max(ways, key=lambda way: way.by_name) for name, ways in self.choices.items() if ways}
