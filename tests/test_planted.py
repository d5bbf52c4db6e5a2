from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parity import check
from parity.conftest import SMALL
from tests.conftest import SMALL_OPTIONS
from tests.planted import BUGS, FAULTS, SAME_FUNCTION

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_divergent_and_placed(bug: str, tmp_path: Path) -> None:
    change = BUGS[bug]
    report = check(change.write(tmp_path), overrides=SMALL)
    assert report.verdict == "divergent", report
    assert report.origin is not None
    assert change.origin in report.reasons[0], report
    assert report.origin.isolated > 1e-10


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_that_no_tensor_shows_is_divergent(fault: str, tmp_path: Path) -> None:
    change, reason = FAULTS[fault]
    report = check(change.write(tmp_path), overrides=SMALL, modes=["eval"])
    assert report.verdict == "divergent", report
    assert any(reason in sentence for sentence in report.reasons), report.reasons


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("way", ["attention written out", "scaled_dot_product_attention"])
def test_other_layout_in_memory_is_not_flagged_in_train_mode(way: str, dtype: str, tmp_path: Path) -> None:
    report = check(SAME_FUNCTION[way].write(tmp_path), overrides=SMALL, dtype=dtype, modes=["train"])
    assert report.verdict == "equivalent", report


@pytest.mark.parametrize("way", SAME_FUNCTION)
def test_other_way_to_the_same_function_is_not_flagged(way: str, tmp_path: Path) -> None:
    report = check(SAME_FUNCTION[way].write(tmp_path), overrides=SMALL)
    assert report.verdict in ("identical", "equivalent"), report
    assert report.origin is None
    assert all(layer.status == "clean" or (layer.status == "not compared" and layer.why) for layer in report.layers)


def test_check_that_cannot_be_made_is_named_beside_the_verdict(tmp_path: Path) -> None:
    report = check(SAME_FUNCTION["(N, B, D) throughout"].write(tmp_path), overrides=SMALL)
    assert "forward/train/float64, since both drop at the same rates and as often" in " ".join(report.reasons)


def test_module_whose_boundary_lies_elsewhere_is_not_compared(tmp_path: Path) -> None:
    report = check(SAME_FUNCTION["head of twice its input, halved"].write(tmp_path), overrides=SMALL)
    rows = {layer.reference: layer for layer in report.layers}
    assert rows["heads.head"].status == "not compared"
    assert rows["heads.head"].why == "the logits agree, and the candidate draws this boundary elsewhere"
    assert rows["encoder.ln"].status == "clean"


def test_norm_of_the_class_token_only_is_compared_for_the_class_token(tmp_path: Path) -> None:
    report = check(SAME_FUNCTION["final norm of the class token only"].write(tmp_path), overrides=SMALL)
    row = next(layer for layer in report.layers if layer.reference == "encoder.ln")
    assert (row.candidate, row.status) == ("ln", "clean")


def test_faint_bug_leaves_the_float32_bits_of_another_seed_alone(tmp_path: Path) -> None:
    """The reason for float64: with eps 1.1e-6 in one block, float32 is no less accurate than the reference itself."""
    report = check(BUGS["LayerNorm eps 1.1e-6 in one block"].write(tmp_path), overrides=SMALL)
    by_name = {check.name: check for check in report.checks}
    assert by_name["forward/eval/float64"].verdict == "divergent"
    assert by_name["forward/eval/float32"].verdict in ("identical", "equivalent")


def test_several_bugs_are_all_listed_in_order(tmp_path: Path) -> None:
    candidate = BUGS["LayerNorm eps 1e-5 in one block"].write(tmp_path)
    file = tmp_path / "changed_vit.py"
    file.write_text(file.read_text().replace("x = x[:, 0]", "x = x.mean(1)"))
    report = check(candidate, overrides=SMALL)
    assert [place.reference for place in report.origins] == ["encoder.layers.encoder_layer_1.ln_2", "heads.head"]
    assert [place.kind for place in report.origins] == ["module", "glue"]


def test_one_eps_everywhere_is_an_origin_in_every_norm(tmp_path: Path) -> None:
    file = tmp_path / "changed_vit.py"
    candidate = BUGS["final LayerNorm eps 1e-5"].write(tmp_path)
    file.write_text(file.read_text().replace("LAYER_NORM_EPS = 1e-6", "LAYER_NORM_EPS = 1e-5"))
    report = check(candidate, overrides=SMALL)
    assert [layer.reference for layer in report.layers if layer.status == "origin"] == [
        *(f"encoder.layers.encoder_layer_{block}.{norm}" for block in range(3) for norm in ("ln_1", "ln_2")),
        "encoder.ln",
    ]


def test_table_shows_the_origin_and_what_only_carries_it_on(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    status, out, _ = run("check", BUGS["tanh GELU in one block"].write(tmp_path), *SMALL_OPTIONS)
    assert status == 1
    row = {line.split()[0]: line for line in out.splitlines() if line.startswith("encoder.")}
    assert row["encoder.layers.encoder_layer_1.mlp.1"].rstrip().endswith("origin")
    assert row["encoder.layers.encoder_layer_1.mlp.3"].rstrip().endswith("propagated")
    assert row["encoder.layers.encoder_layer_0"].rstrip().endswith("clean")
    assert out.splitlines()[-1].startswith("divergent: ")
