"""A stretch of a candidate's operations, carried out in the reference in place of the reference's own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from parity.explanation.formulas.reading import KEEPING
from parity.explanation.formulas.recording import Value, values_in
from parity.tracing import in_layout_of, in_layout_of_reference, leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from parity.explanation.formulas.recording import Stretch
    from parity.tracing import Alignment, Point


@dataclass(frozen=True, eq=False)
class Graft:
    """A candidate's operations that take the place of what leads to a point of the reference.

    Attributes:
        point: where they end.
        operation: the one of the reference that they take the place of: where it is, what it is called, and which time
            it is done.
        stretch: the operations, which begin at other points.
        alignment: how the candidate's tensors lie there.
        weights: the candidate's.
        asks: the line of the candidate's source that reads a value in Python among the operations, or an empty text.
    """

    point: Point
    operation: tuple[str, str, int]
    stretch: Stretch = field(repr=False)
    alignment: Alignment = field(repr=False)
    weights: Mapping[str, torch.Tensor] = field(repr=False)
    asks: str = ""

    @property
    def entering(self) -> tuple[Point, ...]:
        """The points that it begins at."""
        return tuple(self.stretch.entering.values())

    def on(self, weights: Mapping[str, torch.Tensor]) -> Graft:
        """Returns the same operations with other weights."""
        return dataclasses.replace(self, weights={**self.weights, **weights})

    def carried_out(self, passing: torch.Tensor, *entering: torch.Tensor) -> torch.Tensor:
        """Returns what is to pass the point.

        Args:
            passing: what the reference itself has there, for what the candidate goes on without.
            entering: what the reference has at the points where it begins.
        """
        result = _carried_out(self.stretch, self._laid_out(entering), self.weights, passing)
        return in_layout_of_reference(result, passing, self.point, self.alignment)

    def results(self, passing: torch.Tensor, *entering: torch.Tensor) -> dict[Value, torch.Tensor]:
        """Returns what each operation results in, as `results_of` does.

        Args:
            passing: what the reference itself has at the point.
            entering: what it has at the points where the operations begin.
        """
        return results_of(self.stretch, self._laid_out(entering), self.weights, passing)

    def _laid_out(self, entering: Sequence[torch.Tensor]) -> dict[Value, torch.Tensor]:
        points = self.stretch.entering.items()
        return {
            value: _laid_out(self._as_theirs(value, tensor, point), value)
            for (value, point), tensor in zip(points, entering, strict=True)
        }

    def _as_theirs(self, value: Value, tensor: torch.Tensor, point: Point) -> torch.Tensor:
        """Returns the reference's tensor at a point in the layout of the candidate's, or the portion of it."""
        portion = self.stretch.portions.get(value)
        if portion:
            return portion.of(in_layout_of(tensor, tensor, point, self.alignment))
        return in_layout_of(_shaped(value), tensor, point, self.alignment)


def _carried_out(
    stretch: Stretch, tensors: dict[Value, torch.Tensor], weights: Mapping[str, torch.Tensor], like: torch.Tensor
) -> torch.Tensor:
    """Carries out the operations of a stretch on `tensors`, which takes what they make."""

    def tensor(value: Value) -> torch.Tensor:
        if value not in tensors:
            held = value.constant if value.name is None else weights[value.name].detach()
            assert held is not None
            is_weight = value.name is not None and held.is_floating_point()
            tensors[value] = held.to(like) if is_weight and held.dtype != like.dtype else held.clone()
        return tensors[value]

    for operation in stretch.operations:
        args, kwargs = (_filled(tensor, given) for given in (operation.args, operation.kwargs))
        result = operation.function(*args, **kwargs)
        tensors.update(zip(values_in(operation.made), leaves(result, torch.Tensor), strict=True))
    return tensor(stretch.leaving)


def results_of(
    stretch: Stretch, entering: Mapping[Value, torch.Tensor], weights: Mapping[str, torch.Tensor], like: torch.Tensor
) -> dict[Value, torch.Tensor]:
    """Returns what the operations of a stretch take of weights, and what they result in.

    Left out is what is only arranged otherwise, or written to.

    Args:
        stretch: of either model.
        entering: what enters, in the layout of that model.
        weights: of that model.
        like: a tensor of the dtype to compute in.
    """
    tensors = dict(entering)
    _carried_out(stretch, tensors, weights, like)
    written = {value.storage for operation in stretch.operations for value in operation.written}
    made = (v for operation in stretch.operations if operation.name not in KEEPING for v in values_in(operation.made))
    taken = (v for operation in stretch.operations for v in operation.taken if v.name is not None)
    return {value: tensors[value] for value in (*taken, *made) if value.storage not in written}


def _shaped(value: Value) -> torch.Tensor:
    return torch.empty(value.shape, device="meta")


def _laid_out(tensor: torch.Tensor, value: Value) -> torch.Tensor:
    """Returns a copy that lies in memory as a value did."""
    lengths = zip(value.shape, value.strides, strict=True)
    if tensor.shape != value.shape or any(stride == 0 and length > 1 for length, stride in lengths):
        return tensor.clone()
    laid = torch.empty_strided(value.shape, value.strides, dtype=tensor.dtype, device=tensor.device)
    return laid.copy_(tensor)


def _filled(function: Callable[[Value], torch.Tensor], given: Any) -> Any:
    """Returns `given` with `function` applied to every value in it."""
    if isinstance(given, Value):
        return function(given)
    if isinstance(given, tuple):
        return tuple(_filled(function, item) for item in given)
    if isinstance(given, dict):
        return {key: _filled(function, item) for key, item in given.items()}
    return given
