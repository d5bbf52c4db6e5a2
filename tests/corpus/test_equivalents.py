from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parity import check
from parity.tracing.measuring import SAME_FUNCTION_BOUND
from parity.tracing.modes import MODES
from tests.corpus.cases import SIZES
from tests.corpus.equivalents import EQUIVALENTS, Variant, variant_of, variants
from tests.corpus.hosts import HOSTS
from tests.corpus.running import built, difference, host_logits, logits

if TYPE_CHECKING:
    from pathlib import Path

    from parity.report.report import Report

VARIANTS = list(variants())
SETTINGS = tuple(SIZES.items())


def test_there_are_as_many_as_promised() -> None:
    assert len(EQUIVALENTS) >= 110
    assert len(VARIANTS) >= 180
    assert len({change.id for change in EQUIVALENTS}) == len(EQUIVALENTS)
    assert {variant.host.name for variant in VARIANTS} == {*HOSTS}


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.id)
def test_it_is_the_same_function(variant: Variant, tmp_path: Path) -> None:
    found = logits(built(variant.write(tmp_path), SIZES), variant.host, SETTINGS)
    assert difference(host_logits(variant.host.name, SETTINGS, "synthetic", "eval", "float64"), found) < (
        SAME_FUNCTION_BOUND
    )


def _require_unflagged(report: Report) -> None:
    assert report.verdict in ("identical", "equivalent"), report
    assert report.origin is None
    assert all(layer.status == "clean" or (layer.status == "not compared" and layer.why) for layer in report.layers)


@pytest.mark.parametrize("host", HOSTS)
def test_host_itself_is_right(host: str) -> None:
    variant = Variant(EQUIVALENTS[0], HOSTS[host])
    path = {"ours": "vit:ViT", "fused": "tests.candidates.fused_qkv:VisionTransformer",
            "separate": "tests.candidates.separate_qkv:ViTClassifier"}[host]  # fmt: skip
    _require_unflagged(check(path, overrides=SIZES, mapping=variant.mapping))


# every mode in one host, and eval mode in all of them
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.id)
def test_other_way_to_the_same_function_is_not_flagged(variant: Variant, tmp_path: Path) -> None:
    modes = list(MODES) if variant.host.name == variant.change.hosts[0] else ["eval"]
    _require_unflagged(check(variant.write(tmp_path), overrides=SIZES, mapping=variant.mapping, modes=modes))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("change", ["attention-written-out", "scaled-dot-product-attention"])
def test_other_layout_in_memory_is_not_flagged_in_train_mode(change: str, dtype: str, tmp_path: Path) -> None:
    _require_unflagged(check(variant_of(change).write(tmp_path), overrides=SIZES, dtype=dtype, modes=["train"]))


def test_train_mode_of_tokens_in_another_order_is_compared(tmp_path: Path) -> None:
    report = check(variant_of("tokens-before-batch-throughout").write(tmp_path), overrides=SIZES, modes=["train"])
    _require_unflagged(report)
    exact, rounded = report.to_dict()["checks"]
    assert "decided by its value" in exact["why"]
    assert "without dropout" in rounded["why"]


def test_module_whose_boundary_lies_elsewhere_is_not_compared(tmp_path: Path) -> None:
    report = check(variant_of("head-of-twice-its-input-halved").write(tmp_path), overrides=SIZES)
    rows = {layer.reference: layer for layer in report.layers}
    assert rows["heads.head"].status == "not compared"
    assert rows["heads.head"].why == "the logits agree, and the candidate draws this boundary elsewhere"
    assert rows["encoder.ln"].status == "clean"


def test_norm_of_the_class_token_only_is_compared_for_the_class_token(tmp_path: Path) -> None:
    report = check(variant_of("final-norm-of-the-class-token-only").write(tmp_path), overrides=SIZES)
    row = next(layer for layer in report.layers if layer.reference == "encoder.ln")
    assert (row.candidate, row.status) == ("ln", "clean")
