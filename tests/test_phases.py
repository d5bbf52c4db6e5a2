"""Beyond the forward pass: gradients and training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parity import check
from parity.conftest import SMALL
from tests.planted_phases import BACKWARD

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("bug", BACKWARD)
def test_bug_of_the_backward_pass_is_divergent_and_named(bug: str, tmp_path: Path) -> None:
    change, cause, where = BACKWARD[bug]
    report = check(change.write(tmp_path), overrides=SMALL, phases=["backward"])
    assert report.verdict == "divergent", report
    assert [found.id for found in report.causes] == [cause], report
    assert where in report.causes[0].where
    assert report.causes[0].statement in " ".join(report.reasons)
    assert all(made.verdict != "divergent" for made in report.checks if made.name.startswith("forward/"))
