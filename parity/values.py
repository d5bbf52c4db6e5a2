"""Values of anybody's as text."""

from __future__ import annotations

import inspect
import re
from typing import Any

# how deep objects in objects are written out
_MOST_NESTED = 2

# where in memory something lies, as Python's own texts say it
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def written_out(value: Any, depth: int = 0) -> str:
    """Returns the text of a value; of one whose class has none of its own, the call that makes it, as far as is known.

    These are the arguments of its constructor that it keeps under their names, and otherwise all that it keeps. No text
    says where in memory anything lies.

    Args:
        value: anybody's.
        depth: in how many others it is.
    """
    kind: Any = type(value)
    if kind.__repr__ is not object.__repr__:
        return _ADDRESS.sub("", repr(value))
    kept = {name: held for name, held in getattr(value, "__dict__", {}).items() if name[:1] != "_"}
    try:
        named = {name: kept[name] for name in inspect.signature(kind).parameters if name in kept}
    except (TypeError, ValueError):  # which has no signature
        named = {}
    if depth >= _MOST_NESTED:
        return f"{kind.__name__}(...)" if kept else f"{kind.__name__}()"
    given = (f"{name}={written_out(held, depth + 1)}" for name, held in (named or kept).items())
    return f"{kind.__name__}({', '.join(given)})"
