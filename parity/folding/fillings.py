"""What is given to tensors that only the target has: values under which they do nothing, or those of other tensors."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from parity.folding.drafts import Draft, alike, neutral, parts_of, role_of
from parity.folding.sides import attention_scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from parity.folding.sides import Side
    from parity.mapping import Uses

    # given the source's tensors, and those of the target that are there already
    Value = Callable[[Draft, Draft], torch.Tensor]


@dataclass(frozen=True)
class Filling:
    """Values for tensors that are alike and that only the target has: what is said of them, and each one's value."""

    words: str
    values: tuple[tuple[str, Value], ...]
    moved: tuple[str, ...] = ()


def fillings(
    gap: Sequence[tuple[str, ...]],
    target: Side,
    source: Side,
    left: Sequence[Sequence[str]],
    fixed: Mapping[str, torch.Tensor],
) -> list[Filling]:
    """Returns every kind of values that tensors of the target may get, the likeliest first.

    Args:
        gap: the tensors of one operation, for each block.
        target: whose they are.
        source: whose weights are moved.
        left: what only the source has, and might be the same; one list for all blocks.
        fixed: values that the source's code is known to have in their place, by name.
    """
    uses, own, theirs, scale = target.uses, Draft(target.own), Draft(source.own), attention_scale(source, target)
    names = [name for each in gap for name in each]
    as_built = {name: functools.partial(_own_value, own, name) for name in names if not own[name].is_meta}
    if as_built and all(role_of(name, uses).kind == "unused" for name in names):
        return [Filling("", tuple(as_built.items()))]
    usual = {name: neutral(name, uses, own[name]) for name in names}
    found: list[tuple[str, Mapping[str, Value], tuple[str, ...]]] = []
    if fixed.keys() >= {*names}:
        values = {name: _constant(fixed[name]) for name in names}
        found.append((f"filled with what the {source.owner} adds instead", values, ()))
    for slot in left:
        if len(gap[0]) == 1 and len(slot) == len(gap) and theirs[slot[0]].numel() == own[names[0]].numel():
            values = {name: functools.partial(_taken, part) for name, part in zip(names, slot, strict=True)}
            found.append((f"filled with {alike(slot)}", values, tuple(slot)))
    found.append((f"filled with {_in_words(usual)}", {name: _constant(value) for name, value in usual.items()}, ()))
    if as_built:
        found.append(("left as built", as_built, ()))
    for copied in _neighbours(gap, uses, own):
        values = {name: functools.partial(_copied, other) for name, other in copied.items()}
        found.append((f"filled with a copy of {alike([*copied.values()])}", values, ()))
    for number in (1.0, 0.0, scale):
        same = {name: torch.full_like(value, number, dtype=torch.float64) for name, value in usual.items()}
        is_single = len(gap[0]) == 1 and (number != scale or usual[names[0]].numel() == 1)
        if is_single and not torch.equal(same[names[0]], usual[names[0]].double()):
            words = "attention's scale, 1 / sqrt(head width)" if number == scale else _in_words(same)
            found.append((f"filled with {words}", {name: _constant(value) for name, value in same.items()}, ()))
    return [Filling(f"{alike(names)}: {words}", tuple(values.items()), moved) for words, values, moved in found]


def _in_words(values: Mapping[str, torch.Tensor]) -> str:
    kinds = ["ones" if bool((v == 1).all()) else "the identity" if bool(v.any()) else "zeros" for v in values.values()]
    return " and ".join(dict.fromkeys(kinds))


def _neighbours(gap: Sequence[tuple[str, ...]], uses: Uses, own: Draft) -> Iterator[dict[str, str]]:
    """Yields tensors of the same sort that are used shortly before or after, which the gap may be copies of."""
    taken = {name for names in gap for name in names}
    for steps in (1, -1, 2, -2):
        copied: dict[str, str] = {}
        for name in taken:
            role = role_of(name, uses)
            at = role.at + steps
            if role.at >= 0 and 0 <= at < len(uses.operations):
                alike_there = [f"{view}" for kind, view in parts_of(uses.operations[at]) if kind == role.kind]
                same = [other for other in alike_there if own[other].shape == own[name].shape]
                if same:
                    copied[name] = same[0]
        if copied.keys() == taken and taken.isdisjoint(copied.values()):
            yield {name: copied[name] for names in gap for name in names}


def _constant(value: torch.Tensor) -> Value:
    return lambda *_: value


def _taken(part: str, draft: Draft, _: Draft) -> torch.Tensor:
    return draft[part].clone()


def _copied(part: str, _: Draft, mapped: Draft) -> torch.Tensor:
    return mapped[part].clone()


def _own_value(own: Draft, name: str, *_: Draft) -> torch.Tensor:
    return own[name]
