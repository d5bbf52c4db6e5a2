"""Which block's weights a candidate uses one after the other, and what to say of it if that is odd."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING

from parity.explanation.case import block_of
from parity.explanation.proof import Group
from parity.models import split

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    usual = tuple(range(layers))
    calls: dict[str, int] = defaultdict(int)
    entered = []
    for point in case.subject.calls[1]:
        block = block_of(case.alignment.pairs.get(point.module, ""))
        if block is not None and point.moment == "leave":
            entered.append(block)
            calls[point.module] += 1
    order = tuple(n for n, _ in itertools.groupby(entered))
    mapped = {n for e in case.subject.mapping.entries if (n := block_of(split(e.reference)[0])) is not None}
    if len({*order}) == 1 < layers:
        repeats = min(n for module, n in calls.items() if block_of(case.alignment.pairs[module]) is not None)
        if repeats > 1:
            return order * repeats, _odd(
                "block-sharing", f"one block used {repeats} times", f"{layers} blocks with weights of their own",
                "nn.ModuleList([Block(...) for _ in range(depth)]), not [block] * depth", usual,
            )  # fmt: skip
    if 0 < len(order) == len({*order}) < layers:  # some are never called
        mapped = {*order}
    if len(mapped) < layers:
        missing = [n for n in usual if n not in mapped]
        odd = _odd("block-missing", f"{len(mapped)} blocks", f"{layers} blocks", f"depth={layers}", missing)
        return order if {*order} == mapped else tuple(sorted(mapped)), odd
    if sorted(order) == list(usual) != list(order):
        moved = [n for n in usual if order[n] != n]
        return order, _odd("block-order", f"blocks in the order {', '.join(map(str, order))}", "0, 1, 2 ...",
                           "sort blocks by number: int(name.split('.')[1])", moved)  # fmt: skip
    return usual, None


def _odd(id: str, phrase: str, instead: str, hint: str, blocks: Sequence[int]) -> Group:  # noqa: A002
    return Group((), id, phrase, instead, hint, tuple(f"encoder.layers.encoder_layer_{n}" for n in blocks))
