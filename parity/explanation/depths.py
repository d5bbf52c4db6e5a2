"""A number that is another one in every block, by one rule: one cause, with the rule in its words."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from parity.explanation.case import block_of
from parity.explanation.formulas.writing import number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from parity.explanation.proof import Group

# how near the numbers are to those of a rule, relative
_NEAR = 1e-7


class _Rule(NamedTuple):
    """What a number of each block is a multiple of.

    Attributes:
        text: with `{}` for what it is multiplied by.
        of: returns it for a block, counted from 0.
    """

    text: str
    of: Callable[[int], float]


# a rule with a factor of 1 is written without it
_RULES = (
    _Rule("{} / sqrt(i + 1)", lambda i: (i + 1) ** -0.5),
    _Rule("{} / (i + 1)", lambda i: 1 / (i + 1)),
    _Rule("{} * sqrt(i + 1)", lambda i: (i + 1) ** 0.5),
    _Rule("{} * (i + 1)", lambda i: i + 1.0),
)


def by_depth(groups: Sequence[Group], layers: int) -> list[Group]:
    """Returns causes of which those that are one kind with another number in every block are one.

    Args:
        groups: causes of one kind and value each.
        layers: how many blocks there are.
    """
    alike: dict[object, list[Group]] = defaultdict(list)
    for group in groups:
        alike[group.changes[0].kind.key if _has_number_of_blocks(group) else id(group)].append(group)
    return [found for members in alike.values() for found in _merged(members, layers)]


def _has_number_of_blocks(group: Group) -> bool:
    change = group.changes[0]
    is_number = isinstance(change.value, float) and "{value}" in change.kind.phrase
    return is_number and all(block_of(change.place) is not None for change in group.changes)


def _merged(members: Sequence[Group], layers: int) -> list[Group]:
    values = {(block_of(change.place) or 0): change.value for group in members for change in group.changes}
    rule = _rule(values) if len(members) > 1 and len(values) == sum(len(group.changes) for group in members) else None
    if rule is None:
        return [_of_all_blocks(group, layers) for group in members]
    first = members[0]
    lines = dict.fromkeys(group.source for group in members if group.source)
    return [
        dataclasses.replace(
            first,
            changes=tuple(change for group in members for change in group.changes),
            phrase=first.changes[0].kind.phrase.replace("{value}", f"{rule}, i the block's number from 0,"),
            where=tuple(dict.fromkeys(place for group in members for place in group.where)),
            source=next(iter(lines), ""),
        )
    ]


def _rule(values: dict[int, float]) -> str | None:
    """Returns the rule that the numbers of some blocks follow, if there is one."""
    for rule in _RULES:
        factors = [value / rule.of(block) for block, value in values.items()]
        if all(math.isclose(factor, factors[0], rel_tol=_NEAR) for factor in factors):
            return _times(rule.text, 1.0 if math.isclose(factors[0], 1, rel_tol=_NEAR) else factors[0])
    blocks = sorted(values)
    if len(blocks) < 3 or blocks != [*range(blocks[0], blocks[-1] + 1)]:
        return None
    numbers = [values[block] for block in blocks]
    steps = [later - earlier for earlier, later in itertools.pairwise(numbers)]
    size = max(map(abs, numbers))
    if all(math.isclose(step, steps[0], abs_tol=_NEAR * size) for step in steps):
        start = numbers[0] - blocks[0] * steps[0]
        return f"{_short(start)} {'-' if steps[0] < 0 else '+'} {_short(abs(steps[0]))} * i"
    ratios = [later / earlier if earlier else math.nan for earlier, later in itertools.pairwise(numbers)]
    if ratios[0] > 0 and all(math.isclose(ratio, ratios[0], rel_tol=_NEAR) for ratio in ratios):
        return _times(f"{{}} * {_short(ratios[0])}^i", numbers[0] / ratios[0] ** blocks[0])
    return None


def _times(text: str, factor: float) -> str:
    if math.isclose(factor, 1, rel_tol=_NEAR):
        return text.removeprefix("{} * ").replace("{}", "1")
    return text.format(_short(factor))


def _short(value: float) -> str:
    """Returns a number that is known up to rounding: in few digits, or as a root."""
    few = float(f"{value:.6g}")
    if math.isclose(few, value, rel_tol=_NEAR):
        return f"{few:g}"
    square = value**-2
    return f"1 / sqrt({round(square)})" if math.isclose(square, round(square), rel_tol=_NEAR) else number(value)


def _of_all_blocks(group: Group, layers: int) -> Group:
    """Returns a cause that doesn't call a number after the number of blocks unless all of them have it."""
    if len({block_of(change.place) for change in group.changes}) == layers:
        return group
    return dataclasses.replace(group, phrase=re.sub(rf"\b{layers} blocks\)", f"{layers})", group.phrase))
