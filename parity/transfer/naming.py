"""Which change it is, tensor by tensor: in the layout of the reference first, then in the candidate's own."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from parity.models import IDENTITY, cut, inverted, put, rearranged, split
from parity.transfer.altering import altered, altered_by_slice, halves, rounded
from parity.transfer.finding import Found, by_pattern, pattern_of
from parity.transfer.rearranging import axis_name, in_no_known_order
from parity.transfer.rearranging import rearranged as in_another_order
from parity.transfer.resampling import resampled
from parity.transfer.unrelated import FEW_UNRELATED, UNTRAINED_HINT, constant, unrelated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from parity.models import Entry, WeightMap

    State = Mapping[str, torch.Tensor]

_MOST_INSIDE = 2  # parts of a part of a tensor


@dataclass(frozen=True)
class Pair:
    """A tensor that should be there and the one that is, in one layout.

    Attributes:
        reference: what the expected one is called in the reference.
        expected: its values.
        found: those of the candidate, of the same shape.
        where: which part of a tensor of the candidate it is, if it is no whole one.
    """

    reference: str
    expected: torch.Tensor
    found: torch.Tensor
    where: str = ""


class Namer:
    """Names what is wrong with the candidate's tensors.

    Args:
        mapping: the weight map.
        reference: the reference's tensors by name, in float32.
        expected: the same as the candidate should have them.
        own: the candidate's own.
        heads: numbers of attention heads to reckon with.
        width: of a token, or None where that is not known.
    """

    def __init__(
        self,
        mapping: WeightMap,
        reference: State,
        expected: State,
        own: State,
        heads: Sequence[int],
        width: int | None,
    ) -> None:
        self._reference, self._expected, self._own, self._heads = reference, expected, own, heads
        self._entries: dict[str, list[Entry]] = defaultdict(list)
        self._of_reference: dict[str, list[Entry]] = defaultdict(list)
        for entry in mapping.entries:
            self._entries[split(entry.candidate)[0]].append(entry)
            self._of_reference[split(entry.reference)[0]].append(entry)
        self._width, self._constants = width, _constants(heads, width)

    def reference_of(self, name: str) -> str:
        """Returns what a tensor of the candidate is called in the reference."""
        return ", ".join(entry.reference for entry in self._entries[name])

    def name(self, name: str) -> list[Found]:
        """Returns what is wrong with a tensor of the candidate; several findings where its parts differ."""
        whole = Pair(self.reference_of(name), self._expected[name], self._own[name])
        pairs = [self._pair(entry) for entry in self._entries[name]]
        views = [*pairs, *self._fused(name)] if len(pairs) == 1 else [whole]
        if len(pairs) == 1 and self._entries[name][0].layout != IDENTITY:
            views.append(whole)
        alone = next((f for pair in views if (f := self._of_pair(name, pair))), None)
        if alone:
            return [alone]
        parts = pairs if len(pairs) > 1 else self._thirds(pairs[0])
        differing = [part for part in parts if not torch.equal(part.expected, part.found)]
        exact = [self._of_pair(name, part) or _of_another_part(part, parts) for part in differing]
        if len(pairs) > 1 or (exact and all(exact)):
            found = [f or self._of_rest(name, part) for f, part in zip(exact, differing, strict=True)]
            return [_located(part.where, f) for f, part in zip(found, differing, strict=True)]
        ends = itertools.chain(
            (in_no_known_order(pair.expected, pair.found) for pair in views),
            (self._of_values(name, pair) for pair in pairs),
            (self._by_slice(name, pair) for pair in views),
        )
        return [next((found for found in ends if found), None) or self._of_rest(name, pairs[0])]

    def _pair(self, entry: Entry) -> Pair:
        """Returns the values of an entry in the reference's layout."""
        (source, box), (target, place) = split(entry.reference), split(entry.candidate)
        moved = rearranged(cut(self._own[target], place), inverted(entry.layout))
        where = entry.candidate.removeprefix(target).strip("[]")
        return Pair(entry.reference, cut(self._reference[source], box), moved, f"rows {where}" if where else "")

    def _fused(self, name: str) -> Iterator[Pair]:
        """Yields the whole tensor of the reference of which the candidate keeps this part apart."""
        source = split(self._entries[name][0].reference)[0]
        entries = self._of_reference[source]
        expected = self._reference[source]
        if len(entries) > 1 and sum(self._pair(entry).expected.numel() for entry in entries) == expected.numel():
            found = torch.empty_like(expected)
            for entry in entries:
                put(self._pair(entry).found, found, split(entry.reference)[1])
            yield Pair(source, expected, found)

    def _of_pair(self, name: str, pair: Pair, level: int = 0) -> Found | None:
        """Tells what makes the found one of the expected one, exactly; None if nothing that is known does."""
        expected, found = pair.expected, pair.found
        alone = constant(found) or self._of_another(name, pair) or self._folded(pair) or rounded(expected, found)
        if alone:
            return alone
        for narrow, base in [("", expected), *halves(expected, found)]:
            if order := in_another_order(base, found, self._heads):
                also = f", and rounded to {narrow}" if narrow else ""
                return dataclasses.replace(order, phrase=order.phrase + also)
        return (
            altered(expected, found, self._constants)
            or resampled(expected, found)
            or self._of_slices(name, pair, level)
        )

    def _of_another(self, name: str, pair: Pair) -> Found | None:
        """Tells whose place the tensor's values belong in, if they are another one's of the reference."""
        for other, entries in self._entries.items():
            for entry in entries:
                source, box = split(entry.reference)
                if entry.reference == pair.reference or (other == name and len(entries) == 1):
                    continue
                if cut(self._reference[source], box).shape == pair.found.shape:
                    values = cut(self._reference[source], box)
                elif self._expected[other].shape == pair.found.shape:
                    values = self._expected[other]
                else:
                    continue
                first = (slice(0, 2),) * values.ndim
                if torch.equal(values[first], pair.found[first]) and torch.equal(values, pair.found):
                    hint, detail = "load each tensor under its own name", f"what belongs in {entry.candidate}"
                    return Found("weights-of-another-tensor", "another tensor's values", hint, detail)
        return None

    def _folded(self, pair: Pair) -> Found | None:
        """Tells of a class token to which the class token's position was added, or that it was exchanged for."""
        if pair.expected.ndim != 3 or pair.expected.shape[:2] != (1, 1):
            return None
        for name, table in self._reference.items():
            shape = tuple(table.shape)
            if len(shape) != 3 or shape[1] < 2 or shape[2] != pair.expected.shape[2] or name in pair.reference:
                continue
            first = table[:1, :1]
            if torch.equal(first, pair.found):
                hint = "load each tensor under its own name"
                return Found("weights-of-another-tensor", "another tensor's values", hint, f"the first row of {name}")
            if torch.allclose((pair.expected + first).double(), pair.found.double(), rtol=1e-6, atol=1e-7):
                hint = "add the position in one place only: in the table's row or in the token"
                return Found("weights-class-position-folded", "the class token's position added to it", hint)
        return None

    def _of_slices(self, name: str, pair: Pair, level: int) -> Found | None:
        """Tells what is wrong with the only slices that differ, along one axis."""
        expected, found = pair.expected, pair.found
        for axis in range(expected.ndim):
            length = expected.shape[axis]
            if level == _MOST_INSIDE or length < 2 or (expected.ndim < 2 and length < 8):
                continue
            off = (expected != found).movedim(axis, 0).reshape(length, -1).any(1).nonzero().flatten()
            if not 0 < len(off) <= 2 * length // 3:
                continue
            first, last = int(off[0]), int(off[-1]) + 1
            slices = [tensor.narrow(axis, first, last - first) for tensor in (expected, found)]
            part = Pair(pair.reference, slices[0], slices[1])
            what = axis_name(axis, tuple(expected.shape))
            where = f"{what} {first}:{last}" if last - first > 1 else f"{what.removesuffix('s')} {first}"
            if part.found.numel() < 4:
                continue
            if inner := self._of_pair(name, part, level + 1):
                return _located(where, inner)
        return None

    def _thirds(self, pair: Pair) -> list[Pair]:
        """Returns query, key and value of a projection that holds all three."""
        width = self._width or len(pair.expected) // 3
        if len(pair.expected) != 3 * width:
            return []
        bounds = [(n * width, (n + 1) * width) for n in range(3)]
        return [Pair(pair.reference, pair.expected[a:b], pair.found[a:b], f"rows {a}:{b}") for a, b in bounds]

    def _of_values(self, name: str, pair: Pair) -> Found | None:
        """Tells whether all values are those of tensors of the same name in other blocks."""
        alike = [self._expected[other] for other in by_pattern(self._expected)[pattern_of(name)]]
        if len(alike) > 1 and bool(torch.isin(pair.found, torch.cat([t.flatten() for t in alike])).all()):
            return Found("weights-rearranged", "values of the same tensors of all blocks, mixed", "keep blocks apart")
        return None

    def _by_slice(self, name: str, pair: Pair) -> Found | None:
        """Tells of numbers that differ from row to row; a bias has those of its layer's weight."""
        owner, _, key = name.rpartition(".")
        weight = f"{owner}.weight"
        if key == "bias" and weight in self._expected and self._own[weight].ndim == 2:
            sides = [
                torch.cat([state[weight], state[name][:, None]], 1) if len(state[name]) == len(state[weight]) else None
                for state in (self._expected, self._own)
            ]
            if sides[0] is not None and sides[1] is not None:
                return altered_by_slice(sides[0], sides[1], self._constants)
        return altered_by_slice(pair.expected, pair.found, self._constants)

    def _of_rest(self, name: str, pair: Pair) -> Found:
        owner, _, key = name.rpartition(".")
        weight = self._own.get(f"{owner}.weight")
        fan_in = weight[0].numel() if key == "bias" and weight is not None and weight.ndim > 1 else None
        return unrelated(pair.expected, pair.found, fan_in)


def _of_another_part(part: Pair, parts: Sequence[Pair]) -> Found | None:
    """Tells whether a part of a tensor holds what belongs in another part of it."""
    for other in parts:
        if other.where != part.where and torch.equal(other.expected, part.found):
            hint = "put query, key and value each in its own rows"
            return Found("weights-of-another-tensor", f"what belongs in {other.where}", hint)
    return None


def _located(where: str, found: Found) -> Found:
    return dataclasses.replace(found, phrase=f"{where}: {found.phrase}") if where else found


def _constants(heads: Sequence[int], width: int | None) -> dict[str, float]:
    """Returns factors that mean something in an attention block, by what they are called."""
    found = {"1/2": 0.5, "2": 2.0, "the sign": -1.0}
    if width and len(heads) == 1:
        head = width // heads[0]
        named = {f"1/sqrt({head})": head**-0.5, f"sqrt({head})": math.sqrt(head), f"1/{head}": 1 / head}
        found |= {f"{name}, the attention's scale": value for name, value in named.items()}
    return found


def seen_together(findings: Mapping[str, list[Found]]) -> dict[str, list[Found]]:
    """Says of zeros what they are in the light of the other findings.

    Beside initial values of the same module they are initial values as well; as the row of a table whose numbers were
    added to the class token they are what is left there.
    """
    untouched = {name.rpartition(".")[0] for name, found in findings.items() if found[0].id == "weights-initial"}
    is_folded = any(f.id == "weights-class-position-folded" for found in findings.values() for f in found)

    def seen(name: str, found: Found) -> Found:
        if name.rpartition(".")[0] in untouched and found.phrase in ("all zeros", FEW_UNRELATED):
            detail = found.detail if found.phrase == FEW_UNRELATED else found.phrase
            return Found("weights-initial", "initial values", UNTRAINED_HINT, detail)
        if found.id == "weights-zero" and found.phrase == "row 0: all zeros" and is_folded:
            return dataclasses.replace(found, id="weights-class-position-folded")
        return found

    return {name: [seen(name, f) for f in found] for name, found in findings.items()}
