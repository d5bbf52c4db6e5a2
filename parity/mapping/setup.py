"""Getting both models ready: one configuration, one copy of the weights, built once."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.errors import ParityError
from parity.mapping.inferring import infer_mapping
from parity.models import (  # fmt: skip
    CHECKED_DROPOUT,
    RATES,
    assigned,
    build_reference,
    build_without_values,
    configuration,
    configuration_of,
    fingerprint,
    hold,
    lacks_values,
    own_weights,
    registration,
    resolve_candidate,
    resolve_weights,
    sharing_copy,
    split,
    synthetic,
    uniform,
    without_values,
)
from parity.tracing import MODES, Held, Models, Run, Subject, align, ambient_kept, call_order, in_mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from parity.models import Candidate, WeightMap, Weights
    from parity.progress import Progress
    from parity.tracing import Point


@dataclass(frozen=True)
class Setup:
    """Reference, candidate and weights, agreed on one configuration.

    `image_size` is height and width of the images that both models take, in pixels.
    """

    name: str
    config: dict[str, Any]
    reference: nn.Module
    weights: Weights
    candidate: Candidate
    is_synthetic: bool
    image_size: int


def set_up(
    candidate: str | nn.Module | Callable[..., Any],
    reference: str | nn.Module,
    overrides: Mapping[str, Any],
    candidate_args: Mapping[str, Any] | None,
    weights: str | None,
    seed: int,
) -> Setup:
    """Agrees reference, candidate and weights on one configuration and builds the reference, without values yet.

    The arguments are those of `checking.check`.

    Raises:
        ParityError: an unknown name or setting, or a candidate that cannot be found or given its arguments.
    """
    if isinstance(reference, nn.Module):
        if overrides:
            raise ParityError(
                "--set changes a reference that is given by name; this one is a module that is built already"
            )
        if weights not in (None, "synthetic"):
            raise ParityError(
                f"weights={weights!r} belong to a reference given by name; load them into the module instead"
            )
        config = configuration_of(reference)
        chosen = resolve_weights("synthetic", "", seed) if weights else own_weights(reference)
        if isinstance(candidate, nn.Module) and {*candidate.modules()} & {*reference.modules()}:
            candidate = sharing_copy(candidate)  # one module cannot be at two places of its run at a time
        found = resolve_candidate(candidate, config, candidate_args)
        name, module = type(reference).__name__, reference
    else:
        name = reference
        config = configuration(name, overrides)
        chosen = resolve_weights("synthetic" if weights is None else weights, name, seed)
        config |= {key: value for key, value in chosen.config.items() if key not in overrides}
        config |= {rate: p for rate, p in CHECKED_DROPOUT.items() if rate not in overrides}
        found = resolve_candidate(candidate, config, candidate_args)
        # a candidate that takes no dropout is compared without
        config |= {rate: 0.0 for rate in RATES if rate not in {*overrides, *found.settings}}
        module = build_reference(config)
    size = config["image_size"] if config else _image_size(module)
    return Setup(name, config, module, chosen, found, chosen.source.startswith("synthetic"), size)


def _image_size(module: nn.Module) -> int:
    """Returns the first of some usual sizes, in pixels, that a reference of unknown configuration takes."""
    usual = (224, 384, 256, 512, 518, 336, 448, 192, 160, 128, 112, 96, 80, 64, 56, 48, 40, 36, 32, 28, 24, 16)
    for size in usual:
        if takes(module, torch.empty(2, 3, size, size)):
            return size
    return usual[0]


def takes(module: nn.Module, images: torch.Tensor) -> bool:
    """Returns whether `module` can be run on images of this shape; it is run without values, in next to no time."""
    with contextlib.suppress(ParityError), MODES["eval"].active(module), without_values(module):
        Run(module, images.to("meta"), set(), 0, "model").finish()
        return True
    return False


def fitting_batch(module: nn.Module, images: torch.Tensor) -> int | None:
    """Returns how many images `module` takes at once if its code fixes that, or None."""
    if takes(module, images):
        return None
    return next((n for n in (1, 2, 4, 8, 16, 32, 64) if takes(module, images[:1].expand(n, -1, -1, -1))), None)


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
            stack.enter_context(assigned(setup.reference, state))
            # which most passes want, so that most have nothing to switch
            stack.enter_context(in_mode(setup.reference, train=False))
        with progress.step("align"), MODES["eval-grad"].active(setup.reference):
            calls = call_order(setup.reference, images, "reference", inside=True)
            extra = {name: tensor.to(device) for name, tensor in _values_for(module, mapping, seed).items()}
            own = extra | mapping.apply(state)
            held = Held(state, own, fingerprint(own), *kinds)
            module, candidate_calls = _ready(module, setup.candidate, own, images, stack)
            stack.enter_context(in_mode(module, train=False))
            alignment = align(setup.reference, module, mapping, calls, candidate_calls)
        models = Models(setup.reference, module, images, seed)
        yield Subject(models, held, mapping, alignment, (calls, candidate_calls), dtype)


def _values_for(module: nn.Module, found: WeightMap, seed: int) -> dict[str, torch.Tensor]:
    """Draws values for the candidate's parameters that have no counterpart, so that what they do shows.

    Its buffers keep their values: a table of numbers is part of a function, not of its weights.
    """
    parameters = dict(module.named_parameters()).keys()
    extra = {split(name)[0] for name in (*found.unmapped_candidate, *found.unused)} & parameters
    return synthetic(module, seed, only=extra)


def _ready(
    module: nn.Module,
    candidate: Candidate,
    state: dict[str, torch.Tensor],
    images: torch.Tensor,
    stack: contextlib.ExitStack,
) -> tuple[nn.Module, list[Point]]:
    """Holds `state` in the candidate until the stack unwinds, and returns it with the order of its modules' calls.

    If tensors are left without values, or it cannot be run, it is built anew on a real device.
    """
    with contextlib.ExitStack() as trial:
        trial.enter_context(assigned(module, state))
        if not lacks_values(module):
            with contextlib.suppress(ParityError), MODES["eval-grad"].active(module):
                order = call_order(module, images, "candidate")
                stack.push(trial.pop_all())
                return module, order
    module = candidate.build()
    stack.enter_context(assigned(module, state))
    with MODES["eval-grad"].active(module):
        return module, call_order(module, images, "candidate")


@ambient_kept()
def find_map_of(
    candidate: str | nn.Module | Callable[..., Any],
    reference: str | nn.Module = "vit_b_16",
    *,
    overrides: Mapping[str, Any] | None = None,
    candidate_args: Mapping[str, Any] | None = None,
    weights: str = "synthetic",
    mapping: str | Path | None = None,
    seed: int = 0,
) -> tuple[Setup, nn.Module, WeightMap]:
    """Agrees both models on a configuration, builds them without values and finds their weight map.

    The arguments are those of `checking.check`.

    Raises:
        ParityError: as in `check`, and MappingError where no weight map is found.
    """
    setup = set_up(candidate, reference, overrides or {}, candidate_args, weights, seed)
    module = build_without_values(setup.candidate)
    path = Path(mapping) if mapping else None
    images = uniform("images to map by", (2, 3, setup.image_size, setup.image_size))
    return setup, module, infer_mapping(setup.reference, module, path, images=images, build=setup.candidate.build)


@dataclass(frozen=True)
class Pair:
    """Two models that hold the same weights in the same storage, in eval mode, and their weight map."""

    reference: nn.Module
    candidate: nn.Module
    mapping: WeightMap
    config: dict[str, Any]


def build_pair(
    candidate: str | Callable[..., Any],
    reference: str = "vit_b_16",
    *,
    overrides: Mapping[str, Any] | None = None,
    weights: str = "synthetic",
    seed: int = 0,
) -> Pair:
    """Builds a reference and a candidate with one copy of their weights, to be run as one likes.

    Args:
        candidate: as in `check`, but no module that is built already.
        reference: the name of a torchvision ViT.
        overrides: as in `check`.
        weights: as in `check`.
        seed: of synthetic weights.

    Raises:
        ParityError: as in `check`, and MappingError where no weight map is found.
    """
    setup, module, found = find_map_of(candidate, reference, overrides=overrides, weights=weights, seed=seed)
    state = setup.weights.state_dict(setup.reference)
    hold(setup.reference, state)
    found.load(module, state, assign=True)
    return Pair(setup.reference.eval(), module.eval(), found, setup.config)
