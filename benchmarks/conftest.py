"""Threads and versions of the benchmarks."""

from __future__ import annotations

import importlib.metadata
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("torch", "torchvision", "timm", "transformers", "onnxruntime", "openvino")


@pytest.fixture(scope="session", autouse=True)
def _pinned_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else before)
    yield
    torch.set_num_threads(before)


def versions() -> dict[str, str]:
    """Returns the version of every package that is timed, if it is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info |= versions() | {"threads": torch.get_num_threads(), "torch_build": torch.__config__.show()}
