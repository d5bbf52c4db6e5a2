"""The benchmarks measure what they say: same weights, same passes, and figures that come from what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from benchmarks import __main__ as suite
from benchmarks import cost, floor, fuzz
from benchmarks.implementations import forward_of, models, multiplications
from benchmarks.performance import CEILING, compared, draw, listed, ratios, spread, write
from benchmarks.test_vit import ALL, FEW, Groups, group_of
from parity import check
from parity.models.reference import configuration
from parity.models.weights import synthetic, uniform
from parity.suite.conftest import SMALL
from parity.tracing.modes import can_switch_fastpath
from vit import ViT

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEED = {
    "group": "vit_b_16, forward, batch 8",
    "baseline": "torchvision",
    "operations": 1.0,
    "seconds": {"torchvision": [2.0, 4.0, 3.0], "ours": [1.0, 4.0, 2.0], CEILING: [1.0, 2.0, 2.0]},
}
COST = {
    "name": "vit_b_16", "candidate": "ours", "what": "forward, eval", "wall": [1.1, 1.0, 1.3],
    "processor": [1.0, 1.0, 1.0], "memory": 2e9, "floor_memory": 3e9, "seconds": 9.0,
}  # fmt: skip
POINT = {"layers": 2, "width": 320, "seconds": 3.0, "memory": 2e9, "weights": 5e8}
FIGURES: dict[str, Any] = {
    "machine": {"processor": "any", "cores": 2},
    "speed": [SPEED],
    "cost": [COST],
    "growth": {"depth": [POINT, POINT | {"layers": 4, "seconds": 6.0}], "width": [POINT]},
    "fuzz": {"rates": {"eval mode": 61.4}, "bare": {"eval mode": 90.2}, "shares": {"eval mode": {"forward": 0.5}}},
}

_needs_assign = pytest.mark.skipif(not hasattr(torch, "compiler"), reason="torch before 2.1 has no assign=True")


def test_page_has_ratios_with_their_spread() -> None:
    page = write(FIGURES)
    assert ratios(SPEED, "ours") == [2.0, 1.0, 1.5]
    assert "| ours | 1.50 (1.00 to 2.00) | 1.00 |" in page
    assert "| torchvision | 1.00 (1.00 to 1.00) | 0.50 |" in page
    assert (
        "| vit_b_16, ours, forward, eval | 3 | 1.10 (1.00 to 1.30) | 1.00 (1.00 to 1.00) | 2.00 GB | 3.00 GB |" in page
    )
    assert "| 4 | 2.00 | 1.50 GB |" in page
    assert "| eval mode, float64 and float32 | 61 | 90 | forward 50% |" in page
    assert "Measured with processor any, cores 2." in page
    assert max(map(len, (line for line in page.splitlines() if not line.startswith("|")))) <= 120
    assert spread([0.5]) == "0.50"


def test_terminal_has_seconds_and_ratios_the_fastest_first() -> None:
    assert list(listed(SPEED)) == [
        "implementation                seconds  times as fast as torchvision",
        "matrix multiplications alone    2.000  2.00 (1.50 to 2.00)",
        "ours                            2.000  1.50 (1.00 to 2.00)",
        "torchvision                     3.000  1.00 (1.00 to 1.00)",
    ]


def _names(groups: Groups) -> Iterator[str]:
    yield from (group_of(name, batch, whose) for name, batch, _, whose in groups.forward)
    yield from (group_of(name, batch) for name, batch, _ in groups.training)


def test_groups_are_few_by_default_and_the_pages_when_all_are_wanted() -> None:
    assert list(_names(FEW)) == [
        "vit_b_16, forward, batch 1", "vit_b_16, forward, batch 8", "vit_b_16, training step, batch 8",
    ]  # fmt: skip
    shown = json.loads((suite.DOCS / "performance.json").read_text(encoding="utf-8"))["speed"]
    assert sorted(_names(ALL)) == sorted(row["group"] for row in shown)


def test_page_is_made_of_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, check: bool) -> None:
        assert check
        assert "--all-groups" in command
        saved = {"group": SPEED["group"], "extra_info": {k: v for k, v in SPEED.items() if k != "group"}}
        Path(command[-1].removeprefix("--benchmark-json=")).write_text(json.dumps({"benchmarks": [saved]}))

    monkeypatch.setattr(subprocess, "run", run)
    assert list(suite.speed([SPEED | {"operations": 9.0}], None)) == [[SPEED]]


@pytest.mark.parametrize(("option", "groups"), [([], 3), (["--all-groups"], 12)])
def test_option_chooses_the_groups(option: list[str], groups: int) -> None:
    command = [sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-q", *option]
    done = subprocess.run(command, cwd=suite.DOCS.parent, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.count("benchmarks/test_vit.py::") == groups


def test_two_sets_of_figures_are_compared_by_their_ratios() -> None:
    newer = SPEED | {"seconds": {"torchvision": [4.0, 4.0, 4.0], "ours": [2.0, 2.0, 2.0], "somebody": [1.0, 1.0, 1.0]}}
    lines = compared(FIGURES, {"speed": [newer]}).splitlines()
    assert lines == [
        "vit_b_16, forward, batch 8, torchvision: 1.00 (1.00 to 1.00) -> 1.00 (1.00 to 1.00), times 1.00",
        "vit_b_16, forward, batch 8, ours: 1.50 (1.00 to 2.00) -> 2.00 (2.00 to 2.00), times 1.33",
    ]


def test_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(FIGURES, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_implementations_hold_the_same_weights() -> None:
    built = models("vit_b_16", {"ours", "ours, fast"}, layers=1)
    images = uniform("images", (2, 3, 224, 224))
    logits = {name: forward_of(model)(images) for name, model in built.items()}
    assert torch.equal(logits["ours"], logits["torchvision"])
    torch.testing.assert_close(logits["ours, fast"], logits["torchvision"])
    run, operations = multiplications(built["torchvision"], batch=2)
    assert run(images) is images
    assert operations == 2 * 2 * 197 * (4 * 768**2 + 2 * 768 * 3072)


@_needs_assign
def test_floor_runs_our_vit_on_torchvisions_tensors() -> None:
    sizes = {
        "image_size": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24, "num_classes": 5,
        "representation_size": 7,
    }  # fmt: skip
    theirs = VisionTransformer(**configuration("vit_b_16", sizes)).eval()
    theirs.load_state_dict(synthetic(theirs, 0))
    ours = floor.sharing(theirs).eval()
    images = uniform("images", (2, 3, 32, 32))
    assert torch.equal(ours(images), theirs(images))
    assert {t.data_ptr() for t in ours.state_dict().values()} == {t.data_ptr() for t in theirs.state_dict().values()}
    floor.run_once(theirs, ours, images, floor.MODES, has_other_bits=True)
    floor.run_modes(ours, images, torch.float64, floor.MODES)
    floor.run_backward(ours, images, torch.float64)
    assert all(parameter.dtype == torch.float32 and parameter.grad is None for parameter in ours.parameters())


def test_usage_of_a_process() -> None:
    used = cost.usage_of([sys.executable, "-c", "x = bytearray(200_000_000); x[::4096] = x[::4096]"])
    assert used.seconds > 0
    assert used.processor > 0
    assert used.memory > 2e8
    with pytest.raises(SystemExit, match="exited with 3"):
        cost.usage_of([sys.executable, "-c", "raise SystemExit(3)"])


@_needs_assign
@pytest.mark.parametrize(("what", "passes"), [("eval mode", (14, 17)), ("all modes", (20, 24))])
def test_floor_runs_as_often_as_a_check(what: str, passes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    if what == "all modes" and not can_switch_fastpath():
        pytest.skip(f"torch {torch.__version__} has no switch for the native attention kernel")
    ran: list[type] = []

    def count(kind: type[nn.Module]) -> None:
        forward = kind.forward

        def counted(self: nn.Module, images: torch.Tensor) -> torch.Tensor:
            # what finds the map has no values, and what finds the arguments and tries torch has other sizes
            if next(self.parameters()).device.type != "meta" and images.shape[-1] == SMALL["image_size"]:
                ran.append(kind)
            logits: torch.Tensor = forward(self, images)
            return logits

        monkeypatch.setattr(kind, "forward", counted)

    count(VisionTransformer)
    count(ViT)
    assert check("vit:ViT", overrides=SMALL, modes=fuzz.MODES[what]).verdict == "identical"
    assert Counter(ran) == dict(zip((VisionTransformer, ViT), passes, strict=True))
    ran.clear()
    floor.run(configuration("vit_b_16", SMALL), fuzz.MODES[what])
    assert Counter(ran) == dict(zip((VisionTransformer, ViT), passes, strict=True))


def test_configurations_are_proved_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    bare: list[dict[str, Any]] = []
    monkeypatch.setattr(floor, "run", lambda configuration, _: bare.append(configuration))
    proved = fuzz.prove(0, ["eval"], 0.3)
    assert proved.done >= 1
    assert len(bare) == proved.done
    assert proved.seconds + proved.bare >= 0.3
    assert proved.bare < proved.seconds
    assert {"build", "align", "forward", "doubts"} < proved.steps.keys()
    assert proved.steps["forward"] < proved.steps["total"] < proved.seconds


def test_what_is_measured_again_takes_the_place_of_the_old(monkeypatch: pytest.MonkeyPatch) -> None:
    old = [COST | {"wall": [9.0]}, COST | {"what": "backward"}, COST | {"name": "vit_l_16"}]
    monkeypatch.setattr(suite, "COSTS", [("vit_b_16", 3, False), ("vit_h_14", 1, False)])
    monkeypatch.setattr(cost, "compare", lambda name, *_, **__: COST | {"name": name})
    first, second = suite.costs(old)
    assert first == [COST, *old[1:]]
    assert second == [*first, COST | {"name": "vit_h_14"}]
