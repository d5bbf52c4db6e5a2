"""What a page draws of one layer: how large its errors are, how they compare with the reference's own, where they sit.

Each figure is the numbers that its picture is made of, in units of the picture's view box, and the same told in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from parity.report.cells import shades
from parity.report.wording import count, is_number, number
from parity.tracing import LETTERS, LEVELS

# a picture with axes: its size, and the part of it that holds them
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 320, 190, 48, 312, 8, 160

_MOST_TICKS = 5
_EVERY_POWER = 4  # of two has a label
_DECADES = 18  # of the axes at most

# of a text of a map is an error that many times as small as the next letter's
_STEP = 2**0.5


@dataclass(frozen=True)
class Plot:
    """A picture with axes.

    Attributes:
        words: what it shows.
        path: the bars, or the line through the points.
        points: x and y of each point.
        across: ticks of the axis across, each with its place and label.
        up: the same of the axis upwards.
        diagonal: where both are equal, as a line from x1, y1 to x2, y2; empty where the picture has none.
    """

    words: str
    path: str
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    points: tuple[tuple[float, float], ...] = ()
    diagonal: tuple[float, ...] = ()
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM


@dataclass(frozen=True)
class HeatMap:
    """A picture of rows and columns, one unit each.

    Attributes:
        words: what it shows.
        caption: what its rows and columns are.
        rows: how many there are.
        columns: likewise.
        shades: for each shade from 0 to 1 the cells that have it, as strokes of a path.
        line: under which row a line stands, which parts leading tokens from the others; 0 where it stands nowhere.
    """

    words: str
    caption: str
    rows: int
    columns: int
    shades: list[tuple[str, str]]
    line: int = 0


@dataclass(frozen=True)
class Figures:
    """What is drawn of one layer; None where nothing is known."""

    histogram: Plot | None
    quantiles: Plot | None
    cells: HeatMap | None
    patches: HeatMap | None


def figures_of(row: dict[str, Any]) -> Figures | None:
    """Returns the figures of a layer or a place; None where a report keeps none, as where all bits are the same."""
    sizes, places = row.get("sizes") or {}, row["places"] or {}
    figures = Figures(_histogram(sizes), _quantiles(sizes), _cells(places), _patches(places))
    return None if figures == Figures(None, None, None, None) else figures


def _histogram(sizes: dict[str, Any]) -> Plot | None:
    """Returns the bars of the distances in units of the last place, a power of two each."""
    counts = [value if is_number(value) and value > 0 else 0 for value in sizes.get("ulps", ())]
    total, most = sum(counts), max(counts, default=0)
    if not most:
        return None
    step = (_RIGHT - _LEFT) / len(counts)
    bars = []
    for place, value in enumerate(counts):
        tall = value / most * (_BOTTOM - _TOP)
        if value:
            bars.append(f"M{_LEFT + place * step + 0.5:.1f} {_BOTTOM}v-{tall:.1f}h{step - 1:.1f}v{tall:.1f}z")
    labels = [(0, "0"), *((power + 1, f"2^{power}" if power else "1") for power in range(0, len(counts), _EVERY_POWER))]
    half = next(place for place in range(len(counts)) if sum(counts[: place + 1]) * 2 >= total)
    words = (
        f"of {count(total)} values spread over the tensor {count(counts[0])} have the same bits; "
        f"half of them are {_ulps(half)} apart, all of them {_ulps(len(counts) - 1)}"
    )
    return Plot(
        words,
        "".join(bars),
        across=[(round(_LEFT + (place + 0.5) * step, 1), label) for place, label in labels if place < len(counts)],
        up=[(_BOTTOM, "0"), (_TOP, count(most))],
    )


def _ulps(place: int) -> str:
    """Says what the distances up to a bar's are."""
    return "0 ULP" if not place else "at most 1 ULP" if place == 1 else f"less than 2^{place} ULP"


def _quantiles(sizes: dict[str, Any]) -> Plot | None:
    """Returns the candidate's errors against the reference's, each from its smallest to its largest."""
    own, others = (sizes.get(side, ()) for side in ("reference", "candidate"))
    if len(own) != len(LEVELS) or len(others) != len(LEVELS) or not all(map(is_number, [*own, *others])):
        return None
    powers = [math.log10(value) for value in (*own, *others) if value > 0]
    if not powers:
        return None
    high = math.ceil(max(powers))
    low = max(math.floor(min(powers)), high - _DECADES)
    high += high == low

    def along(power: float, begin: int, end: int) -> float:
        return round(begin + (max(power, low) - low) / (high - low) * (end - begin), 1)

    across, up = ([math.log10(value) if value > 0 else low for value in side] for side in (own, others))
    points = tuple((along(x, _LEFT, _RIGHT), along(y, _BOTTOM, _TOP)) for x, y in zip(across, up, strict=True))
    ticks = range(low, high + 1, math.ceil((high - low) / _MOST_TICKS))
    middle = LEVELS.index(0.5)
    said = [
        f"{what} error {number(own[place])} of the reference and {number(others[place])} of the candidate"
        for what, place in (("median", middle), ("largest", -1))
    ]
    return Plot(
        ", ".join(said),
        " ".join(f"{x:g},{y:g}" for x, y in points),
        across=[(along(power, _LEFT, _RIGHT), f"1e{power}") for power in ticks],
        up=[(along(power, _BOTTOM, _TOP), f"1e{power}") for power in ticks],
        points=points,
        diagonal=(_LEFT, _BOTTOM, _RIGHT, _TOP),
    )


def _cells(places: dict[str, Any]) -> HeatMap | None:
    rows = _rows(places.get("cells", ()))
    if not rows:
        return None
    leading = places["leading"] if isinstance(places["leading"], int) and 0 < places["leading"] < len(rows) else 0
    what = places["rows"]
    parts = f"{what}s, from above, by features"
    leads = f"{parts}; above the line {'the class token' if leading == 1 else f'{leading} leading tokens'}"
    said = _where(rows, leading, what)
    size = f"{number(places['largest'])} at most, root mean square of a part" if is_number(places["largest"]) else ""
    return HeatMap(
        "; ".join(filter(None, (said, size))),
        leads if leading else parts,
        len(rows),
        len(rows[0]),
        shades(rows, 0, _opacity),
        leading,
    )


def _patches(places: dict[str, Any]) -> HeatMap | None:
    rows = _rows(places.get("patches", ()))
    if not rows:
        return None
    return HeatMap(
        _where(rows, 0, "row of patches"),
        "patches, as they lie in the image",
        len(rows),
        len(rows[0]),
        shades(rows, 0, _opacity),
    )


def _rows(texts: Any) -> list[list[int]]:
    """Returns a map's steps, -1 for no error at all; nothing where it is no map."""
    if not texts or not all(isinstance(text, str) and len(text) == len(texts[0]) for text in texts):
        return []
    return [[LETTERS.find(letter) for letter in text] for text in texts] if texts[0] else []


def _where(rows: list[list[int]], leading: int, what: str) -> str:
    """Says where a map's error is."""
    best = [max(row) for row in rows]
    largest = max(best)
    if largest < 0:
        return "no error in any part"
    touched = [place for place, step in enumerate(best) if step >= 0]
    columns = [column for column in range(len(rows[0])) if any(row[column] >= 0 for row in rows)]
    if leading and touched[-1] < leading:
        return "in leading tokens only"
    if len(touched) < len(rows):
        place = f"in {len(touched)} of {len(rows)} {what}s or groups of them"
    elif len(columns) < len(rows[0]):
        place = f"in {len(columns)} of {len(rows[0])} columns"
    else:
        least = min(step for row in rows for step in row)
        return f"in every part, where it is largest {number(_STEP ** (largest - least))} times as large as where least"
    return f"{place}, most of it in the {_ordinal(best.index(largest) + 1)}"


def _ordinal(n: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(n % 10 if n % 100 not in (11, 12, 13) else 0, "th")
    return f"{n}{ending}"


def _opacity(step: int) -> float:
    """Half as dark is a quarter of the error."""
    return float(max(0.03, _STEP ** ((step - len(LETTERS) + 1) / 2)))
