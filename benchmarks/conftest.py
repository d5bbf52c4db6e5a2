"""Threads, versions and weights of the benchmarks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torchvision

import parity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parity.setup import Pair


@pytest.fixture(scope="session", autouse=True)
def _pinned_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else before)
    yield
    torch.set_num_threads(before)


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["torch"] = torch.__version__
    machine_info["torchvision"] = torchvision.__version__
    machine_info["threads"] = torch.get_num_threads()
    machine_info["torch_build"] = torch.__config__.show()


@pytest.fixture(scope="session")
def b16() -> Pair:
    """ViT-B/16, ours and torchvision's, with one copy of the weights."""
    return parity.build_pair("vit:ViT", "vit_b_16", overrides={"dropout": 0.0, "attention_dropout": 0.0})
