"""Where a comparison ran: versions, the machine, and what torch is told about how to compute."""

from __future__ import annotations

import os
import platform
import re
from typing import TYPE_CHECKING, Any

import torch
import torchvision

if TYPE_CHECKING:
    from collections.abc import Iterator

# what torch's own names of its backends call the ways to compute in float32 with fewer digits
_MATMUL, _CUDNN, _ONEDNN, _ONEDNN_CONV = "cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv"
_FULL = "none", "ieee"

# environment variables by which the libraries inside torch are told the same, behind its back
_VARIABLES = "NVIDIA_TF32_OVERRIDE", "DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE"

_KERNELS = ("flash", "mem_efficient", "math", "cudnn")


def environment(device: str = "cpu") -> dict[str, Any]:
    """Returns versions, platform and torch's settings, as the JSON report has them.

    Args:
        device: the models run on.
    """
    capability = re.search(r"CPU capability usage: (\S+)", torch.__config__.show())
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cpu_capability": capability[1] if capability else "unknown",
        "device": _name_of(device),
        "reduced_float32": ", ".join(_reduced_float32()) or "none",
        "reduced_precision_reductions": ", ".join(_reductions()) or "none",
        "attention_kernels": ", ".join(_attention()) or "none",
        "onednn": bool(torch._C._get_mkldnn_enabled()),  # noqa: SLF001
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def _name_of(device: str) -> str:
    """Returns a device as torch calls it, with the name of its make where torch knows one."""
    if torch.device(device).type != "cuda":
        return device
    return f"{device}, {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"


def _reduced_float32() -> Iterator[str]:
    """Yields what has float32 computed with fewer digits."""
    yield from (f"{name} {way}" for name, way in _float32().items() if way not in _FULL)
    yield from (f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ)


def _float32() -> dict[str, str]:
    """Returns, by backend, what a float32 operation is computed in."""
    backends: Any = torch.backends
    if hasattr(backends, "fp32_precision"):  # since torch 2.9, which refuses to tell of both in the older words
        return {
            _MATMUL: backends.cuda.matmul.fp32_precision,
            _CUDNN: backends.cudnn.conv.fp32_precision,
            _ONEDNN: backends.mkldnn.matmul.fp32_precision,
            _ONEDNN_CONV: backends.mkldnn.conv.fp32_precision,
        }
    tf32 = {True: "tf32", False: "ieee"}
    return {
        _MATMUL: tf32[backends.cuda.matmul.allow_tf32],
        _CUDNN: tf32[backends.cudnn.allow_tf32],
        _ONEDNN: {"high": "tf32", "medium": "bf16"}.get(torch.get_float32_matmul_precision(), "ieee"),
    }


def _reductions() -> list[str]:
    """Returns the dtypes of which CUDA may add up products with fewer digits than float32 has."""
    matmul = torch.backends.cuda.matmul
    allowed = {
        "float16": matmul.allow_fp16_reduced_precision_reduction,
        "bfloat16": matmul.allow_bf16_reduced_precision_reduction,
    }
    return [dtype for dtype, is_allowed in allowed.items() if is_allowed]


def _attention() -> list[str]:
    """Returns the kernels that `scaled_dot_product_attention` may choose from."""
    asked = {name: getattr(torch.backends.cuda, f"{name}_sdp_enabled", None) for name in _KERNELS}
    return [name for name, is_enabled in asked.items() if is_enabled and is_enabled()]
