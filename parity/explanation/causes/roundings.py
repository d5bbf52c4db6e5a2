"""Entries for roundings to a narrow dtype inside a run of a wider one."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from parity.explanation.bending import Kind
from parity.explanation.causes.places import ATTENTION, NORM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Tensor = torch.Tensor

_NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


# a table reads best with an entry's parts side by side
# fmt: off
def kinds(_: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for roundings, the likeliest first."""
    for name, dtype in _NARROW.items():
        hint = f"take the cast to {name} away"
        for eps in (1e-6, 1e-5, 1e-12):
            with_eps = "" if eps == 1e-6 else f" with eps {eps:g}"
            yield Kind("norm-dtype", {"norm": functools.partial(_norm_in, dtype=dtype, eps=eps)},
                       f"LayerNorm in {name}{with_eps}", "in the model's dtype", hint, only=NORM)
        yield Kind("attention-dtype", {"softmax": functools.partial(_computed_in, dtype=dtype)}, f"softmax in {name}",
                   "in the model's dtype", hint)
        for operation, what in (("scores", "scores"), ("softmax", "attention weights"), ("mix", "heads' output")):
            yield Kind("attention-dtype", {operation: functools.partial(_rounded_to, dtype=dtype)},
                       f"{what} rounded to {name}", "in the model's dtype", hint, only=ATTENTION)
        for operation in ("activation", "output", "input", "images", "table"):
            yield Kind("hidden-cast", {operation: functools.partial(_rounded_to, dtype=dtype)}, f"rounded to {name}",
                       "in the model's dtype", hint)


# fmt: on


def _norm_in(
    _: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *, dtype: torch.dtype, eps: float
) -> Tensor:
    narrow = [part if part is None else part.to(dtype) for part in (weight, bias)]
    return F.layer_norm(x.to(dtype), x.shape[-1:], narrow[0], narrow[1], eps).to(x.dtype)


def _computed_in(original: Callable[..., Tensor], x: Tensor, *others: Any, dtype: torch.dtype) -> Tensor:
    return original(x.to(dtype), *others).to(x.dtype)


def _rounded_to(original: Callable[..., Tensor], x: Tensor, *others: Any, dtype: torch.dtype) -> Tensor:
    result = original(x, *others)
    return result.to(dtype).to(result.dtype)
