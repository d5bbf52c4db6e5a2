"""Entries of no one place: dropout that stays on, and activations and norms where the reference has none."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import standardised
from parity.explanation.causes.places import INSERTED
from parity.explanation.causes.variants import ADDED, after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch

    Tensor = torch.Tensor


# a table reads best with an entry's parts side by side
# fmt: off
def dropouts(config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for dropout outside the attention weights."""
    rates = dict.fromkeys((config["dropout"], config["attention_dropout"], 0.1, 0.2, 0.5))
    for rate in filter(None, rates):
        for operation, only in (("dropout", ""), ("leave", INSERTED), ("input", "^heads$")):
            yield Kind("dropout-in-eval", {operation: after(functools.partial(F.dropout, p=rate))},
                       f"dropout at {rate:g} in eval mode", "none in eval mode", "pass training=self.training",
                       only=only, is_random=True)


def insertions(_: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for activations and norms."""
    for name, function in ADDED.items():
        for operation in ("output", "leave"):
            yield Kind("extra-activation", {operation: after(function)}, f"{name} added", "none there",
                       "take the activation away", only=INSERTED)
    for operation in ("output", "leave", "enter"):
        yield Kind("extra-norm", {operation: _normed}, "a LayerNorm without parameters added, eps {value},",
                   "none there", "take the norm away", only=INSERTED, start=(1e-5, 1e-6))
    yield Kind("extra-norm", {"query_key": _normed}, "query and key normalised per head, eps {value},", "as they are",
               "take the norms away", start=(1e-5, 1e-6))


# fmt: on


def _normed(original: Callable[..., Tensor], *arguments: Any, value: float) -> Tensor:
    return standardised(original(*arguments), value)
