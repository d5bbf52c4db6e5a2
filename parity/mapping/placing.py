"""Both models with one copy of the weights in place, and the candidate as it is when it was never run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from parity.errors import ParityError
from parity.models import (  # fmt: skip
    assigned,
    build_without_values,
    cut,
    fingerprint,
    lacks_values,
    put,
    registration,
    slots,
    split,
    synthetic,
)
from parity.tracing import MODES, Held, Models, Subject, align_with_portions, call_order, in_float32, in_mode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from torch import nn

    from parity.mapping.setup import Setup
    from parity.models import Candidate, WeightMap
    from parity.progress import Progress
    from parity.tracing import Point


@contextlib.contextmanager
def in_place(
    setup: Setup,
    module: nn.Module,
    mapping: WeightMap,
    images: torch.Tensor,
    seed: int,
    dtype: str,
    device: str,
    progress: Progress,
) -> Iterator[Subject]:
    """Holds one copy of the weights in both models for as long as the context lasts, and aligns their modules.

    Args:
        setup: what was agreed on.
        module: the candidate, with or without values.
        mapping: the weight map.
        images: (B, C, H, W), in float32.
        seed: of dropout, and of values for what has no counterpart.
        dtype: the name of the dtype under test beside float64.
        device: where to run.
        progress: told what is being done.

    Raises:
        ParityError: the weights cannot be had, or one of the models cannot be run.
    """
    kinds = registration(setup.reference), registration(module)
    images = images.to(device)
    with contextlib.ExitStack() as stack:
        with progress.step("weights", f"weights {setup.weights.source}"):
            state = {name: tensor.to(device) for name, tensor in setup.weights.state_dict(setup.reference).items()}
            stack.enter_context(in_float32(setup.reference))
            stack.enter_context(assigned(setup.reference, state))
            # which most passes want, so that most have nothing to switch
            stack.enter_context(in_mode(setup.reference, train=False))
        with progress.step("align"), MODES["eval-grad"].active(setup.reference):
            calls = call_order(setup.reference, images, "reference", inside=True)
            extra = {name: tensor.to(device) for name, tensor in _values_for(module, mapping, seed).items()}
            own = extra | _with_parts(mapping.apply(state), extra, mapping)
            held = Held(state, own, fingerprint(own), *kinds)
            several: set[str] = set()
            module, candidate_calls = _ready(module, setup.candidate, own, images, stack, several)
            stack.enter_context(in_mode(module, train=False))
            with MODES["eval-grad"].active(module):
                alignment = align_with_portions(
                    setup.reference, module, mapping, calls, candidate_calls, images=images, several=several
                )
        models = Models(setup.reference, module, images, seed)
        yield Subject(models, held, mapping, alignment, (calls, candidate_calls), dtype)


@contextlib.contextmanager
def anew(candidate: Candidate, subject: Subject, *, with_values: bool) -> Iterator[nn.Module | None]:
    """Yields the candidate as it is when it has just been built and was never run, with the weights that it holds.

    None where it cannot be built a second time, holds what it makes only as it is run, or lacks values.

    Args:
        candidate: what builds it.
        subject: with its weights in place.
        with_values: build it with initial values, which it may keep where nobody sees them.
    """
    module, known, state = None, subject.models.candidate, subject.held.candidate
    if not candidate.is_built:
        with contextlib.suppress(ParityError):
            module = candidate.build() if with_values else build_without_values(candidate)
    if module is None:
        yield None
        return
    is_another = module is not known and {name for name, *_ in slots(module)} == {name for name, *_ in slots(known)}
    with in_float32(module), assigned(module, state), in_mode(module, train=False):
        yield module if is_another and not lacks_values(module) else None


def _values_for(module: nn.Module, found: WeightMap, seed: int) -> dict[str, torch.Tensor]:
    """Draws values for the candidate's parameters that have no counterpart, so that what they do shows.

    Its buffers keep their values: a table of numbers is part of a function, not of its weights.
    """
    parameters = dict(module.named_parameters()).keys()
    extra = {split(name)[0] for name in (*found.unmapped_candidate, *found.unused)} & parameters
    return synthetic(module, seed, only=extra)


def _with_parts(
    mapped: dict[str, torch.Tensor], extra: Mapping[str, torch.Tensor], found: WeightMap
) -> dict[str, torch.Tensor]:
    """Puts the values of slices that have no counterpart into tensors whose other slices have one."""
    for name, box in map(split, found.unmapped_candidate):
        if box and name in mapped and name in extra:
            put(cut(extra[name], box).to(mapped[name]), mapped[name], box)
    return mapped


def _ready(
    module: nn.Module,
    candidate: Candidate,
    state: dict[str, torch.Tensor],
    images: torch.Tensor,
    stack: contextlib.ExitStack,
    several: set[str],
) -> tuple[nn.Module, list[Point]]:
    """Holds `state` in the candidate until the stack unwinds, and returns it with the order of its modules' calls.

    If tensors are left without values, or it cannot be run, it is built anew on a real device. Modules where several
    tensors pass at once are added to `several`.
    """
    with contextlib.ExitStack() as trial:
        trial.enter_context(in_float32(module))
        trial.enter_context(assigned(module, state))
        if not lacks_values(module):
            with contextlib.suppress(ParityError), MODES["eval-grad"].active(module):
                order = call_order(module, images, "candidate", several=several)
                stack.push(trial.pop_all())
                return module, order
    module = candidate.build()
    stack.enter_context(in_float32(module))
    stack.enter_context(assigned(module, state))
    with MODES["eval-grad"].active(module):
        return module, call_order(module, images, "candidate", several=several)
