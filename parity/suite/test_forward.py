"""Logits and layers are identical: all architectures, modes, batch sizes, image sizes and dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from parity import build_pair
from parity.models import uniform
from parity.suite.conftest import SMALL
from parity.tracing import MODES, can_switch_fastpath

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.report import Report
    from parity.suite.conftest import Architecture


@pytest.mark.full_size
def test_layers_and_logits_of_every_architecture_are_identical(
    candidate: str, architecture: Architecture, assert_identical: Callable[..., Report]
) -> None:
    """Full depth and width, in float64 and float32; two images, since one would hide a mix-up of samples."""
    batch = 1 if architecture.name == "vit_h_14" else 2
    report = assert_identical(candidate, architecture.name, modes=["eval"], batch=batch)
    assert report.parameters == architecture.parameters


@pytest.mark.full_size
def test_every_mode_is_identical_at_full_size(
    candidate: str, reference: str, assert_identical: Callable[..., Report]
) -> None:
    report = assert_identical(candidate, reference, dtype="float32")
    assert {check.name for check in report.checks} == {
        f"forward/{mode}/{dtype}" for mode in MODES for dtype in ("float32", "float64")
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_heads", [3, 4])  # an odd number of heads never takes the native path
def test_mode_is_identical(
    candidate: str, reference: str, mode: str, num_heads: int, assert_identical: Callable[..., Report]
) -> None:
    overrides = SMALL | {"num_heads": num_heads, "hidden_dim": 16 * num_heads}
    _require_mode(mode)
    assert_identical(candidate, reference, overrides=overrides, modes=[mode])


def test_train_mode_really_drops(candidate: str, reference: str) -> None:
    """Guards the tests above: with dropout in place, train and eval mode must not agree."""
    pair = build_pair(candidate, reference, overrides=SMALL)
    assert pair.config["dropout"] > 0
    assert pair.config["attention_dropout"] > 0
    images = uniform("images", (2, 3, 48, 48))
    for model in (pair.reference, pair.candidate):
        assert not torch.equal(model.eval()(images), model.train()(images))


@pytest.mark.full_size
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_batch_size_is_identical(
    candidate: str, reference: str, batch: int, assert_identical: Callable[..., Report]
) -> None:
    assert_identical(candidate, reference, overrides={"num_layers": 2}, batch=batch, modes=["eval"])


@pytest.mark.full_size
def test_logits_at_the_swag_sizes_are_identical(candidate: str, swag: Architecture) -> None:
    """Full depth at 384, 512 and 518 pixels; float32 only, as `parity check --set image_size=...` does both."""
    pair = build_pair(candidate, swag.name, overrides={"image_size": swag.image_size})
    images = uniform("images", (1, 3, swag.image_size, swag.image_size))
    with torch.no_grad():
        assert torch.equal(pair.candidate(images), pair.reference(images))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("mode", MODES)
def test_dtype_is_identical(
    candidate: str, reference: str, dtype: str, mode: str, assert_identical: Callable[..., Report]
) -> None:
    _require_mode(mode)
    _require_support(dtype)
    assert_identical(candidate, reference, overrides=SMALL, dtype=dtype, modes=[mode])


@pytest.mark.full_size
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype_is_identical_at_full_width(candidate: str, dtype: str, assert_identical: Callable[..., Report]) -> None:
    _require_support(dtype)
    assert_identical(candidate, "vit_b_32", overrides={"num_layers": 2}, dtype=dtype, modes=["eval"])


def _require_mode(mode: str) -> None:
    if not MODES[mode].fastpath and not can_switch_fastpath():
        pytest.skip(f"torch {torch.__version__} has no switch for the native attention kernel")


def _require_support(dtype: str) -> None:
    """Skips where this torch release cannot run the reference itself in `dtype` on the CPU."""
    pair = build_pair("torchvision.models.vision_transformer:VisionTransformer", overrides=SMALL)
    converted = getattr(torch, dtype)
    try:
        for train in (False, True):
            pair.reference.to(converted).train(train)(torch.zeros(1, 3, 48, 48, dtype=converted))
    except RuntimeError as error:
        pytest.skip(f"torch {torch.__version__} cannot run torchvision's ViT in {dtype} on the CPU: {error}")
