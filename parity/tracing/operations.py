"""Which operations a run consists of, so that two runs are seen to compute the same without comparing a number."""

from __future__ import annotations

import contextlib
import itertools
import zlib
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from parity.tracing.nested import address_of, leaves

if TYPE_CHECKING:
    from torch import nn


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what a model has torch do: the operations, their constants, and which tensor goes into which.

    Two runs whose lists are equal have computed the same from the same images, whatever mode each of them was in. A
    tensor is known by where its memory came from: a parameter's or buffer's name, the number of the operation that made
    it, or a checksum of its values.

    Args:
        model: whose run is written down.

    Attributes:
        done: the operations, in order; equal to no other list where one could not be written down.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[object] = []
        self._origins: dict[int, object] = {}
        for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
            with contextlib.suppress(RuntimeError, NotImplementedError):  # of a tensor that has no memory of its own
                self._origins[address_of(tensor)] = name

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            self.done.append((f"{function}", self._described([*args, kwargs])))
            given = {address_of(tensor) for tensor in leaves([*args, kwargs], torch.Tensor)}
        except Exception:  # noqa: BLE001  (whatever kind of tensor it is)
            self.done.append(object())
            given = set()
        result = function(*args, **kwargs)
        with contextlib.suppress(RuntimeError, NotImplementedError):
            for number, tensor in enumerate(leaves(result, torch.Tensor)):
                if address_of(tensor) not in given:
                    self._origins[address_of(tensor)] = len(self.done), number
        return result

    def _described(self, value: Any) -> object:
        if isinstance(value, torch.Tensor):
            origin = self._origins.get(address_of(value))
            if origin is None:
                values = value.detach().contiguous().view(-1).view(torch.uint8).cpu().numpy().data
                origin = self._origins[address_of(value)] = "values", zlib.adler32(values)
            return origin, value.dtype, *value.shape, *value.stride(), value.storage_offset()
        if isinstance(value, (list, tuple)):
            return tuple(map(self._described, value))
        if isinstance(value, dict):
            return tuple((key, self._described(inner)) for key, inner in value.items())
        return f"{value!r}"
