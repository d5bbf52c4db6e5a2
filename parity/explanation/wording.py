"""Causes and places in words: beside which reference, in which order, and where nothing is known."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from parity.diagnosis import in_words_of
from parity.explanation.bent_vit import EPS
from parity.explanation.case import block_of
from parity.explanation.causes.head import numbered
from parity.explanation.causes.places import joined
from parity.explanation.following import IMAGES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from parity.explanation.bending import Change
    from parity.explanation.proof import Group
    from parity.explanation.search import Unexplained
    from parity.tracing import Point


def in_words_beside(groups: Sequence[Group], traits: Sequence[Change]) -> list[Group]:
    """Returns causes in words that fit the other causes, and a reference with traits."""
    ids = {group.id for group in groups}
    return [_beside(_numbered(group, ids), traits) for group in groups]


def _numbered(group: Group, ids: Collection[str]) -> Group:
    return (
        dataclasses.replace(group, phrase=numbered(group.phrase, ids))
        if group.id in ("pooling", "head-shape")
        else group
    )


def _beside(group: Group, traits: Sequence[Change]) -> Group:
    """Returns a cause in words about a reference with traits."""
    replaced = [trait for trait in traits for change in group.changes if change.takes_the_place_of(trait)]
    eps = next((t.value for t in traits if t.kind.id == "layer-norm-eps" and t.place in group.where), EPS)
    group = dataclasses.replace(group, hint=group.hint.replace("{eps}", f"{eps:g}".replace("e-0", "e-")))
    if not replaced or group.changes[0].kind.undoes:
        return group
    trait = replaced[0]
    instead = " and ".join(dict.fromkeys(other.as_had for other in replaced))
    if trait.kind.key == group.changes[0].kind.key and not trait.is_measure:  # an extra norm that both have
        return dataclasses.replace(group, phrase=group.changes[0].as_had, instead=instead, hint=trait.mended)
    return dataclasses.replace(group, instead=instead, hint=group.hint if trait.is_measure else trait.mended)


def when(change: Change) -> tuple[int, int]:
    """Returns a key that sorts changes as their places are come by: what leads to the blocks, each block, the end."""
    block = block_of(change.place)
    is_end = change.place.startswith(("heads", "encoder.ln", "encoder.layers")) or change.place == "encoder"
    return (1, block) if block is not None else (2, 0) if is_end else (0, 0)


def point_in_words(point: Point, names: Mapping[str, str]) -> str:
    """Says where a point is.

    Args:
        point: of the bent model.
        names: what its modules are called in the reference, where they have other names there.
    """
    return (
        "the images" if point == IMAGES else in_words_of(point._replace(module=names.get(point.module, point.module)))
    )


def unexplained_in_words(place: Unexplained, names: Mapping[str, str]) -> str:
    """Says where no cause is known, and what is known of the place.

    Args:
        place: of the bent model.
        names: what its modules are called in the reference, where they have other names there.
    """
    where = point_in_words(place.point, names)
    size = [f"relative error {place.error:.2g}"] if math.isfinite(place.error) else []
    hidden = not place.is_finite and "self_attention" in place.point.module
    more = ["a softmax gives such values where a mask hides every key"] if hidden else []
    return f"no known cause at {where}: {'; '.join([*size, *place.facts, *more]) or 'it cannot be compared'}"


def blocks_in_words(places: Sequence[str]) -> str:
    """Says in which blocks places are: `(blocks 0 to 11)`, `(blocks 0, 2 and 5)`; nothing of such in no block."""
    numbers = sorted({number for place in places if (number := block_of(place)) is not None})
    if not numbers:
        return ""
    if len(numbers) > 2 and numbers == [*range(numbers[0], numbers[-1] + 1)]:
        return f"(blocks {numbers[0]} to {numbers[-1]})"
    return f"(block{'s' * (len(numbers) > 1)} {joined(map(str, numbers))})"
