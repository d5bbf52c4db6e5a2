"""Which of the tensors that only one model has change nothing.

A key's bias is taken away by every softmax; a buffer may hold a mask of ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from parity.errors import ParityError
from parity.models import assigned, cut, put, split, synthetic
from parity.tracing import MODES, SAME_FUNCTION_BOUND, bare_run, compare

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from torch import nn

    from parity.models import WeightMap

    State = dict[str, torch.Tensor]


def with_effects(
    found: WeightMap,
    reference: nn.Module,
    candidate: nn.Module,
    images: torch.Tensor,
    idle: AbstractSet[str] = frozenset(),
) -> WeightMap:
    """Returns the map; in it is named what has no counterpart and changes nothing.

    Biases are tried, buffers as built, and what is idle. Both models are run to their end, in float64, on synthetic
    weights.

    Args:
        found: the map.
        reference: the model taken as right.
        candidate: the model under test.
        images: (B, C, H, W).
        idle: names of the candidate's tensors that are used for something else than what is compared.
    """
    parameters = dict(candidate.named_parameters()).keys()
    own = {split(name)[0] for name in found.unmapped_candidate} & parameters
    state = synthetic(reference, 0)
    values = synthetic(candidate, 0, only=own) | found.apply(state)
    ours = [name for name in found.unmapped_reference if "bias" in name]
    may_be_silent = {name for name in own if "bias" in name} | idle
    theirs = [name for name in found.unmapped_candidate if split(name)[0] in own & may_be_silent]
    buffers = [name for name in found.unmapped_candidate if split(name)[0] not in own]
    silent: list[str] = []
    with contextlib.suppress(ParityError):
        silent += _silent(reference, state, ours, images, "reference")
    with contextlib.suppress(ParityError):
        silent += _silent(candidate, values, theirs, images, "candidate")
    others = {*found.unmapped_reference, *found.unmapped_candidate} - {*silent, *buffers}
    constants: list[str] = []
    if buffers and not others:
        with contextlib.suppress(ParityError):
            logits = logits_of(reference, state, images, "reference"), logits_of(candidate, values, images, "candidate")
            constants += buffers * (compare(*logits, ulp=False).relative <= SAME_FUNCTION_BOUND)
    return dataclasses.replace(found, without_effect=tuple(silent), constants=tuple(constants))


def _silent(model: nn.Module, state: State, names: Sequence[str], images: torch.Tensor, owner: str) -> Iterator[str]:
    """Yields the names of the tensors, or slices, that may hold anything; those of all blocks are changed together."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kinds[re.sub(r"\d+", "#", name)].append(name)
    expected = logits_of(model, state, images, owner) if kinds else None
    others = synthetic(model, 1, only={split(name)[0] for name in names})
    for members in kinds.values():
        changed = {split(name)[0]: state[split(name)[0]].clone() for name in members}
        for name in members:
            tensor, box = split(name)
            put(cut(others[tensor], box), changed[tensor], box)
        assert expected is not None
        if (
            compare(expected, logits_of(model, state | changed, images, owner), ulp=False).relative
            <= SAME_FUNCTION_BOUND
        ):
            yield from members


def logits_of(model: nn.Module, state: State, images: torch.Tensor, owner: str) -> torch.Tensor:
    """Returns what a model that holds these tensors makes of images, in eval mode and float64."""
    with assigned(model, state):
        output = bare_run(model, images, MODES["eval"], torch.float64, 0, owner).output
    assert output is not None
    return output
