"""The operations of a run as torch carries them out, and the stretch of them that leads from some tensors to another.

A run is watched below `torch.overrides`. Each operation is noted with its constants, the values it takes and makes, and
the line of the model's source that asks for it. A *value* is what lies in one place of the memory, in one layout, as
long as that is in use: what only gives a tensor another name makes no other value. No tensor is kept but constants.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from parity.tracing import address_of, leaves, line_of_source, name_of_operation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from parity.tracing import Point, Portion

    Key = tuple[Any, ...]  # storage, offset, shape, strides, dtype

_FRESH = ("lift_fresh", "lift")  # returns a tensor that was made where nobody could see it


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of a run.

    Attributes:
        number: tells it apart.
        storage: the number of its memory.
        shape: its shape.
        strides: in which order it lies there.
        maker: the number of the operation that made it; None for one that was there before.
        name: of the weight that it is, if it is one.
        constant: what it holds, if it is neither made nor a weight.
    """

    number: int
    storage: int
    shape: torch.Size
    strides: tuple[int, ...]
    maker: int | None = None
    name: str | None = None
    constant: torch.Tensor | None = None


@dataclass(frozen=True)
class Operation:
    """One operation of a run.

    Attributes:
        number: counts them.
        function: torch's.
        args: its arguments, with a `Value` in the place of each tensor.
        kwargs: those that are named.
        made: what it returns, likewise.
        written: the values that it writes to.
        line: of the source that asks for it; empty where nobody's does, and portions are only put together.
    """

    number: int
    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    made: Any
    written: tuple[Value, ...]
    line: str

    @property
    def name(self) -> str:
        """What it is called."""
        return name_of_operation(self.function)

    @property
    def taken(self) -> list[Value]:
        """The values among its arguments."""
        return list(values_in((self.args, self.kwargs)))


@dataclass(frozen=True)
class Stretch:
    """The operations that lead from the values at some points to the one at another.

    Attributes:
        operations: in order.
        entering: the values that it begins with, and the point that each of them passes.
        leaving: the value that it leads to.
        numbers: of the operations, those of the stretch or not, between the last of these points and the other one.
        passing: the values that pass points on the way, each with the first of them.
        portions: of those that it begins with, those that are a portion of what passes the point.
    """

    operations: tuple[Operation, ...]
    entering: Mapping[Value, Point]
    leaving: Value
    numbers: range
    passing: Mapping[Value, Point] = field(default_factory=dict)
    portions: Mapping[Value, Portion] = field(default_factory=dict)


class Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what a model does for as long as it is active.

    Args:
        weights: the model's tensors, by name.
        line: returns the line of source that asks for an operation now.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], line: Callable[[], str] = line_of_source) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._line = line
        self.operations: list[Operation] = []
        self._memory: dict[int, int] = {}  # the number of the storage that lies at an address
        self._storages = 0
        self._values: dict[Key, Value] = {}
        self._writes: dict[int, list[tuple[int, Value]]] = defaultdict(list)  # by storage
        self._points: dict[Point, tuple[Value, int]] = {}
        self._passing: dict[Value, list[tuple[int, Point]]] = defaultdict(list)
        self._is_ours = False
        self._portions: dict[tuple[Value, Point], Portion] = {}
        self._count = 0
        for name, tensor in weights.items():
            self._note(tensor, name=name)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        number = len(self.operations)
        noted, noted_by_name = (_mapped(lambda tensor: self._value_of(tensor, None), given) for given in (args, kwargs))
        before = {address_of(tensor) for tensor in leaves((args, kwargs), torch.Tensor)}
        written = tuple(
            value
            for argument, given in self._with_arguments(function, noted, noted_by_name)
            if argument.alias_info is not None and argument.alias_info.is_write
            for value in values_in(given)
        )
        result = function(*args, **kwargs)
        is_fresh = name_of_operation(function) in _FRESH
        for tensor in leaves(result, torch.Tensor):
            if is_fresh or address_of(tensor) not in before:
                self._new_storage(tensor)
        made = _mapped(lambda tensor: self._value_of(tensor, None if is_fresh else number), result)
        if not is_fresh:
            line = "" if self._is_ours else self._line()
            self.operations.append(Operation(number, function, noted, noted_by_name, made, written, line))
            for value in written:
                self._writes[value.storage].append((number, value))
        return result

    def passes(self, point: Point, tensor: torch.Tensor) -> None:
        """Notes that a tensor passes a point."""
        value = self._value_of(tensor, None)
        self._points[point] = value, len(self.operations)
        self._passing[value].append((len(self.operations), point))

    def passes_in_portions(self, point: Point, parts: Iterable[tuple[Portion, torch.Tensor]]) -> None:
        """Notes that tensors pass a point, each of them a portion of what passes there."""
        for portion, tensor in parts:
            value = self._value_of(tensor, None)
            self._passing[value].append((len(self.operations), point))
            self._portions[value, point] = portion

    @contextlib.contextmanager
    def of_nobody(self) -> Iterator[None]:
        """What is done for as long as the context lasts is in no source."""
        self._is_ours = True
        try:
            yield
        finally:
            self._is_ours = False

    def passing_first(self, point: Point) -> Point:
        """Returns the first point that the value at a point has passed as it is there; the point itself if none has."""
        if point not in self._points:
            return point
        value, time = self._points[point]
        writes = [number for number, _ in self._writes[value.storage] if number < time]
        since = max(writes, default=-1)
        return next(other for when, other in self._passing[value] if when > since)

    def stretch(self, to: Point, known: Collection[Point]) -> Stretch | None:
        """Returns the operations that lead to a point from the nearest ones that are known.

        None if nothing has passed there.
        """
        if to not in self._points:
            return None
        target, now = self._points[to]
        entering: dict[Value, Point] = {}
        operations: dict[int, Operation] = {}
        wanted, seen = [(target, now)], set()
        while wanted:
            value, time = wanted.pop()
            writes = [write for write in self._writes[value.storage] if write[0] < time]
            if (value, len(writes)) in seen:
                continue
            seen.add((value, len(writes)))
            passed = [(when, point) for when, point in self._passing[value] if when <= time and point in known]
            later = [write for write in writes if passed and write[0] >= passed[-1][0]]
            if passed and all(written is value for _, written in later):
                entering[value], writes = passed[-1][1], later
            elif value.maker is not None:
                writes = [*writes, (value.maker, value)]
            for number, _ in writes:
                operations[number] = operation = self.operations[number]
                wanted += [(taken, number) for taken in operation.taken]
        numbers = range(max((self._points[point][1] for point in entering.values()), default=0), now)
        ordered = tuple(operations[number] for number in sorted(operations))
        made = (value for operation in ordered for value in values_in(operation.made))
        passing = {value: self._passing[value][0][1] for value in made if self._passing.get(value)}
        parts = {value: self._portions[value, point] for value, point in entering.items()
                 if (value, point) in self._portions}  # fmt: skip
        return Stretch(ordered, entering, target, numbers, passing, parts)

    def _note(self, tensor: torch.Tensor, *, maker: int | None = None, name: str | None = None) -> Value:
        if address_of(tensor) not in self._memory:
            self._new_storage(tensor)
        is_constant = maker is None and name is None
        value = Value(
            self._count,
            self._memory[address_of(tensor)],
            tensor.shape,
            tensor.stride(),
            maker,
            name,
            tensor.detach().clone() if is_constant else None,
        )
        self._count += 1
        self._values[self._key(tensor)] = value
        return value

    def _value_of(self, tensor: torch.Tensor, maker: int | None) -> Value:
        known = self._values.get(self._key(tensor)) if address_of(tensor) in self._memory else None
        return known or self._note(tensor, maker=maker)

    def _new_storage(self, tensor: torch.Tensor) -> None:
        self._storages += 1
        self._memory[address_of(tensor)] = self._storages

    def _key(self, tensor: torch.Tensor) -> Key:
        return (
            self._memory.get(address_of(tensor)),
            tensor.storage_offset(),
            tensor.shape,
            tensor.stride(),
            tensor.dtype,
        )

    @staticmethod
    def _with_arguments(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
        """Yields what torch's schema says of each argument, and the argument."""
        for position, argument in enumerate(function._schema.arguments):  # noqa: SLF001  (there is no public name)
            if position < len(args):
                yield argument, args[position]
            elif argument.name in kwargs:
                yield argument, kwargs[argument.name]


def values_in(given: Any) -> Iterator[Value]:
    """Yields the values in nested tuples, lists and dicts, in order."""
    return leaves(given, Value)


def _mapped(function: Callable[[torch.Tensor], Any], given: Any) -> Any:
    """Returns `given` with `function` applied to every tensor in it."""
    if isinstance(given, torch.Tensor):
        return function(given)
    if isinstance(given, (tuple, list)):
        return tuple(_mapped(function, item) for item in given)
    if isinstance(given, dict):
        return {key: _mapped(function, item) for key, item in given.items()}
    return given
