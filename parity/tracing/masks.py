"""Dropout masks under control: drawn in an order that every layout in memory shares, by size, by value, or none."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

_aten = torch.ops.aten
UNIFORM = {_aten.rand.default, _aten.rand_like.default, _aten.uniform_.default}
COMPARISONS = {
    _aten.lt.Scalar: operator.lt, _aten.le.Scalar: operator.le, _aten.gt.Scalar: operator.gt,
    _aten.ge.Scalar: operator.ge,
}  # fmt: skip

_MANY, _HALF = 64, 0.5


class DropoutMasks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draws dropout masks in the order of their indices.

    Torch draws a mask in the order in which the input lies in memory. Two right implementations whose attention leaves
    its output in another layout therefore drop other elements under the same random state.
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is _aten.bernoulli_.float:
            mask, options = args[0], args[1:]
            return mask.copy_(torch.empty(mask.shape, dtype=mask.dtype, device=mask.device).bernoulli_(*options))
        if function is _aten.native_dropout.default:
            values, rate = args[:2]
            return _in_one(
                values, torch.empty(values.shape, dtype=torch.bool, device=values.device).bernoulli_(1 - rate), rate
            )
        return function(*args, **(kwargs or {}))


class MasksBySize(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes what is drawn depend on how many numbers are drawn, and on nothing else.

    Dropouts of one size and rate then drop the same elements in whichever order they are called, whatever was drawn
    before, and whether they ask for a mask or for uniform numbers that they compare with a rate. Two models with the
    same dropouts at the same places agree.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._uniform = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is _aten.bernoulli_.float:
            return args[0].copy_(numbers_of_size(args[0]) >= 1 - kept_by(args))
        if function in (_aten.bernoulli.default, _aten.bernoulli.p):
            values, keep = args[0], args[-1]
            return (numbers_of_size(values) >= 1 - keep).to(values.dtype)
        if function is _aten.native_dropout.default:
            values, rate = args[:2]
            return _in_one(values, numbers_of_size(values) >= rate, rate)
        if function in COMPARISONS and args[0] in self._uniform and args[1] >= _HALF:
            # the smaller part is dropped, and the large numbers are kept, as everywhere
            return COMPARISONS[function](1 - args[0], args[1])
        result = function(*args, **(kwargs or {}))
        if function in UNIFORM and args[1:] in ((), (0, 1)):
            result.copy_(numbers_of_size(result))
            self._uniform[result] = True
        return result


def _in_one(values: torch.Tensor, kept: torch.Tensor, rate: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what `aten.native_dropout` does, by which a GPU drops: what is left of the values, and the mask."""
    return values * kept / (1 - rate), kept


def kept_by(arguments: tuple[Any, ...]) -> float:
    """Returns the probability to keep that a call of `aten.bernoulli_.float` is given, 0.5 if it isn't said."""
    return float(arguments[1]) if len(arguments) > 1 else 0.5


def numbers_of_size(tensor: torch.Tensor) -> torch.Tensor:
    """Returns numbers between 0 and 1, evenly spread, in the shape of `tensor`, that only their count decides."""
    return _numbers(tensor.numel()).view(tensor.shape).to(tensor)


@functools.lru_cache(maxsize=8)
def _numbers(count: int) -> torch.Tensor:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count)).double()
    # of a few, such as one per image, the smallest is dropped at any rate
    return (order + (0.001 if count < _MANY else 0.5)) / count


class MasksByValue(TorchDispatchMode):
    """Lets the values that a dropout is given decide which of them it drops.

    Two models drop the same elements then in whichever order their tokens, heads or images stand, if only they have the
    same values, to as many digits as float64 has. A mask that is used again stays as it is.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._unused = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is _aten.bernoulli_.float:
            self._unused[args[0]] = 1 - kept_by(args)
            return args[0].fill_(1)
        if function is _aten.native_dropout.default:
            values, rate = args[:2]
            return _in_one(values, numbers_of_values(values, values.shape) >= rate, rate)
        if function in (_aten.mul.Tensor, _aten.mul_.Tensor):
            for mask, values in (args, args[::-1]):
                if isinstance(mask, torch.Tensor) and mask in self._unused:
                    rate = self._unused[mask]
                    del self._unused[mask]
                    mask.mul_(numbers_of_values(values, mask.shape) >= rate)
        return function(*args, **(kwargs or {}))


_FINELY = 1234.567


def numbers_of_values(values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Returns numbers between 0 and 1, of a shape, that only the values decide which are dropped together.

    Args:
        values: what is dropped.
        shape: of the mask; its axes of length 1 are shared.
    """
    shared = [axis for axis, length in enumerate(shape) if length == 1]
    means = values.detach().mean(shared, keepdim=True) if shared else values.detach()
    return _FINELY * means / means.square().mean().sqrt() % 1


class NoDropout(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps everything that a dropout would drop, and undoes its scale."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is _aten.bernoulli_.float:
            return args[0].fill_(kept_by(args))  # which is divided by the same number afterwards
        if function is _aten.native_dropout.default:
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        if function is _aten.native_dropout_backward.default:
            return args[0].clone()
        return function(*args, **(kwargs or {}))
