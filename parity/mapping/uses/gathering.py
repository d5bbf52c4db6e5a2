"""What a forward pass does with every tensor of a model, in the order in which it does it.

A model is run once, on the meta device where it can be, and every call of a torch function that takes one of its
parameters or buffers is noted: which operation, in which orientation. Consecutive uses are gathered into *operations*
(a projection with its bias, a norm with its scale and shift, all projections that lead into one attention). Neither
names nor the order of declaration play a part.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from parity.mapping.uses.noting import Notes
from parity.mapping.uses.operations import Operation, Projection, is_low_rank
from parity.models import state_shapes
from parity.tracing import MODES, Run, call_order, in_float32

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from parity.mapping.uses.noting import Use
    from parity.mapping.uses.operations import View
    from parity.tracing import Point


@dataclass(frozen=True)
class Uses:
    """What one forward pass of a model did with its tensors.

    Attributes:
        operations: in order.
        free: tensors that are neither multiplied with nor added as a bias: tokens and embeddings.
        unused: names of tensors that no operation took.
        order: enters and leaves of its modules.
        heads: number of heads, where an attention has several and told it.
        computed: names of tensors that a matrix is computed of, before something is multiplied with it; one of them is
            that matrix's own in its operation.
        is_packed: an attention of torch's own is among them, in which query, key and value stand one after the other.
        statistics: names of running means and variances of norms.
    """

    operations: list[Operation]
    free: list[View]
    unused: list[str]
    order: list[Point]
    heads: int | None
    is_packed: bool
    computed: frozenset[str] = frozenset()
    statistics: tuple[str, ...] = ()

    @property
    def computed_parts(self) -> list[str]:
        """Names of the computed matrices' other tensors."""
        own = {view.name for operation in self.operations for view in operation.views}
        return sorted(self.computed - own)


def trace_uses(model: nn.Module, images: torch.Tensor, owner: str) -> Uses:
    """Runs `model` once on `images` and returns what it does with its tensors.

    Args:
        model: on any device, also meta.
        images: (B, C, H, W), on the same device.
        owner: who the model is, for messages.

    Raises:
        ParityError: the model raised, or returned no tensor.
    """
    order: list[Point] = []
    with in_float32(model), MODES["eval-grad"].active(model), Notes(model, order, len(images)) as notes:
        call_order(model, images, owner, order)
    gatherer = _gathered(notes, may_be_grouped=False)
    if not any(operation.kind == "attention" for operation in gatherer.operations):
        grouped = _gathered(notes, may_be_grouped=True)
        gatherer = grouped if _go_back_to_their_width(grouped.operations) else gatherer
    used = {use.view.name for use in notes.noted if use.view}
    unused = [name for name in state_shapes(model) if name not in used]
    return Uses(
        gatherer.operations,
        gatherer.free,
        unused,
        order,
        notes.heads,
        notes.is_packed,
        frozenset(gatherer.computed),
        tuple(gatherer.statistics),
    )


def mark_idle(uses: Uses, model: nn.Module, images: torch.Tensor, owner: str) -> None:
    """Marks the operations that change nothing in what a model gives back, such as a head of another output.

    The graph of its gradients tells; of a model that gives back nothing with a gradient, nobody knows.

    Args:
        uses: what the model does with its tensors.
        model: on any device, also meta.
        images: (B, C, H, W), on the same device.
        owner: who the model is, for messages.

    Raises:
        ParityError: the model raised, or returned no tensor.
    """
    with in_float32(model), MODES["eval-grad"].active(model), torch.enable_grad():
        output = Run(model, images, set(), 0, owner).finish()
        reached = _leaves(output)
        idle = {name for name, tensor in model.named_parameters() if tensor.requires_grad and id(tensor) not in reached}
    for operation in uses.operations if reached else ():
        operation.is_idle = {view.name for view in operation.views} <= idle


def _leaves(output: torch.Tensor) -> set[int]:
    """Returns the ids of the parameters that something was computed from, by its graph; no gradient is computed."""
    found, seen, ahead = set[int](), set[Any](), [output.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found |= {id(node.variable)} if hasattr(node, "variable") else set()
            ahead += [after for after, _ in node.next_functions]
    return found


def _gathered(notes: Notes, *, may_be_grouped: bool) -> _Gatherer:
    gatherer = _Gatherer(may_be_grouped=may_be_grouped)
    numbered = list(zip(range(len(notes.noted)), notes.noted, notes.places, strict=True))
    # what only an unknown function took comes last: a tensor's other uses say more
    for number, use, at in sorted(numbered, key=lambda item: item[1].what == "other"):
        gatherer.take(number, use, at)
    return gatherer


class _Gatherer:
    """Gathers uses into operations; a tensor that is used again is left out.

    Args:
        may_be_grouped: heads may share keys and values.
    """

    def __init__(self, *, may_be_grouped: bool) -> None:
        self._may_be_grouped = may_be_grouped
        self.operations: list[Operation] = []
        self.free: list[View] = []
        self.computed: set[str] = set()
        self.statistics: dict[str, None] = {}
        self._made_by: dict[int, Projection] = {}  # by the number of the matrix's use
        self._seen: set[str] = set()
        self._is_attending = False  # since a softmax, until all projections into the attention are there

    def take(self, number: int, use: Use, at: int) -> None:
        """Takes the next use, with its number and place."""
        view = use.view
        if view is None:
            self._is_attending = not self._closes(at)
        elif use.what == "computed":
            self.computed.add(view.name)
        elif use.what == "statistics":
            self.statistics[view.name] = None
        elif not {str(view), view.name} & self._seen:
            self._seen.add(str(view))
            if use.matrix is not None:
                self._made_by[number] = Projection(use.matrix)
                self.operations.append(Operation("matrix", [self._made_by[number]], at=at))
                if self._is_attending:  # the value may be projected after the softmax
                    self._is_attending = not self._closes(at)
            elif not self._belongs(use, view):
                self._start(use, view, at)

    def _closes(self, at: int) -> bool:
        return _close_attention(self.operations, at, may_be_grouped=self._may_be_grouped)

    def _belongs(self, use: Use, view: View) -> bool:
        """Puts a vector to the operation it is part of, if there is one."""
        last = self.operations[-1] if self.operations else None
        owner = self._made_by.get(use.owner) if use.owner is not None else None
        if use.part is not None and owner and owner.bias is None and owner.matrix.shape[0] % view.size == 0:
            owner.bias_parts[use.part] = view
        elif use.what == "bias" and owner:
            owner.bias = view
        elif use.what == "bias" and last and last.projections:
            last.projections[-1].bias = view
        elif use.what == "shift" and last and last.kind == "norm":
            last.vectors[1] = view
        elif use.what == "add" and owner and owner.bias is None and owner.matrix.shape[0] == view.size:
            owner.bias = view
        elif use.what == "add" and last and last.vectors and last.vectors[1] is None and last.key[1] == view.size:
            last.kind, last.vectors = "norm", [last.vectors[0], view]
        else:
            return False
        return True

    def _start(self, use: Use, view: View, at: int) -> None:
        if use.what in ("scale", "shift"):
            vectors = [view, None] if use.what == "scale" else [None, view]
            self.operations.append(Operation("norm", vectors=vectors, at=at))
        elif use.what == "multiply" and sum(length > 1 for length in view.shape) == 1:
            self.operations.append(Operation("scale", vectors=[view, None], at=at))
        else:
            self.free.append(view)


def _shape_of(operations: list[Operation]) -> tuple[int, int] | None:
    """Returns how many features come out of matrices one after the other, and how many go in."""
    if any(operation.kind != "matrix" for operation in operations):
        return None
    first, last = (operations[number].projections[0].matrix.shape for number in (0, -1))
    return last[0], first[1]


def _are_grouped(rows: Sequence[int], width: int) -> bool:
    """Whether projections of so many rows are a query's and those of fewer keys and values, apart or fused."""
    queries, *others = sorted(rows, reverse=True)
    fewer = (sum(rows) - width) // 2
    if not 0 < fewer < width or width % fewer or sum(rows) != width + 2 * fewer:
        return False
    return not others or (queries == width and (others == [fewer] * 2 or len(others) == 1))


def _go_back_to_their_width(operations: Sequence[Operation]) -> bool:
    """Whether a square matrix follows every grouped attention, whose queries are then as wide as the tokens."""
    matrices = [op for op in operations if op.projections]
    following = itertools.zip_longest(matrices, matrices[1:])
    return all(
        after is not None and after.key == ("matrix", op.key[-1], op.key[-1])
        for op, after in following
        if op.is_grouped
    )


def _close_attention(operations: list[Operation], at: int, *, may_be_grouped: bool) -> bool:
    """Makes the projections that lead into an attention one operation, and returns whether they were all there.

    It is asked at place `at`. Together they have three times as many rows as columns. Where each head attends by
    itself, the last one closes it. Branches of low rank beside them are none of them, nor are the norms and scales of
    queries and keys; a norm as wide as the tokens may as well be the one before them, which then another one is.
    Where heads may share keys and values, there may be fewer rows of these.
    """
    members: list[Operation] = []
    beside: list[Operation] = []
    numbers = iter(range(len(operations) - 1, -1, -1))
    for number in numbers:
        operation = operations[number]
        if operation.kind in ("norm", "scale"):
            beside.insert(0, operation)
            continue
        if operation.kind != "matrix":
            break
        branch = operations[max(number - 1, 0) : number + 1]
        if is_low_rank(branch) and _shape_of(branch) in map(_shape_of, ([op] for op in operations[number - 2 :])):
            beside[:0] = branch
            next(numbers)
            continue
        width = (members or [operation])[-1].projections[0].matrix.shape[1]
        if operation.projections[0].matrix.shape[1] != width:
            break
        members.insert(0, operation)
        rows = sum(member.rows for member in members)
        sizes = [member.rows for member in members]
        is_grouped = may_be_grouped and _are_grouped(sizes, width)
        is_half_of_it = sorted(sizes) == [width / 2, width / 2, width, width]  # with what follows the attention
        if (rows == 3 * width and not is_half_of_it) or is_grouped:
            is_before = number > 0 and operations[number - 1].kind != "norm"
            if is_before and any(op.vectors and op.key[1] == width for op in beside):
                return False
            merged = Operation("attention", [p for m in members for p in m.projections], [], members[-1].at, at)
            merged.is_grouped = is_grouped
            operations[number:] = [merged, *beside]
            return True
        if rows >= 3 * width:
            return False
    return False
