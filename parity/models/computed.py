"""Weights that a module computes of other tensors whenever it is run: they are replaced by what is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn


def computed_weights(module: nn.Module) -> list[str]:
    """Returns the names of the weights that a module computes, by torch's own means, when it is run."""
    return [name for name, _ in _found(module)]


def store_computed(module: nn.Module) -> None:
    """Makes the computed weights of a module plain parameters, of the values that they have at the moment."""
    for _, store in list(_found(module)):
        store()


def _found(module: nn.Module) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields the name of every computed weight, and what makes it a plain parameter."""
    for prefix, inner in module.named_modules():
        path = f"{prefix}." if prefix else ""
        if parametrize.is_parametrized(inner):
            for name in inner.parametrizations:
                yield f"{path}{name}", _storing(parametrize.remove_parametrizations, inner, name)
        for hook in inner._forward_pre_hooks.values():  # noqa: SLF001  (torch keeps them nowhere else)
            if isinstance(hook, WeightNorm):
                yield f"{path}{hook.name}", _storing(remove_weight_norm, inner, hook.name)
            elif isinstance(hook, SpectralNorm):
                yield f"{path}{hook.name}", _storing(remove_spectral_norm, inner, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                name = hook._tensor_name  # noqa: SLF001
                yield f"{path}{name}", _storing(prune.remove, inner, name)


def _storing(remove: Callable[..., object], module: nn.Module, name: str) -> Callable[[], object]:
    return lambda: remove(module, name)
