"""Other people's models at the full width of ViT-B/16, without a map and without a hint."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from parity import check
from parity.cli import main
from parity.diagnosis.phases import PhaseCheck
from parity.models.reference import build_reference, configuration
from parity.models.weights import synthetic
from parity.suite.conftest import SMALL
from tests import peers

if TYPE_CHECKING:
    from pathlib import Path

    from parity.report.report import Report

# other people's packages warn about their own affairs
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.full_size]


def _require(name: str) -> None:
    for package in ("timm", "transformers", "vit_pytorch"):
        if name.startswith(package) and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; it belongs to the dependency group peers")


def _check(name: str, **overrides: int) -> Report:
    _require(name)
    report = check(f"tests.peers:{name}", overrides=overrides, modes=["eval"], batch=2)
    assert report.mapping is not None
    return report


@pytest.mark.parametrize("name", ["timm_vit", "transformers_vit"])
def test_right_implementation_is_equivalent(name: str) -> None:
    report = _check(name)
    assert report.verdict == "equivalent", report
    assert report.mapping is not None
    assert report.mapping.is_complete
    assert report.mapping.certainty == "unique by proof"
    assert report.parameters == 86_567_656
    compared = [layer for layer in report.layers if layer.status == "clean"]
    assert len(compared) >= 100
    inside = {layer.reference.rpartition(".")[2] for layer in compared if ".self_attention." in layer.reference}
    assert inside == ({"in_proj", "out_proj"} if name == "timm_vit" else {"query", "key", "value", "out_proj"})


@pytest.mark.parametrize("name", ["timm_small", "transformers_small"])
def test_right_implementation_is_equivalent_in_every_phase(name: str) -> None:
    _require(name)
    report = check(f"tests.peers:{name}", overrides=SMALL, phases=["forward", "backward", "training"], steps=4)
    assert report.verdict == "equivalent", report
    assert not [made for made in report.checks if made.verdict in ("divergent", "not compared")], report
    assert [cause.id for cause in report.causes] == ["initialisation"]  # they do draw other initial values
    noise = {made.name: made.noise for made in report.checks if isinstance(made, PhaseCheck) and made.noise}
    assert max(noise.values()) < 3, noise


def test_torchvision_itself_is_identical() -> None:
    assert _check("torchvision_vit").verdict == "identical"


def test_other_eps_is_divergent_in_every_norm() -> None:
    report = _check("transformers_vit_as_it_comes", num_layers=3)
    assert report.verdict == "divergent"
    assert {layer.reference for layer in report.layers if layer.status == "origin"} == {
        *(f"encoder.layers.encoder_layer_{block}.{norm}" for block in range(3) for norm in ("ln_1", "ln_2")),
        "encoder.ln",
    }


@pytest.mark.parametrize(
    ("name", "reference", "candidate"),
    [
        ("timm_clip", {"conv_proj.bias"}, {"norm_pre.weight", "norm_pre.bias"}),
        ("timm_dino", set(), {f"blocks.{n}.ls{k}.gamma" for n in range(3) for k in (1, 2)}),
        (
            "vit_pytorch_vit",
            {f"encoder.layers.encoder_layer_{n}.self_attention.in_proj_bias" for n in range(3)},
            {f"to_patch_embedding.{layer}.{key}" for layer in (1, 3) for key in ("weight", "bias")},
        ),
    ],
)
def test_other_parameters_are_named_and_not_passed(name: str, reference: set[str], candidate: set[str]) -> None:
    report = _check(name, num_layers=3)
    assert report.verdict == "divergent", report
    assert report.mapping is not None
    assert set(report.mapping.unmapped_reference) == reference
    assert set(report.mapping.unmapped_candidate) == candidate
    assert report.origin is not None


@pytest.mark.parametrize(("name", "overrides"), [("timm_vit", {}), ("transformers_small", SMALL)])
def test_weights_converted_there_and_back_are_the_same_bits(
    name: str, overrides: dict[str, int], tmp_path: Path
) -> None:
    _require(name)
    state = synthetic(build_reference(configuration("vit_b_16", overrides)), 5)
    source, there, back = tmp_path / "weights.pth", tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    torch.save(state, source)
    command = ["convert", f"tests.peers:{name}", *(f"--set={key}={value}" for key, value in overrides.items())]
    assert main([*command, "--weights", str(source), "-o", str(there)]) == 0
    model = getattr(peers, name)()
    model.load_state_dict(load_file(there))
    assert main([*command, "--weights", str(there), "--reverse", "-o", str(back)]) == 0
    again = load_file(back)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)


def test_model_of_stages_is_divergent_and_told_so_without_a_search() -> None:
    _require("timm_swin")
    overrides = {"image_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 4, "hidden_dim": 64, "mlp_dim": 128}
    report = check("tests.peers:timm_swin", overrides=overrides | {"num_classes": 10}, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.explanation is None
    assert any("attention of several widths" in reason for reason in report.reasons), report
