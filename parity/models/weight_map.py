"""The weight map: which tensor of the reference is which tensor of the candidate.

A map is data. Each entry pairs a tensor of the reference, or a slice of one, with a tensor of the candidate, or a slice
of one, and says how the values are rearranged between them. It is read in both directions, and as a TOML file:

```toml
[map]
"encoder.layers.encoder_layer_{i}.ln_1.weight" = "blocks.{i}.norm1.weight"
"encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight[0:768]" = "blocks.{i}.query.weight"
"conv_proj.weight" = { candidate = "patches.weight", layout = "o c p q -> o (p q c), c=3, p=16, q=16" }

[unmapped]
candidate = ["blocks.{i}.scale"]
```

A pattern's `{i}` stands for the number of a block, the same on both sides. Every element of every tensor is used
exactly once, or its tensor is listed under `[unmapped]`; anything else is refused.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import einops
import torch

from parity.errors import MappingError, ParityError, listed
from parity.models.state import hold

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import nn

    Shape = tuple[int, ...]
    Shapes = Mapping[str, Shape]
    Box = tuple[tuple[int, int], ...]

IDENTITY = "identity"


@dataclass(frozen=True)
class Entry:
    """The same values on both sides, and the layout step between them.

    Attributes:
        reference: a tensor's name, or a slice of it: `name[0:64]` (rows), `name[:, 0:64]` (columns).
        candidate: the same on the other side.
        layout: `identity`, or an einops pattern with its sizes, from the reference's side to the candidate's.
    """

    reference: str
    candidate: str
    layout: str = IDENTITY

    def inverted(self) -> Entry:
        """Returns the entry in the other direction."""
        return Entry(self.candidate, self.reference, inverted(self.layout))


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
        lines = ["[map]", *(f"{_quoted(left)} = {right}" for left, right in _patterns(self.entries))]
        leftovers = {
            "reference": self.unmapped_reference, "candidate": self.unmapped_candidate, "unused": self.unused,
        }  # fmt: skip
        if any(leftovers.values()):
            lines += ["", "[unmapped]"]
            lines += [f"{side} = {json.dumps(list(names), indent=4)}" for side, names in leftovers.items() if names]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Patterns:
    """A written map: patterns that any number of blocks can be filled into."""

    rules: tuple[Entry, ...]
    unmapped_reference: tuple[str, ...] = ()
    unmapped_candidate: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def read(path: Path) -> Patterns:
    """Reads a map from a TOML file, in the format at the top of this module.

    Raises:
        ParityError: no such file, no TOML, or another structure.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ParityError(f"cannot read the weight map {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ParityError(f"the weight map {path} is not valid TOML: {error}") from error
    table, leftovers = content.get("map"), content.get("unmapped", {})
    if not isinstance(table, dict) or not all(map(_is_right_side, table.values())):
        raise ParityError(f'the weight map {path} needs a table [map] of lines "reference name" = "candidate name"')
    if not isinstance(leftovers, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in leftovers.values()
    ):
        raise ParityError(f'the weight map {path} needs lists of names under [unmapped], such as candidate = ["name"]')
    rules = tuple(
        Entry(left, right) if isinstance(right, str) else Entry(left, right["candidate"], right.get("layout", IDENTITY))
        for left, right in table.items()
    )
    return Patterns(rules, *(tuple(leftovers.get(side, ())) for side in ("reference", "candidate", "unused")))


def _is_right_side(value: Any) -> bool:
    if isinstance(value, dict):
        return {"candidate"} <= value.keys() <= {"candidate", "layout"} and all(
            isinstance(text, str) for text in value.values()
        )
    return isinstance(value, str)


def expand(patterns: Patterns, reference: Shapes, candidate: Shapes, source: str) -> WeightMap:
    """Fills the tensors of both models into `patterns`.

    Args:
        patterns: a pattern may match nothing (an optional layer).
        reference: name -> shape of every tensor of the reference.
        candidate: the same of the candidate.
        source: where the patterns come from, for messages.

    Raises:
        MappingError: the result is no bijection, or pairs tensors of different shapes.
    """
    rules = [(_as_regex(split(rule.reference)[0]), rule) for rule in patterns.rules]
    entries = []
    for name in reference:
        for regex, rule in rules:
            if match := regex.fullmatch(name):
                left = name + rule.reference[len(split(rule.reference)[0]) :]
                right = rule.candidate.replace("{i}", match.groupdict().get("i") or "")
                entries.append(Entry(left, right, rule.layout))
    left_out = [
        tuple(name for name in shapes if any(_as_regex(split(p)[0]).fullmatch(name) for p in names))
        for names, shapes in (
            (patterns.unmapped_reference, reference),
            (patterns.unmapped_candidate, candidate),
            (patterns.unused, candidate),
        )
    ]
    # a slice that is left out is listed as it was written
    slices = tuple(name for name in patterns.unmapped_reference if split(name)[1])
    whole = tuple(name for name in left_out[0] if not any(split(part)[0] == name for part in slices))
    found = WeightMap(tuple(entries), source, "", (*whole, *slices), left_out[1], left_out[2])
    require_bijection(found, reference, candidate)
    return found


def by_name(reference: nn.Module, candidate: nn.Module) -> WeightMap:
    """Maps tensors of equal names, or by one of the written maps that are shipped in `maps/`.

    Raises:
        MappingError: neither is a bijection; the message lists what the closest one leaves over.
    """
    shapes = state_shapes(reference), state_shapes(candidate)
    tables = {"of equal names": Patterns(tuple(Entry(name, name) for name in shapes[0]))} | _shipped()
    failures = []
    for source, patterns in tables.items():
        try:
            found = expand(patterns, *shapes, source)
            require_separate(found, reference, candidate)
        except MappingError as error:
            regexes = [_as_regex(split(rule.candidate)[0]) for rule in patterns.rules]
            known = sum(any(regex.fullmatch(name) for regex in regexes) for name in shapes[1])
            failures.append((known, error.with_traceback(None)))  # a traceback keeps every caller's tensors alive
        else:
            return found
    _, closest = max(failures, key=lambda failure: failure[0])
    raise closest


@functools.cache
def _shipped() -> dict[str, Patterns]:
    return {file.stem: read(file) for file in sorted((Path(__file__).parents[1] / "maps").glob("*.toml"))}


def state_shapes(module: nn.Module) -> dict[str, Shape]:
    """Returns the name and shape of every tensor in the module's state dict; counters and indices are no weights."""
    return {k: tuple(tensor.shape) for k, tensor in module.state_dict().items() if tensor.is_floating_point()}


def require_separate(found: WeightMap, reference: nn.Module, candidate: nn.Module) -> None:
    """Checks that no tensors of the reference are mapped to one that the candidate holds under several names.

    Raises:
        MappingError: some are; the message says which.
    """
    ours, theirs = (
        {name: id(tensor) for name, tensor in module.state_dict(keep_vars=True).items()}
        for module in (reference, candidate)
    )
    sources: dict[int, dict[str, set[tuple[int, Box]]]] = defaultdict(lambda: defaultdict(set))
    for entry in found.entries:
        (source, box), (name, _) = split(entry.reference), split(entry.candidate)
        sources[theirs[name]][name].add((ours[source], box))
    shared = [list(by_name) for by_name in sources.values() if len(set(map(frozenset, by_name.values()))) > 1]
    if shared:
        raise MappingError(
            f"the candidate has one tensor by the names {listed(shared[0])}, where the reference has "
            f"{len(shared[0])}{f', and {len(shared) - 1} more like it' if len(shared) > 1 else ''}"
        )


def require_bijection(found: WeightMap, reference: Shapes, candidate: Shapes) -> None:
    """Checks that every element of every tensor is used exactly once, or left out by name.

    Raises:
        MappingError: it isn't; the message lists the tensors.
    """
    sides = (
        ("the reference", reference, [e.reference for e in found.entries], found.unmapped_reference),
        ("the candidate", candidate, [e.candidate for e in found.entries],
         (*found.unmapped_candidate, *found.unused)),
    )  # fmt: skip
    complaints, left_over = [], []
    for owner, shapes, parts, left_out in sides:
        boxes = defaultdict(list)
        for part in (*parts, *left_out):
            name, box = split(part)
            boxes[name].append(box)
        missing = [name for name in boxes if name not in shapes]
        twice = [name for name, b in boxes.items() if name in shapes and _overlap(b, shapes[name])]
        unknown = [
            name for name, shape in shapes.items()
            if name not in twice and sum(_volume(box, shape) for box in boxes[name]) < math.prod(shape)
        ]  # fmt: skip
        left_over.append(unknown)
        for names, what in (
            (missing, f"{owner} lacks {{}} of the weight map {found.source}'s tensors"),
            (twice, f"the weight map {found.source} uses {{}} of {owner}'s tensors twice"),
            (unknown, f"the weight map {found.source} doesn't know {{}} of {owner}'s tensors"),
        ):
            if names:
                complaints.append(f"{what.format(len(names))}: {listed(names)}")
        if missing and owner == "the candidate":
            left_over[0] += [e.reference for e in found.entries if split(e.candidate)[0] in missing]
    if complaints:
        raise MappingError("; ".join(complaints), *left_over)
    misshapen = [
        f"{e.reference} {shape} = {e.candidate} {whole}"
        for e in found.entries
        if (shape := _shape_after(e, reference)) != (whole := _part_shape(e.candidate, candidate))
    ]
    if misshapen:
        raise MappingError(f"tensors of different shapes are mapped to each other: {listed(misshapen)}")


def inverted(layout: str) -> str:
    """Returns a layout step in the other direction."""
    if layout == IDENTITY:
        return layout
    pattern, *sizes = layout.split(",")
    left, right = pattern.split("->")
    return ",".join((f"{right.strip()} -> {left.strip()}", *sizes))


def split(part: str) -> tuple[str, Box]:
    """Splits `name[a:b, c:d]` into the name and the bounds along each axis; (0, -1) means a whole axis."""
    match = re.fullmatch(r"(.*?)\[([\d:, ]+)\]", part) if part.endswith("]") else None
    if match is None:
        return part, ()
    bounds = []
    for axis in match[2].split(","):
        start, _, stop = axis.strip().partition(":")
        bounds.append((int(start or 0), int(stop or -1)))
    return match[1], tuple(bounds)


def rearranged(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """Carries out a layout step; `identity` returns the tensor itself.

    Raises:
        MappingError: the pattern doesn't fit the tensor.
    """
    if layout == IDENTITY:
        return tensor
    pattern, *sizes = (text.strip() for text in layout.split(","))
    try:
        lengths = {name.strip(): int(length) for name, length in (size.split("=") for size in sizes)}
        return einops.rearrange(tensor, pattern, **lengths).contiguous()
    except (einops.EinopsError, ValueError) as error:
        raise MappingError(f"the layout {layout!r} doesn't fit a tensor of shape {tuple(tensor.shape)}") from error


def cut(tensor: torch.Tensor, box: Box) -> torch.Tensor:
    """Returns the part of a tensor within the bounds of `split`; storage is shared."""
    for axis, (start, stop) in enumerate(box):
        tensor = tensor.narrow(axis, start, (tensor.shape[axis] if stop < 0 else stop) - start)
    return tensor


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


def _bounds(box: Box, shape: Shape) -> list[tuple[int, int]]:
    bounds = [(start, shape[axis] if stop < 0 else stop) for axis, (start, stop) in enumerate(box)]
    return bounds + [(0, length) for length in shape[len(box) :]]


def _volume(box: Box, shape: Shape) -> int:
    return math.prod(max(stop - start, 0) for start, stop in _bounds(box, shape))


def _overlap(boxes: Sequence[Box], shape: Shape) -> bool:
    bounds = [_bounds(box, shape) for box in boxes]
    if len(bounds) == 1:
        return False
    pairs = itertools.combinations(sorted(bounds), 2)
    return any(all(a[0] < b[1] and b[0] < a[1] for a, b in zip(one, other, strict=True)) for one, other in pairs)


def _part_shape(part: str, shapes: Shapes) -> Shape:
    name, box = split(part)
    try:
        return tuple(cut(torch.empty(shapes[name], device="meta"), box).shape)
    except (RuntimeError, IndexError) as error:
        raise MappingError(f"the weight map takes {part} of a tensor of shape {shapes[name]}") from error


def _shape_after(entry: Entry, reference: Shapes) -> Shape:
    part = _part_shape(entry.reference, reference)
    if entry.layout == IDENTITY:
        return part
    return tuple(rearranged(torch.empty(part, device="meta"), entry.layout).shape)


_NUMBER = re.compile(r"(?<![\d\[:])(?<!: )\d+(?![\d:\]=])")


def _patterns(entries: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Yields the lines of a TOML table: as few as give exactly `entries` when they are expanded again."""
    entries = list(entries)
    names = {split(entry.reference)[0] for entry in entries}
    alike: dict[str, list[Entry]] = defaultdict(list)  # by the reference's pattern
    for entry in entries:
        number = _NUMBER.search(split(entry.reference)[0])
        alike[_with_gap(entry.reference, number) if number else entry.reference].append(entry)
    for members in alike.values():
        rule = _rule(members)
        if rule:
            regex = _as_regex(split(rule.reference)[0])
            covered = {split(entry.reference)[0] for entry in members}
            if {name for name in names if regex.fullmatch(name)} != covered or len(covered) < len(members):
                rule = None
        for line in [rule] if rule else members:
            yield line.reference, _right_side(line)


def _rule(entries: list[Entry]) -> Entry | None:
    """Writes entries whose names differ by numbers alone as one, if the same number counts them on both sides."""
    numbers = [(_NUMBER.search(split(e.reference)[0]), list(_NUMBER.finditer(e.candidate))) for e in entries]
    for position in range(min(len(right) for _, right in numbers)):
        rules = {
            Entry(_with_gap(e.reference, left), _with_gap(e.candidate, right[position]), e.layout)
            for e, (left, right) in zip(entries, numbers, strict=True)
            if left and left[0] == right[position][0]
        }
        if len(rules) == 1 and all(left and left[0] == right[position][0] for left, right in numbers):
            return rules.pop()
    return None


def _with_gap(text: str, number: re.Match[str]) -> str:
    return f"{text[: number.start()]}{{i}}{text[number.end() :]}"


def _right_side(entry: Entry) -> str:
    if entry.layout == IDENTITY:
        return _quoted(entry.candidate)
    return f"{{ candidate = {_quoted(entry.candidate)}, layout = {_quoted(entry.layout)} }}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _as_regex(pattern: str) -> re.Pattern[str]:
    first, *rest = (re.escape(part) for part in pattern.split("{i}"))
    return re.compile(first + "".join((r"(?P<i>\d+)" if n == 0 else "(?P=i)") + part for n, part in enumerate(rest)))
