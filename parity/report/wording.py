"""How numbers, names and sentences are shown, whatever they are drawn on."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeGuard

# What two right implementations differ by in float64: an error is told as so many times that.
ROUNDING = 1e-15

# Distances in units of the last place that are larger say nothing: the two numbers have nothing in common.
_MOST_ULP = 10**9

_CUT = "…"
_MOST_PATTERNS = 3
_NUMBER = re.compile(r"[0-9]{1,9}")


def number(value: Any) -> str:
    """Returns a number in two digits, and what is none as it is: a number that isn't finite is None in a report."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{value}"
    if value in (0, 1):
        return f"{value:g}"
    return _short(f"{value:.2g}") if math.isfinite(value) else "not finite"


def count(value: Any) -> str:
    """Returns how many there are of something."""
    return f"{value:,.0f}" if is_number(value) else number(value)


def ulps(value: Any) -> str:
    """Returns a distance in units of the last place."""
    if not is_number(value):
        return number(value)
    return "> 1e9" if value > _MOST_ULP else f"{value:.0f}"


def above_rounding(value: Any) -> str:
    """Says how many times as large as rounding in float64 an error is; an empty text where it isn't larger."""
    if not is_number(value) or value < 10 * ROUNDING:
        return ""
    return _short(f"{value / ROUNDING:.1e}") + " times rounding"


def _short(text: str) -> str:
    return text.replace("e+0", "e").replace("e+", "e")


def decades(value: Any) -> int:
    """Returns how many powers of ten an error lies above rounding in float64, from 0 to 15."""
    if not is_number(value) or value <= ROUNDING:
        return 0
    return min(15, math.floor(math.log10(value) - math.log10(ROUNDING) + 1e-9))


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a report is a number that can be compared with others."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def size(text: str) -> int:
    """Returns how many columns of a terminal a text takes."""
    return cell_len(text)


def shortened(name: str, width: int) -> str:
    """Returns a name that takes at most `width` columns; what is too long is cut off at its left."""
    if size(name) <= width:
        return name
    while name and size(name) > width - size(_CUT):
        name = name[1:]
    return f"{_CUT}{name}" if width > 0 else ""


def wrapped(text: str, width: int, title: str = "") -> list[str]:
    """Breaks a text into lines of at most `width` columns, between words; a longer word is shortened from its left.

    Args:
        text: of one line.
        width: of a line, in columns.
        title: what the first line begins with; the others are indented by as much.
    """
    indent = size(title)
    lines: list[str] = []
    line = ""
    for word in text.split():
        fitting = shortened(word, width - indent)
        longer = f"{line} {fitting}" if line else fitting
        if line and indent + size(longer) > width:
            lines.append(line)
            longer = fitting
        line = longer
    return [f"{' ' * indent if place else title}{line}" for place, line in enumerate([*lines, line])]


def together(names: Iterable[str]) -> str:
    """Lists names; those that differ in their first number alone, which is the block's, as one: `layers.{0-11}.ln`."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[pattern_of(name)].append(name)
    shown = [_as_one(pattern, members) for pattern, members in alike.items()]
    more = len(shown) - _MOST_PATTERNS
    return ", ".join(shown[:_MOST_PATTERNS]) + (f" and {more} more" if more > 0 else "")


def pattern_of(name: str) -> str:
    """Returns a name without its first number, which is the block's."""
    return _NUMBER.sub("\0", name, count=1)


def _as_one(pattern: str, names: list[str]) -> str:
    numbers = sorted({int(found[0]) for name in names if (found := _NUMBER.search(name))})
    return pattern.replace("\0", _ranges(numbers))


def _ranges(numbers: list[int]) -> str:
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    shown = ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)
    return shown if len(numbers) == 1 else f"{{{shown}}}"
