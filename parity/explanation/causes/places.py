"""Where causes may be: patterns of a model's places, and places in words."""

from __future__ import annotations

import re
from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from parity.tracing import outer_modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# modules behind which a candidate may have something where the reference has nothing
INSERTED = r"(conv_proj|pos_embedding|dropout|encoder\.layers|encoder_layer_\d+|self_attention|ln(_\d)?|mlp(\.[134])?)$"
_TENSOR = re.compile(r"\.(\w+_)?(weight|bias)$")
ATTENTION, BLOCK, NORM = r"\.self_attention$", r"encoder_layer_\d+$", r"(^|\.)ln(_\d)?$"


def in_words(places: Sequence[str], config: Mapping[str, Any], names: Mapping[str, str] = MappingProxyType({})) -> str:
    """Says where places are: `in all 25 norms`, `in self_attention of blocks 0 and 2`, `in encoder.ln`.

    Args:
        places: names of torchvision's modules and tensors.
        config: torchvision's arguments.
        names: of those modules, where the reference has others.
    """
    layers = config["num_layers"]
    places = list(dict.fromkeys(_TENSOR.sub("", place) for place in places))
    if len(places) == 2 * layers + 1 and all(re.search(NORM, place) for place in places):
        return f"in all {len(places)} norms"
    blocks: dict[str, list[int]] = defaultdict(list)
    parts = []
    for place in places:
        match = re.match(r"encoder\.layers\.encoder_layer_(\d+)\.?(.*)", place)
        name = names.get(place, place)
        block = names.get(place.removesuffix(f".{match[2]}"), "") if match else ""
        if match and name.startswith(f"{block}."):
            blocks[name.removeprefix(f"{block}.")].append(int(match[1]))
        elif match:
            numbered = re.match(r".*?(\d+)\.?(.*)", name) or match
            blocks[numbered[2]].append(int(numbered[1]))
        else:
            parts.append(_PLACES.get(place, f"in {name}"))
    by_numbers: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for inside, numbers in blocks.items():
        by_numbers[tuple(numbers)].append(inside)
    for numbers_, insides in by_numbers.items():
        count = len(numbers_)
        which = f"block{'s' * (count > 1)} {joined(map(str, numbers_))}"
        if count == layers > 1:
            which = f"all {layers} blocks"
        inner = [inside for inside in insides if inside]
        parts.append(f"in {joined(inner)} of {which}" if inner else f"in {which}")
    return joined(parts)


def named(place: str, names: Mapping[str, str]) -> str:
    """Returns what a place, or the module of a tensor, is called by `names`, or the place itself."""
    return names.get(place) or names.get(_TENSOR.sub("", place)) or place


def nearest(place: str, names: Mapping[str, str]) -> str:
    """Returns what a place is called by `names`, or the closest module around it that is called anything."""
    around = (place, *reversed(list(outer_modules(place))))
    return next((names[name] for name in around if name in names), place)


# places that go without saying
_PLACES = {"": "", "class_token": "", "encoder.pos_embedding": "", "encoder": "", "heads": "", "heads.head": ""}


def joined(parts: Iterable[str]) -> str:
    """Joins words as a sentence does."""
    words = [part for part in parts if part]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
