"""Grafts of eval mode as they are in train mode: with the dropout that stands among a candidate's own operations.

A graft takes the place of the reference's dropout too. It may have one of its own only if that drops what the
reference's does, the attention's weights as they leave the softmax, at the same rate.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from parity.explanation.bending import Bend
from parity.explanation.case import block_of
from parity.explanation.following import IMAGES
from parity.explanation.recording import Recording
from parity.explanation.replaying import Graft
from parity.models import tensors_of
from parity.tracing import DRAWING, Telling, kept_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from parity.explanation.bending import Bendable, Change
    from parity.explanation.case import Case
    from parity.explanation.recording import Stretch
    from parity.tracing import Alignment, Mode, Point


def recorded(case: Case, mode: Mode) -> Recording:
    """Records a run of the candidate, which is held in float64 and which nobody else is watching."""
    subject, candidate = case.subject, case.subject.models.candidate
    run = Telling(
        candidate, subject.models.images.double(), set(case.alignment.pairs), subject.models.seed, "candidate"
    )
    recording = Recording(tensors_of(candidate))
    mode = dataclasses.replace(mode, fastpath=False)  # torch's own kernel shows nothing of what it does
    with mode.active(candidate), recording:
        run.tell(lambda point, tensors: _told(recording, case.alignment, point, tensors))
    return recording


def _told(recording: Recording, alignment: Alignment, point: Point, tensors: list[torch.Tensor]) -> None:
    if tensors:
        recording.passes(alignment.to_reference(point) if point.module else point, tensors[0])


def with_their_dropouts(case: Case, known: Sequence[Change], mode: Mode) -> tuple[list[Change], set[int | None]]:
    """Returns changes with grafts as they are in train mode; one that drops anything else stays as it is.

    Besides, the numbers of the blocks where a graft drops the attention's weights.

    Args:
        case: what is explained; the candidate is held in float64.
        known: the changes of eval mode.
        mode: in which masks are drawn by size.
    """
    if not any(isinstance(change.value, Graft) for change in known):
        return list(known), set()
    recording, rate = recorded(case, mode), case.config["attention_dropout"]
    changes = [
        dataclasses.replace(change, value=_in_train_mode(change.value, recording, rate))
        if isinstance(change.value, Graft)
        else change
        for change in known
    ]
    dropping = {block_of(new.value.point.module) for new, old in zip(changes, known, strict=True) if new != old}
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


def _in_train_mode(graft: Graft, recording: Recording, rate: float) -> Graft:
    stretch = recording.stretch(graft.point, graft.entering)
    if (
        stretch is None
        or {*stretch.entering.values()} != {*graft.entering}
        or not _drops_weights(stretch, recording, rate)
    ):
        return graft
    return dataclasses.replace(graft, stretch=stretch)


def _drops_weights(stretch: Stretch, recording: Recording, rate: float) -> bool:
    """Whether there is one mask among some operations, for the result of a softmax, and nothing else is drawn."""
    drawing = [operation for operation in stretch.operations if operation.name in DRAWING]
    if len(drawing) != 1 or drawing[0].name != "bernoulli" or not math.isclose(1 - kept_by(drawing[0].args), rate):
        return False
    mask = drawing[0].args[0]
    taking = [op for op in stretch.operations if op.name == "mul" and mask in op.taken and mask not in op.written]
    dropped = [value for operation in taking for value in operation.taken if value is not mask]
    makers = [recording.operations[value.maker].name for value in dropped if value.maker is not None]
    return len(dropped) == 1 and makers == ["softmax"]
