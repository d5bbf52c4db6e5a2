"""The weight map: which tensor of the reference is which tensor of the candidate.

A map is data: pairs of name patterns in a TOML file, read in both directions. It is a bijection and is refused when it
is not: every tensor of both models is used exactly once.

```toml
[map]
"encoder.layers.encoder_layer_{i}.ln_1.weight" = "attn_layers.{i}.pre_norm.weight"
```

A pattern's `{i}` stands for the number of a block, the same on both sides.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parity.errors import MappingError, ParityError, listed
from parity.state import hold

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    Shapes = Mapping[str, tuple[int, ...]]

_SHIPPED = Path(__file__).parent / "maps"


@dataclass(frozen=True)
class Entry:
    """One reference tensor, the candidate tensor that holds the same values, and the layout step between them."""

    reference: str
    candidate: str
    layout: str = "identity"


@dataclass(frozen=True)
class WeightMap:
    """A bijection between the tensors of a reference and those of a candidate."""

    entries: tuple[Entry, ...]
    source: str

    def apply(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Renames a reference's state dict to the candidate's names; values and storage are shared, not copied.

        Raises:
            MappingError: `state` lacks a tensor of the map, or has one that the map doesn't know.
        """
        names = [entry.reference for entry in self.entries]
        missing, extra = [name for name in names if name not in state], sorted(state.keys() - set(names))
        if missing:
            raise MappingError(f"the state dict lacks {len(missing)} tensors of the weight map: {listed(missing)}")
        if extra:
            raise MappingError(
                f"the state dict has {len(extra)} tensors that are not in the weight map: {listed(extra)}"
            )
        return {entry.candidate: state[entry.reference] for entry in self.entries}

    def load(self, candidate: nn.Module, state: Mapping[str, torch.Tensor], *, assign: bool = False) -> None:
        """Puts a reference's state dict into `candidate`.

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
            candidate.load_state_dict(mapped)

    def invert(self) -> WeightMap:
        """Returns the map in the other direction, from the candidate's names to the reference's."""
        return WeightMap(tuple(Entry(e.candidate, e.reference, e.layout) for e in self.entries), self.source)


def read_patterns(path: Path) -> dict[str, str]:
    """Reads the table `[map]` of a TOML file: reference pattern -> candidate pattern.

    Raises:
        ParityError: no such file, no TOML, or no table of text to text.
    """
    try:
        with path.open("rb") as file:
            table = tomllib.load(file).get("map")
    except OSError as error:
        raise ParityError(f"cannot read the weight map {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ParityError(f"the weight map {path} is not valid TOML: {error}") from error
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise ParityError(f'the weight map {path} needs a table [map] of lines "reference name" = "candidate name"')
    return table


def expand(patterns: Mapping[str, str], reference: Shapes, candidate: Shapes, source: str) -> WeightMap:
    """Matches `patterns` against the tensors of both models.

    Args:
        patterns: reference pattern -> candidate pattern. A pattern may match nothing (an optional layer).
        reference: name -> shape of every tensor of the reference.
        candidate: the same of the candidate.
        source: where the patterns come from, for messages.

    Raises:
        MappingError: the result is no bijection, or pairs tensors of different shapes.
    """
    rules = [(_as_regex(left), right) for left, right in patterns.items()]
    entries = []
    for name in reference:
        targets = [
            right.replace("{i}", match.groupdict().get("i") or "")
            for regex, right in rules
            if (match := regex.fullmatch(name))
        ]
        if len(targets) > 1:
            raise MappingError(f"the weight map {source} names {name} more than once: {listed(targets)}")
        entries += [Entry(name, target) for target in targets]

    mapped = {entry.candidate for entry in entries}
    if len(mapped) < len(entries):
        twice = sorted({e.candidate for e in entries if sum(o.candidate == e.candidate for o in entries) > 1})
        raise MappingError(f"the weight map {source} uses a tensor of the candidate twice: {listed(twice)}")
    ruled = {entry.reference for entry in entries}
    unknown = [name for name in reference if name not in ruled]
    missing = [entry for entry in entries if entry.candidate not in candidate]
    extra = [name for name in candidate if name not in mapped]
    if unknown or missing or extra:
        raise MappingError(
            "; ".join(
                f"{owner} {len(names)} of {counterpart}'s tensors: {listed(names)}"
                for owner, counterpart, names in (
                    (f"the weight map {source} doesn't know", "the reference", unknown),
                    ("the candidate lacks", f"the weight map {source}", [entry.candidate for entry in missing]),
                    (f"the weight map {source} doesn't know", "the candidate", extra),
                )
                if names
            ),
            [*unknown, *(entry.reference for entry in missing)],
            extra,
        )
    misshapen = [
        f"{e.reference} {reference[e.reference]} = {e.candidate} {candidate[e.candidate]}"
        for e in entries
        if reference[e.reference] != candidate[e.candidate]
    ]
    if misshapen:
        raise MappingError(f"tensors of different shapes are mapped to each other: {listed(misshapen)}")
    return WeightMap(tuple(entries), source)


def find(reference: nn.Module, candidate: nn.Module, path: Path | None = None) -> WeightMap:
    """Finds the weight map between two modules.

    Args:
        reference: the model taken as right.
        candidate: the model under test.
        path: a written map to use; without it, equal names are tried, then the maps that are shipped in `maps/`.

    Raises:
        ParityError: the file cannot be read.
        MappingError: no map is a bijection; the message lists what the closest one leaves over.
    """
    shapes = state_shapes(reference), state_shapes(candidate)
    if path is not None:
        return expand(read_patterns(path), *shapes, str(path))
    tables = {"of equal names": {name: name for name in shapes[0]}}
    tables |= {file.stem: read_patterns(file) for file in sorted(_SHIPPED.glob("*.toml"))}
    failures = []
    for source, patterns in tables.items():
        try:
            return expand(patterns, *shapes, source)
        except MappingError as error:
            known = sum(any(_as_regex(right).fullmatch(name) for right in patterns.values()) for name in shapes[1])
            failures.append((known, error))
    _, closest = max(failures, key=lambda failure: failure[0])
    raise closest


def state_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the name and shape of every tensor in the module's state dict."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _as_regex(pattern: str) -> re.Pattern[str]:
    first, *rest = (re.escape(part) for part in pattern.split("{i}"))
    return re.compile(first + "".join((r"(?P<i>\d+)" if n == 0 else "(?P=i)") + part for n, part in enumerate(rest)))
