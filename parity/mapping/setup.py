"""Getting both models ready: one configuration, one copy of the weights, built once."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.errors import ParityError, input_errors
from parity.mapping.images import image_shape, require_same_images, settings_of
from parity.mapping.inferring import infer_mapping
from parity.mapping.own_sizes import own_sizes
from parity.models import (  # fmt: skip
    CHECKED_DROPOUT,
    RATES,
    Candidate,
    brings_weights,
    build_elsewhere,
    build_reference,
    build_reference_with_values,
    build_without_values,
    configuration,
    configuration_of,
    hold,
    is_cause,
    is_elsewhere,
    own_weights,
    resolve_candidate,
    resolve_elsewhere,
    resolve_weights,
    sharing_copy,
    uniform,
)
from parity.tracing import ambient_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from parity.models import WeightMap, Weights


@dataclass(frozen=True)
class Setup:
    """Reference, candidate and weights, agreed on one configuration.

    Attributes:
        name: how the report names the reference.
        config: torchvision's arguments of the reference; empty for another model.
        settings: those, or what was read off another model.
        reference: built, with or without values.
        weights: of the reference.
        candidate: what builds the candidate.
        is_synthetic: whether the weights are synthetic.
        image_shape: channels, height and width of the images that both models take, in pixels.
        builder: builds the reference with its initial values; None for a module that was handed over.
        own_sizes: settings of torchvision's reference that the candidate has otherwise.
        asked: what was asked for of those that the reference has been given.
        left_out: whose weights were asked for, if a reference of the candidate's sizes cannot hold them.
    """

    name: str
    config: dict[str, Any]
    settings: dict[str, Any]
    reference: nn.Module
    weights: Weights
    candidate: Candidate
    is_synthetic: bool
    image_shape: tuple[int, int, int]
    builder: Candidate | None = None
    own_sizes: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    left_out: str | None = None

    @property
    def is_torchvisions(self) -> bool:
        """Whether the reference is one of torchvision's by name, which can have other sizes."""
        return self.builder is not None and not is_elsewhere(self.name)


def set_up(
    candidate: str | nn.Module | Callable[..., Any],
    reference: str | nn.Module,
    overrides: Mapping[str, Any],
    candidate_args: Mapping[str, Any] | None,
    weights: str | None,
    seed: int,
    reference_args: Mapping[str, Any] | None = None,
) -> Setup:
    """Agrees reference, candidate and weights on one configuration and builds the reference, without values yet.

    The arguments are those of `checking.check`.

    Raises:
        ParityError: an unknown name or setting, or a model that cannot be found, given its arguments, or built.
    """
    if isinstance(reference, nn.Module):
        if overrides:
            raise ParityError(
                "--set changes a reference that is given by name; this one is a module that is built already"
            )
        if reference_args:
            raise ParityError("--reference-arg builds a reference; this one is a module that is built already")
        if weights not in (None, "own", "synthetic"):
            raise ParityError(
                f"weights={weights!r} belong to a reference given by name; load them into the module instead"
            )
        if isinstance(candidate, nn.Module) and {*candidate.modules()} & {*reference.modules()}:
            candidate = sharing_copy(candidate)  # one module cannot be at two places of its run at a time
        return _around(type(reference).__name__, reference, candidate, candidate_args, weights or "own", seed)
    if is_elsewhere(reference):
        if overrides:
            raise ParityError(
                f"--set changes a model of torchvision's; give {reference} its arguments with --reference-arg"
            )
        builder = resolve_elsewhere(reference, reference_args)
        torch.manual_seed(seed)  # of the values that it draws itself
        if weights is None:
            weights = "own" if brings_weights(builder) else "synthetic"
        module = build_elsewhere(builder, with_values=weights == "own")
        setup = _around(reference, module, candidate, candidate_args, weights, seed)
        return dataclasses.replace(setup, builder=builder)
    if reference_args:
        raise ParityError(
            f"--reference-arg is for a reference that is not torchvision's; change {reference} with --set"
        )
    config = configuration(reference, overrides)
    chosen = resolve_weights("synthetic" if weights is None else weights, reference, seed)
    config |= {key: value for key, value in chosen.config.items() if key not in overrides}
    config |= {rate: p for rate, p in CHECKED_DROPOUT.items() if rate not in overrides}
    found = _found(candidate, config, candidate_args)
    # a candidate that takes no dropout is compared without
    config |= {rate: 0.0 for rate in RATES if rate not in {*overrides, *found.settings}}
    return _beside(reference, config, chosen, found)


@ambient_kept()
def _found(
    candidate: str | nn.Module | Callable[..., Any], config: dict[str, Any], arguments: Mapping[str, Any] | None
) -> Candidate:
    """Finds the candidate, whose file may tell torch a default device or dtype, which is the others' as well."""
    return resolve_candidate(candidate, config, arguments)


def _beside(name: str, config: dict[str, Any], weights: Weights, candidate: Candidate) -> Setup:
    """Builds torchvision's reference of a configuration beside a candidate."""
    module = build_reference(config)
    builder = Candidate(name, config, (), frozenset(), lambda: build_reference_with_values(config))
    synthetic_ones = _is_synthetic(weights)
    return Setup(name, config, config, module, weights, candidate, synthetic_ones, image_shape(module), builder)


def at_own_sizes(setup: Setup, module: nn.Module, seed: int, *, follow: bool) -> Setup:
    """Gives torchvision's reference the sizes of a candidate that can only be what it is.

    A size that the candidate was given, and that it doesn't heed, is a cause like any other where the comparison can go
    on all the same.

    Args:
        setup: what was agreed on.
        module: the candidate, with or without values.
        seed: of synthetic weights, which take the place of those that were asked for where they are of other sizes.
        follow: give it every size.

    Raises:
        ParityError: the sizes are to be followed, and the reference is none of torchvision's, or there is no such ViT.
    """
    if not setup.is_torchvisions:
        if follow:
            raise ParityError(f"--follow gives a ViT of torchvision's other sizes; {setup.name} is what it is")
        return setup
    own = own_sizes(module, setup.config)
    given = {
        key: size for key, size in own.items()
        if follow or not is_cause(setup.candidate, key, size, setup.config[key])
    }  # fmt: skip
    if not given:
        return dataclasses.replace(setup, own_sizes=own)
    try:
        there = _beside(setup.name, setup.config | given, setup.weights, setup.candidate)
    except ParityError:
        if follow:
            raise
        return dataclasses.replace(setup, own_sizes=own)
    there = dataclasses.replace(there, own_sizes=own, asked={key: setup.config[key] for key in given})
    if setup.is_synthetic or _fit(setup.weights, there.reference):
        return there
    if not setup.weights.config:
        setup.weights.state_dict(setup.reference)  # what fits neither is the wrong file
    instead = resolve_weights("synthetic", setup.name, seed)
    return dataclasses.replace(there, weights=instead, is_synthetic=True, left_out=setup.weights.source)


def _fit(weights: Weights, reference: nn.Module) -> bool:
    if weights.config:  # torchvision's own, of one size
        return False
    with contextlib.suppress(ParityError):
        weights.state_dict(reference)
        return True
    return False


def _around(
    name: str,
    reference: nn.Module,
    candidate: str | nn.Module | Callable[..., Any],
    candidate_args: Mapping[str, Any] | None,
    weights: str,
    seed: int,
) -> Setup:
    """Agrees candidate and weights with a reference that is built already."""
    chosen = own_weights(reference) if weights == "own" else resolve_weights(weights, name, seed)
    config, shape = configuration_of(reference), image_shape(reference)
    settings = config or settings_of(reference, shape)
    found = _found(candidate, settings, candidate_args)
    return Setup(name, config, settings, reference, chosen, found, _is_synthetic(chosen), shape)


def _is_synthetic(weights: Weights) -> bool:
    return weights.source.startswith("synthetic")


@ambient_kept()
@input_errors()
def find_map_of(
    candidate: str | nn.Module | Callable[..., Any],
    reference: str | nn.Module = "vit_b_16",
    *,
    overrides: Mapping[str, Any] | None = None,
    candidate_args: Mapping[str, Any] | None = None,
    reference_args: Mapping[str, Any] | None = None,
    weights: str | None = None,
    mapping: str | Path | None = None,
    seed: int = 0,
) -> tuple[Setup, nn.Module, WeightMap]:
    """Agrees both models on a configuration, builds them without values and finds their weight map.

    The arguments are those of `checking.check`.

    Raises:
        ParityError: as in `check`, and MappingError where no weight map is found.
    """
    setup = set_up(candidate, reference, overrides or {}, candidate_args, weights, seed, reference_args)
    module = build_without_values(setup.candidate)
    path = Path(mapping) if mapping else None
    images = uniform("images to map by", (2, *setup.image_shape))
    try:
        found = infer_mapping(setup.reference, module, path, images=images, build=setup.candidate.build)
    except ParityError:
        require_same_images(module, setup.image_shape)
        raise
    return setup, module, found


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
