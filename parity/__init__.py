"""Proves that a hand-written model is numerically the same model as a reference, layer by layer.

`check` compares, `assert_parity` raises, `infer_mapping` finds the weight map, `diff` compares two checkpoints. Torch
is imported when one of them is first used, so that the command line's help and pytest's start stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from parity.errors import MappingError, ParityError

if TYPE_CHECKING:
    from parity.checking import assert_parity, check
    from parity.diffing import diff
    from parity.mapping import build_pair, infer_mapping
    from parity.models import WeightMap
    from parity.report import Report

__all__ = [
    "MappingError",
    "ParityError",
    "Report",
    "WeightMap",
    "assert_parity",
    "build_pair",
    "check",
    "diff",
    "infer_mapping",
]

_HOMES = {
    "Report": ("parity.report", "Report"),
    "WeightMap": ("parity.models", "WeightMap"),
    "assert_parity": ("parity.checking", "assert_parity"),
    "build_pair": ("parity.mapping", "build_pair"),
    "check": ("parity.checking", "check"),
    "diff": ("parity.diffing", "diff"),
    "infer_mapping": ("parity.mapping", "infer_mapping"),
    "strategies": ("parity.strategies", ""),  # a module, and not in __all__, since it needs hypothesis
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    home = importlib.import_module(module)
    value = getattr(home, attribute) if attribute else home
    globals()[name] = value
    return value
