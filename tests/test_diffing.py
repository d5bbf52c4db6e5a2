"""`parity diff`: two checkpoints of one architecture."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from parity import ParityError
from parity.diffing import diff
from tests.test_own_weights import FUSED, ORIGINAL, State, original_state, port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEADS = {"num_heads": 4}


def _saved(path: Path, state: State) -> str:
    torch.save(state, path)
    return str(path)


def _changed(state: State) -> State:
    return state | {
        "heads.head.weight": 2 * state["heads.head.weight"],
        "encoder.ln.bias": state["encoder.ln.bias"].half(),
    }


def test_files_of_torchvisions_names_need_no_code(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    first = _saved(tmp_path / "a.pth", original_state())
    second = _saved(tmp_path / "b.pth", {f"module.{k}": t for k, t in _changed(original_state()).items()})
    status, output, errors = run("diff", first, second, "--set=num_heads=4")
    assert (status, errors) == (1, "")
    assert (
        "heads.head.weight differ (2 of 44 tensors); as both models are, in float64, their logits differ by" in output
    )
    assert "- heads.head.weight: times 2 [alone: logits off by 0.9" in output
    assert "- encoder.ln.bias: rounded to float16" in output
    assert "have the prefix 'module.', which is taken off" in output
    status, output, _ = run("diff", first, second, "--set=num_heads=4", "--json=-")
    assert [cause["id"] for cause in json.loads(output)["causes"]] == ["weights-rounded", "weights-factor"]
    status, output, _ = run("diff", first, first, "--set=num_heads=4")
    assert (status, "the same in all 44 tensors" in output) == (0, True)


def test_older_names_are_the_same_names(tmp_path: Path) -> None:
    older = {
        k.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): t for k, t in original_state().items()
    }
    found = diff(_saved(tmp_path / "a.pth", original_state()), _saved(tmp_path / "b.pth", older), overrides=HEADS)
    assert found.is_same
    assert found.weights.count == 44


def test_heads_that_no_tensor_shows_are_asked_for(tmp_path: Path) -> None:
    file = _saved(tmp_path / "a.pth", original_state())
    with pytest.raises(ParityError, match="--set num_heads=N"):
        diff(file, file)


def test_file_beside_a_model_and_two_models() -> None:
    found = diff(ORIGINAL, port(lambda s: s["head.bias"].add_(1)))
    assert [(cause.id, cause.where) for cause in found.weights.causes] == [("weights-offset", ("head.bias",))]
    assert diff(port(), port()).is_same


def test_names_that_nobody_knows(tmp_path: Path) -> None:
    first = _saved(tmp_path / "a.pth", {"x": torch.ones(3), "y": torch.arange(4.0), "z": torch.ones(2)})
    second = _saved(tmp_path / "b.pth", {"x": torch.ones(3), "y": torch.arange(4.0).flip(0), "w": torch.ones(2)})
    found = diff(first, second)
    assert not found.is_same
    assert [cause.statement for cause in found.weights.causes] == ["y: rows back to front"]
    assert (found.only_first, found.only_second) == (("z",), ("w",))
    assert any("the logits were not compared" in line for line in found.lines())
    with pytest.raises(ParityError, match="no tensor in common"):
        diff(first, _saved(tmp_path / "c.pth", {"v": torch.ones(3)}))


def test_model_for_files_of_other_names(tmp_path: Path) -> None:
    """The file's names are those of the model that is given, or of the other side."""
    first = _saved(tmp_path / "a.pth", port().state_dict())
    second = _saved(tmp_path / "b.pth", port(lambda s: s["norm.bias"].mul_(3)).state_dict())
    found = diff(first, second, model=port)
    assert [cause.statement for cause in found.weights.causes] == ["norm.bias: times 3"]
    assert found.weights.as_is is not None
    assert found.weights.as_is.relative > 1e-3
    assert diff(port(), first).is_same
    with pytest.raises(ParityError, match="don't fit the VisionTransformer"):
        diff(first, second, model=FUSED)


def test_json_holds_no_number_that_is_not_finite(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    """What should be zero has no size to measure a difference by."""
    first = _saved(tmp_path / "a.pth", {"x": torch.zeros(12), "y": torch.ones(3)})
    second = _saved(tmp_path / "b.pth", {"x": torch.arange(12.0), "y": torch.ones(3)})
    status, output, _ = run("diff", first, second, "--json=-")
    assert status == 1
    assert json.loads(output, parse_constant=pytest.fail)["tensors"][0]["relative"] is None
