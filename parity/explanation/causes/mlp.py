"""Entries for the MLP: its activation and its biases."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from parity.explanation.bending import Kind
from parity.explanation.causes.variants import ACTIVATIONS, no_bias, replaced_by, skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from parity.explanation.causes.variants import Activation

    Tensor = torch.Tensor


_MORE: dict[str, Activation] = {
    "SELU": F.selu,
    "CELU": F.celu,
    "hard swish": F.hardswish,
    "hard sigmoid": F.hardsigmoid,
    "hard tanh": F.hardtanh,
    "softsign": F.softsign,
    "log-sigmoid": F.logsigmoid,
    "GELU squared": lambda x: F.gelu(x).square(),
    "GELU's tanh approximation without the cubic term": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * x))
    ),
    "erf for GELU's whole": lambda x: torch.erf(x / math.sqrt(2)),
    "the normal distribution's density for GELU's whole": lambda x: torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi),
    "softmax": functools.partial(torch.softmax, dim=-1),
    "sine": torch.sin,
    "absolute value": torch.abs,
    "x squared": torch.square,
}


def _tanh_gelu(x: Tensor, root: float, cubic: float = 0.044715) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(root * (x + cubic * x**3)))


# with a number that is written in rounded or in other digits
_WITH_A_NUMBER: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, ...]]] = {
    "GELU's tanh approximation with {value} for sqrt(2 / pi)": (_tanh_gelu, (math.sqrt(2 / math.pi),)),
    "GELU's tanh approximation with {value} for 0.044715": (
        lambda x, value: _tanh_gelu(x, math.sqrt(2 / math.pi), value),
        (0.044715,),
    ),
    "GELU with {value} instead of sqrt(2) in x * (1 + erf(x / sqrt(2))) / 2": (
        lambda x, value: 0.5 * x * (1 + torch.erf(x / value)),
        (math.sqrt(2),),
    ),
    "x * sigmoid({value} x)": (lambda x, value: x * torch.sigmoid(value * x), (1.702, 1.0, 3.0)),
    "leaky ReLU of slope {value}": (lambda x, value: torch.where(x > 0, x, value * x), (0.01, 0.2)),
    "ELU of {value}": (lambda x, value: torch.where(x > 0, x, value * torch.expm1(x.clamp(max=0))), (0.5, 1.0)),
    "GELU times {value}": (lambda x, value: F.gelu(x) * value, (1.0, 1.7)),
    "ReLU times {value}": (lambda x, value: F.relu(x) * value, (1.0, 1.4)),
}


# a table reads best with an entry's parts side by side
# fmt: off
def kinds(_: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for the MLP, the likeliest first."""
    for number in (3, 0):
        yield Kind("mlp-width", {"mlp": functools.partial(_single, number=number)}, "one Linear for the MLP",
                   "two Linears and a GELU",
                   "nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))")
    for name, function in {**ACTIVATIONS, "no activation": lambda x: x, **_MORE}.items():
        yield Kind("activation", {"activation": replaced_by(function)}, f"{name} in the MLP", "exact GELU", "nn.GELU()")
    for name, (written, start) in _WITH_A_NUMBER.items():
        yield Kind("activation", {"activation": functools.partial(_then, function=written)}, f"{name}, in the MLP",
                   "exact GELU", "nn.GELU()", start=start)
    yield no_bias("mlp-bias", "no bias of the MLP's first Linear", r"\.mlp\.0$")
    yield no_bias("mlp-bias", "no bias of the MLP's second Linear", r"\.mlp\.3$")
    yield Kind("mlp-missing", {"mlp": skipped}, "no MLP in its branch", "two Linears and a GELU", "call the MLP")


# fmt: on


def _single(_: Any, x: Tensor, layer: Callable[[int], tuple[Tensor, Tensor | None]], *, number: int) -> Tensor:
    return F.linear(x, *layer(number))


def _then(_: Any, x: Tensor, *, function: Callable[[Tensor, float], Tensor], value: float) -> Tensor:
    return function(x, value)
