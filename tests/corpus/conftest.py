from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parity.report.report import Report


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Models this small are run faster by one thread than by several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def require_one_cause(report: Report, cause: str, says: str) -> None:
    """Asserts that a report explains a divergent model completely, by one cause with this id and these words in it."""
    assert report.verdict == "divergent"
    assert [found.id for found in report.causes] == [cause], report.causes
    assert says in report.causes[0].statement
    assert report.explanation is not None
    assert report.explanation.complete
