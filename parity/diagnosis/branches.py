"""Which branches of a model that depend on values its runs have taken, and where it draws random numbers."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from parity.tracing import DRAWING, line_of_source, name_of_operation

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLAMPS = {"clamp", "clamp_min", "clamp_max", "hardtanh"}
_COMPARISONS = {"gt", "ge", "lt", "le", "eq", "ne"}


class Branches(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes, over several runs, what a model's operations have done with the values they met.

    It looks at torch's own operations, below `torch.overrides`, so that a model runs as it does with nobody watching.

    Attributes:
        drawing: where random numbers were drawn, such as `randn_like at model.py:14`, or of whom.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # by operation, place and what may happen there: a line may compare twice, and ask for a truth that comes of it
        self._ways: dict[tuple[str, str, str], bool] = defaultdict(bool)
        self._compared = ""
        self.drawing: dict[str, None] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of_operation(function)
        ways: list[tuple[str, torch.Tensor | bool]] = []
        with contextlib.suppress(Exception):  # of whatever form the call is
            ways = list(_ways(name, args, kwargs))
        result = function(*args, **kwargs)
        if name == "local_scalar_dense" and isinstance(result, bool):
            ways = [("held", result), ("failed", not result)]
            name = f"truth of {self._compared}"
        elif name in _COMPARISONS and args[0].is_floating_point():
            self._compared = name
            ways = [("held", result), ("failed", ~result)]
        elif name in DRAWING:
            self.drawing[f"{name} at {line_of_source()}"] = None
        if ways:
            what = name if name in _CLAMPS or name in ("where", "masked_fill") else "the condition"
            place = f"{what} at {line_of_source()}"
            for way, taken in ways:
                self._ways[name, place, way] |= bool(taken.any()) if isinstance(taken, torch.Tensor) else taken
        return result

    def untaken(self) -> list[str]:
        """Returns what no run has done, a phrase each: `clamp at model.py:14 never reached its bound 10`."""
        said: dict[str, str] = {}
        for (_, place, way), is_taken in self._ways.items():
            if not is_taken:
                # a comparison and what is done with it stand in one line
                said.setdefault(place.rpartition(" at ")[2], f"{place} never {way}")
        return list(said.values())


def states_of_generators() -> dict[str, object]:
    """Returns the states of the generators of random numbers that everybody shares and that are not torch's."""
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002  (which old code still draws from)
    return {"Python's random": random.getstate(), "numpy.random": _frozen(legacy)}


def _frozen(state: object) -> object:
    """Returns a state that holds arrays as one that can be compared and that nobody changes."""
    if isinstance(state, dict):
        return {key: _frozen(value) for key, value in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state


def _ways(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields what an operation may do with its values, and which of them it is done to."""
    if name in _CLAMPS and args[0].is_floating_point():
        low, high = (*args[1:], None, None)[:2]
        if name == "clamp_max":
            low, high = None, low
        elif name == "clamp":
            low, high = kwargs.get("min", low), kwargs.get("max", high)
        if low is not None:
            yield f"reached its bound {_number(low)}", args[0] < low
        if high is not None:
            yield f"reached its bound {_number(high)}", args[0] > high
    elif name == "masked_fill":
        yield "filled anything", args[1]
    elif name == "where" and len(args) == 3:  # of a condition alone it gives indices
        yield "took its first value", args[0]
        yield "took its second value", ~args[0]


def _number(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.item():g}" if value.numel() == 1 else "of some element"
    return f"{value:g}"
