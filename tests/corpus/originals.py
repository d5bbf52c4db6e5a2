"""The models whose weights are converted: torchvision's ViT with weights that mean something, and a few odd ones."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torchvision.models import VisionTransformer

from tests.corpus.cases import SIZES
from tests.corpus.ports import GRID, D, put_together, taken_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from tests.corpus.ports import State


def _drawn(seed: int) -> State:
    """Draws every tensor: scales around 1, biases around 0, matrices so that a sum keeps about its variance.

    As in trained weights, and unlike initial ones, rows and columns have sizes of their own.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in VisionTransformer(**SIZES).state_dict().items():
        values = torch.randn(tensor.shape, generator=generator)
        for axis, length in enumerate(tensor.shape if tensor.ndim > 1 else ()):
            sizes = torch.randn(length, generator=generator).mul(0.3).exp()
            values = values.movedim(axis, -1).mul(sizes).movedim(-1, axis)
        if tensor.ndim == 1:
            state[name] = values * 0.2 + (name.endswith("weight"))
        elif "class_token" in name or "pos_embedding" in name:
            state[name] = values * 0.5
        else:
            state[name] = values * tensor[0].numel() ** -0.5
    return state


def resized(grid: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    """Resizes (h, w, features) to (size, size, features)."""
    return F.interpolate(grid.permute(2, 0, 1)[None], (size, size), mode=mode)[0].permute(1, 2, 0)


def _with_positions_of_a_larger_grid(mode: str) -> State:
    parts = taken_apart(_drawn(0))
    larger = 0.5 * torch.randn(7, 7, D, generator=torch.Generator().manual_seed(7))
    return put_together(parts | {"positions": resized(larger, GRID, mode).reshape(-1, D)})


def _fresh() -> State:
    """Torchvision's initial values, many of them zeros and ones, but for the head."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        state: State = VisionTransformer(**SIZES).state_dict()
    return state | {name: t for name, t in _drawn(0).items() if name.startswith("heads.")}


def _with_twins() -> State:
    parts = taken_apart(_drawn(0))
    return put_together(parts | {k: parts[k.replace("blocks.2", "blocks.1")] for k in parts if "blocks.2" in k})


def _without_head_bias() -> State:
    state = _drawn(0)
    return state | {"heads.head.bias": torch.zeros_like(state["heads.head.bias"])}


_STATES: Mapping[str, Callable[[], State]] = {
    "usual": lambda: _drawn(0),
    "another": lambda: _drawn(1),
    "resized": lambda: _with_positions_of_a_larger_grid("bicubic"),
    "resized-bilinear": lambda: _with_positions_of_a_larger_grid("bilinear"),
    "fresh": _fresh,
    "with twins": _with_twins,
    "without head bias": _without_head_bias,
    "of bfloat16 numbers": lambda: {name: t.bfloat16().float() for name, t in _drawn(0).items()},
}


@functools.cache
def original(name: str = "usual") -> nn.Module:
    """Returns one of the models, in eval mode; nobody changes it."""
    model: nn.Module = VisionTransformer(**SIZES).eval()
    model.load_state_dict(_STATES[name]())
    return model


def original_parts(name: str = "usual") -> State:
    """Returns copies of the parts of its weights."""
    return taken_apart(original(name).state_dict())


@functools.cache
def _stepped() -> State:
    """The usual weights after one step of plain gradient descent on noise, in float64."""
    model: nn.Module = VisionTransformer(**SIZES).double()
    model.load_state_dict(original().state_dict())
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, SIZES["image_size"], SIZES["image_size"], generator=generator).double()
    labels = torch.randint(SIZES["num_classes"], (8,), generator=generator)
    gradients = torch.autograd.grad(F.cross_entropy(model(images), labels), [*model.parameters()])
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.sub_(3e-3 * gradient)
    state: State = model.float().state_dict()
    return state


def trained_parts() -> State:
    """Returns the parts of the usual weights after one more step of training."""
    return taken_apart(_stepped())
