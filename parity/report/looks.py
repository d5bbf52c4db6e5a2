"""What a page draws of where both models look: attention on the patches of an image, block by block and rolled out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from parity.report.cells import shades
from parity.report.wording import is_number, number

_SIDES = ("reference", "candidate", "difference")
_STEPS = 26

# the share of the largest value that maps of one function are apart at most: in float32, some 1e-6 behind many blocks
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Panel:
    """One map.

    Attributes:
        of: `reference`, `candidate` or `difference`.
        at: where it begins, in patches.
        rows: of patches.
        columns: of patches.
        more: for each shade from 0 to 1 the patches above zero that have it, as strokes of a path.
        less: the same of those below zero.
    """

    of: str
    at: int
    rows: int
    columns: int
    more: list[tuple[str, str]]
    less: list[tuple[str, str]]


@dataclass(frozen=True)
class Look:
    """Maps beside each other: the reference's, the candidate's, and their difference, as far as they are known.

    Attributes:
        title: what of the model they are of.
        words: how far they are apart.
        panels: the maps.
        rows: of patches.
        columns: of as many maps as there can be, in patches.
    """

    title: str
    words: str
    panels: list[Panel]
    rows: int
    columns: int


@dataclass(frozen=True)
class Picture:
    """Where both models look in one picture.

    Attributes:
        name: of the picture.
        why: why the candidate has no maps, or an empty text.
        rollout: of all blocks together.
        blocks: one by one.
    """

    name: str
    why: str
    rollout: Look | None
    blocks: list[Look]


def pictures_of(report: dict[str, Any]) -> list[Picture]:
    """Returns where both models look, picture by picture; nothing of what is no map."""
    found = []
    for maps in report["attention"]:
        blocks = [_look(f"block {number}", look) for number, look in enumerate(maps["blocks"])]
        rollout = _look("all blocks", maps["rollout"])
        found.append(Picture(maps["picture"], maps["why"], rollout, [look for look in blocks if look]))
    return [picture for picture in found if picture.rollout or picture.blocks]


def _look(title: str, look: dict[str, Any]) -> Look | None:
    panels: list[Panel] = []
    for side in _SIDES:
        patches = (look[side] or {}).get("patches") or []
        if patches and patches[0] and all(len(row) == len(patches[0]) for row in patches):
            at = _SIDES.index(side) * (len(patches[0]) + 1)
            # less than can be told from rounding is no difference
            is_shown = side != "difference" or not _is_rounding(look)
            steps = [[_step(letter) * is_shown for letter in row] for row in patches]
            more, less = (shades([[sign * step for step in row] for row in steps], 1, _opacity) for sign in (1, -1))
            panels.append(Panel(side, at, len(steps), len(steps[0]), more, less))
    if not panels:
        return None
    rows, columns = (max(getattr(panel, side) for panel in panels) for side in ("rows", "columns"))
    return Look(title, _words(look), panels, rows, len(_SIDES) * (columns + 1) - 1)


def _is_rounding(look: dict[str, Any]) -> bool:
    apart, most = ((look[side] or {}).get("largest") for side in ("difference", "reference"))
    return is_number(apart) and is_number(most) and apart <= _ROUNDING * most


def _words(look: dict[str, Any]) -> str:
    """Says how far two maps are apart."""
    ours, theirs, difference = (look[side] or {} for side in _SIDES)
    if not difference:
        return "the candidate's alone" if not ours else "the reference's alone" if not theirs else ""
    if _is_rounding(look):
        return "the same" if not difference["largest"] else f"the same up to rounding ({number(difference['largest'])})"
    return f"at most {number(difference['largest'])} apart, where a patch has up to {number(ours.get('largest'))}"


def _step(letter: str) -> int:
    """Returns the value of a letter, in steps of the largest."""
    if not letter.isascii() or not letter.isalpha():
        return 0
    return ord(letter) - ord("A") + 1 if letter.isupper() else ord("a") - 1 - ord(letter)


def _opacity(step: int) -> float:
    return step / _STEPS
