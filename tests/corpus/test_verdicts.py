from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from parity import check
from tests.corpus.cases import cases
from tests.corpus.running import initial

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity.report import Report
    from tests.corpus.cases import Case

CASES = list(cases())


@pytest.fixture(scope="session")
def fresh_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], str]:
    """Files of weights as torchvision draws them, with a random head; one per architecture."""
    files: dict[tuple[tuple[str, object], ...], Path] = {}

    def file_for(case: Case) -> str:
        key = tuple(case.settings.items())
        if key not in files:
            files[key] = tmp_path_factory.mktemp("fresh") / "fresh.pth"
            torch.save(initial(case.settings), files[key])
        return str(files[key])

    return file_for


def _require_divergent(case: Case, report: Report) -> None:
    if case.bug.changes_parameters:
        assert report.verdict in ("divergent", "inconclusive"), report
    else:
        assert report.verdict == "divergent", report
    if report.origin is not None:
        assert report.origin.reference in case.first_places, report
    else:
        assert case.bug.changes_parameters, report
    if not case.bug.spreads:
        assert {place.reference for place in report.origins} <= case.places, report


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_planted_bug_is_divergent_from_where_it_was_planted(case: Case, tmp_path: Path) -> None:
    report = check(case.write(tmp_path), overrides=case.settings, mapping=case.mapping, modes=[case.bug.mode])
    _require_divergent(case, report)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_planted_bug_is_divergent_with_fresh_weights(
    case: Case, fresh_weights: Callable[[Case], str], tmp_path: Path
) -> None:
    report = check(
        case.write(tmp_path),
        overrides=case.settings,
        mapping=case.mapping,
        weights=fresh_weights(case),
        modes=[case.bug.mode],
        dtype=case.bug.dtype,
    )
    if not case.bug.zero_in_torchvision_init:
        _require_divergent(case, report)
    elif case.bug.changes_parameters:
        assert report.verdict in ("divergent", "inconclusive"), report
