"""The written form of a weight map: a TOML file of patterns that any number of blocks can be filled into.

```toml
[map]
"encoder.layers.encoder_layer_{i}.ln_1.weight" = "blocks.{i}.norm1.weight"
"encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight[0:768]" = "blocks.{i}.query.weight"
"encoder.layers.encoder_layer_{i}.self_attention.in_proj_weight[768:1536]" = "blocks.{i}.key_value.weight[0:64 of 128]"
"conv_proj.weight" = { candidate = "patches.weight", layout = "o c p q -> o (p q c), c=3, p=16, q=16" }

[unmapped]
candidate = ["blocks.{i}.scale"]
```

A pattern's `{i}` stands for the number of a block, the same on both sides; `{{` and `}}` stand for braces of a name,
and `name[:]` for a whole tensor whose name reads as a slice. Every element of every tensor is used exactly once, or its
tensor is listed under `[unmapped]`; anything else is refused.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parity.errors import ParityError, listed
from parity.models.weight_maps.entries import IDENTITY, Entry, split
from parity.reading import content_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Patterns:
    """A written map: patterns that any number of blocks can be filled into."""

    rules: tuple[Entry, ...]
    unmapped_reference: tuple[str, ...] = ()
    unmapped_candidate: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def to_toml(self) -> str:
        """Writes the map as `read` reads it."""
        lines = ["[map]", *(f"{_quoted(rule.reference)} = {_right_side(rule)}" for rule in self.rules)]
        leftovers = {
            "reference": self.unmapped_reference, "candidate": self.unmapped_candidate, "unused": self.unused,
        }  # fmt: skip
        if any(leftovers.values()):
            lines += ["", "[unmapped]"]
            for side, names in leftovers.items():
                lines += [f"{side} = [", *(f"    {_quoted(name)}," for name in names), "]"] if names else []
        return "\n".join(lines) + "\n"


def read_map(path: Path) -> Patterns:
    """Reads a map from a TOML file, in the format at the top of this module.

    Raises:
        ParityError: no such file, no TOML, or another structure.
    """
    try:
        content = tomllib.loads(content_of(path).decode())
    except OSError as error:
        raise ParityError(f"cannot read the weight map {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ParityError(f"the weight map {path} is not valid TOML: {error}") from error
    table, leftovers = content.get("map"), content.get("unmapped", {})
    if not isinstance(table, dict) or not all(map(_is_right_side, table.values())):
        raise ParityError(f'the weight map {path} needs a table [map] of lines "reference name" = "candidate name"')
    _require_known(content, _TABLES, f"the weight map {path}")
    if not isinstance(leftovers, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in leftovers.values()
    ):
        raise ParityError(f'the weight map {path} needs lists of names under [unmapped], such as candidate = ["name"]')
    _require_known(leftovers, _SIDES, f"the table [unmapped] of the weight map {path}")
    for name in (*table, *(right if isinstance(right, str) else right["candidate"] for right in table.values())):
        if _BRACKETS.search(name) and not split(name)[1]:
            raise ParityError(f"the weight map {path} has no slice in {name}: write name[0:64], or name[:, 0:64]")
    rules = tuple(
        Entry(left, right) if isinstance(right, str) else Entry(left, right["candidate"], right.get("layout", IDENTITY))
        for left, right in table.items()
    )
    return Patterns(rules, *(tuple(leftovers.get(side, ())) for side in _SIDES))


_TABLES, _SIDES = ("map", "unmapped"), ("reference", "candidate", "unused")


def _require_known(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            meant = difflib.get_close_matches(key, known, n=1)
            advice = f"did you mean {meant[0]}?" if meant else f"it may have {listed([*known])}"
            raise ParityError(f"{where} has an unknown key {key}: {advice}")


# what can only be meant as a slice
_BRACKETS = re.compile(r"\[[\d\s]*[:,][\d\s:,of]*\]$")


def _is_right_side(value: Any) -> bool:
    if isinstance(value, dict):
        return {"candidate"} <= value.keys() <= {"candidate", "layout"} and all(
            isinstance(text, str) for text in value.values()
        )
    return isinstance(value, str)


_NUMBER = re.compile(r"(?<![\d\[:])(?<!: )(?<!of )\d+(?![\d:\]=])")


def rules_of(entries: Iterable[Entry], left_out: Iterable[str] = ()) -> Iterator[Entry]:
    """Yields the rules of a written map: as few as give exactly `entries` when they are expanded again.

    Args:
        entries: of the map.
        left_out: tensors of the reference, or slices of them, that it leaves out.
    """
    entries = list(entries)
    names = {split(part)[0] for part in (*(entry.reference for entry in entries), *left_out)}
    alike: dict[str, list[Entry]] = defaultdict(list)  # by the reference's pattern
    for entry in entries:
        number = _NUMBER.search(split(entry.reference)[0])
        alike[_with_gap(entry.reference, number) if number else entry.reference].append(entry)
    for members in alike.values():
        rule = _rule(members)
        if rule:
            regex = as_regex(split(rule.reference)[0])
            covered = {split(entry.reference)[0] for entry in members}
            if {name for name in names if regex.fullmatch(name)} != covered or len(covered) < len(members):
                rule = None
        yield from (
            [rule]
            if rule
            else [Entry(as_pattern(entry.reference), as_pattern(entry.candidate), entry.layout) for entry in members]
        )


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
    return f"{as_pattern(text[: number.start()])}{{i}}{as_pattern(text[number.end() :])}"


def _right_side(entry: Entry) -> str:
    if entry.layout == IDENTITY:
        return _quoted(entry.candidate)
    return f"{{ candidate = {_quoted(entry.candidate)}, layout = {_quoted(entry.layout)} }}"


def _quoted(text: str) -> str:
    """Returns a name as a string of TOML that a terminal can show.

    Raises:
        ParityError: it is no text, but half of a surrogate pair, which no TOML can hold.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ParityError(f"no file can hold the name {text!r}: give it one of letters") from error
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in quoted)


_TOKEN = re.compile(r"\{\{|\}\}|\{i\}")


def as_pattern(part: str) -> str:
    """Returns the pattern that stands for one tensor, or slice of one, alone."""
    return part.replace("{", "{{").replace("}", "}}")


def filled(pattern: str, number: str) -> str:
    """Returns the tensor, or slice of one, that a pattern stands for in the block of this number."""
    return _TOKEN.sub(lambda token: number if token[0] == "{i}" else token[0][0], pattern)


def as_regex(pattern: str) -> re.Pattern[str]:
    """Returns what matches the names that a pattern stands for; a block's number is its group `i`."""
    texts, marks = _TOKEN.split(pattern), _TOKEN.findall(pattern)
    regex, number = re.escape(texts[0]), r"(?P<i>\d+)"
    for mark, text in zip(marks, texts[1:], strict=True):
        if mark == "{i}":
            regex, number = regex + number, "(?P=i)"
        else:
            regex += re.escape(mark[0])
        regex += re.escape(text)
    return re.compile(regex)
