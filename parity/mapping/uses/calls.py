"""What torch's functions, methods and properties do with a tensor, by their names."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# names of torch's functions, methods and properties by what they do with a tensor
REORDERING = _words("t transpose permute swapaxes swapdims mT T movedim moveaxis")
KEEPING = _words(
    "contiguous to type type_as float double half bfloat16 cpu data detach clone requires_grad_ alias positive"
)
RESHAPING = _words(
    "view view_as reshape reshape_as ravel flatten unflatten unsqueeze squeeze expand expand_as broadcast_to repeat "
    "tile repeat_interleave unbind chunk split split_with_sizes tensor_split narrow select __getitem__"
)
VIEWS = REORDERING | KEEPING | RESHAPING
TOGETHER = _words("cat concat concatenate stack hstack vstack interpolate")
JOINING = _words("cat concat concatenate")
STACKING = _words("stack hstack vstack")
PASSING = _words("dropout dropout_ feature_dropout alpha_dropout")  # nothing, out of train mode
FUSED = (2, 3)  # query, key and value, or two of them, in one matrix
TABLES = TOGETHER | _words("embedding sub where index_select gather")
SILENT = _words(
    "size dim numel nelement stride storage_offset element_size get_device is_contiguous is_floating_point is_complex "
    "item __len__ __repr__ zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty "
    "new_full new_tensor"
)
# and for norms, which of their arguments is the scale; the shift follows
NORMS = {"layer_norm": 2, "native_layer_norm": 2, "group_norm": 2, "rms_norm": 2, "batch_norm": 3, "instance_norm": 3}
PRODUCTS = _words("matmul __matmul__ __rmatmul__ __imatmul__ mm bmm addmm baddbmm mv dot")
SUMS = _words("add add_ __add__ __radd__ __iadd__")
TOTALS = _words("sum nansum mean amax amin einsum")  # over axes of a single tensor
SCALINGS = _words("mul mul_ multiply __mul__ __rmul__ __imul__")
CONVOLUTIONS = _words("conv1d conv2d conv3d")
MULTIPLYING = PRODUCTS | CONVOLUTIONS | _words("linear einsum tensordot inner bilinear")
_WRITING = _words("__setitem__ __iadd__ __isub__ __imul__ __itruediv__ __idiv__")
ATTENDING = _words("softmax scaled_dot_product_attention exp exp_ exp2 exp2_")  # a softmax may be written out


class _Told(TorchFunctionMode):
    """Counts the calls that it is told of."""

    calls: int = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return function(*args, **(kwargs or {}))


@functools.cache
def indexing_is_told() -> bool:
    """Returns whether this torch tells a mode of `tensor[0]`, which it does since 2.1."""
    tensor, mode = torch.ones(1), _Told()
    with mode:
        tensor[0]
    return mode.calls > 0


def name_of(function: Callable[..., Any]) -> str:
    """Returns the name of a function or method, or of a property that is read."""
    name: str = getattr(function, "__name__", "")
    if isinstance(function, torch._ops.OpOverload):  # noqa: SLF001  (of an exported graph)
        name = name.partition(".")[0]
    if name == "__get__":  # a property: `tensor.T`, and what only tells about a tensor, such as `tensor.shape`
        owner = getattr(getattr(function, "__self__", None), "__name__", "")
        return owner if owner in VIEWS else "size"
    return name


def writes(name: str) -> bool:
    """Returns whether something of this name changes its first tensor."""
    return name in _WRITING or (name.endswith("_") and not name.endswith("__"))


def flat(values: Any) -> Iterator[torch.Tensor]:
    """Yields every tensor in nested arguments."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        yield from itertools.chain.from_iterable(map(flat, values))
    elif isinstance(values, dict):
        yield from itertools.chain.from_iterable(map(flat, values.values()))
