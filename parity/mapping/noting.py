"""Noting every call of a torch function that takes a tensor of a model.

A call on the model's tensors alone (a transpose, a slice, a stack) is followed, so that its result is still known as
what it was made of. Of every other call it is noted which tensor it takes, and in which orientation.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.overrides import TorchFunctionMode

from parity.mapping.operations import Matrix, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from parity.tracing import Point

What = Literal["matrix", "bias", "scale", "shift", "add", "multiply", "free", "other", "attend"]


@dataclass(frozen=True)
class Use:
    """One use: a matrix, a vector that is added or multiplied, an embedding; or an attention, without a tensor.

    `owner` is the number of the matrix's use to whose product a bias is added.
    """

    what: What
    view: View | None = None
    matrix: Matrix | None = None
    owner: int | None = None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# names of torch's functions, methods and properties by what they do with a tensor
_REORDERING = _words("t transpose permute swapaxes swapdims mT T movedim")
_KEEPING = _words(
    "contiguous to type type_as float double half bfloat16 cpu data detach clone requires_grad_ alias positive"
)
_RESHAPING = _words(
    "view view_as reshape reshape_as ravel flatten unflatten unsqueeze squeeze expand expand_as broadcast_to repeat "
    "tile repeat_interleave unbind chunk split split_with_sizes tensor_split narrow select __getitem__"
)
_VIEWS = _REORDERING | _KEEPING | _RESHAPING
_TOGETHER = _words("cat concat concatenate stack hstack vstack interpolate")
_TABLES = _TOGETHER | _words("embedding sub where index_select gather")
_SILENT = _words(
    "size dim numel nelement stride storage_offset element_size get_device is_contiguous is_floating_point is_complex "
    "item __len__ __repr__ zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty "
    "new_full new_tensor"
)
# and for norms, which of their arguments is the scale; the shift follows
_NORMS = {"layer_norm": 2, "native_layer_norm": 2, "group_norm": 2, "rms_norm": 2, "batch_norm": 3, "instance_norm": 3}
_PRODUCTS = _words("matmul __matmul__ __rmatmul__ __imatmul__ mm bmm addmm baddbmm mv dot inner")
_SUMS = _words("add add_ __add__ __radd__ __iadd__")
_SCALINGS = _words("mul mul_ multiply __mul__ __rmul__ __imul__")
_CONVOLUTIONS = _words("conv1d conv2d conv3d")
_ATTENDING = _words("softmax scaled_dot_product_attention exp exp_")  # a softmax may be written out


class Notes(TorchFunctionMode):
    """Notes every use of the tensors of `model`, which is run on `batch` images, while it is active."""

    def __init__(self, model: nn.Module, order: list[Point], batch: int) -> None:
        super().__init__()
        self._order = order
        self._batch = batch
        self.noted: list[Use] = []
        self.places: list[int] = []  # how many enters and leaves of modules come before each use
        self.heads: int | None = None
        self._known: dict[int, tuple[View, ...]] = {}
        self._products: dict[int, int] = {}  # id of a matrix's product -> number of the matrix's use
        self._kept: list[torch.Tensor] = []  # so that no other tensor gets a noted one's id
        for name, tensor in model.state_dict(keep_vars=True).items():
            shape = tuple(tensor.shape)
            if id(tensor) not in self._known:  # a shared one goes by its first name, as in `named_parameters`
                self._know(tensor, (View(name, shape, axes=tuple(range(len(shape)))),))

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = _name_of(function)
        if name == "multi_head_attention_forward":
            self._note_attention(*args, **kwargs)
        elif name in _ATTENDING:
            self.noted.append(Use("attend"))
            shape = next((tuple(value.shape) for value in _flat((args, kwargs))), ())
            self.heads = self.heads or _heads_of(shape, self._batch, is_query=name.startswith("scaled"))
        self._place()
        if not _indexing_is_told():
            for value in _flat((args, kwargs)):
                self._recognise(value)
        given = [value for value in _flat((args, kwargs)) if id(value) in self._known]
        result = function(*args, **kwargs)
        if name == "multi_head_attention_forward":
            return result
        if given:
            self._note(name, args, kwargs, given, result)
            self._place()
        elif name in _VIEWS and isinstance(result, torch.Tensor):
            owners = [self._products[id(value)] for value in _flat(args) if id(value) in self._products]
            self._has_made(result, owners[:1])
        return result

    def _recognise(self, value: torch.Tensor) -> None:
        """Knows a view that was made by indexing, which torch 2.0 tells nobody of, by the tensor that it is part of."""
        base = value._base  # noqa: SLF001
        if base is None or id(value) in self._known:
            return
        if id(base) in self._products:
            self._has_made(value, [self._products[id(base)]])
        view = self._of(base)
        if view is not None:
            items: list[int] = []
            left = int(value.storage_offset() - base.storage_offset())
            for stride in base.stride()[: base.ndim - value.ndim]:
                items.append(left // stride)
                left %= stride
            inner = value.shape == base.shape[len(items) :] and value.stride() == base.stride()[len(items) :]
            axes = tuple(range(value.ndim)) if inner else None
            shape, item = (view.shape[len(items) :], tuple(items)) if inner else (view.shape, ())
            self._know(value, (View(view.name, shape, item, axes),))

    def _place(self) -> None:
        self.places += [len(self._order)] * (len(self.noted) - len(self.places))

    def _has_made(self, result: Any, owners: list[int]) -> None:
        """Remembers that `result` is the product of a matrix."""
        if owners and isinstance(result, torch.Tensor):
            self._products[id(result)] = owners[0]
            self._kept.append(result)

    def _know(self, tensor: torch.Tensor, views: tuple[View, ...]) -> None:
        self._known[id(tensor)] = views
        self._kept.append(tensor)

    def _of(self, value: Any) -> View | None:
        """The one tensor of the state dict that `value` is, if it is one."""
        views = self._known.get(id(value), ()) if isinstance(value, torch.Tensor) else ()
        return views[0] if len(views) == 1 else None

    def _note(self, name: str, args: Any, kwargs: Any, given: list[torch.Tensor], result: Any) -> None:
        if name in _SILENT:
            return
        all_tensors = list(_flat((args, kwargs)))
        is_own = len(given) == len(all_tensors)
        first = len(self.noted)
        if is_own and name in _VIEWS | _TOGETHER:
            self._follow(name, args, given, result)
        elif name == "linear":
            self._note_linear(*args, **kwargs)
        elif name in _CONVOLUTIONS:
            self._note_linear(*args[:3], **{k: v for k, v in kwargs.items() if k in ("input", "weight", "bias")})
        elif name in _NORMS:
            self._note_norm(_NORMS[name], *args, **kwargs)
        elif name in _PRODUCTS:
            self._note_product(name, all_tensors)
        elif name == "einsum":
            self._note_einsum(args)
        elif name in _SUMS or name in _SCALINGS:
            owner = next((self._products[id(t)] for t in all_tensors if id(t) in self._products), None)
            self._note_all("add" if name in _SUMS else "multiply", given, owner)
        elif name == "addcmul":
            self._note_all("multiply", [tensor for tensor in given if tensor is not all_tensors[0]])
            self._note_all("add", [tensor for tensor in given if tensor is all_tensors[0]])
        else:
            self._note_all("free" if name in _TABLES else "other", given)
        made = [n for n in range(first, len(self.noted)) if self.noted[n].matrix]
        self._has_made(result, made[:1])

    def _note_all(self, what: What, tensors: list[Any], owner: int | None = None) -> None:
        for tensor in tensors:
            self.noted += [Use(what, view, owner=owner) for view in self._known.get(id(tensor), ())]

    def _follow(self, name: str, args: Any, given: list[torch.Tensor], result: Any) -> None:
        """Notes that the result of an operation on a model's own tensors alone is still those tensors."""
        views = tuple(view for tensor in given for view in self._known[id(tensor)])
        results = result if isinstance(result, (tuple, list)) else [result]
        view = views[0]
        for position, tensor in enumerate(results):
            if not isinstance(tensor, torch.Tensor):
                continue
            if len(views) > 1 or name in _KEEPING:
                followed = views
            elif name in _REORDERING:
                followed = (self._reordered(view, given[0], tensor),)
            else:
                item = _item(name, args, given[0], position, len(results))
                stored = tuple(range(len(view.shape)))
                if item is not None and view.axes == stored and tensor.shape == given[0].shape[1:]:
                    followed = (View(view.name, view.shape[1:], (*view.item, item), stored[:-1]),)
                else:
                    axes = view.axes if tensor.shape == given[0].shape else None
                    followed = (View(view.name, view.shape, view.item, axes),)
            self._know(tensor, followed)

    @staticmethod
    def _reordered(view: View, before: torch.Tensor, after: torch.Tensor) -> View:
        if view.axes is None or len(view.axes) != before.ndim:
            return View(view.name, view.shape, view.item)
        # axes are told apart by their strides, which a reordering view keeps
        order = _axis_order(before, after)
        axes = tuple(view.axes[axis] for axis in order) if order else None
        return View(view.name, view.shape, view.item, axes)

    def _note_linear(self, input: Any, weight: Any, bias: Any = None) -> None:  # noqa: A002, ARG002
        for view in self._known.get(id(weight), ()):
            axes = view.axes or tuple(range(len(view.shape)))
            self._note_matrix(view, axes[:1], axes[1:])
        self._note_all("bias", [bias])

    def _note_norm(self, first: int, *args: Any, **options: Any) -> None:
        """Notes scale and shift of a norm, which stand from position `first` on, or are named."""
        options = dict(zip(("weight", "bias"), args[first:], strict=False)) | options
        self._note_all("scale", [options.get("weight")])
        self._note_all("shift", [options.get("bias")])

    def _note_product(self, name: str, tensors: list[torch.Tensor]) -> None:
        if name in ("addmm", "baddbmm"):
            bias, *tensors = tensors
        else:
            bias = None
        for position, tensor in enumerate(tensors):
            for view in self._known.get(id(tensor), ()):
                axes = view.axes or tuple(range(len(view.shape)))
                is_right = position == (0 if name == "__rmatmul__" else 1)
                if len(axes) < 2:
                    self.noted.append(Use("free", view))
                    continue
                last, rest = axes[-1:], axes[:-1]
                if len(axes) > 2:  # a matrix per head: (heads, in, out)
                    last, rest = (axes[:-2] + axes[-1:], axes[-2:-1]) if is_right else (axes[:-1], axes[-1:])
                rows, columns = (last, rest) if is_right or len(axes) > 2 else (rest, last)
                self._note_matrix(view, rows, columns)
        self._note_all("bias", [bias])

    def _note_einsum(self, args: Any) -> None:
        equation, *operands = args
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = list(operands[0])
        if not isinstance(equation, str):
            return
        left, _, right = equation.replace(" ", "").partition("->")
        for letters, operand in zip(left.split(","), operands, strict=False):
            for view in self._known.get(id(operand), ()):
                axes = view.axes
                if axes is None or len(axes) != len(letters):
                    self.noted.append(Use("free", view))
                    continue
                rows = tuple(axis for axis, letter in zip(axes, letters, strict=True) if letter in right)
                columns = tuple(axis for axis in axes if axis not in rows)
                if rows and columns:
                    self._note_matrix(view, rows, columns)
                else:
                    self.noted.append(Use("free", view))

    def _note_matrix(self, view: View, rows: tuple[int, ...], columns: tuple[int, ...]) -> None:
        rows, columns = (tuple(a for a in axes if view.shape[a] > 1) or axes[:1] for axes in (rows, columns))
        self.noted.append(Use("matrix", view, Matrix(view, rows, columns)))

    def _note_attention(
        self,
        query: Any,  # noqa: ARG002
        key: Any,  # noqa: ARG002
        value: Any,  # noqa: ARG002
        width: int,  # noqa: ARG002
        heads: int,
        in_weight: Any,
        in_bias: Any,
        *others: Any,
        **options: Any,
    ) -> None:
        """Notes what `F.multi_head_attention_forward` is given; its inside is torch's own."""
        self.heads = heads
        names = ("bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias")
        options |= dict(zip(names, others, strict=False))
        weights = [in_weight, *(options.get(f"{part}_proj_weight") for part in "qkv")]
        for weight in weights:
            if weight is not None:
                self._note_linear(None, weight, None)
        self._note_all("bias", [in_bias])
        self.noted.append(Use("attend"))
        self._note_linear(None, options.get("out_proj_weight"), options.get("out_proj_bias"))


class _Told(TorchFunctionMode):
    """Counts the calls that it is told of."""

    calls: int = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return function(*args, **(kwargs or {}))


@functools.cache
def _indexing_is_told() -> bool:
    """Returns whether this torch tells a mode of `tensor[0]`, which it does since 2.1."""
    tensor, mode = torch.ones(1), _Told()
    with mode:
        tensor[0]
    return mode.calls > 0


def _heads_of(shape: tuple[int, ...], batch: int, *, is_query: bool) -> int | None:
    """Returns the number of heads, if an attention's queries or scores have this shape and more than one of them."""
    if is_query and len(shape) == 4:
        return shape[1]
    if len(shape) == 3:
        return shape[0] // batch if shape[0] > batch else None
    if len(shape) != 4:
        return None
    others = list(shape[:-1])  # samples, heads and queries, in any order; there are as many queries as keys
    for length in (shape[-1], batch):
        if length in others:
            others.remove(length)
    return others[0] if len(others) == 1 else None


def _item(name: str, args: Any, whole: torch.Tensor, position: int, pieces: int) -> int | None:
    """Which item of the first axis a view is, if it is one."""
    if name == "__getitem__" and isinstance(args[1], int):
        return args[1] % len(whole)
    if name == "select" and len(args) > 2 and args[1] == 0:
        return int(args[2]) % len(whole)
    if name == "unbind" and pieces == len(whole):
        return position
    return None


def _axis_order(before: torch.Tensor, after: torch.Tensor) -> tuple[int, ...] | None:
    """Returns for every axis of `after` the axis of `before` that it is."""
    axes = {
        (length, stride): axis for axis, (length, stride) in enumerate(zip(before.shape, before.stride(), strict=True))
    }
    order = [axes.get(pair) for pair in zip(after.shape, after.stride(), strict=True)]
    if len(axes) != before.ndim or None in order or len(set(order)) != len(order):
        return None
    return tuple(axis for axis in order if axis is not None)


def _name_of(function: Callable[..., Any]) -> str:
    name: str = getattr(function, "__name__", "")
    if name == "__get__":  # a property: `tensor.T`, and what only tells about a tensor, such as `tensor.shape`
        owner = getattr(getattr(function, "__self__", None), "__name__", "")
        return owner if owner in _VIEWS else "size"
    return name


def _flat(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        yield from itertools.chain.from_iterable(map(_flat, values))
    elif isinstance(values, dict):
        yield from itertools.chain.from_iterable(map(_flat, values.values()))
