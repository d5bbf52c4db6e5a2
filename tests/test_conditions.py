"""However it is run: other dtypes, memory layouts, modes of torch, compiled, and on images of another size."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

import vit
from parity import check
from parity.diagnosis.phases import PhaseCheck
from parity.suite.conftest import SMALL
from parity.tracing.measuring import NOISE_BOUND
from parity.training import conditions
from parity.training.resizing import RULES, Rule
from tests.planted_phases import CONDITIONS, POSITIONS_OF, Change, resizing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity.report.report import Report

_TORCHVISIONS = Rule("bicubic", align_corners=True)


def _phase_checks(report: Report) -> dict[str, PhaseCheck]:
    made = [made for made in report.checks if isinstance(made, PhaseCheck)]
    return {made.name: made for made in made if made.name.startswith("conditions/")}


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes longer than everything else in this file together."""
    monkeypatch.setattr(conditions, "why_no_compiler", lambda _device: "left out by this test")


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("bug", CONDITIONS)
def test_bug_under_one_condition_is_divergent_and_named(bug: str, tmp_path: Path) -> None:
    change, causes, statement = CONDITIONS[bug]
    report = check(change.write(tmp_path), overrides=SMALL, phases=["conditions"])
    left_out = {name.split("/")[1] for name, made in _phase_checks(report).items() if made.verdict == "not compared"}
    expected = [cause for cause in causes.split() if cause not in left_out]
    if not expected:
        pytest.skip(f"torch {torch.__version__} cannot run torchvision's ViT under {causes}")
    assert report.verdict == "divergent", report
    assert [found.id for found in report.causes] == expected, report
    assert statement in report.causes[0].statement
    assert report.causes[0].statement in " ".join(report.reasons)
    assert all(made.verdict != "divergent" for made in report.checks if made.name.startswith("forward/"))


@pytest.mark.full_size
def test_compiled_model_is_equivalent_and_one_that_is_another_then_is_named(tmp_path: Path) -> None:
    if why := conditions.why_no_compiler():
        pytest.skip(why)
    report = check("vit:ViT", overrides=SMALL, phases=["conditions"])
    made = _phase_checks(report)
    assert report.verdict == "equivalent", report
    assert made["conditions/compile/float32"].verdict == "equivalent"
    assert 0 < (made["conditions/compile/float32"].noise or 0) < NOISE_BOUND
    assert made["conditions/compile/float64"].verdict == "equivalent"
    change = Change(
        ("        x = self.ln(x)\n", "        x = self.ln(x) * (1 + 1e-7 * torch.compiler.is_compiling())\n")
    )
    report = check(change.write(tmp_path), overrides=SMALL, phases=["conditions"])
    assert report.verdict == "divergent", report
    assert [found.id for found in report.causes] == ["compile"]
    assert "when it is compiled the candidate computes another function, off by " in report.causes[0].statement


@pytest.mark.skipif(not hasattr(torch, "compiler"), reason="torch before 2.1 is not asked to compile")
def test_warning_of_the_compiler_is_no_failure_where_warnings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
        def warning(*args: Any) -> Any:
            warnings.warn("some setting is not written to the cache", stacklevel=1)
            return forward(*args)

        return warning

    monkeypatch.setattr(torch, "compile", compiled)
    report = check("vit:ViT", overrides=SMALL, phases=["conditions"])
    assert _phase_checks(report)["conditions/compile/float32"].verdict == "identical", report


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.offset is None or rule.mode == "bicubic"], ids=str)
def test_rule_by_which_a_candidate_resizes_its_positions(rule: Rule, tmp_path: Path) -> None:
    report = check(resizing(rule).write(tmp_path), overrides=SMALL, phases=["conditions"])
    made = _phase_checks(report)
    sizes = [made["conditions/resolution-80/float64"], made["conditions/resolution-32/float64"]]
    if rule == _TORCHVISIONS:
        assert report.verdict == "identical", report
        assert all(size.verdict == "identical" for size in sizes)
        return
    assert report.verdict == "divergent", report
    # of three positions in a row the corners alone are two, by more than one rule
    assert "divergent" in {size.verdict for size in sizes}
    (cause,) = report.causes
    assert cause.id == "position-resizing"
    assert f"positions are resized by {rule}; torchvision's rule is {_TORCHVISIONS}" in cause.statement
    assert cause.residual is not None
    assert cause.residual < 1e-12
    assert (cause.without or 0) > 1e-3


@pytest.mark.usefixtures("no_compiler")
def test_rule_in_float32_and_table_that_is_cut_off(tmp_path: Path) -> None:
    rounded = Change(*resizing(_TORCHVISIONS).edits, (POSITIONS_OF, POSITIONS_OF.replace("table", "table.float()")))
    report = check(rounded.write(tmp_path), overrides=SMALL, phases=["conditions"])
    made = _phase_checks(report)["conditions/resolution-80/float64"]
    assert report.verdict == "equivalent", report
    assert (made.verdict, made.why) == ("equivalent", "by torchvision's rule, computed in less than float64")
    cut = resizing(None)
    report = check(cut.write(tmp_path), overrides=SMALL, phases=["conditions"])
    assert "conditions/resolution-80/float64" not in _phase_checks(report), "it takes no larger images"
    assert [found.id for found in report.causes] == ["position-resizing"]
    assert "by cutting the table off after the last position needed; " in report.causes[0].statement
    assert report.causes[0].residual is not None
    assert report.causes[0].residual < 1e-12 < (report.causes[0].without or 0)


@pytest.mark.usefixtures("no_compiler")
def test_forward_bug_leaves_the_conditions_uncompared() -> None:
    class Scaled(vit.ViT):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 1.1 * super().forward(images)

    report = check(Scaled, overrides=SMALL, phases=["conditions"])
    assert report.verdict == "divergent"
    assert {made.verdict for made in _phase_checks(report).values()} == {"not compared"}
    assert {made.why for made in _phase_checks(report).values()} == {"the logits differ already without any"}


@pytest.mark.skipif(not hasattr(torch, "compiler"), reason="torch before 2.1 is not asked to compile")
def test_without_a_compiler_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nand more")

    monkeypatch.setattr(torch, "compile", failing)
    assert conditions.why_no_compiler() == "nothing can be compiled here: no C++ compiler"


def test_meta_device_compares_shapes_only() -> None:
    report = check("vit:ViT", "vit_h_14", device="meta")
    assert report.verdict == "inconclusive"
    assert report.parameters == 632_045_800
    assert "have the reference's shapes; without values nothing more can be known" in report.reasons[0]
    assert {layer.status for layer in report.layers} == {"not compared"}

    class Twice(vit.ViT):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat([super().forward(images)] * 2, 1)

    report = check(Twice, overrides=SMALL, device="meta")
    assert report.verdict == "divergent"
    assert report.reasons[0] == "other shapes, first in the logits: shape (3, 20), the reference has (3, 10)"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_device(device: str) -> None:
    backend = torch.cuda if device == "cuda" else torch.backends.mps
    if not backend.is_available():
        pytest.skip(f"this machine has no {device}")
    if device == "mps":
        pytest.skip("mps has no float64")
    report = check("vit:ViT", overrides=SMALL, device=device)
    assert report.verdict in ("identical", "equivalent"), report
