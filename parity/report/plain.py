"""Values of anybody's, such as a candidate's arguments, as JSON and as a line of text, whatever they are."""

from __future__ import annotations

import dataclasses
import enum
import math
import numbers
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import PurePath
from typing import Any

from parity.values import written_out

# what lies deeper, or is longer, is cut off
_MOST_DEEP, _MOST_LETTERS = 20, 500

# what every reader of JSON takes as a number
LARGEST = 2**63


def as_json(value: Any, depth: int = 0) -> Any:
    """Returns a value as JSON types: a dataclass or mapping as an object, numbers that are not finite as None.

    What JSON has no type for is there as text.
    """
    inner = _inner(value) if depth < _MOST_DEEP else None
    if isinstance(inner, dict):
        return {in_a_line(key): as_json(item, depth + 1) for key, item in inner.items()}
    if isinstance(inner, list):
        return [as_json(item, depth + 1) for item in inner]
    return _single(value)


def _single(value: Any) -> bool | int | float | str | None:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and not isinstance(value, enum.Enum):
        return str.__str__(value)
    if isinstance(value, numbers.Integral) and abs(int(value)) < LARGEST:
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return float(value) if math.isfinite(value) else None
    return in_a_line(value)


def _inner(value: Any) -> dict[Any, Any] | list[Any] | None:
    """Returns what a value holds; None where it holds nothing, or cannot be asked."""
    try:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            # what its author forgot to annotate is no field
            return fields | {name: set_ for name, set_ in getattr(value, "__dict__", {}).items() if name[:1] != "_"}
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, (list, tuple)):
            return list(value)
        return sorted(value, key=in_a_line) if isinstance(value, AbstractSet) else None
    except Exception:  # noqa: BLE001  (whatever somebody's class does)
        return None


def printable(text: str) -> str:
    """Returns a text without what a terminal would take for an order; its lines stay."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def in_a_line(value: Any) -> str:
    """Returns a value as text of one line, cut off where it is long; no text says where in memory anything lies."""
    try:
        text = f"{value}" if isinstance(value, (str, int, float, PurePath)) else written_out(value)
    except Exception:  # noqa: BLE001  (whatever somebody's class does, and a whole number that is too long for text)
        text = f"<{type(value).__name__}>"
    text = printable(text.replace("\n", " "))
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]} ..."
