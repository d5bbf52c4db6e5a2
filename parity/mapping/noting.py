"""Noting every call of a torch function that takes a tensor of a model.

A call on the model's tensors alone (a transpose, a slice, a stack) is followed, so that its result is still known as
what it was made of. Of every other call it is noted which tensor it takes, and in which orientation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.overrides import TorchFunctionMode

from parity.mapping.axes import axes_after, axis_order, item_of, own_axes
from parity.mapping.calls import (
    ATTENDING,
    CONVOLUTIONS,
    FUSED,
    JOINING,
    KEEPING,
    MULTIPLYING,
    NORMS,
    REORDERING,
    SCALINGS,
    SILENT,
    SUMS,
    TABLES,
    TOGETHER,
    VIEWS,
    flat,
    indexing_is_told,
    name_of,
)
from parity.mapping.operations import Matrix, View
from parity.models import tensors_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

    from parity.tracing import Point

What = Literal["matrix", "bias", "scale", "shift", "add", "multiply", "free", "other", "computed", "attend"]


@dataclass(frozen=True)
class Use:
    """One use: a matrix, a vector that is added or multiplied, an embedding; or an attention, without a tensor.

    What a matrix is computed of, before something is multiplied with it, is `computed`.

    `owner` is the number of the matrix's use to whose product a bias is added, `part` the number of those of several
    equal parts of its rows whose bias it is.
    """

    what: What
    view: View | None = None
    matrix: Matrix | None = None
    owner: int | None = None
    part: int | None = None


@dataclass(frozen=True)
class _Product:
    """What a matrix has made: the number of the matrix's use, and which of several equal parts of it this is."""

    owner: int
    part: int | None = None


class Notes(TorchFunctionMode):
    """Notes every use of the tensors of `model`, which is run on `batch` images, while it is active."""

    def __init__(self, model: nn.Module, order: list[Point], batch: int) -> None:
        super().__init__()
        self._order = order
        self._batch = batch
        self.noted: list[Use] = []
        self.places: list[int] = []  # how many enters and leaves of modules come before each use
        self.heads: int | None = None
        self.is_packed = False
        self._known: dict[int, tuple[View, ...]] = {}
        self._products: dict[int, _Product] = {}  # by the id of a matrix's product
        self._joined: dict[
            int, list[tuple[int, int, View]]
        ] = {}  # first row, rows and tensor, by the id of a joined one
        self._made_of: dict[int, list[int]] = {}  # numbers of the uses that a tensor was computed by, by its id
        self._parameters = {name for name, _ in model.named_parameters()}
        self._kept: list[torch.Tensor] = []  # so that no other tensor gets a noted one's id
        for name, tensor in tensors_of(model, keep_vars=True).items():
            if not tensor.is_floating_point():
                continue  # counters and indices are no weights
            shape = tuple(tensor.shape)
            if id(tensor) not in self._known:  # a shared one goes by its first name, as in `named_parameters`
                self._know(tensor, (View(name, shape, axes=own_axes(shape)),))

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(function)
        if name == "multi_head_attention_forward":
            self._note_attention(*args, **kwargs)
        elif name in ATTENDING:
            self.noted.append(Use("attend"))
            self.heads = self.heads or self._heads_in(args, kwargs)
        self._place()
        if not indexing_is_told():
            for value in flat((args, kwargs)):
                self._recognise(value)
        given = [value for value in flat((args, kwargs)) if id(value) in self._known]
        result = function(*args, **kwargs)
        if name == "multi_head_attention_forward":
            return result
        if given:
            self._note(name, args, kwargs, given, result)
            self._place()
        elif name in VIEWS:
            made = [self._products[id(value)] for value in flat(args) if id(value) in self._products]
            self._follow_product(name, args, result, made[:1])
        return result

    def _heads_in(self, args: Any, kwargs: Any) -> int | None:
        """Returns how many heads attend at once in a softmax over scores (B, H, N, N), or to what (B, H, N, d)."""
        first = next(flat((args, kwargs)), None)
        if first is None or first.ndim < 3 or 0 in first.shape:
            return None
        count, rest = divmod(first.numel(), self._batch * first.shape[-1] * first.shape[-2])
        return count if count > 1 and not rest else None

    def _follow_product(self, name: str, args: Any, result: Any, made: list[_Product]) -> None:
        """Notes that views of a matrix's product are still this product, or one of several equal parts of it."""
        parts = result if isinstance(result, (tuple, list)) else [result]
        for number, tensor in enumerate(parts):
            for product in made:
                part = product.part
                if part is None and len(parts) in FUSED:
                    part = number
                elif part is None and name in ("__getitem__", "select") and isinstance(tensor, torch.Tensor):
                    part = item_of(name, args, args[0], 0, 1) if len(args[0]) in FUSED else None
                self._has_made(tensor, [_Product(product.owner, part)])

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
            axes = own_axes(value.shape) if inner else None
            shape, item = (view.shape[len(items) :], tuple(items)) if inner else (view.shape, ())
            self._know(value, (View(view.name, shape, item, axes),))

    def _place(self) -> None:
        self.places += [len(self._order)] * (len(self.noted) - len(self.places))

    def _has_made(self, result: Any, made: list[_Product]) -> None:
        """Remembers that `result` is the product of a matrix."""
        if made and isinstance(result, torch.Tensor):
            self._products[id(result)] = made[0]
            self._kept.append(result)

    def _know(self, tensor: torch.Tensor, views: tuple[View, ...]) -> None:
        self._known[id(tensor)] = views
        self._kept.append(tensor)

    def _of(self, value: Any) -> View | None:
        """The one tensor of the state dict that `value` is, if it is one."""
        views = self._known.get(id(value), ()) if isinstance(value, torch.Tensor) else ()
        return views[0] if len(views) == 1 else None

    def _note(self, name: str, args: Any, kwargs: Any, given: list[torch.Tensor], result: Any) -> None:
        if name in SILENT:
            return
        all_tensors = list(flat((args, kwargs)))
        is_own = len(given) == len(all_tensors)
        if is_own and name in VIEWS | TOGETHER:
            self._follow(name, args, given, result)
        elif name in JOINING and all(tensor.ndim == 1 for tensor in all_tensors):
            self._know(result, tuple(view for tensor in given for view in self._known[id(tensor)]))
        else:
            first = len(self.noted)
            self._note_uses(name, args, kwargs, given, result)
            if is_own and isinstance(result, torch.Tensor):
                self._compute(given, result, first)
            else:
                made = [_Product(n) for n in range(first, len(self.noted)) if self.noted[n].matrix]
                self._has_made(result, made[:1])
        if name in JOINING and id(result) in self._known:
            self._join(all_tensors, args, kwargs, result)

    def _note_uses(self, name: str, args: Any, kwargs: Any, given: list[torch.Tensor], result: Any) -> None:
        """Notes what an operation takes of the model's tensors."""
        all_tensors = list(flat((args, kwargs)))
        if name in NORMS:
            self._note_norm(NORMS[name], *args, **kwargs)
        elif name in MULTIPLYING:
            self._note_matrices(name, args, kwargs)
        elif name in SUMS or name in SCALINGS:
            product = next((self._products[id(t)] for t in all_tensors if id(t) in self._products), None)
            self._note_all("add" if name in SUMS else "multiply", given, product)
            if product and name in SUMS:
                self._has_made(result, [product])
        elif name == "addcmul":
            self._note_all("multiply", [tensor for tensor in given if tensor is not all_tensors[0]])
            self._note_all("add", [tensor for tensor in given if tensor is all_tensors[0]])
        else:
            self._note_all("free" if name in TABLES else "other", given)

    def _compute(self, given: list[torch.Tensor], result: torch.Tensor, first: int) -> None:
        """Remembers a tensor that is computed of a model's own alone, by uses from `first` on, as one of them.

        That is a parameter of its shape; a low rank may be added to it, a mask or a length multiplied with it.
        """
        views = [view for tensor in given if tensor.shape == result.shape and (view := self._of(tensor))]
        views.sort(key=lambda view: view.name not in self._parameters)
        self._know(result, tuple(views[:1]))
        earlier = [number for tensor in given for number in self._made_of.get(id(tensor), ())]
        self._made_of[id(result)] = [*earlier, *range(first, len(self.noted))]

    def _multiplied(self, tensor: Any) -> tuple[View, ...]:
        """Returns the tensors of the model that something is multiplied with; what they are computed of is noted so."""
        for number in self._made_of.get(id(tensor), ()):
            self.noted[number] = Use("computed", self.noted[number].view)
        return self._known.get(id(tensor), ())

    def _note_matrices(self, name: str, args: Any, kwargs: Any) -> None:
        """Notes what an operation multiplies its input with, and the bias that it adds."""
        if name == "linear":
            self._note_linear(*args, **kwargs)
        elif name in CONVOLUTIONS:
            self._note_linear(*args[:3], **{k: v for k, v in kwargs.items() if k in ("input", "weight", "bias")})
        elif name == "einsum":
            self._note_einsum(args)
        elif name == "tensordot":
            self._note_tensordot(*args, **kwargs)
        elif name == "inner":
            self._note_oriented(flat(args), lambda rank: (range(rank - 1), [rank - 1]))
        elif name == "bilinear":
            weight, *bias = [*flat((args, kwargs))][2:]
            self._note_oriented([weight], lambda rank: ([0], range(1, rank)))
            self._note_all("bias", bias)
        else:
            self._note_product(name, [*flat((args, kwargs))])

    def _note_all(self, what: What, tensors: list[Any], product: _Product | None = None) -> None:
        owner, part = (product.owner, product.part) if product else (None, None)
        for tensor in tensors:
            self.noted += [Use(what, view, owner=owner, part=part) for view in self._known.get(id(tensor), ())]

    def _follow(self, name: str, args: Any, given: list[torch.Tensor], result: Any) -> None:
        """Notes that the result of an operation on a model's own tensors alone is still those tensors."""
        views = tuple(view for tensor in given for view in self._known[id(tensor)])
        results = result if isinstance(result, (tuple, list)) else [result]
        made_of = [number for tensor in given for number in self._made_of.get(id(tensor), ())]
        for position, tensor in enumerate(results):
            if not isinstance(tensor, torch.Tensor):
                continue
            view = views[0] if views else None
            self._made_of[id(tensor)] = made_of
            if view is None or len(views) > 1 or name in KEEPING:
                followed = views
            elif name in REORDERING:
                followed = (self._reordered(view, given[0], tensor),)
            else:
                item = item_of(name, args, given[0], position, len(results))
                if item is not None and view.axes == own_axes(view.shape) and tensor.shape == given[0].shape[1:]:
                    shape = view.shape[1:]
                    followed = (View(view.name, shape, (*view.item, item), own_axes(shape)),)
                else:
                    axes = axes_after(name, view.axes, given[0], tensor, is_item=item is not None)
                    followed = (View(view.name, view.shape, view.item, axes),)
            self._know(tensor, followed)

    def _join(self, tensors: list[torch.Tensor], args: Any, kwargs: Any, result: torch.Tensor) -> None:
        """Remembers which rows of a tensor joined of several are whose, if it is joined along the first axis."""
        if (args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))) != 0:
            return
        row, pieces = 0, []
        for tensor in tensors:
            view = self._of(tensor)
            pieces += [(row, len(tensor), view)] if view else []
            row += len(tensor)
        self._joined[id(result)] = pieces

    @staticmethod
    def _reordered(view: View, before: torch.Tensor, after: torch.Tensor) -> View:
        if view.axes is None or len(view.axes) != before.ndim:
            return View(view.name, view.shape, view.item)
        # axes are told apart by their strides, which a reordering view keeps
        order = axis_order(before, after)
        axes = tuple(view.axes[axis] for axis in order) if order else None
        return View(view.name, view.shape, view.item, axes)

    def _note_oriented(self, tensors: Iterable[Any], orientation: Callable[[int], tuple[Any, Any]]) -> None:
        """Notes every tensor as a matrix; `orientation` tells the axes of rows and of columns by their number."""
        for tensor in tensors:
            for view in self._multiplied(tensor):
                self._note_matrix(view, *orientation(tensor.ndim), tensor.ndim)

    def _note_linear(self, input: Any, weight: Any, bias: Any = None) -> None:  # noqa: A002, ARG002
        first = len(self.noted)
        self._note_oriented([weight], lambda rank: ([0], range(1, rank)))
        rows = self._joined.get(id(weight), [(0, 0, None)])
        pieces = self._joined.get(id(bias))
        if pieces is None:
            self._note_all("bias", [bias])
            return
        owners = {start: first + number for number, (start, *_) in enumerate(rows)}
        for start, length, view in pieces:
            if len(owners) == 1:  # one matrix, and a bias for each part of it
                self.noted.append(Use("bias", view, owner=first, part=start // length))
            else:
                self.noted.append(Use("bias", view, owner=owners.get(start)))

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
            if position == (0 if name == "__rmatmul__" else 1):  # (..., in, out)
                self._note_oriented([tensor], lambda rank: ([*range(rank - 2), rank - 1], [rank - 2]))
            else:
                self._note_oriented([tensor], lambda rank: (range(rank - 1), [rank - 1]))
        self._note_all("bias", [bias])

    def _note_tensordot(self, one: Any, other: Any, dims: Any = 2, **_: Any) -> None:
        for tensor, which in ((one, 0), (other, 1)):
            if isinstance(dims, int):
                over = [*range(one.ndim - dims, one.ndim)] if which == 0 else [*range(dims)]
            else:
                over = [axis % tensor.ndim for axis in dims[which]]
            kept = [axis for axis in range(tensor.ndim) if axis not in over]
            for view in self._multiplied(tensor):
                self._note_matrix(view, kept, over, tensor.ndim)

    def _note_einsum(self, args: Any) -> None:
        equation, *operands = args
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = list(operands[0])
        if not isinstance(equation, str):
            return
        left, _, right = equation.replace(" ", "").partition("->")
        for letters, operand in zip(left.split(","), operands, strict=False):
            kept = [axis for axis, letter in enumerate(letters) if letter in right]
            summed = [axis for axis, letter in enumerate(letters) if letter not in right]
            for view in self._multiplied(operand):
                self._note_matrix(view, kept, summed, len(letters))

    def _note_matrix(self, view: View, rows: Iterable[int], columns: Iterable[int], rank: int) -> None:
        """Notes a matrix by the axes of its value; a table, where an axis of its own is both of rows and of columns."""
        rows, columns = [*rows], [*columns]
        axes = view.axes if view.axes is not None else own_axes(view.shape)
        if len(axes) != rank or not rows or not columns or max(*rows, *columns) >= rank:
            self.noted.append(Use("free", view))
            return
        ours, theirs = (tuple(dict.fromkeys(a for n in which for a in axes[n])) for which in (rows, columns))
        ours, theirs = (tuple(a for a in own if view.shape[a] > 1) or own[:1] for own in (ours, theirs))
        if not ours or not theirs or set(ours) & set(theirs):
            self.noted.append(Use("free", view))
            return
        self.noted.append(Use("matrix", view, Matrix(view, ours, theirs)))

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
        self.heads, self.is_packed = heads, in_weight is not None
        names = ("bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias")
        options |= dict(zip(names, others, strict=False))
        weights = [in_weight, *(options.get(f"{part}_proj_weight") for part in "qkv")]
        for weight in weights:
            if weight is not None:
                self._note_linear(None, weight, None)
        self._note_all("bias", [in_bias])
        self.noted.append(Use("attend"))
        self._note_linear(None, options.get("out_proj_weight"), options.get("out_proj_bias"))
