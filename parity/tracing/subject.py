"""Who is compared: two models with their weights in place, and how the two correspond."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from parity.models import FROZEN, PARAMETER, configuration_of, fingerprint, sharing_copy
from parity.tracing.alignment import align
from parity.tracing.casting import first_that_runs, held_in
from parity.tracing.function_calls import Layer, function_layers
from parity.tracing.modes import MODES
from parity.tracing.run import Point, Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from parity.models import WeightMap
    from parity.tracing.alignment import Alignment


@dataclass(frozen=True)
class Models:
    """Everything a pass needs, with weights in place."""

    reference: nn.Module
    candidate: nn.Module
    images: torch.Tensor
    seed: int

    @functools.cached_property
    def twin(self) -> nn.Module:
        """The reference once more, with the same tensors, to run in float64 while it runs in another dtype."""
        return sharing_copy(self.reference)

    @functools.cached_property
    def way(self) -> int:
        """The first of the ways of `held_in` in which the reference runs in float64; torchvision's runs in any."""
        if configuration_of(self.reference):
            return 0

        def run(attempt: int) -> int:
            with MODES["eval"].active(self.reference), held_in(self.reference, torch.float64, attempt):
                Run(self.reference, self.images.double(), set(), self.seed, "reference").finish()
            return attempt

        return first_that_runs(run, torch.float64)


@dataclass(frozen=True)
class Held:
    """The tensors that both models hold.

    Attributes:
        reference: by name; those without a counterpart have values as well.
        candidate: by name, in the storage of the reference's where their layouts are the same.
        checksums: of the candidate's, before it was run for the first time.
        reference_kinds: how each of the reference's tensors is registered (`state.registration`).
        candidate_kinds: the same of the candidate's.
    """

    reference: Mapping[str, torch.Tensor]
    candidate: Mapping[str, torch.Tensor]
    checksums: Mapping[str, int]
    reference_kinds: Mapping[str, str]
    candidate_kinds: Mapping[str, str]

    def written_to(self) -> list[str]:
        """Returns the candidate's tensors that have changed since."""
        now = fingerprint(self.candidate)
        return [name for name, checksum in self.checksums.items() if now[name] != checksum]


@dataclass(frozen=True)
class Subject:
    """Who is compared with whom, and how the two correspond.

    Attributes:
        models: with weights in place.
        held: those weights.
        mapping: which tensor is which.
        alignment: which module is which.
        calls: the points of the reference and of the candidate in the order of a forward pass.
        dtype: the name of the dtype under test beside float64.
    """

    models: Models
    held: Held
    mapping: WeightMap
    alignment: Alignment
    calls: tuple[list[Point], list[Point]]
    dtype: str

    @property
    def frozen(self) -> frozenset[str]:
        """The candidate's parameters that want no gradient."""
        return frozenset(name for name, kind in self.held.candidate_kinds.items() if kind == FROZEN)

    @property
    def without_gradient(self) -> frozenset[str]:
        """The candidate's tensors that want no gradient, buffers among them."""
        return frozenset(name for name, kind in self.held.candidate_kinds.items() if kind != PARAMETER)

    def aligned_anyhow(self) -> Alignment:
        """Aligns the modules once more, those among them that one side calls more often than the other."""
        return align(
            self.models.reference, self.models.candidate, self.mapping, *self.calls, equal_calls=False,
            portions=self.alignment.portions, apart=self.alignment.apart,
        )  # fmt: skip

    def layers_as_functions(self) -> dict[str, Layer]:
        """Returns the candidate's layers that may be calls of functions, by the names of their weights."""
        called = {point.module for point in self.calls[1]}
        return function_layers(self.mapping, self.models.candidate, called)
