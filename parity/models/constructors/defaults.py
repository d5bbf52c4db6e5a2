"""Arguments of which neither a name nor a tensor tells what they are, and whose default is a size of ViT-B's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.models.constructors.options import USUAL, Option
from parity.models.constructors.words import SETTINGS, VIT_B, meanings_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from parity.models.constructors.holders import Slot
    from parity.models.constructors.probing import Assignment


def by_default(slots: Mapping[str, tuple[Slot, list[Option]]], chosen: Assignment) -> Assignment:
    """Returns what arguments are that have a size for their default which no other one has, and nobody was given.

    Args:
        slots: of the constructor, with their options.
        chosen: what is known already.
    """
    known = {path: option for path, option in chosen.items() if option.quantity}
    given = {setting for option in known.values() for setting in SETTINGS[option.quantity or ""]}
    left: dict[int, list[str]] = {}
    for path, (slot, _) in slots.items():
        said = {setting for quantity in meanings_at(path)[:1] for setting in SETTINGS[quantity]}
        if path not in known and type(slot.default) is int and said <= given and not slot.is_constant:
            left.setdefault(slot.default, []).append(path)
    sizes: dict[int, list[str]] = {}
    for setting, size in VIT_B.items():
        if setting not in given:
            sizes.setdefault(size, []).append(setting)
    return {
        left[size][0]: Option(USUAL, settings[0])
        for size, settings in sizes.items()
        if len(settings) == 1 == len(left.get(size, []))
    }
