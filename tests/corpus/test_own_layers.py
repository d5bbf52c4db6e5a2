"""What no map is written for, what stands at one place, and what is not finite is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parity import check
from tests.corpus.cases import SIZES, case_of
from tests.corpus.hosts import HOSTS
from tests.corpus.planting import write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("bug", "says"),
    [("post-norm", "after the residual additions"), ("norms-at-the-ends-of-the-branches", "ends of the branches")],
)
def test_wiring_is_named_by_one_cause_without_a_written_map(bug: str, says: str, tmp_path: Path) -> None:
    report = check(case_of(bug, "fused").write(tmp_path), overrides=SIZES, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.explanation is not None
    assert report.explanation.complete, report.reasons
    assert [cause.id for cause in report.causes] == ["post-norm"], report.causes
    assert says in report.causes[0].statement
    assert not any("no known cause" in reason or "never used" in reason for reason in report.reasons)


@pytest.mark.parametrize(
    ("wiring", "says"),
    [
        ("return norm_2(x + mlp(x))", "the second norm after the MLP's residual addition in all 3 blocks"),
        ("return x + norm_2(mlp(x))", "the second norm at the end of the MLP's branch in all 3 blocks"),
    ],
)
def test_norm_behind_the_mlp_is_no_final_norm(wiring: str, says: str, tmp_path: Path) -> None:
    edits = {"block.forward": f"x = x + attention(norm_1(x))\n{wiring}", "model.norm": "{encoded}",
             "model.built": "del self.norm"}  # fmt: skip
    report = check(write(tmp_path, HOSTS["fused"], [edits]), overrides=SIZES, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    assert [cause.id for cause in report.causes] == ["post-norm", "norm-missing"], report.causes
    assert says in report.causes[0].statement
    assert report.causes[1].where == ("encoder.ln",)


def test_two_causes_at_one_place_are_preferred_to_a_formula(tmp_path: Path) -> None:
    hidden = f"{{head}} = nn.Sequential(nn.Linear({{D}}, 56), nn.GELU(), nn.Linear(56, {SIZES['num_classes']}))"
    edits = {"model.final_norm": "nn.Identity()", "model.built": hidden}
    report = check(write(tmp_path, HOSTS["fused"], [edits]), overrides=SIZES, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.by_name, report.causes
    assert sorted(cause.id for cause in report.causes) == ["head-shape", "norm-missing"]


def test_mask_that_hides_every_key_is_said_where_it_begins(tmp_path: Path) -> None:
    edits = {"attention.softmax": "{scores}.masked_fill({scores} < torch.inf, -torch.inf).softmax(-1)"}
    report = check(write(tmp_path, HOSTS["fused"], [edits]), overrides=SIZES, modes=["eval"])
    unknown = [reason for reason in report.reasons if reason.startswith("no known cause at")]
    assert len(unknown) == 1
    assert "not finite; a softmax gives such values where a mask hides every key" in unknown[0]
    assert "shape" not in unknown[0]
    assert not any("random numbers" in reason for reason in report.reasons)


@pytest.mark.parametrize("bug", ["class-token-missing", "registers", "distillation-token-and-two-heads"])
def test_other_number_of_tokens_is_explained_in_train_mode_too(bug: str, tmp_path: Path) -> None:
    report = check(case_of(bug, "fused").write(tmp_path), overrides=SIZES, modes=["eval", "train"])
    assert report.explanation is not None
    assert report.explanation.complete, report.reasons
    assert {cause.id for cause in report.causes} == {*case_of(bug, "fused").bug.causes}
