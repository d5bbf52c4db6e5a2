"""What a forward pass does with every tensor of a model, in the order in which it does it.

A model is run once, on the meta device where it can be, and every call of a torch function that takes one of its
parameters or buffers is noted: which operation, in which orientation. Consecutive uses are gathered into *operations*
(a projection with its bias, a norm with its scale and shift, all projections that lead into one attention). Neither
names nor the order of declaration play a part.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.overrides import TorchFunctionMode

from parity.models.weight_map import state_shapes
from parity.tracing.run import MODES, call_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from parity.tracing.run import Point

Kind = Literal["matrix", "attention", "norm", "scale"]
What = Literal["matrix", "bias", "scale", "shift", "add", "multiply", "free", "other", "attend"]


@dataclass(frozen=True)
class View:
    """A tensor of the state dict, or one item of its first axes, and how its axes stand.

    Attributes:
        name: in the state dict.
        shape: of the tensor, or of the item.
        item: which item of the first axes (parameters of all blocks stacked in one tensor); empty for the whole.
        axes: where each axis of `shape` went: the candidate's own axis by position in the value that is used; None once
            it has been reshaped, so that this can't be said.
    """

    name: str
    shape: tuple[int, ...]
    item: tuple[int, ...] = ()
    axes: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()

    def __str__(self) -> str:
        """Names the tensor, with its item."""
        return f"{self.name}[{', '.join(f'{n}:{n + 1}' for n in self.item)}]" if self.item else self.name


@dataclass(frozen=True)
class Matrix:
    """A tensor that something is multiplied with: `rows` and `columns` are its axes of output and input features."""

    view: View
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def features(self, axes: tuple[int, ...]) -> int:
        """Number of features along `axes`."""
        return torch.Size(self.view.shape[axis] for axis in axes).numel()

    @property
    def shape(self) -> tuple[int, int]:
        """Output and input features."""
        return self.features(self.rows), self.features(self.columns)


@dataclass
class Projection:
    """A matrix, and the bias that is added to its product."""

    matrix: Matrix
    bias: View | None = None


@dataclass
class Operation:
    """Uses that belong together.

    Attributes:
        kind: `matrix` (a projection or convolution), `attention` (all projections into one attention), `norm`, or
            `scale` (a multiplication with a vector).
        projections: of a matrix one, of an attention one to many, in order of use; of a norm or a scale none.
        vectors: scale and shift of a norm.
        at: how many enters and leaves of modules come before (the last of) its tensors is used.
    """

    kind: Kind
    projections: list[Projection] = field(default_factory=list)
    vectors: list[View | None] = field(default_factory=list)
    at: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """What must agree with another operation's for the two to correspond."""
        if self.kind == "matrix":
            return "matrix", *self.projections[0].matrix.shape
        if self.kind == "attention":
            return "attention", self.rows, self.projections[0].matrix.shape[1]
        first = next(v for v in self.vectors if v)
        return "vector", first.size

    @property
    def rows(self) -> int:
        """Output features of all its matrices together."""
        return sum(projection.matrix.shape[0] for projection in self.projections)

    @property
    def views(self) -> list[View]:
        """Every tensor in it."""
        matrices, biases = [p.matrix.view for p in self.projections], [p.bias for p in self.projections]
        return matrices + [view for view in (*biases, *self.vectors) if view]


@dataclass(frozen=True)
class Uses:
    """What one forward pass of a model did with its tensors.

    Attributes:
        operations: in order.
        free: tensors that are neither multiplied with nor added as a bias: tokens and embeddings.
        unused: names of tensors that no operation took.
        order: enters and leaves of its modules.
        heads: number of heads, where an attention operation told it.
    """

    operations: list[Operation]
    free: list[View]
    unused: list[str]
    order: list[Point]
    heads: int | None


def trace(model: nn.Module, images: torch.Tensor, owner: str) -> Uses:
    """Runs `model` once on `images` and returns what it does with its tensors.

    Args:
        model: on any device, also meta.
        images: (B, C, H, W), on the same device.
        owner: who the model is, for messages.

    Raises:
        ParityError: the model raised, or returned no tensor.
    """
    order: list[Point] = []
    notes = _Notes(model, order)
    with MODES["eval-grad"].active(model), notes:
        call_order(model, images, owner, order)
    gatherer = _Gatherer()
    numbered = list(zip(range(len(notes.events)), notes.events, notes.places, strict=True))
    # what only an unknown function took comes last: a tensor's other uses say more
    for number, event, at in sorted(numbered, key=lambda item: item[1].what == "other"):
        gatherer.take(number, event, at)
    used = {event.view.name for event in notes.events if event.view}
    unused = [name for name in state_shapes(model) if name not in used]
    return Uses(gatherer.operations, gatherer.free, unused, order, notes.heads)


@dataclass(frozen=True)
class _Event:
    """One use: a matrix, a vector that is added or multiplied, an embedding; or an attention, without a tensor.

    `owner` is the number of the matrix's event to whose product a bias is added.
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


class _Notes(TorchFunctionMode):
    """Notes every use of the tensors of `model` while it is active."""

    def __init__(self, model: nn.Module, order: list[Point]) -> None:
        super().__init__()
        self._order = order
        self.events: list[_Event] = []
        self.places: list[int] = []  # how many enters and leaves of modules come before each event
        self.heads: int | None = None
        self._known: dict[int, tuple[View, ...]] = {}
        self._products: dict[int, int] = {}  # id of a matrix's product -> number of the matrix's event
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
            self.events.append(_Event("attend"))
        self._place()
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

    def _place(self) -> None:
        self.places += [len(self._order)] * (len(self.events) - len(self.places))

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
        first = len(self.events)
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
        made = [n for n in range(first, len(self.events)) if self.events[n].matrix]
        self._has_made(result, made[:1])

    def _note_all(self, what: What, tensors: list[Any], owner: int | None = None) -> None:
        for tensor in tensors:
            self.events += [_Event(what, view, owner=owner) for view in self._known.get(id(tensor), ())]

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
                    self.events.append(_Event("free", view))
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
                    self.events.append(_Event("free", view))
                    continue
                rows = tuple(axis for axis, letter in zip(axes, letters, strict=True) if letter in right)
                columns = tuple(axis for axis in axes if axis not in rows)
                if rows and columns:
                    self._note_matrix(view, rows, columns)
                else:
                    self.events.append(_Event("free", view))

    def _note_matrix(self, view: View, rows: tuple[int, ...], columns: tuple[int, ...]) -> None:
        rows, columns = (tuple(a for a in axes if view.shape[a] > 1) or axes[:1] for axes in (rows, columns))
        self.events.append(_Event("matrix", view, Matrix(view, rows, columns)))

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
        self.events.append(_Event("attend"))
        self._note_linear(None, options.get("out_proj_weight"), options.get("out_proj_bias"))


class _Gatherer:
    """Gathers uses into operations; a tensor that is used again is left out."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.free: list[View] = []
        self._made_by: dict[int, Projection] = {}  # by the number of the matrix's event
        self._seen: set[str] = set()
        self._is_attending = False  # since a softmax, until all projections into the attention are there

    def take(self, number: int, event: _Event, at: int) -> None:
        """Takes the next use, with its number and place."""
        view = event.view
        if view is None:
            self._is_attending = not _close_attention(self.operations)
        elif not {str(view), view.name} & self._seen:
            self._seen.add(str(view))
            if event.matrix is not None:
                self._made_by[number] = Projection(event.matrix)
                self.operations.append(Operation("matrix", [self._made_by[number]], at=at))
                if self._is_attending:  # the value may be projected after the softmax
                    self._is_attending = not _close_attention(self.operations)
            elif not self._belongs(event, view):
                self._start(event, view, at)

    def _belongs(self, event: _Event, view: View) -> bool:
        """Puts a vector to the operation it is part of, if there is one."""
        last = self.operations[-1] if self.operations else None
        owner = self._made_by.get(event.owner) if event.owner is not None else None
        if event.what == "bias" and last and last.projections:
            last.projections[-1].bias = view
        elif event.what == "shift" and last and last.kind == "norm":
            last.vectors[1] = view
        elif event.what == "add" and owner and owner.bias is None and owner.matrix.shape[0] == view.size:
            owner.bias = view
        elif event.what == "add" and last and last.kind == "scale" and last.views[0].size == view.size:
            last.kind, last.vectors = "norm", [last.vectors[0], view]
        else:
            return False
        return True

    def _start(self, event: _Event, view: View, at: int) -> None:
        if event.what in ("scale", "shift"):
            vectors = [view, None] if event.what == "scale" else [None, view]
            self.operations.append(Operation("norm", vectors=vectors, at=at))
        elif event.what == "multiply" and sum(length > 1 for length in view.shape) == 1:
            self.operations.append(Operation("scale", vectors=[view, None], at=at))
        else:
            self.free.append(view)


def _close_attention(operations: list[Operation]) -> bool:
    """Makes the projections that lead into an attention one operation, and returns whether they were all there.

    Together they have three times as many rows as columns. Where each head attends by itself, the last one closes it.
    """
    members: list[Operation] = []
    for operation in reversed(operations):
        if operation.kind != "matrix":
            break
        width = operations[-1].projections[0].matrix.shape[1]
        if operation.projections[0].matrix.shape[1] != width:
            break
        members.insert(0, operation)
        rows = sum(member.rows for member in members)
        if rows == 3 * width:
            merged = Operation("attention", [p for m in members for p in m.projections], at=members[-1].at)
            operations[-len(members) :] = [merged]
            return True
        if rows > 3 * width:
            return False
    return False


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
