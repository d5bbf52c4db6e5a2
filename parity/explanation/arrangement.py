"""Tokens that a candidate has in another order throughout are how it is written, and no cause."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from parity.explanation.bent_vit import BLOCK
from parity.explanation.case import block_of
from parity.explanation.causes.head import LAST_TOKEN
from parity.explanation.proof import GRAFT
from parity.tracing import Point

if TYPE_CHECKING:
    from parity.explanation.case import Case
    from parity.explanation.observing import Observations
    from parity.explanation.proof import Group, Proof


def is_outside_blocks(group: Group) -> bool:
    """Whether a cause is before the first block or behind the last, where one may undo what the other does."""
    return bool(group.where) and all(block_of(place) is None for place in group.where)


def with_class_token_last(case: Case, proof: Proof) -> Case | None:
    """Returns what is explained as a model whose class token is the last one throughout, if it may be one.

    Then the last token goes to the head, and something before the first block is otherwise as well.

    Args:
        case: as it was explained.
        proof: the changes that were found, or some of them.
    """
    outside = [group for group in proof.needed if is_outside_blocks(group)]
    takes_last = any(LAST_TOKEN in group.phrase for group in outside)
    if not takes_last or len(outside) < 2 or case.alignment.rolled or case.alignment.portions:
        return None
    tokens = (case.config["image_size"] // case.config["patch_size"]) ** 2 + 1
    return dataclasses.replace(case, alignment=dataclasses.replace(case.alignment, rolled=tokens))


def explains_more(proof: Proof, other: Proof) -> bool:
    """Whether a proof is complete and the other one isn't, or takes more causes and no fewer of them without a name."""
    grafts, others = (sum(group.id == GRAFT for group in one.needed) for one in (proof, other))
    return proof.is_complete and (not other.is_complete or (len(proof.needed) < len(other.needed) and grafts <= others))


def adds_positions_outside(observations: Observations) -> bool:
    """Whether the candidate's first block takes what its encoder takes, where the reference adds positions between."""
    observations.reach(0)
    first = BLOCK.format(0)
    outer, *inner = (observations.at(Point(name, 0, "enter")) for name in ("encoder", first, f"{first}.ln_1"))
    return outer is not None and any(tensor is not None and torch.equal(outer, tensor) for tensor in inner)
