"""The weight map: which tensor of the reference is which tensor of the candidate.

A map is data. Each entry pairs a tensor of the reference, or a slice of one, with a tensor of the candidate, or a slice
of one, and says how the values are rearranged between them. It is read in both directions, and written as a TOML file.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parity.errors import MappingError, listed
from parity.models.entries import Entry, cut, rearranged, split
from parity.models.state import hold
from parity.models.written_map import Patterns, rules_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from parity.models.entries import Box


@dataclass(frozen=True)
class WeightMap:
    """A bijection between the tensors of a reference and those of a candidate, as far as they correspond.

    Attributes:
        entries: in the order in which a forward pass of the reference uses them.
        source: where the map comes from.
        certainty: how sure it is, in words; empty for a map that was written.
        unmapped_reference: tensors, or slices of tensors, of the reference without a counterpart.
        unmapped_candidate: the same of the candidate.
        unused: tensors of the candidate that its forward pass never uses.
        warnings: a sentence each, on what is odd about the map.
        meaning: what it means that a tensor has no counterpart, by name, where that is known.
    """

    entries: tuple[Entry, ...]
    source: str
    certainty: str = ""
    unmapped_reference: tuple[str, ...] = ()
    unmapped_candidate: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)
    meaning: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def is_complete(self) -> bool:
        """Whether every tensor that either model uses has its counterpart."""
        return not (self.unmapped_reference or self.unmapped_candidate)

    def apply(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Turns a reference's state dict into the candidate's.

        Storage is shared where the layout allows it. Tensors of the candidate without a counterpart are left out.

        Raises:
            MappingError: `state` lacks a tensor of the map, or has one that the map doesn't know.
        """
        names = [split(entry.reference)[0] for entry in self.entries]
        known = {*names, *(split(name)[0] for name in self.unmapped_reference)}
        missing = [name for name in dict.fromkeys(names) if name not in state]
        extra = sorted(name for name in state if name not in known and state[name].is_floating_point())
        if missing:
            raise MappingError(f"the state dict lacks {len(missing)} tensors of the weight map: {listed(missing)}")
        if extra:
            raise MappingError(
                f"the state dict has {len(extra)} tensors that are not in the weight map: {listed(extra)}"
            )
        pieces: dict[str, list[tuple[Box, torch.Tensor]]] = defaultdict(list)
        for entry in self.entries:
            (source, box), (target, place) = split(entry.reference), split(entry.candidate)
            pieces[target].append((place, rearranged(cut(state[source], box), entry.layout)))
        return {name: _assembled(parts) for name, parts in pieces.items()}

    def load(self, candidate: nn.Module, state: Mapping[str, torch.Tensor], *, assign: bool = False) -> None:
        """Puts a reference's state dict into `candidate`; what has no counterpart keeps its values.

        Args:
            candidate: the map's candidate, on any device; on meta only with `assign`.
            state: the reference's.
            assign: share the storage of `state` instead of copying it, so that two models need one copy of the weights.

        Raises:
            MappingError: the names don't match.
        """
        mapped = self.apply(state)
        if assign:
            hold(candidate, mapped)
        else:
            candidate.load_state_dict(mapped, strict=not (self.unmapped_candidate or self.unused))

    def invert(self) -> WeightMap:
        """Returns the map in the other direction, from the candidate's tensors to the reference's."""
        return WeightMap(
            tuple(entry.inverted() for entry in self.entries),
            self.source,
            self.certainty,
            (*self.unmapped_candidate, *self.unused),
            self.unmapped_reference,
            warnings=self.warnings,
        )

    def without_counterpart(self) -> list[str]:
        """Says, a sentence for each kind, which tensors have no counterpart and what that means."""
        sentences = []
        for owner, names in (("reference", self.unmapped_reference), ("candidate", self.unmapped_candidate)):
            kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
            for name in names:
                kinds[self.meaning.get(name, ""), re.sub(r"\d+", "{i}", split(name)[0])].append(name)
            for (meaning, pattern), members in kinds.items():
                which = members[0] if len(members) == 1 else f"{pattern} ({len(members)} tensors)"
                lacks = "the candidate has no counterpart of" if owner == "reference" else "the reference has none of"
                sentences.append(f"{meaning}: {lacks} {which}" if meaning else f"{lacks} {which}")
        return sentences

    @property
    def origin(self) -> str:
        """Where the map comes from and how sure it is, in words."""
        return f"{self.source}, {self.certainty}" if self.certainty else f"map {self.source}"

    def remarks(self) -> list[str]:
        """Returns what there is to say about the map, a sentence each."""
        unused = [f"never used by the candidate: {listed(list(self.unused))}"] * bool(self.unused)
        return [
            *(f"without counterpart: {sentence}" for sentence in self.without_counterpart()),
            *unused,
            *(f"warning: {warning}" for warning in self.warnings),
        ]

    def to_toml(self) -> str:
        """Writes the map as `read` reads it, one line for all blocks wherever they are alike."""
        rules = tuple(rules_of(self.entries))
        return Patterns(rules, self.unmapped_reference, self.unmapped_candidate, self.unused).to_toml()


def _assembled(parts: list[tuple[Box, torch.Tensor]]) -> torch.Tensor:
    if len(parts) == 1:
        return parts[0][1].contiguous()
    first_box, first = parts[0]
    shape = [
        max(box[axis][1] for box, _ in parts) if axis < len(first_box) and first_box[axis][1] >= 0 else length
        for axis, length in enumerate(first.shape)
    ]
    whole = first.new_empty(shape)
    for box, piece in parts:
        cut(whole, box).copy_(piece)
    return whole
