"""How tests are spread over the processors: a worker on each, torch on one thread per worker, what takes long first.

Several threads in each of several workers would wait for each other most of the time.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# so many of the largest models fit into a usual machine's memory
_MOST_WORKERS = 8


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds short names of two of the plugin's options, which elsewhere may be a project's own, and the corpus's."""
    group = parser.getgroup("parity")
    for name in ("candidate", "reference"):
        group.addoption(f"--{name}", dest=f"parity_{name}", default=None, help=f"short for --parity-{name}")
    whole = "plant each bug of the corpus into every host, and run all combinations"
    group.addoption("--whole-corpus", action="store_true", help=whole)


class _Faults(logging.Handler):
    """Keeps every bug in parity that is told of: a verdict stands all the same, and a test must not."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(self.format(record))


_FAULTS = _Faults()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Fails a test during which parity has told of a bug of its own."""
    yield
    faults = "\n".join(_FAULTS.kept)
    _FAULTS.kept.clear()
    if faults:
        pytest.fail(faults)


@pytest.fixture
def faults_are_planted() -> Iterator[None]:
    """Lets parity tell of a bug."""
    logging.getLogger("parity").removeHandler(_FAULTS)
    yield
    logging.getLogger("parity").addHandler(_FAULTS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Keeps timings, and tests that are called by their names, in this process; for others there are workers."""
    if config.getoption("benchmark_only") or any("::" in argument for argument in config.args):
        return 0
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else min(os.cpu_count() or 1, _MOST_WORKERS)


def pytest_configure(config: pytest.Config) -> None:
    """Lets torch have one thread in each worker, and in whatever a worker starts; has faults of parity's own fail."""
    logging.getLogger("parity").addHandler(_FAULTS)
    if config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts first what takes longest, so that no worker is left alone with it at the end."""
    if not config.getoption("whole_corpus"):
        left_out = [item for item in items if item.get_closest_marker("whole_corpus")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in {*left_out}]
    items.sort(key=lambda item: item.get_closest_marker("full_size") is None)
