"""Torchvision's ViT of the same sizes stands for a reference of another class, and has its weights.

The sizes are read off what the reference does with its tensors, and whose tensor is whose is found as between any two
models. What the reference does otherwise than its stand-in are its traits: `naming` finds them as it finds causes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.errors import ParityError
from parity.explanation.composing import composed
from parity.mapping import infer_mapping, trace_uses
from parity.models import (
    Entry,
    WeightMap,
    assigned,
    build_reference,
    configuration_of,
    cut,
    said_numbers,
    split,
    state_shapes,
)
from parity.tracing import MODES, Models, Subject, align, align_with_portions, call_order, in_float32

if TYPE_CHECKING:
    from collections.abc import Mapping

    from parity.mapping import Uses
    from parity.tracing import Alignment, Held, Point


class NoStandInError(Exception):
    """Torchvision's ViT cannot stand for a reference; the message says why, as the end of a sentence about it."""


@dataclass(frozen=True)
class StandIn:
    """Torchvision's ViT in the place of another reference.

    Attributes:
        config: torchvision's arguments.
        module: without values.
        mapping: from its tensors to the reference's.
        weights: the reference's, under its own names; zeros for what the reference lacks.
        calls: the points of a forward pass, in order.
    """

    config: dict[str, Any]
    module: nn.Module
    mapping: WeightMap
    weights: Mapping[str, torch.Tensor]
    calls: list[Point]

    def before_reference(self, subject: Subject) -> Subject:
        """Returns who is compared when the reference of `subject` is the candidate."""
        reference, held = subject.models.reference, subject.held
        modules = dict(reference.named_modules())
        held = dataclasses.replace(held, reference=self.weights, candidate=held.reference, checksums={})
        calls = [point for point in subject.calls[0] if point.module in modules]
        return self._subject(subject, reference, held, self.mapping, calls)

    def before_candidate(self, subject: Subject) -> Subject:
        """Returns who is compared when the stand-in takes the reference's place before the candidate.

        Without a counterpart are then what the reference has and the candidate lacks, and what the stand-in lacks.
        """
        candidate, theirs = subject.models.candidate, subject.mapping
        found = composed(self.mapping, theirs, state_shapes(subject.models.reference))
        more = self._only_in_candidate(subject)
        names = {split(entry.candidate)[0] for entry in more.entries}
        added = _weights(more, self.module, {name: subject.held.candidate[name] for name in names})
        lacking = tuple(part for part in found.unmapped_reference if part not in self.mapping.unmapped_reference)
        extra = tuple(part for part in found.unmapped_candidate if split(part)[0] not in names)
        found = dataclasses.replace(
            found, entries=(*found.entries, *more.entries), unmapped_reference=lacking, unmapped_candidate=extra
        )
        held = dataclasses.replace(subject.held, reference={**self.weights, **added})
        return self._subject(subject, candidate, held, found, subject.calls[1])

    def _only_in_candidate(self, subject: Subject) -> WeightMap:
        """Returns the map of what stand-in and candidate have and the reference lacks, such as a bias."""
        none = WeightMap((), self.mapping.source)
        if not (self.mapping.unmapped_reference and subject.mapping.unmapped_candidate):
            return none
        try:
            found = infer_mapping(self.module, subject.models.candidate, images=_seen(subject, self.config))
        except ParityError:
            return none
        ours = {split(entry.reference)[0] for entry in self.mapping.entries}
        theirs = {split(entry.candidate)[0] for entry in subject.mapping.entries}
        entries = tuple(
            entry
            for entry in found.entries
            if split(entry.reference)[0] not in ours and split(entry.candidate)[0] not in theirs
        )
        mapped = {split(entry.reference)[0] for entry in entries}
        lacking = tuple(part for part in found.unmapped_reference if split(part)[0] in mapped)
        return dataclasses.replace(none, entries=entries, unmapped_reference=lacking)

    def _subject(
        self, subject: Subject, candidate: nn.Module, held: Held, mapping: WeightMap, calls: list[Point]
    ) -> Subject:
        models = Models(self.module, candidate, subject.models.images, subject.models.seed)
        if models.images.shape[-1] == self.config["image_size"]:
            alignment = self._aligned(models, held, mapping, calls)
        else:  # what is left over beside the patches it doesn't take
            alignment = align(self.module, candidate, mapping, self.calls, calls)
        return Subject(models, held, mapping, alignment, (self.calls, calls), subject.dtype)

    def _aligned(self, models: Models, held: Held, mapping: WeightMap, calls: list[Point]) -> Alignment:
        """Aligns its modules with another model's, those among them that that one calls for portions."""
        several: set[str] = set()
        with MODES["eval-grad"].active(self.module, models.candidate), in_float32(self.module):
            call_order(models.candidate, models.images, "candidate", several=several)
            weights = {name: held.reference[name] for name in self.module.state_dict()}
            with assigned(self.module, weights):
                return align_with_portions(
                    self.module, models.candidate, mapping, self.calls, calls, images=models.images, several=several
                )


def stand_in(subject: Subject) -> StandIn:
    """Builds the stand-in for the reference of `subject`.

    Raises:
        NoStandInError: the reference is no ViT, or one of which no weight map is found.
    """
    reference = subject.models.reference
    try:
        config = configuration_of(reference) or _configuration(reference, subject.models.images)
        module = build_reference(config)
        images = _seen(subject, config)
        if images.shape[1] != 3:
            sizes = config["hidden_dim"], config["patch_size"], config["patch_size"]
            module.conv_proj = nn.Conv2d(images.shape[1], *sizes, device="meta")
        found = infer_mapping(module, reference, images=images)
        with MODES["eval-grad"].active(module):
            calls = call_order(module, images.to("meta"), "reference", inside=True)
    except ParityError as error:
        raise NoStandInError("has tensors that don't correspond to such a model's") from error
    return StandIn(config, module, found, _weights(found, module, subject.held.reference), calls)


def attention_widths(used: Uses) -> list[int]:
    """Returns how many features the attentions of a model take, each number once, in order; a ViT has one such number.

    Args:
        used: what the model does with its tensors.
    """
    widths = (op.projections[0].matrix.shape[1] for op in used.operations if op.kind == "attention")
    return list(dict.fromkeys(widths))


def _seen(subject: Subject, config: Mapping[str, Any]) -> torch.Tensor:
    """Returns the images, without what is left over beside the patches."""
    size = config["image_size"]
    return subject.models.images[..., :size, :size].cpu()


def _weights(found: WeightMap, module: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns another model's tensors under the stand-in's names, and zeros for what has no counterpart."""
    owned = module.state_dict()
    lacking = [Entry(part, f"none: {number}") for number, part in enumerate(found.unmapped_reference)]
    shapes = {
        entry.candidate: cut(owned[name], box).shape for entry in lacking for name, box in [split(entry.reference)]
    }
    devices = {tensor.device for tensor in state.values()}
    zeros = {name: torch.zeros(shape, device=next(iter(devices), None)) for name, shape in shapes.items()}
    whole = dataclasses.replace(found, entries=(*found.entries, *lacking), unmapped_reference=())
    return whole.invert().apply({**state, **zeros})


def _configuration(reference: nn.Module, images: torch.Tensor) -> dict[str, Any]:
    """Reads torchvision's arguments off what a ViT of any class does with its tensors.

    Raises:
        NoStandInError: it is none.
        ParityError: it cannot be run.
    """
    uses = trace_uses(reference, images, "reference")
    widths = attention_widths(uses)
    if len(widths) != 1:
        raise NoStandInError("has attention of several widths" if widths else "has no attention")
    (width,) = widths
    # of each projection the numbers of features, and (0, 0) for those of an attention
    shapes = [
        op.projections[0].matrix.shape if op.kind == "matrix" else (0, 0) for op in uses.operations if op.projections
    ]
    channels, height, size = images.shape[1:]
    patch = math.isqrt(shapes[0][1] // channels)
    if shapes[0] != (width, channels * patch**2) or height != size:
        raise NoStandInError("doesn't begin with one projection of square patches")
    pairs = [n for n, (one, other) in enumerate(itertools.pairwise(shapes)) if one == other[::-1] and one[1] == width]
    mlps = [n for n in pairs if shapes[n][0] != width] or pairs
    heads = uses.heads or next(said_numbers(reference, "num_heads"), None)
    if not mlps:
        raise NoStandInError("has no MLP of two projections")
    if not heads or width % heads:
        raise NoStandInError("doesn't tell how many heads its attention has")
    end = shapes[mlps[-1] + 2 :] or [(width, width)]
    return {
        "image_size": size // patch * patch,
        "patch_size": patch,
        "num_layers": shapes.count((0, 0)),
        "num_heads": heads,
        "hidden_dim": width,
        "mlp_dim": shapes[mlps[0]][0],
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "num_classes": end[-1][0],
        "representation_size": end[0][0] if len(end) == 2 and end[1][1] == end[0][0] else None,
    }
