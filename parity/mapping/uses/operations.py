"""What the tensors of a model are used for: matrices, projections, and operations of several of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from parity.models import whole

if TYPE_CHECKING:
    from collections.abc import Sequence

Axes = tuple[tuple[int, ...], ...]

Kind = Literal["matrix", "attention", "norm", "scale"]


@dataclass(frozen=True)
class View:
    """A tensor of the state dict, or one item of its first axes, and how its axes stand.

    Attributes:
        name: in the state dict.
        shape: of the tensor, or of the item.
        item: which item of the first axes (parameters of all blocks stacked in one tensor); empty for the whole.
        axes: for each axis of the value that is used, the axes of `shape` that it is made of; None if that can't be
            said.
        rows: where a value that is a slice of a vector begins, and its length; None for another value.
        start: where a vector that is only a slice of one begins in it; None for a whole one.
    """

    name: str
    shape: tuple[int, ...]
    item: tuple[int, ...] = ()
    axes: Axes | None = None
    rows: tuple[int, int] | None = None
    start: int | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()

    @property
    def axes_in_use(self) -> tuple[int, ...]:
        """Its axes in the order in which a value has them, after those of which the value has only one item."""
        used = [a for axis in self.axes for a in axis] if self.axes is not None else range(len(self.shape))
        taken = [axis for axis in range(len(self.shape)) if axis not in used]
        return tuple(dict.fromkeys([*taken, *used]))

    def cut(self, start: int, length: int) -> View:
        """Returns a slice of a vector."""
        return View(self.name, (length,), self.item, start=start)

    def used(self, length: int) -> View:
        """Returns the slice of a vector that is used, if it is one of this length, and the whole otherwise."""
        return self.cut(*self.rows) if self.rows and self.rows[1] == length else self

    def __str__(self) -> str:
        """Names the tensor, with its item or slice."""
        bounds = [f"{n}:{n + 1}" for n in self.item]
        if self.start is not None:
            bounds.append(f"{self.start}:{self.start + self.size}")
        return f"{self.name}[{', '.join(bounds)}]" if bounds else whole(self.name)


@dataclass(frozen=True)
class Matrix:
    """A tensor that something is multiplied with.

    Attributes:
        view: the tensor.
        rows: its axes of output features.
        columns: its axes of input features.
        shared: those of its rows that what is multiplied has as well, so that each item of these meets its own.
    """

    view: View
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    shared: tuple[int, ...] = ()

    @property
    def column_lengths(self) -> tuple[int, ...]:
        """Lengths of its axes of input features."""
        return tuple(self.view.shape[axis] for axis in self.columns)

    def features(self, axes: tuple[int, ...]) -> int:
        """Number of features along `axes`."""
        return torch.Size(self.view.shape[axis] for axis in axes).numel()

    @property
    def shape(self) -> tuple[int, int]:
        """Output and input features."""
        return self.features(self.rows), self.features(self.columns)

    def of_all_heads(self, width: int) -> Matrix:
        """Returns a kernel that projects every head's output for itself, as the one matrix of all that they are of.

        Args:
            width: of what the heads of the attention before it give together.
        """
        for axis in self.shared:
            rest = tuple(row for row in self.rows if row != axis)
            joined = Matrix(self.view, rest, tuple(sorted((axis, *self.columns))))
            if rest and joined.shape[1] == width:
                return joined
        return self


@dataclass
class Projection:
    """A matrix, and the bias that is added to its product.

    Attributes:
        matrix: what something is multiplied with.
        bias: of all its rows.
        bias_parts: biases of some of several equal parts of its rows, by the part's number.
    """

    matrix: Matrix
    bias: View | None = None
    bias_parts: dict[int, View] = field(default_factory=dict)

    @property
    def part_rows(self) -> int:
        """Rows of each of these parts."""
        return next(iter(self.bias_parts.values())).size


@dataclass
class Operation:
    """Uses that belong together.

    Attributes:
        kind: `matrix` (a projection or convolution), `attention` (all projections into one attention), `norm`, or
            `scale` (a multiplication with a vector).
        projections: of a matrix one, or one for each equal part of what it takes; of an attention one to many, in order
            of use; of a norm or a scale none.
        vectors: scale and shift of a norm.
        at: how many enters and leaves of modules come before (the last of) its tensors is used.
        until: of an attention, how many come before its scores and values are there as well.
        slices: of an attention, into how many slices the features are cut, of which each head takes one.
        is_grouped: of an attention, several heads share a key and a value, so that it has fewer of them than queries.
        serving: of an attention of which one projection serves as several of query, key and value, whole or a head's:
            which one leads into it, in order of use; otherwise empty.
        is_idle: what the model gives back is known not to depend on it.
        uses: of matrices, the set of their uses.
        lineage: of a matrix, the set of those uses that lead to what it is multiplied with.
    """

    kind: Kind
    projections: list[Projection] = field(default_factory=list)
    vectors: list[View | None] = field(default_factory=list)
    at: int = 0
    until: int = 0
    slices: int = 1
    is_grouped: bool = False
    serving: tuple[int, ...] = ()
    is_idle: bool = False
    uses: int = 0
    lineage: int = 0

    @property
    def key(self) -> tuple[Any, ...]:
        """What must agree with another operation's for the two to correspond."""
        if self.kind == "matrix":
            rows, columns = self.projections[0].matrix.shape
            return "matrix", rows, columns * len(self.projections)
        if self.kind == "attention":
            width = self.projections[0].matrix.shape[1] * self.slices
            is_other = self.slices > 1 or self.is_grouped or self.serving
            return "attention", 3 * width if is_other else self.rows, width
        first = next(v for v in self.vectors if v)
        return "vector", first.size

    def leads_to(self, lineage: int) -> bool:
        """Whether one of its matrices is in a set of uses."""
        return bool(lineage & self.uses)

    @property
    def rows(self) -> int:
        """Output features of all its matrices together."""
        return sum(projection.matrix.shape[0] for projection in self.projections)

    @property
    def views(self) -> list[View]:
        """Every tensor in it."""
        matrices = [projection.matrix.view for projection in self.projections]
        biases = [view for p in self.projections for view in (p.bias, *p.bias_parts.values())]
        return matrices + [view for view in (*biases, *self.vectors) if view]


def is_low_rank(operations: Sequence[Operation]) -> bool:
    """Whether two operations are projections to few features and back to many, as a low-rank adapter has them."""
    if len(operations) != 2 or any(operation.kind != "matrix" for operation in operations):
        return False
    (rank, columns), (rows, inner) = (operation.projections[0].matrix.shape for operation in operations)
    return rank == inner and 2 * rank < min(rows, columns)
