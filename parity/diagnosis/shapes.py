"""Two models without values: only what their tensors' shapes show.

On the meta device a model runs in next to no time and memory, whatever its size. That can prove two models different,
and never the same.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from parity.diagnosis.verdict import Layer, layer_not_compared
from parity.models import without_values
from parity.tracing import IDENTICAL, MODES, Measurement, Run, align, call_order, in_float32, of_shapes, steps

if TYPE_CHECKING:
    import torch
    from torch import nn

    from parity.diagnosis.verdict import Verdict
    from parity.models import WeightMap

_NO_VALUES = "the same shape; on the meta device there are no values to compare"


def compare_shapes(
    reference: nn.Module, candidate: nn.Module, mapping: WeightMap, images: torch.Tensor
) -> tuple[Verdict, list[str], list[Layer]]:
    """Runs both models in step on the meta device and compares the shapes of what passes every aligned point.

    Returns:
        The verdict, `divergent` or `inconclusive`; why, a sentence each; a row per module of the reference.

    Raises:
        ParityError: one of the models cannot be run without values.
    """
    images = images.to("meta")
    with contextlib.ExitStack() as stack:
        stack.enter_context(MODES["eval"].active(reference, candidate))
        for model in (reference, candidate):
            stack.enter_context(without_values(model))
            stack.enter_context(in_float32(model))
        orders = call_order(reference, images, "reference", inside=True), call_order(candidate, images, "candidate")
        alignment = align(reference, candidate, mapping, *orders)
        runs = (
            Run(reference, images, set(alignment.pairs.values()), 0, "reference", inside=True),
            Run(candidate, images, set(alignment.pairs), 0, "candidate"),
        )
        seen: dict[str, Measurement] = {}
        try:
            for point, *_, measured in steps(*runs, alignment, forced=False, measure=of_shapes):
                # what only its place pairs may be something else
                is_doubtful = measured.problem and point.module in alignment.by_place
                if seen.get(point.module, IDENTICAL).identical and not is_doubtful:
                    seen[point.module] = measured
            output = of_shapes([runs[0].finish()], [runs[1].finish()])
        finally:
            for run in runs:
                run.close()
    names = {theirs: ours for ours, theirs in alignment.pairs.items()}
    layers = [_layer(name, names.get(name), seen.get(name), alignment.unaligned.get(name)) for name in alignment.order]
    wrong = [
        f"{layer.reference} (candidate: {layer.candidate}): {layer.why}" for layer in layers if layer.status == "origin"
    ]
    wrong += [f"the logits: {output.problem}"] * (output.problem is not None)
    if wrong:
        return "divergent", [f"other shapes, first in {wrong[0]}", *mapping.without_counterpart()], layers
    compared = sum(layer.why == _NO_VALUES for layer in layers)
    return (
        "inconclusive",
        [
            f"{compared} layers and the logits have the reference's shapes; without values nothing more can be known",
            *mapping.without_counterpart(),
        ],
        layers,
    )


def _layer(reference: str, candidate: str | None, measured: Measurement | None, why: str | None) -> Layer:
    if measured is not None and measured.problem:
        return Layer(reference, candidate, False, None, None, None, None, "origin", measured.problem)
    why = why or (_NO_VALUES if measured else "no check saw it")
    return layer_not_compared(reference, candidate, why)
