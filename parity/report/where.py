"""Where a comparison ran: versions, the machine, and what torch is told about how to compute."""

from __future__ import annotations

import os
import platform
import re
from typing import TYPE_CHECKING, Any

import torch
import torchvision

from parity.tracing import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    yield from (f"{backend.name} {backend.reduced_to}" for backend in BACKENDS if backend.reduced_to)
    yield from (f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ)


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
