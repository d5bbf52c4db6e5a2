"""What differs from block to block and is one cause: a number that follows a rule, a line that blocks share."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from parity.explanation.case import block_of
from parity.explanation.formulas.terms import number
from parity.explanation.formulas.writing import quoted
from parity.explanation.proof import GRAFT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from parity.explanation.bending import Change
    from parity.explanation.proof import Group

# a number in a formula, that is no part of a name
_NUMBER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?(?:e-?\d+)?)(?![\w.])")

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


def by_line(groups: Sequence[Group], sources: Mapping[Change, tuple[str, ...]]) -> list[Group]:
    """Returns causes of which those are one that are the candidate's own operations in one line of its source.

    Positions that are added once more are among them where that line does so.

    Args:
        groups: causes of one kind and value each.
        sources: the lines that changes come from.
    """
    alike: dict[object, list[Group]] = defaultdict(list)
    for group in groups:
        is_one = group.source and group.id in (GRAFT, "position-doubled")
        alike[group.source if is_one else id(group)].append(group)
    return [found for members in alike.values() for found in _of_one_line(members, sources)]


def _of_one_line(members: Sequence[Group], sources: Mapping[Change, tuple[str, ...]]) -> Sequence[Group]:
    grafts = [group for group in members if group.id == GRAFT]
    if len(members) == 1 or not grafts:
        return members
    changes = tuple(change for group in members for change in group.changes)
    phrase = _by_rule(grafts) if grafts == members else ""
    phrase = phrase or quoted([line for change in grafts[0].changes[:1] for line in sources.get(change, ())])
    if not phrase:
        return members
    where = tuple(dict.fromkeys(place for group in members for place in group.where))
    shortest = min(grafts, key=lambda group: len(group.instead))
    return [dataclasses.replace(shortest, changes=changes, phrase=phrase, where=where)]


def _by_rule(grafts: Sequence[Group]) -> str:
    """Returns the formula of all blocks, if those of single ones differ by numbers that follow rules."""
    parts = [_NUMBER.split(group.phrase) for group in grafts]
    if len({tuple(part[::2]) for part in parts}) > 1:
        return ""
    phrase = ""
    for n, text in enumerate(parts[0]):
        rule: str | None = text
        if len({part[n] for part in parts}) > 1:
            blocks = [(block_of(change.place), float(part[n])) for group, part in zip(grafts, parts, strict=True)
                      for change in group.changes]  # fmt: skip
            values = {block: value for block, value in blocks if block is not None}
            rule = _rule(values) if len(values) == len(blocks) else None
            inner = rule and re.sub(r"^\(([^()]*)\)$", r"\1", rule)
            rule = inner if phrase.endswith("[") else inner and f"({inner})"
        if rule is None:
            return ""
        phrase += rule
    return f"{phrase}, i the block's number from 0,"


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
        slope = _times("{} * i", abs(steps[0]))
        if abs(start) <= _NEAR * size:
            return f"{'-' * (steps[0] < 0)}{slope}"
        return f"{_short(start)} {'-' if steps[0] < 0 else '+'} {slope}"
    ratios = [later / earlier if earlier else math.nan for earlier, later in itertools.pairwise(numbers)]
    if ratios[0] > 0 and all(math.isclose(ratio, ratios[0], rel_tol=_NEAR) for ratio in ratios):
        return _times(f"{{}} * {_short(ratios[0])}^i", numbers[0] / ratios[0] ** blocks[0])
    return None


def _times(text: str, factor: float) -> str:
    if math.isclose(factor, 1, rel_tol=_NEAR):
        return text.removeprefix("{} * ").replace("{}", "1")
    return text.format(_short(factor))


def _short(value: float) -> str:
    """Returns a number that is known up to rounding: in few digits, as a fraction, or as a root."""
    few = float(f"{value:.6g}")
    if math.isclose(few, value, rel_tol=_NEAR):
        return f"{few:g}"
    square = value**-2
    if not math.isclose(square, round(square), rel_tol=_NEAR):
        return number(value)
    root = math.isqrt(round(square))
    return f"1 / {root}" if root**2 == round(square) else f"1 / sqrt({round(square)})"


def _of_all_blocks(group: Group, layers: int) -> Group:
    """Returns a cause that doesn't call a number after the number of blocks unless all of them have it."""
    if len({block_of(change.place) for change in group.changes}) == layers:
        return group
    return dataclasses.replace(group, phrase=re.sub(rf"\b{layers} blocks\)", f"{layers})", group.phrase))
