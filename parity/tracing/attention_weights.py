"""What the tokens of a model attend to, seen as it runs: the attention weights, whoever computes them.

Torch's own attention keeps them in one kernel. While somebody watches, it computes them one step after the other, so
that they are seen like those of an attention that somebody has written out.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOFTMAX = {"_softmax", "_safe_softmax"}
_LAST_OF_A_SOFTMAX = {"div", "exp", "mul"}  # where it is written out
_KERNELS = ("flash", "mem_efficient", "cudnn")  # of torch's attention, beside the one that is written out

# how far the sum of a row may be from 1, in float32 as well
_CLOSE = 1e-5


class AttentionWeights(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the mean of all heads of every attention that a run of one image computes.

    An attention is a softmax over as many keys as there are queries; where a model has none, what is divided or raised
    to a power so that all rows have the sum 1.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._softmaxes: list[torch.Tensor] = []
        self._written_out: list[torch.Tensor] = []

    @property
    def found(self) -> list[torch.Tensor]:
        """The attention weights (N, N), queries by keys, in the order in which they were computed."""
        return self._softmaxes or self._written_out

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if isinstance(result, torch.Tensor) and _is_square(result):
            if name in _SOFTMAX:
                self._softmaxes.append(_mean(result))
            elif name.rstrip("_") in _LAST_OF_A_SOFTMAX and _has_rows_of_one(result):
                self._written_out.append(_mean(result))
        return result


def _is_square(x: torch.Tensor) -> bool:
    return x.ndim >= 3 and x.is_floating_point() and x.shape[-1] == x.shape[-2] > 1


def _has_rows_of_one(x: torch.Tensor) -> bool:
    return bool((x >= 0).all()) and bool(((x.sum(-1) - 1).abs() < _CLOSE).all())


def _mean(x: torch.Tensor) -> torch.Tensor:
    return x.detach().reshape(-1, *x.shape[-2:]).mean(0).double().cpu()


@contextlib.contextmanager
def attention_written_out() -> Iterator[None]:
    """Has torch's attention compute its weights one step after the other for as long as the context lasts."""
    backends = torch.backends.cuda  # which are the CPU's as well
    names = [name for name in _KERNELS if hasattr(backends, f"enable_{name}_sdp")]
    was = {name: getattr(backends, f"{name}_sdp_enabled")() for name in names}
    try:
        for name in names:
            getattr(backends, f"enable_{name}_sdp")(False)
        yield
    finally:
        for name in names:
            getattr(backends, f"enable_{name}_sdp")(was[name])
