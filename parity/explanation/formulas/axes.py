"""Along which axes an operation does what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.explanation.formulas.recording import Operation


def shape_taken(operation: Operation) -> tuple[int, ...]:
    """Returns the shape of what an operation takes first."""
    return tuple(operation.taken[0].shape) if operation.taken else ()


def is_expanding(operation: Operation) -> bool:
    """Whether an operation repeats a tensor along axes of length 1 alone."""
    if operation.name != "repeat":
        return False
    shape, times = operation.taken[0].shape, operation.args[1]
    lengths = (1,) * (len(times) - len(shape)) + tuple(shape)
    return all(length == 1 or count == 1 for length, count in zip(lengths, times, strict=True))


def is_turning(operation: Operation) -> bool:
    """Whether an operation exchanges the last two axes."""
    rank = len(operation.taken[0].shape)
    if operation.name == "transpose":
        return {axis % rank for axis in operation.args[1:3]} == {rank - 2, rank - 1}
    order = [axis % rank for axis in operation.args[1]] if operation.name == "permute" else []
    return operation.name == "t" or order[-2:] == [rank - 1, rank - 2]


def from_the_end(axis: int, operation: Operation) -> int:
    """Returns an axis, counted from the end."""
    rank = len(operation.taken[0].shape)
    return axis % rank - rank


def all_from_the_end(axes: Any, operation: Operation) -> tuple[int, ...]:
    """Returns axes, counted from the end; none where they are all."""
    each = axes if isinstance(axes, tuple) else (axes,) if type(axes) is int else ()
    numbers = tuple(sorted(from_the_end(axis, operation) for axis in each))
    return numbers if len(numbers) < len(operation.taken[0].shape) else ()
