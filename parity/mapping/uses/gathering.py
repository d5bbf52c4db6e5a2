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

from parity.mapping.uses.attentions import close_attention, go_back_to_their_width
from parity.mapping.uses.lineages import bit_of
from parity.mapping.uses.noting import Notes
from parity.mapping.uses.operations import Operation, Projection
from parity.models import state_shapes
from parity.tracing import MODES, PARTS, Run, call_order, in_float32

if TYPE_CHECKING:
    from torch import nn

    from parity.mapping.uses.noting import Use
    from parity.mapping.uses.operations import Matrix, View
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
        gatherer = grouped if go_back_to_their_width(grouped.operations) else gatherer
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
    numbered = list(zip(itertools.count(), notes.noted, notes.places, notes.lineages.of_uses, strict=False))
    # what only an unknown function took comes last: a tensor's other uses say more
    for number, use, at, lineage in sorted(numbered, key=lambda item: item[1].what == "other"):
        gatherer.take(number, use, at, lineage)
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
        self._made_again: dict[int, Projection] = {}  # by the number of a later use of it, such as for another head
        self._seen: set[str] = set()
        self._matrices: dict[str, Operation] = {}  # by their names, each as it was first used
        self._since: list[Operation] = []  # every use of a matrix since the last softmax
        self._is_attending = False  # since a softmax, until all projections into the attention are there
        self._attended = 0  # the uses that lead to a softmax

    def take(self, number: int, use: Use, at: int, lineage: int) -> None:
        """Takes the next use, with its number and place, and the uses that lead to it."""
        view = use.view
        if view is None:
            self._attended |= lineage
            self._repeat()
            self._is_attending = not self._closes(at)
            self._since.clear()
        elif use.what == "computed":
            self.computed.add(view.name)
        elif use.what == "statistics":
            self.statistics[view.name] = None
        elif {str(view), view.name} & self._seen:
            if use.matrix is not None and str(view) in self._matrices:
                again = self._matrices[str(view)]
                self._made_again[number] = again.projections[0]
                self._since.append(again)
        else:
            self._seen.add(str(view))
            if use.matrix is not None:
                self._made_by[number] = Projection(self._projecting(use.matrix))
                made = Operation("matrix", [self._made_by[number]], at=at, uses=bit_of(number), lineage=lineage)
                self._matrices[str(view)] = made
                self.operations.append(made)
                self._since.append(made)
                if self._is_attending:  # the value may be projected after the softmax
                    self._is_attending = not self._closes(at)
            elif not self._belongs(use, view):
                self._start(use, view, at)

    def _projecting(self, matrix: Matrix) -> Matrix:
        """Returns a matrix, or what it is as the projection of the outputs of an attention that is just over."""
        last = self.operations[-1] if self.operations else None
        is_next = last is not None and last.kind == "attention" and not self._is_attending
        return matrix.of_all_heads(last.key[-1]) if last and is_next else matrix

    def _closes(self, at: int) -> bool:
        return close_attention(self.operations, at, self._attended, may_be_grouped=self._may_be_grouped)

    def _repeat(self) -> None:
        """Puts a projection down as often as it leads into an attention, if that is more than once.

        It is one of the last three products before the scores, which are alike, and of none before these. What has more
        rows than columns is several in one, of which each product takes another.
        """
        last, before = self._since[-len(PARTS) :], self._since[: -len(PARTS)]
        own = list({id(operation): operation for operation in last}.values())
        is_told = len(own) < len(last) == len(PARTS) and not {*map(id, own)} & {*map(id, before)}
        is_last = [*map(id, self.operations[-len(own) :])] == [*map(id, own)]
        is_alike = len({operation.key for operation in own}) == 1
        if is_told and is_last and is_alike and own[0].key[1] <= own[0].key[2]:
            self.operations[-len(own) :] = last

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
        elif use.what == "add" and (owner := owner or self._made_again.get(use.owner or -1)) and _lacks(owner, view):
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


def _lacks(projection: Projection, view: View) -> bool:
    """Whether a vector may be a projection's bias, which has none yet."""
    return projection.bias is None and projection.matrix.shape[0] == view.size
