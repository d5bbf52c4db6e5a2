"""Grafts of eval mode as they are in train mode: with the dropout that stands among a candidate's own operations.

A graft takes the place of the reference's dropout too. It may have one of its own only if that drops what the
reference's does at the same rate: the attention's weights as they leave the softmax, or what a branch leads to.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from parity.explanation.bending import Bend
from parity.explanation.bent_vit import BLOCK
from parity.explanation.case import block_of
from parity.explanation.following import IMAGES
from parity.explanation.formulas.recording import Recording
from parity.explanation.formulas.replaying import Graft
from parity.models import tensors_of
from parity.tracing import DRAWING, FunctionCalls, Telling, kept_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.explanation.bending import Bendable, Change
    from parity.explanation.case import Case
    from parity.explanation.formulas.recording import Operation, Stretch
    from parity.tracing import Alignment, Mode, Point

# the modules of a block behind which the reference drops, and the dropout that does it, in the same module
_DROPPED_BEHIND = {"self_attention": "dropout", "1": "2", "3": "4"}

# what a GPU drops with, of which the mask is no operation of its own
_IN_ONE = "native_dropout"


def recorded(case: Case, mode: Mode) -> Recording:
    """Records a run of the candidate, which is held in float64 and which nobody else is watching."""
    subject, candidate = case.subject, case.subject.models.candidate
    run = Telling(
        candidate, subject.models.images.double(), set(case.alignment.pairs), subject.models.seed, "candidate"
    )
    recording = Recording(tensors_of(candidate))
    mode = dataclasses.replace(mode, fastpath=False)  # torch's own kernel shows nothing of what it does
    functions = FunctionCalls(
        candidate, case.layers_in(case.alignment), lambda point, x: _told(recording, case.alignment, point, [x])
    )
    with mode.active(candidate), recording, functions:
        run.tell(lambda point, tensors: _told(recording, case.alignment, point, tensors))
    return recording


def _told(recording: Recording, alignment: Alignment, point: Point, tensors: list[torch.Tensor]) -> None:
    if tensors:
        recording.passes(alignment.to_reference(point) if point.module else point, tensors[0])


def with_their_dropouts(case: Case, known: Sequence[Change], mode: Mode) -> tuple[list[Change], set[str]]:
    """Returns changes with grafts as they are in train mode; one that drops anything else stays as it is.

    Besides, the places of the reference's dropouts that a graft has as well.

    Args:
        case: what is explained; the candidate is held in float64.
        known: the changes of eval mode.
        mode: in which masks are drawn by size.
    """
    dropping: set[str] = set()
    if not any(isinstance(change.value, Graft) for change in known):
        return list(known), dropping
    recording, changes = recorded(case, mode), []
    for change in known:
        stretch = _in_train_mode(change.value, recording) if isinstance(change.value, Graft) else None
        places = _dropped_as_well(stretch, recording, change.value.point, case.config) if stretch else set()
        dropping |= places
        changes.append(dataclasses.replace(change, value=dataclasses.replace(change.value, stretch=stretch))
                       if places else change)  # fmt: skip
    return changes, dropping


def hidden_operations(model: Bendable, images: torch.Tensor, changes: Sequence[Change]) -> set[tuple[str, str]]:
    """Returns the operations of a bent model that stand where a graft's operations are carried out instead.

    Args:
        model: bendable, in float64.
        images: (B, C, H, W), in float64.
        changes: that are made.
    """
    grafts = [change.value for change in changes if isinstance(change.value, Graft)]
    if not grafts:
        return set()
    tensor, bend = images, Bend(changes, traits=model.traits, passed={IMAGES: images})
    for stage in model.stages:
        tensor = model.run(stage, tensor, bend)
    order = list(bend.done)
    hidden: set[tuple[str, str]] = set()
    for graft in grafts:
        starts = [(point.module, f"before {point.moment}") for point in graft.entering]
        start = max((order.index(key) for key in starts if key in bend.done), default=-1)
        hidden.update(order[start + 1 : order.index(graft.operation[:2]) + 1])
    return hidden


def _in_train_mode(graft: Graft, recording: Recording) -> Stretch | None:
    """Returns a graft's operations as they are in train mode, if they begin where those of eval mode do."""
    stretch = recording.stretch(graft.point, graft.entering)
    is_same = stretch is not None and {*stretch.entering.values()} == {*graft.entering}
    return stretch if is_same else None


def _dropped_as_well(stretch: Stretch, recording: Recording, to: Point, config: Mapping[str, Any]) -> set[str]:
    """Returns the places of the reference's dropouts among some operations; none if they drop anything else.

    Args:
        stretch: the operations.
        recording: of the candidate.
        to: where they lead.
        config: torchvision's arguments.
    """
    places: list[str] = []
    for drawing in (operation for operation in stretch.operations if operation.name in DRAWING):
        place, rate = _place_of(drawing, stretch, recording, to)
        if place is None or place in places or not _is_dropout_of(config.get(rate, 0.0), drawing):
            return set()
        places.append(place)
    return {*places}


def _is_dropout_of(rate: float, drawing: Operation) -> bool:
    if drawing.name == _IN_ONE:
        return math.isclose(drawing.args[1], rate)
    return drawing.name == "bernoulli" and math.isclose(1 - kept_by(drawing.args), rate)


def _dropped_by(drawing: Operation, stretch: Stretch) -> list[Any]:
    """Returns the values that a mask is drawn for."""
    if drawing.name == _IN_ONE:
        return [drawing.args[0]]
    mask = drawing.args[0]
    taking = [op for op in stretch.operations if op.name == "mul" and mask in op.taken and mask not in op.written]
    return [value for operation in taking for value in operation.taken if value is not mask]


def _place_of(drawing: Operation, stretch: Stretch, recording: Recording, to: Point) -> tuple[str | None, str]:
    """Returns where the reference drops what a mask is drawn for, if it does, and what its rate is called."""
    dropped = _dropped_by(drawing, stretch)
    if len(dropped) != 1:
        return None, ""
    point, block = stretch.entering.get(dropped[0]), block_of(to.module)
    if point is None:
        maker = dropped[0].maker
        is_softmax = maker is not None and recording.operations[maker].name == "softmax"
        return (f"{BLOCK.format(block)}.self_attention" if is_softmax else None), "attention_dropout"
    module, _, last = point.module.rpartition(".")
    is_left = point.moment == "leave" and last in _DROPPED_BEHIND
    return (f"{module}.{_DROPPED_BEHIND[last]}" if is_left else None), "dropout"
