"""A report names what torch was told about how to compute, since that decides about bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from parity import check
from parity.report import environment
from tests.small import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

_MATMUL = torch.backends.cuda.matmul
_ON_MATMUL = "cuda.matmul tf32, cudnn.conv tf32, mkldnn.matmul tf32"


def _reduced(*, allowed: bool) -> None:
    _MATMUL.allow_bf16_reduced_precision_reduction = allowed


@pytest.mark.parametrize(
    ("key", "tell", "told", "was"),
    [
        ("reduced_float32", torch.set_float32_matmul_precision, ("high", _ON_MATMUL), ("highest", "cudnn.conv tf32")),
        ("reduced_precision_reductions", lambda value: _reduced(allowed=value), (False, "float16"),
         (True, "float16, bfloat16")),
        ("onednn", torch._C._set_mkldnn_enabled, (False, False), (True, True)),  # noqa: SLF001
        ("deterministic_algorithms", torch.use_deterministic_algorithms, (True, True), (False, False)),
    ],
)  # fmt: skip
def test_setting_is_told(key: str, tell: Callable[[Any], None], told: tuple[Any, Any], was: tuple[Any, Any]) -> None:
    assert environment()[key] == was[1]
    tell(told[0])
    try:
        assert environment()[key] == told[1]
    finally:
        tell(was[0])


def test_attention_kernels_that_may_be_chosen_are_told() -> None:
    torch.backends.cuda.enable_flash_sdp(enabled=False)
    try:
        assert environment()["attention_kernels"].startswith("mem_efficient, math")
    finally:
        torch.backends.cuda.enable_flash_sdp(enabled=True)
    assert environment()["attention_kernels"].startswith("flash, mem_efficient, math")


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="this torch has no setting by backend")
def test_settings_by_backend_are_told_as_well() -> None:
    """Torch refuses to tell of them by the functions that it had before."""
    _MATMUL.fp32_precision = "tf32"
    try:
        assert environment()["reduced_float32"] == "cuda.matmul tf32, cudnn.conv tf32"
    finally:
        _MATMUL.fp32_precision = "none"


def test_variables_that_libraries_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNNL_DEFAULT_FPMATH_MODE", "BF16")
    assert environment()["reduced_float32"] == "cudnn.conv tf32, DNNL_DEFAULT_FPMATH_MODE=BF16"


def test_device_is_told_by_its_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Some GPU at {device}")
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    assert environment("cuda:1")["device"] == "cuda:1, Some GPU at cuda:1, CUDA 12.4"
    assert check("vit:ViT", overrides=SMALL, device="meta").to_dict()["environment"]["device"] == "meta"
