from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parity import check
from tests.corpus.cases import SIZES
from tests.corpus.faults import FAULTS
from tests.corpus.hosts import HOSTS, Host
from tests.corpus.planting import Change, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("change", "reason", "host"),
    [
        pytest.param(change, reason, HOSTS[name], id=f"{change.id}-{name}")
        for change, reason in FAULTS
        for name in change.hosts
    ],
)
def test_fault_that_no_tensor_shows_is_divergent(change: Change, reason: str, host: Host, tmp_path: Path) -> None:
    spec = write(tmp_path, host, [change.edits_in(host)])
    report = check(spec, overrides=SIZES, mapping=host.mapping, modes=["eval"])
    assert report.verdict == "divergent", report
    expected = reason.format_map(host.parts["model.images"].words)
    assert any(expected in sentence for sentence in report.reasons), report.reasons
