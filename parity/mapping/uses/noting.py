"""Noting every call of a torch function that takes a tensor of a model: which tensor, and in which orientation.

A call on the model's tensors alone (a transpose, a slice, a stack) is no use of them; it is followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.overrides import TorchFunctionMode

from parity.mapping.uses.axes import joined_axis, own_axes
from parity.mapping.uses.calls import (
    ATTENDING,
    CONVOLUTIONS,
    JOINING,
    MULTIPLYING,
    NORMS,
    PASSING,
    SCALINGS,
    SILENT,
    STACKING,
    SUMS,
    TABLES,
    TOGETHER,
    TOTALS,
    VIEWS,
    flat,
    indexing_is_told,
    name_of,
    writes,
)
from parity.mapping.uses.following import Followed
from parity.mapping.uses.lineages import Lineages
from parity.mapping.uses.operations import Matrix, View
from parity.mapping.uses.products import Owners, Product, Products

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

    from parity.tracing import Point

What = Literal[
    "matrix", "bias", "scale", "shift", "statistics", "add", "multiply", "free", "other", "computed", "attend"
]  # fmt: skip


@dataclass(frozen=True)
class Use:
    """One use: a matrix, a vector that is added or multiplied, an embedding; or an attention, without a tensor.

    A norm's running mean and variance are its `statistics`.

    What a matrix is computed of, before something is multiplied with it, is `computed`.

    `owner` is the number of the matrix's use to whose product a bias is added, `part` the number of those of several
    equal parts of its rows whose bias it is.
    """

    what: What
    view: View | None = None
    matrix: Matrix | None = None
    owner: int | None = None
    part: int | None = None


# whose third argument is the value
_KERNEL = "scaled_dot_product_attention"

# what stands between the input of a norm and its scale, where it has that
_RUNNING = ("running_mean", "running_var")


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
        self._followed = Followed(model)
        self._products = Products()
        self.lineages = Lineages()

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
        given = [value for value in flat((args, kwargs)) if value in self._followed]
        result = function(*args, **kwargs)
        if name == "multi_head_attention_forward":
            self._follow_lineages(name, args, kwargs, result)
            return result
        if given:
            self._note(name, args, kwargs, given, result)
            self._place()
        else:
            self._note_without(name, args, kwargs, result)
        self._follow_lineages(name, args, kwargs, result)
        tensors = [*flat((args, kwargs))]
        if tensors and writes(name):
            self._followed.overwrite(tensors[0], tensors[1:])
        return result

    def _note_without(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        """Notes what becomes of constants and of the matrices' products in an operation that takes nothing else."""
        tensors = [*flat((args, kwargs))]
        if name in SILENT or all(map(self._followed.is_constant, tensors)):
            for value in flat((result,)):
                self._followed.keep_constant(value)
        elif name in VIEWS | PASSING:
            self._products.follow(name, args, result)
        elif name in SUMS:
            self._products.sum_up(tensors, result)
        elif name in TOTALS:
            self._products.total(tensors, result)
        elif name in JOINING and joined_axis(name, args, kwargs, result) == result.ndim - 1:
            self._products.join(tensors, result)

    def _heads_in(self, args: Any, kwargs: Any) -> int | None:
        """Returns how many heads attend at once in a softmax over scores (B, H, N, N), or to what (B, H, N, d)."""
        first = next(flat((args, kwargs)), None)
        if first is None or first.ndim < 3 or 0 in first.shape:
            return None
        count, rest = divmod(first.numel(), self._batch * first.shape[-1] * first.shape[-2])
        return count if count > 1 and not rest else None

    def _recognise(self, value: torch.Tensor) -> None:
        base = value._base  # noqa: SLF001
        if base is not None and value not in self._followed:
            self._products.follow("", [base], value)
            self._followed.recognise(value, base)

    def _place(self) -> None:
        self.places += [len(self._order)] * (len(self.noted) - len(self.places))

    def _follow_lineages(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        """Remembers by which uses that was made which a call takes and gives."""
        tensors = [*flat((args, kwargs))]
        new = self.noted[len(self.lineages.of_uses) :]
        steps = [use.view if use.matrix and use.view else use.what == "attend" for use in new]
        given = [tensor for tensor in tensors if not self._followed.is_own(tensor)]
        written = [tensors[0], tensors[0]._base] if tensors and writes(name) else []  # noqa: SLF001
        made = [value for value in (*flat((result,)), *written) if value is not None]
        value = kwargs.get("value", args[2] if len(args) > 2 else None) if name == _KERNEL else None
        self.lineages.note(given, steps, made, are_nested=name == "multi_head_attention_forward", value=value)

    def _note(self, name: str, args: Any, kwargs: Any, given: list[torch.Tensor], result: Any) -> None:
        if name in SILENT:
            if isinstance(result, torch.Tensor):
                self._followed.keep_constant(result)
            return
        all_tensors = list(flat((args, kwargs)))
        is_own = all(map(self._followed.is_own, all_tensors))
        if is_own and name in STACKING | JOINING:
            self._followed.join(name, all_tensors, args, kwargs, result)
        elif is_own and name in VIEWS | TOGETHER:
            self._followed.follow(name, args, given, result)
        elif name in JOINING and all(tensor.ndim == 1 for tensor in all_tensors):
            self._followed.join(name, all_tensors, args, kwargs, result)
        else:
            first = len(self.noted)
            self._note_uses(name, args, kwargs, given, result)
            if is_own and isinstance(result, torch.Tensor):
                self._followed.compute(given, result, range(first, len(self.noted)))
            else:
                owners = self._owners(first)
                if owners.first:
                    matrices = (self.noted[number].matrix for _, number in owners.first)
                    by_items = any(matrix and matrix.shared for matrix in matrices)
                    self._products.remember(result, Product(owners, result, is_by_items=by_items))

    def _note_uses(self, name: str, args: Any, kwargs: Any, given: list[torch.Tensor], result: Any) -> None:
        """Notes what an operation takes of the model's tensors."""
        all_tensors = list(flat((args, kwargs)))
        if name in NORMS:
            self._note_norm(NORMS[name], *args, **kwargs)
        elif name in MULTIPLYING:
            self._note_matrices(name, args, kwargs)
        elif name in SUMS or name in SCALINGS:
            product = self._products.of(all_tensors)
            if product and name in SUMS:
                for tensor in given:
                    self._note_bias("add", tensor, product.owners, product.part)
                self._products.sum_up(all_tensors, result)
            else:
                self._note_all("add" if name in SUMS else "multiply", given)
        elif name == "addcmul":
            self._note_all("multiply", [tensor for tensor in given if tensor is not all_tensors[0]])
            self._note_all("add", [tensor for tensor in given if tensor is all_tensors[0]])
        else:
            self._note_all("free" if name in TABLES else "other", given)

    def _taken(self, tensor: Any) -> tuple[View, ...]:
        """Returns the tensors of the model that an operation takes as one; what they are computed of is noted so."""
        for number in self._followed.made_of(tensor):
            self.noted[number] = Use("computed", self.noted[number].view)
        return self._followed.views(tensor)

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
            self._note_linear(None, *[*flat((args, kwargs))][2:])
        else:
            self._note_product(name, [*flat((args, kwargs))])

    def _note_all(self, what: What, tensors: list[Any]) -> None:
        for tensor in tensors:
            self.noted += [Use(what, view) for view in self._followed.views(tensor)]

    def _note_oriented(
        self, tensors: Iterable[Any], orientation: Callable[[int], tuple[Any, Any]], shared: Iterable[int] = ()
    ) -> None:
        """Notes every tensor as a matrix; `orientation` tells the axes of rows and of columns by their number."""
        for tensor in tensors:
            for view in self._taken(tensor):
                self._note_matrix(view, *orientation(tensor.ndim), tensor.ndim, shared)

    def _note_linear(self, input: Any, weight: Any, bias: Any = None) -> None:  # noqa: A002, ARG002
        first = len(self.noted)
        self._note_oriented([weight], lambda rank: ([0], range(1, rank)))
        self._note_bias("bias", bias, self._owners(first))

    def _owners(self, first: int) -> Owners:
        """Returns the matrices that were noted from `first` on, by the first of their rows among all of these."""
        owners, row = [], 0
        for number in range(first, len(self.noted)):
            matrix = self.noted[number].matrix
            if matrix is not None:
                owners.append((row, number))
                row += matrix.shape[0]
        return Owners(tuple(owners), row)

    def _note_bias(self, what: What, tensor: Any, owners: Owners, part: int | None = None) -> None:
        """Notes what is added to the product of some matrices, or to one of several equal parts of it."""
        views = self._followed.views(tensor)
        if not views:
            return
        if what == "bias" or tensor.numel() <= owners.rows:
            self._taken(tensor)
        joined = self._followed.joined(tensor)
        if not owners.first:
            self._note_all(what, [tensor])
        elif joined and len(owners.first) == 1:  # one matrix, and a bias for each part of it
            number = owners.first[0][1]
            self.noted += [Use(what, p.view, owner=number, part=p.start // p.length) for p in joined.pieces]
        elif joined:
            by_row = dict(owners.first)
            self.noted += [
                Use(what, p.view, owner=by_row.get(p.start * owners.rows // joined.length)) for p in joined.pieces
            ]
        else:
            shares = owners.shares(views[0]) if len(owners.first) > 1 else []
            self.noted += [Use(what, view, owner=number) for view, number in shares]
            if not shares:
                self.noted += [self._added(what, view, owners.first[0][1], part) for view in views]

    def _added(self, what: What, view: View, number: int, part: int | None) -> Use:
        """Returns the use of a tensor, or of its item or slice, as a bias of the matrix whose use has this number."""
        matrix = self.noted[number].matrix
        assert matrix is not None
        rows, whole = matrix.shape[0], self._followed.whole(view.name)
        added = whole if view.item and whole.size == rows else view.used(rows)
        return Use(what, added, owner=number, part=part if added.size < rows else None)

    def _note_norm(self, first: int, *args: Any, **options: Any) -> None:
        """Notes scale and shift of a norm, which stand from position `first` on, or are named."""
        options = dict(zip(("weight", "bias"), args[first:], strict=False)) | options
        running = dict(zip(_RUNNING, args[1:first], strict=False)) if first > len(_RUNNING) else {}
        self._note_all("statistics", [(running | options).get(name) for name in _RUNNING])
        scale, shift = options.get("weight"), options.get("bias")
        for tensor in (scale, shift):
            self._taken(tensor)
        self._note_all("scale", [scale])
        self._note_all("shift", [shift])

    def _note_product(self, name: str, tensors: list[torch.Tensor]) -> None:
        if name in ("addmm", "baddbmm"):
            bias, *tensors = tensors
        else:
            bias = None
        first = len(self.noted)
        for position, tensor in enumerate(tensors):
            if position == (0 if name == "__rmatmul__" else 1):  # (..., in, out)
                shared = _shared_ahead(tensor, tensors[1 - position])
                self._note_oriented([tensor], lambda rank: ([*range(rank - 2), rank - 1], [rank - 2]), shared)
            else:
                self._note_oriented([tensor], lambda rank: (range(rank - 1), [rank - 1]))
        self._note_bias("bias", bias, self._owners(first))

    def _note_tensordot(self, one: Any, other: Any, dims: Any = 2, **_: Any) -> None:
        for tensor, which in ((one, 0), (other, 1)):
            if isinstance(dims, int):
                over = [*range(one.ndim - dims, one.ndim)] if which == 0 else [*range(dims)]
            else:
                over = [axis % tensor.ndim for axis in dims[which]]
            kept = [axis for axis in range(tensor.ndim) if axis not in over]
            for view in self._taken(tensor):
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
            shared = [axis for axis in kept if left.count(letters[axis]) > 1]
            for view in self._taken(operand):
                self._note_matrix(view, kept, summed, len(letters), shared)

    def _note_matrix(
        self, view: View, rows: Iterable[int], columns: Iterable[int], rank: int, shared: Iterable[int] = ()
    ) -> None:
        """Notes a matrix by the axes of its value; a table, where an axis of its own is both of rows and of columns.

        Those of its rows that what it is multiplied with has as well are `shared`.
        """
        rows, columns = [*rows], [*columns]
        axes = view.axes if view.axes is not None else own_axes(view.shape)
        if len(axes) != rank or not rows or not columns or max(*rows, *columns) >= rank:
            self.noted.append(Use("free", view))
            return
        ours, theirs = (tuple(dict.fromkeys(a for n in which for a in axes[n])) for which in (rows, columns))
        # an axis of which one item was taken tells rows apart
        ours = (*(a for a in range(len(view.shape)) if not any(a in axis for axis in axes)), *ours)
        ours, theirs = (tuple(a for a in own if view.shape[a] > 1) or own[:1] for own in (ours, theirs))
        if not ours or not theirs or set(ours) & set(theirs):
            self.noted.append(Use("free", view))
            return
        both = tuple(a for n in shared for a in axes[n] if a in ours)
        self.noted.append(Use("matrix", view, Matrix(view, ours, theirs, both)))

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
        first = len(self.noted)
        for weight in weights:
            if weight is not None:
                self._note_linear(None, weight, None)
        self._note_bias("bias", in_bias, self._owners(first))
        self.noted.append(Use("attend"))
        self._note_linear(None, options.get("out_proj_weight"), options.get("out_proj_bias"))


def _shared_ahead(matrix: torch.Tensor, other: torch.Tensor) -> list[int]:
    """Returns the axes ahead of a matrix's own two that what it is multiplied with has as well."""
    return [
        matrix.ndim - back
        for back in range(3, min(matrix.ndim, other.ndim) + 1)
        if matrix.shape[-back] > 1 < other.shape[-back]
    ]
