"""From a written map to the weight map of two models: its patterns filled with their tensors."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from parity.errors import MappingError
from parity.models.state import state_shapes
from parity.models.weight_maps.bijection import require_bijection, require_separate
from parity.models.weight_maps.entries import Entry, split, whole
from parity.models.weight_maps.weight_map import WeightMap
from parity.models.weight_maps.written_map import Patterns, as_pattern, as_regex, filled, read_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from parity.models.state import Shapes


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
    rules = [(as_regex(split(rule.reference)[0]), rule) for rule in patterns.rules]
    entries = []
    for name in reference:
        for regex, rule in rules:
            if match := regex.fullmatch(name):
                number = match.groupdict().get("i") or ""
                left = name + rule.reference[len(split(rule.reference)[0]) :]
                entries.append(Entry(left, filled(rule.candidate, number), rule.layout))
    left_out = (
        _left_out(patterns.unmapped_reference, reference),
        _left_out(patterns.unmapped_candidate, candidate),
        _left_out(patterns.unused, candidate),
    )
    found = WeightMap(tuple(entries), source, "", *left_out)
    require_bijection(found, reference, candidate)
    return found


def _left_out(names: Sequence[str], shapes: Shapes) -> tuple[str, ...]:
    """Returns the tensors that patterns leave out; a slice that is left out is listed as it was written."""
    slices = tuple(filled(name, "") for name in names if split(name)[1])
    cut = {split(part)[0] for part in slices}
    regexes = [as_regex(name) for name in names if not split(name)[1]]
    tensors = (name for name in shapes if name not in cut and any(regex.fullmatch(name) for regex in regexes))
    return (*map(whole, tensors), *slices)


def by_name(reference: nn.Module, candidate: nn.Module) -> WeightMap:
    """Maps tensors of equal names, or by one of the written maps that are shipped in `maps/`.

    Raises:
        MappingError: neither is a bijection; the message lists what the closest one leaves over.
    """
    shapes = state_shapes(reference), state_shapes(candidate)
    names = [as_pattern(whole(name)) for name in shapes[0]]
    tables = {"of equal names": Patterns(tuple(Entry(name, name) for name in names))} | _shipped()
    failures = []
    for source, patterns in tables.items():
        try:
            found = expand(patterns, *shapes, source)
            require_separate(found, reference, candidate)
        except MappingError as error:
            regexes = [as_regex(split(rule.candidate)[0]) for rule in patterns.rules]
            known = sum(any(regex.fullmatch(name) for regex in regexes) for name in shapes[1])
            failures.append((known, error.with_traceback(None)))  # a traceback keeps every caller's tensors alive
        else:
            return found
    _, closest = max(failures, key=lambda failure: failure[0])
    raise closest


@functools.cache
def _shipped() -> dict[str, Patterns]:
    return {file.stem: read_map(file) for file in sorted((Path(__file__).parents[2] / "maps").glob("*.toml"))}
