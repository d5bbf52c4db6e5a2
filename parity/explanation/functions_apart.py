"""Layers that a candidate calls as functions for some tokens at a time are seen with all of them put together."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

import torch

from parity.explanation.bending import Bend
from parity.explanation.bent_vit import BentViT
from parity.explanation.case import Widened
from parity.explanation.observing import PassingFunctions
from parity.tracing import Event, FunctionCalls, Point, Run, portions_of

if TYPE_CHECKING:
    from parity.explanation.case import Case
    from parity.tracing import Layer


def with_portions_of_functions(case: Case, attempt: int) -> Case:
    """Returns what is explained, with what is known of layers that are called more than once.

    Those whose calls are for less than the whole, and cannot be put together, are not looked at.

    Args:
        case: what is explained.
        attempt: of the ways to hold the candidate in float64.
    """
    layers = case.layers_in(case.alignment)
    calls = Counter(point.module for point in _passing(case, layers, attempt, most=0) if point.moment == "enter")
    repeated = {weight: layer for weight, layer in layers.items() if calls[weight] > 1}
    if not repeated:
        return case
    passing = _passing(case, repeated, attempt)
    expected = _of_reference(case, {layer.reference for layer in repeated.values()})
    events = (Event(point, [tensor]) for point, tensor in passing.items() if tensor is not None)
    portions, apart = portions_of(case.alignment, events, calls, expected.get)
    alignment = dataclasses.replace(case.alignment, portions={**case.alignment.portions, **portions})
    return dataclasses.replace(case, alignment=alignment.without({layers[weight].reference for weight in apart}))


def _passing(
    case: Case, layers: dict[str, Layer], attempt: int, most: int | None = None
) -> dict[Point, torch.Tensor | None]:
    """Returns what passes some layers of the candidate, in order; of more bytes than it may be, nothing but where."""
    passing = PassingFunctions(most)
    points: list[Point] = []
    models = case.subject.models

    def tell(point: Point, tensor: torch.Tensor) -> None:
        points.append(point)
        passing.keep(point, tensor)

    if layers:
        with case.candidate_in(case.mode, attempt), FunctionCalls(models.candidate, layers, tell):
            Run(models.candidate, models.images.double(), set(), models.seed, "candidate").finish()
    return {point: passing.tensors.get(point) for point in points}


def _of_reference(case: Case, modules: set[str]) -> dict[Point, list[torch.Tensor]]:
    """Returns what passes some modules of the reference."""
    seen: dict[Point, list[torch.Tensor]] = {}

    def watch(point: Point, tensor: torch.Tensor) -> torch.Tensor:
        if point.module in modules and not point.call:
            seen[point] = [tensor]
        return tensor

    model = BentViT(case.config, Widened(case.subject.held.reference), traits=case.traits)
    bend, tensor = Bend(watch=watch, traits=model.traits), case.subject.models.images.double()
    with torch.no_grad():
        for stage in model.stages:
            tensor = model.run(stage, tensor, bend)
    return seen
