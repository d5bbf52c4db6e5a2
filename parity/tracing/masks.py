"""Dropout masks under control: drawn in an order that every layout in memory shares, or none at all."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class DropoutMasks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draws dropout masks in the order of their indices, and keeps their rates and shapes in `drawn`.

    Torch draws a mask in the order in which the input lies in memory. Two right implementations whose attention leaves
    its output in another layout therefore drop other elements under the same random state.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn: list[tuple[float, tuple[int, ...]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.bernoulli_.float:
            mask, *options = args
            self.drawn.append((options[0], tuple(mask.shape)))
            return mask.copy_(torch.empty(mask.shape, dtype=mask.dtype, device=mask.device).bernoulli_(*options))
        return function(*args, **(kwargs or {}))


class NoDropout(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps everything that a dropout would drop, and undoes its scale."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.bernoulli_.float:
            return args[0].fill_(args[1])  # which is divided by the same number afterwards
        return function(*args, **(kwargs or {}))
