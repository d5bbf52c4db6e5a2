"""A saved report as a certificate: whatever has changed since is said, and only a verdict that stands is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from parity.models import build_reference, configuration, resolve_candidate, synthetic
from parity.report import digest_of_report, digest_of_weights, source_files
from parity.verifying import verify

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = {"image_size": 32, "patch_size": 8, "num_layers": 1, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96,
         "num_classes": 10}  # fmt: skip
OPTIONS = [*(f"--set={key}={value}" for key, value in SIZES.items()), "--modes", "eval"]
RIGHT = Path("tests/candidates/separate_qkv.py").read_text()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file with the reference's weights."""
    reference = build_reference(configuration("vit_b_16", SIZES))
    torch.save(synthetic(reference, 0), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.fixture
def saved(run: Callable[..., tuple[int, str, str]], weights: Path, tmp_path: Path) -> Path:
    """The report of a candidate that is right."""
    (tmp_path / "mine.py").write_text(RIGHT)
    file = tmp_path / "report.json"
    candidate = f"{tmp_path / 'mine.py'}:ViTClassifier"
    assert run("check", candidate, *OPTIONS, "--weights", weights, "--json", file)[0] == 0
    return file


def test_nothing_has_changed(run: Callable[..., tuple[int, str, str]], saved: Path) -> None:
    assert run("verify", saved) == (0, "the verdict stands: equivalent\n- nothing has changed\n", "")
    assert run("verify", saved, "--quiet") == (0, "the verdict stands: equivalent\n", "")


def test_another_torch_is_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    was = torch.__version__
    monkeypatch.setattr(torch, "__version__", "9.9")
    found = verify(saved)
    assert found.stands
    assert found.changes == (f"the environment has changed: torch is 9.9, was {was}",)


def test_what_an_older_report_did_not_tell_has_not_changed(saved: Path) -> None:
    report = json.loads(saved.read_text())
    del report["environment"]["device"]
    report["digests"]["report"] = digest_of_report(report)
    saved.write_text(json.dumps(report))
    found = verify(saved)
    assert (found.stands, found.changes) == (True, ())


def test_weight_that_has_changed_by_the_least(saved: Path, weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    state["heads.head.bias"][0] += 1e-7
    torch.save(state, weights)
    found = verify(saved)
    assert (found.stands, found.changes) == (True, ("the weights have changed",))


def test_code_that_has_changed_costs_the_verdict(run: Callable[..., tuple[int, str, str]], saved: Path) -> None:
    mine = saved.parent / "mine.py"
    assert "eps=1e-6" in RIGHT
    mine.write_text(RIGHT.replace("eps=1e-6", "eps=1e-5"))
    status, out, _ = run("verify", saved)
    assert status == 1
    assert out.startswith("the verdict does not stand: it is divergent, and was equivalent: ")
    assert "- the candidate's code has changed\n" in out


def test_code_that_changes_nothing_lets_the_verdict_stand(saved: Path) -> None:
    (saved.parent / "mine.py").write_text(f"{RIGHT}# a remark\n")
    found = verify(saved)
    assert (found.stands, found.changes) == (True, ("the candidate's code has changed",))


@pytest.mark.parametrize("key", ["verdict", "reasons", "layers"])
def test_edited_report_is_no_certificate(key: str, saved: Path) -> None:
    report = json.loads(saved.read_text())
    report |= {"verdict": {"verdict": "identical"}, "reasons": {"reasons": ["trust me"]}, "layers": {"layers": []}}[key]
    saved.write_text(json.dumps(report))
    found = verify(saved)
    assert not found.stands
    assert any("edited after it was written" in line for line in found.lines())


def test_report_written_otherwise_is_the_same(saved: Path) -> None:
    saved.write_text(json.dumps(json.loads(saved.read_text()), indent=3, sort_keys=True))
    assert verify(saved).stands


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"complete": False}, "came to no end"), ({"digests": {}}, "has no digests"),
     ({"options": {"candidate": None, "reference": "vit_b_16"}}, "is of a candidate that was handed over in Python")],
)  # fmt: skip
def test_what_cannot_be_verified_says_why(
    changed: dict[str, object], message: str, saved: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    saved.write_text(json.dumps(json.loads(saved.read_text()) | changed))
    status, out, err = run("verify", saved)
    assert (status, out) == (2, "")
    assert message in err


def test_files_of_a_candidate_are_those_that_it_uses(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "unused.py").write_text("")
    (tmp_path / "helpers.py").write_text("def double(x):\n    return x * 2\n")
    (tmp_path / "model.py").write_text(
        "from torch import nn\nfrom helpers import double\n"
        "class Net(nn.Module):\n    def forward(self, x):\n        return double(x)\n"
    )
    name = f"{tmp_path / 'model.py'}:Net"
    module = resolve_candidate(name, {}).build()
    assert [Path(file).name for file in source_files(module, name)] == ["model.py", "helpers.py"]


def test_digest_of_weights_sees_names_dtypes_shapes_and_bits() -> None:
    states = [
        {"a": torch.zeros(2)}, {"b": torch.zeros(2)}, {"a": torch.zeros(2, 1)}, {"a": torch.zeros(2).half()},
        {"a": -torch.zeros(2)}, {"a": torch.zeros(0)}, {},
    ]  # fmt: skip
    assert len({digest_of_weights(state) for state in states}) == len(states)
    transposed = torch.arange(6.0).view(2, 3)
    assert digest_of_weights({"a": transposed.t().contiguous().t()}) == digest_of_weights({"a": transposed})
