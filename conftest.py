"""How tests are spread over the processors: a worker on each, torch on one thread per worker, what takes long first.

Several threads in each of several workers would wait for each other most of the time.
"""

from __future__ import annotations

import os

import pytest

# so many of the largest models fit into a usual machine's memory
_MOST_WORKERS = 8


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Keeps timings, and tests that are called by their names, in this process; for others there are workers."""
    if config.getoption("benchmark_only") or any("::" in argument for argument in config.args):
        return 0
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else min(os.cpu_count() or 1, _MOST_WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    """Lets torch have one thread in each worker, and in whatever a worker starts."""
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts first what takes longest, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("full_size") is None)
