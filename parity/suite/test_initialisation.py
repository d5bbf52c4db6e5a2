"""Under one seed both constructors give the same tensors, to the bit: they draw the same numbers in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torchvision.models import VisionTransformer

from parity import infer_mapping
from parity.models import configuration, resolve_candidate
from parity.suite.conftest import SMALL

if TYPE_CHECKING:
    from parity.suite.conftest import Architecture


def _assert_same_initial_values(candidate: str, config: dict[str, Any], seed: int) -> None:
    torch.manual_seed(seed)
    original = VisionTransformer(**config)
    after_original = torch.get_rng_state()
    torch.manual_seed(seed)
    ours = resolve_candidate(candidate, config).build()
    assert torch.equal(torch.get_rng_state(), after_original), "one of the two has drawn more numbers"
    expected = infer_mapping(original, ours).apply(original.state_dict())
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.full_size
def test_initial_values_are_identical(candidate: str, architecture: Architecture) -> None:
    # two blocks: every block is drawn alike, and one that is drawn too much or too little shifts the next
    _assert_same_initial_values(candidate, configuration(architecture.name, {"num_layers": 2}), seed=0)


@pytest.mark.full_size
def test_initial_values_at_full_depth_are_identical(candidate: str, reference: str) -> None:
    _assert_same_initial_values(candidate, configuration(reference), seed=1)


@pytest.mark.parametrize("representation_size", [None, 24])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_initial_values_of_small_models_are_identical(
    candidate: str, reference: str, representation_size: int | None, seed: int
) -> None:
    config = configuration(reference, SMALL | {"representation_size": representation_size})
    _assert_same_initial_values(candidate, config, seed)
