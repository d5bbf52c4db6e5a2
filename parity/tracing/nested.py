"""Tensors in nested tuples, lists and dicts, as modules take and return them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Tensors = list[torch.Tensor]

T = TypeVar("T")


def unique_tensors(values: Any) -> Tensors:
    """Returns the tensors of floating-point numbers in nested tuples, lists and dicts, each once, in order.

    Those that have no values at places of one shape, sparse and nested ones, are left out, and so are those of all
    images together that torch.vmap shows as one image's.
    """
    found: dict[int, torch.Tensor] = {}

    def collect(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point() and _is_dense(value):
            found.setdefault(id(value), value)
        return value

    map_leaves(collect, values)
    return list(found.values())


def first_tensor(output: Any) -> torch.Tensor | None:
    """Returns the logits in a model's output: a tensor, `.logits`, `["logits"]`, or the first tensor in it."""
    output = output["logits"] if isinstance(output, dict) and "logits" in output else getattr(output, "logits", output)
    found = next(iter(unique_tensors(output)), None)
    return None if found is None else plain(found)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor of a class of somebody's own as torch's: comparing may mean something else there."""
    kind = type(tensor)
    if kind in (torch.Tensor, torch.nn.Parameter) or kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return tensor
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001  (no public way)
        return tensor.as_subclass(torch.Tensor)


def _is_dense(tensor: torch.Tensor) -> bool:
    is_batched = torch._C._functorch.is_batchedtensor(tensor)  # noqa: SLF001  (no public way)
    return tensor.layout == torch.strided and not tensor.is_nested and not is_batched


def substituted(values: Any, replacement: dict[int, torch.Tensor]) -> Any:
    """Returns `values` with other tensors in the places of those whose `id` is a key of `replacement`."""
    return map_leaves(lambda value: replacement.get(id(value), value), values)


def leaves(values: Any, kind: type[T]) -> Iterator[T]:
    """Yields everything of one type in nested tuples, lists and dicts, in order."""
    if isinstance(values, kind):
        yield values
    elif isinstance(values, (tuple, list, dict)):
        for item in values.values() if isinstance(values, dict) else values:
            yield from leaves(item, kind)


def address_of(tensor: torch.Tensor) -> int:
    """Returns where a tensor's memory begins; one that has none has a number of its own."""
    address: int = tensor.untyped_storage().data_ptr()
    return address or -id(tensor)


def map_leaves(function: Callable[[Any], Any], values: Any) -> Any:
    """Returns `values` with `function` applied to everything in it that is no tuple, list or dict."""
    if isinstance(values, dict):
        return {key: map_leaves(function, value) for key, value in values.items()}
    if isinstance(values, (tuple, list)):
        items = [map_leaves(function, value) for value in values]
        return type(values)(*items) if hasattr(values, "_fields") else type(values)(items)
    return function(values)
