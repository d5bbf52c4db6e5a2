"""The same verdicts on weights that training on real images has made, which are not like random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from examples.train_digits import CONFIG, load_data
from parity import check
from parity.models.reference import build_reference
from parity.models.state import assigned
from parity.models.weights import synthetic
from tests.corpus.cases import cases

if TYPE_CHECKING:
    from pathlib import Path

    from tests.corpus.cases import Case

pytestmark = [pytest.mark.full_size, pytest.mark.xdist_group("trained")]

# the rates of the checks, which are unequal, not those of the training
SHAPE = {key: value for key, value in CONFIG.items() if "dropout" not in key}
# a fifth of what is planted in our own ViT, in all blocks and in single ones; its weight map fits any size
OURS = [
    case for case in cases() if case.host.name == "ours" and not case.bug.changes_parameters and not case.bug.settings
]


@pytest.fixture(scope="module")
def trained(trained_digits: Path) -> Path:
    return trained_digits / "weights.safetensors"


def _largest_attention(state: dict[str, torch.Tensor]) -> float:
    """Returns the part of a token's attention in the first block that goes to one token: mean over held-out digits."""
    _, held_out = load_data()
    model = build_reference(CONFIG)
    entered: list[torch.Tensor] = []
    attention = model.get_submodule("encoder.layers.encoder_layer_0.self_attention")
    assert isinstance(attention, nn.MultiheadAttention)
    hook = attention.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    with torch.no_grad(), assigned(model, state):
        model.eval()(held_out.images)
        _, weights = attention(entered[0], entered[0], entered[0], average_attn_weights=False)
    hook.remove()
    return float(weights.amax(-1).mean())


def test_training_has_made_attention_uneven(trained: Path) -> None:
    """Guards the tests below: on weights like random ones they would prove nothing new."""
    random = _largest_attention(synthetic(build_reference(CONFIG), 0))
    assert _largest_attention(load_file(trained)) > 1.4 * random


def test_scratch_vit_is_identical(trained: Path) -> None:
    assert check("vit:ViT", overrides=SHAPE, weights=str(trained)).verdict == "identical"


@pytest.mark.parametrize("case", OURS[::5], ids=lambda case: case.id)
def test_planted_bug_is_divergent_and_placed(case: Case, trained: Path, tmp_path: Path) -> None:
    report = check(case.write(tmp_path), overrides=SHAPE, weights=str(trained), modes=[case.bug.mode])
    assert report.verdict == "divergent", report
    assert report.origin is not None
    assert report.origin.reference in case.first_places, report
