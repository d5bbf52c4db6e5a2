"""What entries of several places share: what happens instead of an operation, and activations."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from parity.explanation.bending import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    Tensor = torch.Tensor
    Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "GELU's tanh approximation": functools.partial(F.gelu, approximate="tanh"),
    "quick GELU, x * sigmoid(1.702 x)": lambda x: x * torch.sigmoid(1.702 * x),
    "ReLU": F.relu,
    "SiLU": F.silu,
    "ReLU6": F.relu6,
    "leaky ReLU": F.leaky_relu,
    "ELU": F.elu,
    "Mish": F.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "squared ReLU": lambda x: F.relu(x).square(),
    "softplus": F.softplus,
}
ADDED = {"GELU": F.gelu, **ACTIVATIONS}


def after(function: Callable[..., Any]) -> Callable[..., Any]:
    """A variant that applies `function` to what the operation returns."""
    return lambda original, *arguments: function(original(*arguments))


def replaced_by(function: Callable[..., Any]) -> Callable[..., Any]:
    """A variant that calls `function` instead of the operation."""
    return lambda _, *arguments: function(*arguments)


def given(value: Any) -> Callable[..., Any]:
    """A variant that returns `value` whatever it is given."""
    return lambda *_: value


def skipped(_: Any, x: Tensor, *__: Any) -> Tensor:
    """A variant that hands on what enters."""
    return x


def found(_: Any, *__: Any, value: float) -> float:
    """A variant that returns the number that was solved for."""
    return value


def whatever(variant: Callable[..., Any]) -> Callable[..., Any]:
    """The variant in a kind with a value that another one of its variants needs."""

    def without_value(*arguments: Any, value: float) -> Any:  # noqa: ARG001
        return variant(*arguments)

    return without_value


def no_bias(id: str, phrase: str, only: str) -> Kind:  # noqa: A002
    """An entry for a projection without its bias, at the places `only`."""
    return Kind(
        id, {"linear": lambda original, x, weight, _: original(x, weight, None)}, phrase, "one", "bias=True", only=only
    )
