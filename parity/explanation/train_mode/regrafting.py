"""Grafts of eval mode as they are in train mode: with the dropout that stands among a candidate's own operations.

A graft takes the place of the reference's dropout too. Where one of its own drops what the reference's does at the same
rate, nothing differs: the attention's weights as they leave the softmax, or what a branch leads to. Any other one, and
one that the reference has and the graft hasn't, is a cause.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parity.explanation.bending import Bend
from parity.explanation.bent_vit import BLOCK
from parity.explanation.case import block_of
from parity.explanation.causes.dropouts import SPOTS
from parity.explanation.causes.places import joined
from parity.explanation.following import IMAGES
from parity.explanation.formulas.recording import Recording
from parity.explanation.formulas.replaying import Graft
from parity.explanation.proof import Group
from parity.models import tensors_of
from parity.tracing import DRAWING, Event, FunctionCalls, Gathering, NoDropout, Telling, by_file, kept_by

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import torch

    from parity.explanation.bending import Bendable, Change
    from parity.explanation.case import Case
    from parity.explanation.causes.dropouts import Dropping
    from parity.explanation.formulas.recording import Operation, Stretch, Value
    from parity.tracing import Alignment, Mode, Point

# the modules of a block behind which the reference drops, and the dropout that does it, in the same module
_DROPPED_BEHIND = {"self_attention": "dropout", "1": "2", "3": "4"}

# what a GPU drops with, of which the mask is no operation of its own
_IN_ONE = "native_dropout"
_DROPPING = ("bernoulli", _IN_ONE)


def recorded(case: Case, mode: Mode) -> Recording:
    """Records a run of the candidate, which is held in float64 and which nobody else is watching."""
    subject, candidate = case.subject, case.subject.models.candidate
    run = Telling(
        candidate, subject.models.images.double(), set(case.alignment.pairs), subject.models.seed, "candidate"
    )
    recording = Recording(tensors_of(candidate))
    mode = dataclasses.replace(mode, fastpath=False)  # torch's own kernel shows nothing of what it does
    gathering = Gathering(case.alignment, lambda tensor: tensor)  # what it is put together of must be known again

    def tell(point: Point, tensors: list[torch.Tensor]) -> None:
        _told_whole(recording, case.alignment, gathering, Event(point, tensors))

    functions = FunctionCalls(candidate, case.layers_in(case.alignment), lambda point, x: tell(point, [x]))
    kept = NoDropout() if mode.no_dropout else contextlib.nullcontext()  # type: ignore[no-untyped-call]
    with mode.active(candidate), recording, kept, functions:
        run.tell(tell)
    return recording


def _told_whole(recording: Recording, alignment: Alignment, gathering: Gathering, event: Event) -> None:
    portions = gathering.of(event.point)
    if portions:
        parts = portions.among(event)
        recording.passes_in_portions(alignment.to_reference(event.point), parts)
    with recording.of_nobody():
        whole = gathering.whole(event)
    if whole:
        _told(recording, alignment, whole.point, whole.tensors)


def _told(recording: Recording, alignment: Alignment, point: Point, tensors: list[torch.Tensor]) -> None:
    if tensors:
        recording.passes(alignment.to_reference(point) if point.module else point, tensors[0])


@dataclass(frozen=True)
class Regraft:
    """A graft of eval mode as it is in train mode.

    Attributes:
        usual: the change of eval mode.
        change: the one that carries out what the candidate does in train mode.
        also: the places of the reference's dropouts that it has as well.
        drawings: the masks that it draws otherwise, each with what it drops in words if that is known.
    """

    usual: Change
    change: Change
    also: frozenset[str]
    drawings: tuple[tuple[Operation, str], ...]


def in_train_mode(case: Case, known: Sequence[Change], mode: Mode) -> list[Regraft]:
    """Returns the grafts among some changes as they are in train mode; those that begin elsewhere there are left out.

    Args:
        case: what is explained; the candidate is held in float64.
        known: the changes of eval mode.
        mode: in which masks are drawn by size.
    """
    grafts = [change for change in known if isinstance(change.value, Graft)]
    recording = recorded(case, mode) if grafts else None
    found = (_in_train_mode(change, recording, case.config) for change in grafts if recording)
    return [graft for graft in found if graft]


def with_grafts(known: Sequence[Change], grafts: Iterable[Regraft]) -> list[Change]:
    """Returns changes with some grafts as they are in train mode."""
    changed = {graft.usual: graft.change for graft in grafts}
    return [changed.get(change, change) for change in known]


def graft_groups(
    grafts: Iterable[Regraft], hidden: Mapping[Change, Collection[tuple[str, str]]], own: Mapping[Change, Dropping]
) -> list[Group]:
    """Returns as causes what grafts drop otherwise than the reference.

    Args:
        grafts: as they are in train mode.
        hidden: the operations that each of them takes the place of, by its change of eval mode.
        own: the reference's dropouts.
    """
    groups: dict[tuple[str, ...], Group] = {}
    for graft in grafts:
        replaced = [
            dropping for change, dropping in own.items()
            if (change.place, dropping.spot.operation) in hidden[graft.usual] and change.place not in graft.also
        ]  # fmt: skip
        group = _group(graft, replaced) if graft.drawings or replaced else None
        if group:
            key = group.phrase, group.instead
            alike = groups.get(key, dataclasses.replace(group, changes=(), where=()))
            changes, where = (*alike.changes, *group.changes), (*alike.where, *group.where)
            groups[key] = dataclasses.replace(group, changes=changes, where=where)
    return list(groups.values())


def _group(graft: Regraft, missing: Sequence[Dropping]) -> Group:
    """Returns what a graft drops otherwise as a cause, given the reference's dropouts that it lacks."""
    spots, rates = {d.spot: None for d in missing}, joined({f"{d.rate:g}": None for d in missing})
    words, hints = joined(spot.words for spot in spots), "; ".join(spot.hint for spot in spots)
    if not graft.drawings:
        phrase = f"dropout is missing on {words}"
        return Group((), "dropout-missing", phrase, f"one of rate {rates}", hints, (graft.usual.place,))
    lines = by_file(drawing.line for drawing, _ in graft.drawings)
    acting = joined({f"{1 - _kept(drawing):.6g}": None for drawing, _ in graft.drawings})
    known = [dropped for _, dropped in graft.drawings]
    there = f"on {joined(dict.fromkeys(known))}" if all(known) else f"in {lines}"
    instead = f"one of rate {rates} on {words}" if missing else "no other there" if graft.also else "none there"
    if there == f"on {words}":
        id_, phrase, instead = "dropout-rate", f"dropout {there} has rate {acting}", f"rate {rates}"
    elif missing and acting == rates:
        id_, phrase = "dropout-elsewhere", f"dropout acts {there}, not on {words}"
    else:
        id_, phrase = "dropout-extra", f"{'one more ' * bool(graft.also)}dropout of rate {acting} acts {there}"
    hint = hints or "take it away, or give it a rate of 0"
    return Group((graft.change,), id_, phrase, instead, hint, (graft.usual.place,), lines)


def hidden_operations(
    model: Bendable, images: torch.Tensor, changes: Sequence[Change]
) -> dict[Change, set[tuple[str, str]]]:
    """Returns the operations of a bent model that stand where each graft's operations are carried out instead.

    Args:
        model: bendable, in float64.
        images: (B, C, H, W), in float64.
        changes: that are made.
    """
    grafts = [change for change in changes if isinstance(change.value, Graft)]
    if not grafts:
        return {}
    tensor, bend = images, Bend(changes, traits=model.traits, passed={IMAGES: images})
    for stage in model.stages:
        tensor = model.run(stage, tensor, bend)
    order = list(bend.done)
    hidden: dict[Change, set[tuple[str, str]]] = {}
    for change in grafts:
        starts = [(point.module, f"before {point.moment}") for point in change.value.entering]
        start = max((order.index(key) for key in starts if key in bend.done), default=-1)
        hidden[change] = {*order[start + 1 : order.index(change.value.operation[:2]) + 1]}
    return hidden


def _in_train_mode(change: Change, recording: Recording, config: Mapping[str, Any]) -> Regraft | None:
    """Returns a graft with its operations as they are in train mode, if they begin where those of eval mode do.

    Args:
        change: of eval mode.
        recording: of the candidate in train mode.
        config: torchvision's arguments.
    """
    graft = change.value
    stretch = recording.stretch(graft.point, graft.entering)
    if stretch is None or {*stretch.entering.values()} != {*graft.entering}:
        return None
    also: list[str] = []
    others = []
    for drawing in (operation for operation in stretch.operations if operation.name in DRAWING):
        if drawing.name not in _DROPPING:
            return None
        place, rate = _place_of(drawing, stretch, recording, graft.point)
        if place and place not in also and math.isclose(1 - _kept(drawing), config.get(rate, 0.0)):
            also.append(place)
        else:
            others.append((drawing, _words_of(place) if place and place not in also else ""))
    changed = dataclasses.replace(change, value=dataclasses.replace(graft, stretch=stretch))
    return Regraft(change, changed, frozenset(also), tuple(others))


def _kept(drawing: Operation) -> float:
    """Returns the share that a dropout keeps."""
    return 1 - drawing.args[1] if drawing.name == _IN_ONE else kept_by(drawing.args)


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
        is_weights = _is_of_softmax(dropped[0], recording)
        return (f"{BLOCK.format(block)}.self_attention" if is_weights else None), "attention_dropout"
    module, _, last = point.module.rpartition(".")
    is_left = point.moment == "leave" and last in _DROPPED_BEHIND
    return (f"{module}.{_DROPPED_BEHIND[last]}" if is_left else None), "dropout"


def _is_of_softmax(value: Value, recording: Recording) -> bool:
    """Whether values are what a softmax gives, or something in their place that is made of it."""
    maker = None if value.maker is None else recording.operations[value.maker]
    if maker is None or maker.name == "softmax":
        return maker is not None
    return any(_is_of_softmax(taken, recording) for taken in maker.taken if taken.shape == value.shape)


def _words_of(place: str) -> str:
    """Says what the reference's dropout at a place drops."""
    return next(spot.words for spot in SPOTS if spot.rate and re.search(spot.only, place))
