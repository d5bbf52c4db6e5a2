"""Threads and versions of the benchmarks, which of them are run, and what is printed at the end."""

from __future__ import annotations

import importlib.metadata
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks.performance import listed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from pytest_benchmark.fixture import BenchmarkFixture

ROWS = pytest.StashKey[list[dict[str, Any]]]()
PACKAGES = ("torch", "torchvision", "timm", "transformers", "onnxruntime", "openvino")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-groups", action="store_true", help="time all that docs/performance.md shows")


@pytest.fixture(scope="session", autouse=True)
def _pinned_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else before)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _kept(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """Keeps what was measured until the end of the run."""
    yield
    if "seconds" in benchmark.extra_info:
        row = {"group": benchmark.group, **benchmark.extra_info}
        request.config.stash.setdefault(ROWS, []).append(row)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Prints the ratios below all else: pytest-benchmark's own table knows the time of whole rounds only."""
    yield
    for row in config.stash.get(ROWS, []):
        terminalreporter.section(row["group"])
        for line in listed(row):
            terminalreporter.write_line(line)


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
