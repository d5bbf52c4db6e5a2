"""Where causes may be: patterns of a model's places, and places in words."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# modules behind which a candidate may have something where the reference has nothing
INSERTED = r"(conv_proj|pos_embedding|dropout|encoder\.layers|encoder_layer_\d+|self_attention|ln(_\d)?|mlp(\.[134])?)$"
ATTENTION, BLOCK, NORM = r"\.self_attention$", r"encoder_layer_\d+$", r"(^|\.)ln(_\d)?$"


def in_words(places: Sequence[str], config: Mapping[str, Any]) -> str:
    """Says where places are: `in all 25 norms`, `in self_attention of blocks 0 and 2`, `in encoder.ln`."""
    layers = config["num_layers"]
    places = list(dict.fromkeys(re.sub(r"\.(\w+_)?(weight|bias)$", "", place) for place in places))
    if len(places) == 2 * layers + 1 and all(re.search(NORM, place) for place in places):
        return f"in all {len(places)} norms"
    blocks: dict[str, list[int]] = defaultdict(list)
    parts = []
    for place in places:
        match = re.match(r"encoder\.layers\.encoder_layer_(\d+)\.?(.*)", place)
        if match:
            blocks[match[2]].append(int(match[1]))
        else:
            parts.append(_PLACES.get(place, f"in {place}"))
    by_numbers: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for inside, numbers in blocks.items():
        by_numbers[tuple(numbers)].append(inside)
    for numbers_, insides in by_numbers.items():
        count = len(numbers_)
        which = f"block{'s' * (count > 1)} {joined(map(str, numbers_))}"
        if count == layers > 1:
            which = f"all {layers} blocks"
        names = [inside for inside in insides if inside]
        parts.append(f"in {joined(names)} of {which}" if names else f"in {which}")
    return joined(parts)


# places that go without saying
_PLACES = {"": "", "class_token": "", "encoder.pos_embedding": "", "encoder": "", "heads": "", "heads.head": ""}


def joined(parts: Iterable[str]) -> str:
    """Joins words as a sentence does."""
    words = [part for part in parts if part]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
