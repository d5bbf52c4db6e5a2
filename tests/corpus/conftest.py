from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from parity import check
from tests.corpus.cases import SIZES
from tests.corpus.hosts import HOSTS
from tests.corpus.planting import write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from parity.report.report import Report


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Models this small are run faster by one thread than by several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def one_cause(way: tuple[str, dict[str, str], str, str], folder: Path) -> Report:
    """Checks what is planted in a host, in eval and train mode, and requires that one cause explains it completely.

    Args:
        way: the host's name, the edits, the cause's id and words of its statement.
        folder: where the candidate is written.
    """
    host, edits, cause, says = way
    report = check(write(folder, HOSTS[host], [edits]), overrides=SIZES, modes=["eval", "train"])
    assert report.verdict == "divergent"
    assert [found.id for found in report.causes] == [cause], report.causes
    assert says in report.causes[0].statement
    assert report.explanation is not None
    assert report.explanation.complete
    return report
