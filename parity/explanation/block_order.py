"""Which block's weights a candidate uses one after the other, or in several blocks, and what to say of it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from parity.errors import listed
from parity.explanation.bent_vit import BLOCK
from parity.explanation.case import block_of
from parity.explanation.causes.places import joined
from parity.explanation.proof import MOST_LINES, Group
from parity.models import split
from parity.tracing import by_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from parity.explanation.case import Case
    from parity.models import WeightMap


def left_out(mapping: WeightMap, order: Sequence[int] | None) -> list[str]:
    """Returns the reference's tensors without a counterpart that a model of these blocks uses."""
    names = list(mapping.unmapped_reference)
    if order is None:
        return names
    blocks = set(order)
    return [name for name in names if (n := block_of(name)) is None or n in blocks]


def order_of_blocks(case: Case) -> tuple[tuple[int, ...], Group | None]:
    """Returns which block's weights the candidate uses one after the other, and what to say if that is odd."""
    layers = case.config["num_layers"]
    usual, order = tuple(range(layers)), _order_of_calls(case)
    if len({*order}) < len(order):
        return order, _shared(order, layers)
    mapped = {n for e in case.subject.mapping.entries if (n := block_of(split(e.reference)[0])) is not None}
    if 0 < len(order) < layers:  # some are never called
        mapped = {*order}
    is_unknown = not mapped and case.subject.mapping.unmapped_candidate  # it may have blocks of its own
    if len(mapped) < layers and not is_unknown:
        missing = [n for n in usual if n not in mapped]
        odd = _odd("block-missing", f"{len(mapped)} blocks", f"{layers} blocks", f"depth={layers}", missing)
        return order if {*order} == mapped else tuple(sorted(mapped)), odd
    if sorted(order) == list(usual) != list(order):
        moved = [n for n in usual if order[n] != n]
        return order, _odd("block-order", f"blocks in the order {', '.join(map(str, order))}", "0, 1, 2 ...",
                           "sort blocks by number: int(name.split('.')[1])", moved)  # fmt: skip
    return usual, None


def _order_of_calls(case: Case) -> tuple[int, ...]:
    """Returns the reference's blocks in the order in which the candidate calls them, by a module of each.

    The module is one that is called as rarely as any in its block; others may be used for several things. Where the
    whole model is called more than once, no block is called again.
    """
    partners = case.alignment.pairs
    calls = Counter(point.module for point in case.subject.calls[1] if point.moment == "leave")
    rarest: dict[int, str] = {}
    for module, partner in partners.items():
        block = block_of(partner)
        if block is not None and 0 < calls[module] < calls.get(rarest.get(block, ""), math.inf):
            rarest[block] = module
    blocks = {module: block for block, module in rarest.items()}
    left = [point.module for point in case.subject.calls[1] if point.moment == "leave"]
    order = tuple(blocks[module] for module in left if module in blocks)
    is_called_again = any(calls[module] > 1 for module, partner in partners.items() if partner == "conv_proj")
    return tuple(dict.fromkeys(order)) if is_called_again else order


def _shared(order: Sequence[int], layers: int) -> Group:
    """Says which blocks are used more than once."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, block in enumerate(order):
        places[block].append(place)
    often = len(order) // len(places)
    instead, hint = f"{layers} blocks with weights of their own", "nn.ModuleList([Block(...) for _ in range(depth)])"
    if len(places) == 1:
        phrase = f"one block used {often} times"
    elif order == tuple(block for block in range(layers) for _ in range(often)):
        phrase, instead, hint = (
            f"every block used {often} times",
            "each of them once",
            "for block in blocks: x = block(x)",
        )
    else:
        again = [found for found in places.values() if len(found) > 1]
        phrase = joined(f"one block at the places {joined(map(str, found))}" for found in again)
    return _odd("block-sharing", phrase, instead, hint, [n for n in range(layers) if len(places[n]) != 1])


_PARTS = {"ln_1": "first norm", "ln_2": "second norm", "self_attention": "attention", "mlp": "MLP"}


def shared_parts(case: Case) -> list[tuple[Group, dict[str, str]]]:
    """Returns the parts of blocks that the candidate has one of for several blocks.

    Returns:
        What to say of each, and which tensor of the reference is used for those that have no counterpart.
    """
    calls = Counter(point.module for point in case.subject.calls[1] if point.moment == "leave")
    owners = {split(e.reference)[0]: split(e.candidate)[0].rpartition(".")[0] for e in case.subject.mapping.entries}
    missing: dict[str, list[str]] = defaultdict(list)
    for name in case.subject.mapping.unmapped_reference:
        block = block_of(name)
        if block is not None:
            missing[name.removeprefix(f"{BLOCK.format(block)}.")].append(name)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for part, names in missing.items():
        held = [name for n in range(case.config["num_layers"]) if (name := f"{BLOCK.format(n)}.{part}") in owners]
        used_for_all = [name for name in held if calls[owners[name]] == len(names) + 1]
        if len(used_for_all) == 1:
            found[part.partition(".")[0]] |= dict.fromkeys(names, used_for_all[0])
    groups: list[tuple[Group, dict[str, str]]] = []
    of_all = _norm_of_all_branches(case, missing, owners, calls)
    if of_all:
        where = tuple(dict.fromkeys(name.rpartition(".")[0] for name in (*of_all.values(), *of_all)))
        phrase, hint = "one and the same norm before every branch", "two norms for each block"
        groups.append((Group((), "norm-shared", phrase, "one for each", hint, where), of_all))
    idle = _idle_modules(case)
    for part, tensors in found.items():
        blocks = sorted({block for name in (*tensors, *tensors.values()) if (block := block_of(name)) is not None})
        id_ = "norm-shared" if part.startswith("ln_") else "block-sharing"
        where = tuple(f"{BLOCK.format(block)}.{part}" for block in blocks)
        phrase, hint = f"one and the same {_PARTS[part]}", "a module for each block"
        used = dict.fromkeys(owners[name] for name in tensors.values())
        own = [its for one in used if (its := _own_of_other_blocks(one, idle, len(blocks)))]
        if len(own) == len(used):  # there are others, of which no use is made
            phrase = f"the {_PARTS[part]} of block {own[0][0]}"
            never = listed([other for _, others in own for other in others])
            hint = f"each block's own, which your model has and never uses: {never}"
        groups.append((Group((), id_, phrase, "one for each block", hint, where), tensors))
    return groups


def _norm_of_all_branches(
    case: Case, missing: Mapping[str, Sequence[str]], owners: Mapping[str, str], calls: Mapping[str, int]
) -> dict[str, str]:
    """Returns the norms of the blocks that have no counterpart, with the only one that has, if it is used for all.

    Args:
        case: what is explained.
        missing: the tensors that have none, by their names in a block.
        owners: the candidate's modules of those that have one.
        calls: how often each is called.
    """
    used: dict[str, str] = {}
    for kind in ("weight", "bias"):
        names = [name for norm in ("ln_1", "ln_2") for name in missing.get(f"{norm}.{kind}", ())]
        blocks = range(case.config["num_layers"])
        held = [name for n in blocks for norm in ("ln_1", "ln_2")
                if (name := f"{BLOCK.format(n)}.{norm}.{kind}") in owners]  # fmt: skip
        if len(held) == 1 and {name.rsplit(".", 2)[1] for name in names} == {"ln_1", "ln_2"}:
            used |= dict.fromkeys(names, held[0]) if calls.get(owners[held[0]]) == len(names) + 1 else {}
    return used


def _idle_modules(case: Case) -> list[str]:
    """Returns the candidate's modules with tensors that it never uses, by whatever name it may hold them."""
    state = case.subject.models.candidate.state_dict(keep_vars=True)
    used = {id(state[name]) for entry in case.subject.mapping.entries if (name := split(entry.candidate)[0]) in state}
    names = [split(name)[0] for name in case.subject.mapping.unused]
    return [*dict.fromkeys(name.rpartition(".")[0] for name in names if id(state.get(name)) not in used)]


def _own_of_other_blocks(used: str, idle: Iterable[str], blocks: int) -> tuple[int, list[str]] | None:
    """Returns which one of the candidate's modules of all blocks a module is, and the others, which are never used.

    Args:
        used: a module of the candidate that several blocks use.
        idle: modules whose tensors are never used.
        blocks: how many blocks use it.
    """
    parts = re.split(r"(\d+)", used)
    for place in range(1, len(parts), 2):
        like = re.compile(rf"{re.escape(''.join(parts[:place]))}(\d+){re.escape(''.join(parts[place + 1 :]))}")
        others = {int(match[1]): other for other in idle if (match := like.fullmatch(other))}
        if len(others) == blocks - 1:
            return sorted([*others, int(parts[place])]).index(int(parts[place])), [*others.values()]
    return None


def with_lines(
    sharing: Sequence[tuple[Group, dict[str, str]]], case: Case, lines: Callable[[Collection[str]], Iterable[str]]
) -> list[tuple[Group, dict[str, str]]]:
    """Returns what `shared_parts` has found, with the lines of the candidate's source that use the one part.

    Args:
        sharing: what it has found.
        case: what is explained.
        lines: returns those that use some of the candidate's tensors.
    """
    partners = {split(entry.reference)[0]: split(entry.candidate)[0] for entry in case.subject.mapping.entries}
    return [
        (
            dataclasses.replace(
                group, source=by_file(lines({partners[name] for name in tensors.values()}), MOST_LINES)
            ),
            tensors,
        )
        for group, tensors in sharing
    ]


def uses_of_blocks(case: Case) -> tuple[tuple[int, ...], Group | None, list[tuple[Group, dict[str, str]]]]:
    """Returns what `order_of_blocks` does, and what `shared_parts` does where the order is the usual one."""
    order, rearranged = order_of_blocks(case)
    return order, rearranged, [] if rearranged else shared_parts(case)


def used_instead(sharing: Iterable[tuple[Group, dict[str, str]]]) -> dict[str, str]:
    """Returns the tensors that have no counterpart, and which one of the reference's is used for each."""
    return {name: other for _, tensors in sharing for name, other in tensors.items()}


def parts_apart(sharing: Sequence[tuple[Group, dict[str, str]]]) -> set[str]:
    """Returns the reference's modules that are one in the candidate, whose calls belong to several of them."""
    names = {name for _, tensors in sharing for name in (*tensors, *tensors.values())}
    return {name.rpartition(".")[0] for name in names} | {place for group, _ in sharing for place in group.where}


def _odd(id: str, phrase: str, instead: str, hint: str, blocks: Sequence[int]) -> Group:  # noqa: A002
    return Group((), id, phrase, instead, hint, tuple(f"encoder.layers.encoder_layer_{n}" for n in blocks))
