"""Layers that are calls of functions with a model's own tensors, `F.linear(x, self.weights["up"])`, and no modules.

The tensors may be items of larger ones, such as one with a matrix of every block, `self.up[3]`, and transposed. What
enters and leaves them is what enters and leaves the reference's module whose tensors these are.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from parity.models import IDENTITY, cut, split, tensors_of
from parity.tracing.attention import PARTS
from parity.tracing.run import Point

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from torch import nn

    from parity.models import WeightMap
    from parity.tracing.alignment import Alignment

# functions by where they take their weight, and those that add no bias
_WEIGHTS = {"linear": 1, "conv2d": 1, "layer_norm": 2, "matmul": 1, "__matmul__": 1, "mm": 1}
_PRODUCTS = ("matmul", "__matmul__", "mm", "einsum")
_ADDING = ("add", "__add__", "__radd__", "__iadd__", "add_")


@dataclass(frozen=True)
class Layer:
    """A layer that a candidate has no module of.

    Attributes:
        reference: the module of the reference.
        bias: the candidate's tensor that is its bias; None if it has none.
        is_plain: what it gives has the reference's features in their order.
    """

    reference: str
    bias: str | None = None
    is_plain: bool = True


def function_layers(mapping: WeightMap, candidate: nn.Module, called: set[str]) -> dict[str, Layer]:
    """Returns the layers that may be called as functions, by the name of the candidate's tensor that is their weight.

    Args:
        mapping: which tensor is which.
        candidate: the model.
        called: names of its modules that are called.
    """
    parts = defaultdict[str, dict[str, str]](dict)  # of the reference's modules: tensors of the candidate, by kind
    tensors, permuted = tensors_of(candidate), set[str]()
    for entry in mapping.entries:
        name, box = split(entry.candidate)
        theirs = cut(tensors[name], box)
        module, kind = _module_of(entry.reference, theirs.numel())
        is_matrix = kind == "weight" and (theirs.ndim == 2 or (box and module != "conv_proj"))
        if entry.layout == IDENTITY or is_matrix or (box and kind == "bias"):
            parts[module][kind] = entry.candidate
        if kind == "weight" and not _is_in_order(entry.layout):
            permuted.add(module)
    layers = {
        found["weight"]: Layer(name, found.get("bias"), name not in permuted)
        for name, found in parts.items() if "weight" in found
    }  # fmt: skip
    return {weight: layer for weight, layer in layers.items() if not _is_module(candidate, weight, layer, called)}


def _is_in_order(layout: str) -> bool:
    """Whether a layout step leaves a matrix, or a vector, as it is, or turns it."""
    left, _, right = layout.partition("->")
    axes = [axis for axis in right.split() if axis != "1"]
    return layout == IDENTITY or (sorted(left.split()) == sorted(axes) and "(" not in layout)


def _module_of(reference: str, size: int) -> tuple[str, str]:
    """Returns the module that a tensor of the reference, or a slice of it, is of, and whether it is weight or bias."""
    tensor, box = split(reference)
    module, _, kind = tensor.rpartition(".")
    if not kind.startswith("in_proj_"):
        return (module, kind) if not box else (reference, "")
    if not box:
        return f"{module}.in_proj", kind.removeprefix("in_proj_")
    rows = len(range(box[0].start, box[0].stop))
    number, odd = divmod(box[0].start, rows)
    is_part = len(box) == 1 and not box[0].every and not odd and number < len(PARTS) and size in (rows, rows**2)
    return (f"{module}.{PARTS[number]}", kind.removeprefix("in_proj_")) if is_part else (reference, "")


def _is_module(candidate: nn.Module, weight: str, layer: Layer, called: set[str]) -> bool:
    """Whether a layer's tensors are all that a module has which is called."""
    owner, _, _ = split(weight)[0].rpartition(".")
    own = {f"{owner}.{name}" for name, _ in candidate.get_submodule(owner).named_parameters(recurse=False)}
    return owner in called and own <= {weight, layer.bias}


def with_functions(alignment: Alignment, layers: Mapping[str, Layer]) -> Alignment:
    """Returns an alignment in which layers stand for the modules of the reference that have no other counterpart."""
    aligned = {*alignment.pairs.values()}
    more = {weight: layer.reference for weight, layer in layers.items() if layer.reference not in aligned}
    return dataclasses.replace(alignment, pairs={**alignment.pairs, **more})


class FunctionCalls(TorchFunctionMode):
    """Tells of what enters and leaves the layers of a model that are called as functions, while it is active.

    Args:
        model: as it is held then.
        layers: by the names of their weights.
        tell: takes a point, of a module that is called as the weight is, and the tensor that passes there.
    """

    def __init__(
        self, model: nn.Module, layers: Mapping[str, Layer], tell: Callable[[Point, torch.Tensor], None]
    ) -> None:
        super().__init__()
        tensors = tensors_of(model, keep_vars=True)
        parts = {*tensors, *layers, *filter(None, (layer.bias for layer in layers.values()))}
        self._names = {_values_of(cut(tensors[split(part)[0]], split(part)[1])): part for part in sorted(parts)}
        self._layers = layers
        self._tell = tell
        self._calls = Counter[str]()
        # of layers with a bias, by identity: to hold them would keep every layer's alive
        self._products: dict[int, tuple[str, int, weakref.ref[torch.Tensor]]] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        kind = getattr(function, "__name__", "")
        at = _WEIGHTS.get(kind)
        weight = None if at is None else kwargs.get("weight", args[at] if len(args) > at else None)
        name = self._name_of(weight)
        taken = kwargs.get("input", args[1 if kind == "einsum" else 0] if args else None)
        if kind in _ADDING and len(args) == len(("product", "bias")) and self._products:
            return self._added(function, args, kwargs)
        if at is None or name not in self._layers or not _is_whole(kind, args, taken):
            return function(*args, **kwargs)
        call = self._calls[name]
        self._calls[name] += 1
        self._tell(Point(name, call, "enter"), taken)
        result = function(*args, **kwargs)
        bias, layer = kwargs.get("bias", args[at + 1] if len(args) > at + 1 else None), self._layers[name]
        if kind in _PRODUCTS and layer.bias is not None:
            self._products[id(result)] = name, call, weakref.ref(result)
        elif layer.is_plain and layer.bias == (None if bias is None or kind in _PRODUCTS else self._name_of(bias)):
            self._left(name, call, result)
        return result

    def _added(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Carries out an addition; one of a layer's bias to its product is what leaves the layer."""
        result = function(*args, **kwargs)
        for one, other in ((args[0], args[-1]), (args[-1], args[0])):
            found = self._products.get(id(one))
            if found and found[2]() is one and self._name_of(other) == self._layers[found[0]].bias:
                del self._products[id(one)]
                self._left(*found[:2], result)
        return result

    def _left(self, name: str, call: int, result: torch.Tensor) -> None:
        if self._layers[name].is_plain and result.ndim in (len("BD"), len("BND"), len("BDHW")):
            self._tell(Point(name, call, "leave"), result)

    def _name_of(self, weight: Any) -> str:
        if not isinstance(weight, torch.Tensor):
            return ""
        return self._names.get(_values_of(weight), "")


def _is_whole(kind: str, args: Any, taken: torch.Tensor | None) -> bool:
    """Whether a sum of products takes the features of tokens (B, N, D) on one side, and nothing but these."""
    return kind != "einsum" or (len(args) == len("=xw") and taken is not None and taken.ndim == len("BND"))


def _values_of(tensor: torch.Tensor) -> Hashable:
    """Says which values in memory a tensor has, whatever their order and its shape."""
    axes = sorted((step, length) for step, length in zip(tensor.stride(), tensor.shape, strict=True) if length > 1)
    joined: list[tuple[int, int]] = []
    for step, length in axes:
        if joined and step == joined[-1][0] * joined[-1][1]:
            joined[-1] = joined[-1][0], joined[-1][1] * length
        else:
            joined.append((step, length))
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(joined)
