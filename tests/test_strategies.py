"""The public strategies, and what a failure found with them looks like."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

import vit.model
from parity import strategies
from parity.models import make_inputs
from parity.models.reference import build_reference, configuration
from parity.models.weights import resolve_weights
from parity.suite.test_stateful import InStep

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["pytester"]

SMALLEST = {
    "patch_size": 1, "image_size": 1, "num_layers": 1, "num_heads": 1, "hidden_dim": 4, "mlp_dim": 1, "num_classes": 2,
    "representation_size": None, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip

quick = settings(max_examples=30, derandomize=True, deadline=None, database=None)


@quick
@given(strategies.configurations(max_patch_size=3, max_grid=2, max_layers=2, max_heads=3, max_mlp_dim=7, max_classes=4))
def test_configurations_are_those_that_torchvision_builds_within_their_limits(config: dict[str, Any]) -> None:
    model = build_reference(configuration("vit_b_16", config))
    assert config.keys() == SMALLEST.keys()
    assert config["patch_size"] <= 3
    assert config["image_size"] <= 6
    assert len(model.encoder.layers) <= 2  # type: ignore[union-attr, arg-type]
    assert config["num_heads"] <= 3
    assert 4 <= config["hidden_dim"] / config["num_heads"] <= 12
    assert config["mlp_dim"] <= 7
    assert config["num_classes"] <= 4


def test_configurations_shrink_to_the_smallest_vit() -> None:
    assert find(strategies.configurations(), lambda _: True, settings=quick) == SMALLEST


def test_weights_and_images_are_those_of_a_check_with_the_same_seed() -> None:
    config = SMALLEST | {"image_size": 3}
    before = torch.get_rng_state()
    weights = find(strategies.weights(config), lambda _: True, settings=quick)
    images = find(strategies.inputs(config), lambda images: len(images) == 2, settings=quick)
    of_check = resolve_weights("synthetic", "vit_b_16", seed=0)
    assert _equal(weights, of_check.state_dict(build_reference(configuration("vit_b_16", config))))
    assert torch.equal(images, make_inputs("random", of_check, image_shape=(3, 3, 3), batch=2, seed=0).images)
    assert torch.equal(torch.get_rng_state(), before)


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@quick
@given(st.data())
def test_perturbation_changes_one_value_and_leaves_the_original_alone(data: st.DataObject) -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(()), "count": torch.tensor(3)}
    kept = {name: tensor.clone() for name, tensor in state.items()}
    change = data.draw(strategies.perturbations(state))
    changed = change.apply(state)
    assert _equal(state, kept)
    assert changed.keys() == state.keys()
    assert sum(int((changed[name] != state[name]).sum()) for name in state) == 1
    old, new = (float(s[change.tensor][change.index]) for s in (state, changed))
    assert new == pytest.approx(old * (1 + change.relative) if old else change.relative, rel=1e-6)
    assert 1e-6 * 0.99 <= change.relative <= 1
    assert str(change).startswith(f"{change.tensor}[")


def _plant(folder: Path, *edits: tuple[str, str]) -> str:
    """Writes our own ViT with pieces of its source replaced, each of which stands there once; returns its name."""
    source = Path(vit.model.__file__).read_text(encoding="utf-8")
    for old, new in edits:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    (folder / "planted.py").write_text(source, encoding="utf-8")
    return f"{folder / 'planted.py'}:ViT"


# wrong only with more than two blocks and an odd number of heads
IN_A_CORNER = (
    ("        return logits", "        return logits * self.factor"),
    (
        "        self._initialise()\n\n",
        "        self._initialise()\n        self.factor = 1.001 if num_layers > 2 and num_heads % 2 else 1.0\n\n",
    ),
)


@pytest.mark.full_size
def test_failure_shrinks_to_the_smallest_vit_and_says_how_to_see_it_again(
    pytester: pytest.Pytester, run: Callable[..., tuple[int, str, str]]
) -> None:
    candidate = _plant(pytester.path, *IN_A_CORNER)
    result = pytester.runpytest_subprocess(
        "--pyargs",
        "parity.suite.test_fuzz",
        "-k",
        "test_any_configuration_is_identical",
        "--parity-candidate",
        candidate,
    )
    result.assert_outcomes(failed=1, deselected=1)
    (line,) = {line.split("to see it again: ")[1] for line in result.outlines if "to see it again: parity" in line}
    assert line == strategies.command(candidate, SMALLEST | {"num_layers": 3}, batch=1, seed=0)
    words = shlex.split(line)
    assert words[0] == "parity"
    status, out, _ = run(*words[1:])
    assert status == 1
    assert out.splitlines()[-1].startswith("divergent: ")
    assert run(*words[1:], "--set", "num_layers=2")[0] == 0


def test_command_survives_a_shell() -> None:
    line = strategies.command("a folder/my model.py:ViT", {"num_layers": 2, "representation_size": None}, seed=7)
    assert shlex.split(line) == [
        "parity", "check", "a folder/my model.py:ViT", "--set", "num_layers=2", "--set", "representation_size=None",
        "--batch", "3", "--seed", "7",
    ]  # fmt: skip


FINAL_NORM = "        x = self.ln(x)\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("x = x + self.dropout(y)", "x = x + y", id="in train mode"),
        pytest.param(
            "        return logits", "        return logits * (1 + (len(images) == 2))", id="in one batch size"
        ),
        pytest.param(
            "x = self.patches(images)",
            "x = vars(self).setdefault(str((images.shape, images.dtype)), self.patches(images))",
            id="remembers tokens",
        ),
        pytest.param(FINAL_NORM, f"{FINAL_NORM}        self.head.bias.data.zero_()\n", id="writes to its weights"),
        pytest.param(FINAL_NORM, "        x = self.ln(x.float()).to(x.dtype)\n", id="in one dtype"),
        pytest.param(FINAL_NORM, "        x = self.ln(x) * (1 + len(self.ln._forward_hooks))\n", id="with hooks"),
    ],
)
def test_two_models_that_do_not_stay_in_step_are_told_apart(old: str, new: str, tmp_path: Path) -> None:
    machine = type("OnCandidate", (InStep,), {"candidate": _plant(tmp_path, (old, new))})
    enough = settings(quick, max_examples=50, stateful_step_count=12, phases=[Phase.generate])
    with pytest.raises((AssertionError, RuntimeError)):
        run_state_machine_as_test(machine, settings=enough)
