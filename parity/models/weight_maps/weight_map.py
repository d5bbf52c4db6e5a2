"""The weight map: which tensor of the reference is which tensor of the candidate.

A map is data. Each entry pairs a tensor of the reference, or a slice of one, with a tensor of the candidate, or a slice
of one, and says how the values are rearranged between them. It is read in both directions, and written as a TOML file.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parity.errors import MappingError, listed
from parity.models.state import hold
from parity.models.weight_maps.entries import Entry, cut, put, rearranged, split
from parity.models.weight_maps.written_map import Patterns, as_pattern, rules_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch
    from torch import nn

    from parity.models.weight_maps.entries import Box


# what it means that a tensor of the reference has no counterpart
UNUSED = "not used by the forward pass"

# what stands behind such a meaning, where another tensor is much like it
_CLOSEST = " (the closest is "


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
        undecided: tensors of the reference that other maps, as good as this one, map to something else.
        without_effect: those of the tensors without a counterpart that cannot change the logits, whatever they hold.
        constants: those that are buffers of the candidate, with whose values, as it is built, both models agree.
    """

    entries: tuple[Entry, ...]
    source: str
    certainty: str = ""
    unmapped_reference: tuple[str, ...] = ()
    unmapped_candidate: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)
    meaning: Mapping[str, str] = field(default_factory=dict, compare=False)
    undecided: tuple[str, ...] = field(default=(), compare=False)
    without_effect: tuple[str, ...] = field(default=(), compare=False)
    constants: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_complete(self) -> bool:
        """Whether every tensor that has an effect in either model has its counterpart."""
        return {*self.unmapped_reference, *self.unmapped_candidate} <= {*self.without_effect, *self.constants}

    def number_mapped(self, reference: nn.Module) -> int:
        """Returns how many values of the reference have a counterpart."""
        state: dict[str, torch.Tensor] = reference.state_dict()
        left_out = (cut(state[name], box) for name, box in map(split, self.unmapped_reference))
        return sum(tensor.numel() for tensor in state.values()) - sum(tensor.numel() for tensor in left_out)

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
        left_out = defaultdict(list)
        for name, box in map(split, self.unmapped_candidate):
            left_out[name].append(box)
        return {name: _assembled(parts, left_out[name]) for name, parts in pieces.items()}

    def updated(self, held: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns the candidate's tensors, those parts anew whose counterparts are in `state`.

        Args:
            held: all tensors of the candidate, which are not written to.
            state: some of the reference's.
        """
        result = dict(held)
        for entry in self.entries:
            (source, box), (target, place) = split(entry.reference), split(entry.candidate)
            if source not in state:
                continue
            values = rearranged(cut(state[source], box), entry.layout)
            if not place:
                result[target] = values
                continue
            if result[target] is held[target]:
                result[target] = held[target].clone()
            put(values, result[target], place)
        return result

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
        counterparts = {entry.reference: entry.candidate for entry in self.entries}
        meaning = {name: _turned(words) for name, words in self.meaning.items()}
        return WeightMap(
            tuple(entry.inverted() for entry in self.entries),
            self.source,
            self.certainty,
            (*self.unmapped_candidate, *self.unused),
            self.unmapped_reference,
            warnings=self.warnings,
            meaning=dict.fromkeys(self.unused, UNUSED) | meaning,
            undecided=tuple(counterparts[name] for name in self.undecided if name in counterparts),
            without_effect=self.without_effect,
            constants=self.constants,
        )

    def without_counterpart(self, *, in_short: bool = False) -> list[str]:
        """Says which tensors with an effect have no counterpart and what that means.

        Args:
            in_short: a sentence for each of the models, without what else might be the counterpart, since something
                else says what becomes of them; otherwise one for each kind.
        """
        left = {*self.unmapped_reference, *self.unmapped_candidate} - {*self.without_effect, *self.constants}
        return self._sentences(left, in_short=in_short)

    def missing_without_effect(self) -> list[str]:
        """Says, a sentence for each kind, which tensors without a counterpart change nothing."""
        plain = dataclasses.replace(self, meaning={})
        silent, constant = (plain._sentences({*names}) for names in (self.without_effect, self.constants))  # noqa: SLF001
        return [
            *(f"{sentence}, which changes nothing, whatever it holds" for sentence in silent),
            *(f"{sentence}, a buffer that changes nothing as it is built" for sentence in constant),
        ]

    def _sentences(self, which: set[str], *, in_short: bool = False) -> list[str]:
        sentences = []
        for owner, unmapped in (("reference", self.unmapped_reference), ("candidate", self.unmapped_candidate)):
            names = [name for name in unmapped if name in which]
            kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
            for name in names:
                kinds[self.meaning.get(name, ""), re.sub(r"\d+", "{i}", split(name)[0])].append(name)
            lacks = "the candidate has no counterpart of" if owner == "reference" else "the reference has none of"
            said = [
                (meaning, members[0] if len(members) == 1 else _together(pattern, members))
                for (meaning, pattern), members in kinds.items()
            ]
            if in_short and said:
                meanings = dict.fromkeys(meaning.partition(_CLOSEST)[0] for meaning, _ in said)
                said = [(" and ".join(filter(None, meanings)), listed([*dict.fromkeys(those for _, those in said)], 3))]
            sentences += [f"{meaning}: {lacks} {those}" if meaning else f"{lacks} {those}" for meaning, those in said]
        return sentences

    @property
    def origin(self) -> str:
        """Where the map comes from and how sure it is, in words."""
        return f"{self.source}, {self.certainty}" if self.certainty else f"map {self.source}"

    def remarks(self, said: Collection[str] = (), *, in_short: bool = False) -> list[str]:
        """Returns what there is to say about the map, a sentence each.

        Args:
            said: what is said elsewhere, and not once more.
            in_short: as in `without_counterpart`.
        """
        unused = [f"never used by the candidate: {listed(list(self.unused))}"] * bool(self.unused)
        return [
            *unused,
            *(f"without counterpart: {sentence}" for sentence in self.without_counterpart(in_short=in_short)),
            *(f"without effect: {sentence}" for sentence in self.missing_without_effect() if sentence not in said),
            *(f"warning: {warning}" for warning in self.warnings),
        ]

    def to_toml(self) -> str:
        """Writes the map as `read` reads it, one line for all blocks wherever they are alike."""
        left_out = (self.unmapped_reference, self.unmapped_candidate, self.unused)
        rules = tuple(rules_of(self.entries, self.unmapped_reference))
        return Patterns(rules, *(tuple(map(as_pattern, names)) for names in left_out)).to_toml()


def _together(pattern: str, members: list[str]) -> str:
    """Names tensors, or slices of them, that differ by numbers in their names alone."""
    slices = {name.removeprefix(split(name)[0]) for name in members}
    if len(slices) == 1:
        return f"{pattern}{slices.pop()} ({len(members)} tensors)"
    tensors = len({split(name)[0] for name in members})
    return f"parts of {pattern} ({len(members)} slices of {tensors} tensor{'s' * (tensors > 1)})"


def _turned(meaning: str) -> str:
    """Returns what it means that a tensor has no counterpart if the other model is taken as right."""
    others = {"no such ": "an extra ", "an extra ": "no such ", "no ": "an extra "}
    start = next((words for words in others if meaning.startswith(words)), "")
    return others.get(start, "") + meaning.removeprefix(start)


def _assembled(parts: list[tuple[Box, torch.Tensor]], left_out: list[Box]) -> torch.Tensor:
    """Puts the slices of a tensor together; those that are left out are zero."""
    if len(parts) == 1 and not parts[0][0]:
        return parts[0][1].contiguous()
    shapes = [_least_shape(box, piece) for box, piece in parts]
    shapes += [[max(bounds.stop, length) for bounds, length in zip(box, shapes[0], strict=False)] for box in left_out]
    whole = parts[0][1].new_zeros([max(lengths) for lengths in itertools.zip_longest(*shapes, fillvalue=0)])
    for box, piece in parts:
        put(piece, whole, box)
    return whole


def _least_shape(box: Box, piece: torch.Tensor) -> list[int]:
    """Returns the shape that a tensor has at least, by a slice of it."""
    lengths = [
        length // (stop - start) * every if every else start + length
        for (start, stop, every), length in zip(box, piece.shape, strict=False)
    ]
    return [*lengths, *piece.shape[len(box) :]]
