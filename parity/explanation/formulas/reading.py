"""What a stretch of operations computes, as a term.

A layer of torch's that does several things is those things, and what only arranges a tensor otherwise is left out, if
that is asked for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from parity.explanation.formulas.axes import all_from_the_end, from_the_end, is_expanding, is_turning, shape_taken
from parity.explanation.formulas.recording import Value, values_in
from parity.explanation.formulas.terms import CONSTANT, ENTERS, PART, WEIGHT, Term, Terms
from parity.tracing import are_the_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from parity.explanation.formulas.recording import Operation, Stretch
    from parity.tracing import Point, Portion

    Held = Mapping[Value, Term]
    Made = Any  # a term, or a tuple of several

# hand on the values that they are given, and arrange them otherwise at most
_SAME = {"clone", "contiguous", "detach", "alias", "lift_fresh", "expand", "squeeze", "unsqueeze"}
_MOVING = {
    "view", "unsafe_view", "reshape", "reshape_alias", "permute", "transpose", "t", "im2col", "unfold", "flatten",
}  # fmt: skip

# operations of which the values of a tensor come out as they are: all of them, or parts of several
KEEPING = {*_SAME, *_MOVING, "to_copy"}
ARRANGING = {*KEEPING, "select", "slice", "split", "split_with_sizes", "unbind", "cat"}
_ATTENTION = "scaled_dot_product"

# options of operations that change what is computed, and not how
_TELLING = {"approximate", "min", "max", "value", "dims", "keepdim", "correction"}

# what people call operations otherwise than torch's own library does
_CALLED = {"constant_pad_nd": "pad", "native_dropout": "dropout"}

# where queries, keys and values pass, which have an axis for the heads or not
_IN_PARTS = re.compile(r"\.(in_proj|query|key|value)$")

# a tensor is that which passes a point, if it is so near, relative
_NEAR = 1e-9


class Reading:
    """Reads stretches of operations.

    Args:
        shared: what passes the points at which a stretch may begin.
        points: returns the first point where the same passes, as a point is called by it.
        names: what weights are called, where that is not by their own name.
        keep: whether what only arranges a tensor otherwise counts.
        apart: whether portions of what passes a point are read as parts of it, and not as if each were the whole.

    Attributes:
        read: what the values are that have been read.
        entering: the shapes of what enters; queries, keys and values have one for each head, or for all.
        is_uneven: portions were read as if each were the whole, and are not all computed alike and each by itself.
    """

    def __init__(
        self, shared: Mapping[Point, torch.Tensor], points: Callable[[Point], Point], names: Mapping[str, str], *,
        keep: bool, apart: bool = False,
    ) -> None:  # fmt: skip
        self._shared = shared
        self._points = points
        self._names = names
        self._keep = keep
        self._terms = Terms()
        self._apart = apart
        self.read: dict[Value, Term] = {}
        self.entering: dict[Term, set[tuple[int, ...]]] = defaultdict(set)
        self.is_uneven = False
        self._portions: dict[Value, frozenset[Portion]] = {}  # what values are computed of
        self._gathered: Operation | None = None  # the last one that makes portions a whole
        self._turned: set[Value] = set()  # those of which the last two axes are exchanged
        self._constants: list[torch.Tensor] = []

    def term_of(self, stretch: Stretch, known: Mapping[Value, Term] = MappingProxyType({})) -> Term:
        """Returns what a stretch leads to.

        Args:
            stretch: of either model.
            known: what some values of it are, whatever they are made by.
        """
        held = {value: self._entering(value, point, stretch) for value, point in stretch.entering.items()}
        self._portions = {value: frozenset([portion]) for value, portion in stretch.portions.items()}
        for operation in stretch.operations:
            held |= {value: self._leaf(value) for value in operation.taken if value not in held}
            made = self._made(operation, held)
            results = made if isinstance(made, tuple) else (made,)
            for value in operation.written:  # and with it what else lies there
                for other in [known for known in held if known.storage == value.storage and known is not value]:
                    held[other] = self._terms.make("with", held[other], results[0], line=operation.line)
            values = list(values_in(operation.made))
            held.update(zip(values, (*results, *[results[0]] * len(values)), strict=False))
            held.update({value: known[value] for value in values if value in known})
            if operation is not self._gathered:
                of = frozenset().union(*(self._portions.get(value, ()) for value in operation.taken))
                self._portions.update(dict.fromkeys(values, of))
        left = self._portions.get(stretch.leaving, frozenset())
        self.is_uneven |= not self._apart and {portion.stop - portion.start for portion in left} not in (set(), {1})
        self.read.update(held)
        return held.get(stretch.leaving) or self._leaf(stretch.leaving)

    def _entering(self, value: Value, point: Point, stretch: Stretch) -> Term:
        whole, portion = self._terms.make(ENTERS, self._points(point)), stretch.portions.get(value)
        if not _IN_PARTS.search(point.module):
            self.entering[whole].add(tuple(value.shape))
        if portion is None or not self._apart:
            return whole
        where = portion.start / portion.total, portion.stop / portion.total, 1
        return self._terms.make(PART, whole, *where, axis=1, bounds=(portion.start, portion.stop, 1))

    def _together(self, operation: Operation, tensors: tuple[Term, ...], axis: int = 0) -> Term:
        """Returns what portions are that are put together: what each is, where all are alike and each by itself."""
        of = [self._portions.get(value, frozenset()) for value in operation.taken]
        if self._apart or not any(of):
            return self._terms.together(tensors, axis, operation.line)
        each = [next(iter(portions)) for portions in of if len(portions) == 1]
        if len(each) == len(of) and {*tensors} == {tensors[0]} and are_the_whole(each):
            self._gathered = operation
            return tensors[0]
        self.is_uneven = True
        return self._terms.make("cat", tensors, axis, line=operation.line)

    def _leaf(self, value: Value) -> Term:
        if value.name is not None:
            return self._terms.make(WEIGHT, self._names.get(value.name, value.name))
        assert value.constant is not None
        if value.constant.numel() == 1:
            return self._terms.number(value.constant.item())
        for point, tensor in self._shared.items():
            if _is_near(value.constant, tensor):
                return self._terms.make(ENTERS, self._points(point))
        number = next((n for n, other in enumerate(self._constants) if _is_near(value.constant, other)), None)
        if number is None:
            number = len(self._constants)
            self._constants.append(value.constant)
        return self._terms.make(CONSTANT, number, tuple(value.shape))

    def _made(self, operation: Operation, held: Held) -> Made:
        args = _replaced(operation.args, held)
        options = {key: _replaced(value, held) for key, value in operation.kwargs.items()}
        name = operation.name
        if name in _SAME or name in _MOVING or is_expanding(operation):
            return self._arranged(operation, args, held)
        if name in ("add", "sub", "mul", "div") and self._looks_alike(operation, held):
            return self._terms.make(name, *args, line=operation.line)
        if name in ("add", "sub", "mul", "div"):
            args = self._turned_alone(operation, args, held)
        rule = self._RULES.get(_ATTENTION if name.startswith(_ATTENTION) else name)
        return rule(self, operation, *args, **options) if rule else self._other(operation, *args, **options)

    def _arranged(self, operation: Operation, args: tuple[Any, ...], held: Held) -> Term:
        taken = operation.taken[0]
        if (taken in self._turned) != is_turning(operation):
            self._turned.update(values_in(operation.made))
        is_kept = self._keep and operation.line and operation.name in _MOVING and held[taken].op != WEIGHT
        term: Term = self._terms.make(operation.name, *args, line=operation.line) if is_kept else args[0]
        return term

    def _looks_alike(self, operation: Operation, held: Held) -> bool:
        """Whether what two tensors of different shapes are made of looks the same and isn't."""
        taken = operation.taken
        return len(taken) == 2 and taken[0].shape != taken[1].shape and self._share(operation, held)

    def _share(self, operation: Operation, held: Held) -> bool:
        is_sum = operation.name in ("add", "sub")
        ours, theirs = (
            {*(self._terms.members(held[value]) if is_sum else self._terms.factors(held[value])[1])}
            for value in operation.taken
        )
        return bool(ours & theirs)

    def _turned_alone(self, operation: Operation, args: tuple[Any, ...], held: Held) -> tuple[Any, ...]:
        """Returns the arguments of arithmetic, of which one is said to be turned if the same unturned is beside it."""
        taken = operation.taken
        if len(taken) != 2 or len({value in self._turned for value in taken}) == 1 or not self._share(operation, held):
            return args
        turned = [self._terms.make("transpose", arg, line=operation.line) if value in self._turned else arg
                  for arg, value in zip(args, taken, strict=False)]  # fmt: skip
        return (*turned, *args[len(taken) :])

    def _term(self, given: Any) -> Term:
        return given if isinstance(given, Term) else self._terms.number(given)

    def _other(self, operation: Operation, *args: Any, **options: Any) -> Made:
        telling = [value for key, value in options.items() if key in _TELLING]
        given = tuple(value for value in (*args, *telling) if value is not None and value is not False)
        count = sum(1 for _ in values_in(operation.made))
        name = _CALLED.get(operation.name, operation.name)
        names = [name] if count < 2 else [f"{name} {number}" for number in range(count)]
        of = shape_taken(operation) if any(isinstance(value, (int, tuple)) for value in given) else ()
        made = tuple(self._terms.make(name, *given, line=operation.line, of=of) for name in names)
        return made if len(made) > 1 else made[0]

    def _to_copy(self, operation: Operation, x: Term, dtype: torch.dtype | None = None, **_: Any) -> Term:
        is_narrow = dtype is not None and dtype.is_floating_point and torch.finfo(dtype).bits < 64
        return self._terms.make(f"{dtype}".removeprefix("torch."), x, line=operation.line) if is_narrow else x

    # --- arithmetic

    def _add(self, operation: Operation, one: Any, other: Any, alpha: float = 1.0) -> Term:
        return self._terms.plus(self._term(one), self._term(other), operation.line, alpha)

    def _sub(self, operation: Operation, one: Any, other: Any, alpha: float = 1.0) -> Term:
        return self._add(operation, one, other, -alpha)

    def _rsub(self, operation: Operation, one: Any, other: Any, alpha: float = 1.0) -> Term:
        return self._add(operation, other, one, -alpha)

    def _mul(self, operation: Operation, one: Any, other: Any) -> Term:
        return self._terms.times(self._term(one), self._term(other), operation.line)

    def _div(self, operation: Operation, one: Any, other: Any, rounding_mode: str | None = None) -> Term:
        if rounding_mode:
            return self._terms.make("div", one, other, rounding_mode, line=operation.line)
        return self._mul(operation, one, self._pow(operation, other, -1))

    def _neg(self, operation: Operation, one: Term) -> Term:
        return self._mul(operation, one, -1)

    def _pow(self, operation: Operation, one: Any, exponent: Any) -> Term:
        return self._terms.power(self._term(one), exponent, operation.line)

    def _sqrt(self, operation: Operation, one: Term) -> Term:
        return self._pow(operation, one, 0.5)

    def _rsqrt(self, operation: Operation, one: Term) -> Term:
        return self._pow(operation, one, -0.5)

    def _square(self, operation: Operation, one: Term) -> Term:
        return self._pow(operation, one, 2)

    def _reciprocal(self, operation: Operation, one: Term) -> Term:
        return self._pow(operation, one, -1)

    def _addcmul(self, operation: Operation, one: Term, other: Term, third: Term, value: float = 1.0) -> Term:
        return self._add(operation, one, self._mul(operation, other, third), value)

    # --- layers

    def _mm(self, operation: Operation, one: Term, other: Term) -> Term:
        is_turned = operation.taken[-1] in self._turned
        return self._terms.matrices(one, other, operation.line, is_turned=is_turned)

    def _addmm(
        self, operation: Operation, shift: Term, one: Term, other: Term, beta: float = 1, alpha: float = 1
    ) -> Term:
        return self._add(operation, self._mul(operation, shift, beta), self._mm(operation, one, other), alpha)

    def _convolution(
        self, operation: Operation, x: Term, weight: Term, bias: Any, stride: Sequence[int], *others: Any
    ) -> Term:
        kernel, (padding, *_, groups) = tuple(operation.taken[1].shape[2:]), others
        if kernel != tuple(stride) or any(padding) or groups != 1:
            made = self._terms.make("convolution", x, weight, tuple(stride), *others, line=operation.line)
        else:
            made = self._mm(operation, x, weight)
        return made if bias is None else self._add(operation, made, bias)

    def _softmax(self, operation: Operation, x: Term, axis: int, *_: Any) -> Term:
        return self._terms.make(
            "softmax", x, from_the_end(axis, operation), line=operation.line, of=shape_taken(operation)
        )

    def _mean(self, operation: Operation, x: Term, axes: Any = (), *_: Any, **__: Any) -> Term:
        return self._terms.make(
            "mean", x, all_from_the_end(axes, operation), line=operation.line, of=shape_taken(operation)
        )

    def _sum(self, operation: Operation, x: Term, axes: Any = (), *_: Any, **__: Any) -> Term:
        return self._terms.make(
            "sum", x, all_from_the_end(axes, operation), line=operation.line, of=shape_taken(operation)
        )

    def _var(self, operation: Operation, x: Term, axes: Any = (), *_: Any, **options: Any) -> Term:
        correction = options.get("correction", 1)
        return self._terms.make(
            "var", x, all_from_the_end(axes, operation), correction, line=operation.line, of=shape_taken(operation)
        )

    def _std(self, operation: Operation, x: Term, *args: Any, **options: Any) -> Term:
        return self._sqrt(operation, self._var(operation, x, *args, **options))

    def _var_mean(self, operation: Operation, x: Term, *args: Any, **options: Any) -> Made:
        return self._var(operation, x, *args, **options), self._mean(operation, x, *args)

    def _native_layer_norm(
        self, operation: Operation, x: Term, shape: Sequence[int], weight: Any, bias: Any, eps: float
    ) -> Made:
        axes = tuple(range(-len(shape), 0))
        mean, variance = self._mean(operation, x, axes), self._var(operation, x, axes, correction=0)
        inverse = self._rsqrt(operation, self._add(operation, variance, eps))
        made = self._mul(operation, self._sub(operation, x, mean), inverse)
        made = made if weight is None else self._mul(operation, made, weight)
        return (made if bias is None else self._add(operation, made, bias)), mean, inverse

    def _attention(
        self, operation: Operation, query: Term, key: Term, value: Term, *args: Any, attn_mask: Any = None,
        scale: float | None = None, **options: Any,
    ) -> Made:  # fmt: skip
        width = operation.taken[0].shape[-1]
        scores = self._terms.matrices(query, key, operation.line, is_turned=True)
        scores = self._mul(operation, scores, width**-0.5 if scale is None else scale)
        for mask in (given for given in (*args, attn_mask) if isinstance(given, Term)):
            scores = self._add(operation, scores, mask)
        if any(given is True for given in (*args, *options.values())):
            scores = self._terms.make("causal", scores, line=operation.line)
        weights = self._terms.make("softmax", scores, -1, line=operation.line)
        return self._terms.matrices(weights, value, operation.line, is_turned=False), weights

    # --- parts of a tensor

    def _part(
        self, operation: Operation, x: Term, axis: int, bounds: tuple[int, int, int], *, is_one: bool = False
    ) -> Term:
        length, (start, stop, step) = operation.taken[0].shape[axis], bounds
        if bounds == (0, length, 1):
            return x
        factor, rest = self._terms.scaled(x)
        where = start / length, stop / length, step
        made = self._terms.make(
            PART, rest, *where, line=operation.line, axis=axis, bounds=bounds, is_one=is_one, of=shape_taken(operation)
        )
        return self._mul(operation, made, factor)

    def _select(self, operation: Operation, x: Term, axis: int, index: int) -> Term:
        index %= operation.taken[0].shape[axis]
        return self._part(operation, x, axis, (index, index + 1, 1), is_one=True)

    def _slice(
        self, operation: Operation, x: Term, axis: int = 0, start: int | None = None, stop: int | None = None,
        step: int = 1,
    ) -> Term:  # fmt: skip
        length = operation.taken[0].shape[axis]
        return self._part(operation, x, axis, slice(start, stop, step).indices(length))

    def _split(self, operation: Operation, x: Term, _: Any, axis: int = 0) -> Made:
        sizes = [value.shape[axis] for value in values_in(operation.made)]
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        return tuple(
            self._part(operation, x, axis, (start, start + size, 1)) for start, size in zip(starts, sizes, strict=True)
        )

    def _unbind(self, operation: Operation, x: Term, axis: int = 0) -> Made:
        return tuple(self._select(operation, x, axis, n) for n in range(operation.taken[0].shape[axis]))

    _RULES: ClassVar[dict[str, Callable[..., Made]]] = {
        "to_copy": _to_copy, "add": _add, "sub": _sub, "rsub": _rsub, "mul": _mul, "div": _div, "neg": _neg,
        "pow": _pow, "sqrt": _sqrt, "rsqrt": _rsqrt, "square": _square, "reciprocal": _reciprocal, "addcmul": _addcmul,
        "mm": _mm, "bmm": _mm, "addmm": _addmm, "baddbmm": _addmm, "convolution": _convolution, "softmax": _softmax,
        "mean": _mean, "sum": _sum, "var": _var, "std": _std, "var_mean": _var_mean,
        "native_layer_norm": _native_layer_norm, _ATTENTION: _attention, "select": _select, "slice": _slice,
        "split": _split, "split_with_sizes": _split, "unbind": _unbind, "cat": _together,
    }  # fmt: skip


def _replaced(given: Any, held: Mapping[Value, Term]) -> Any:
    if isinstance(given, Value):
        return held[given]
    if isinstance(given, tuple):
        return tuple(_replaced(item, held) for item in given)
    return given


def _is_near(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or not one.is_floating_point():
        return one.shape == other.shape and torch.equal(one, other)
    return float((one - other).norm()) <= _NEAR * float(other.norm())
