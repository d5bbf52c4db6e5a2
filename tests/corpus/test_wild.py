"""What the pages say of people's ViTs and of tolerances holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parity.tracing import SAME_FUNCTION_BOUND
from tests.corpus.cases import SIZES
from tests.corpus.running import plain
from tests.corpus.tolerances import rows
from tests.corpus.wild import FOUND, as_markdown, cost, said

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("bug", [bug for _, _, bug in FOUND])
def test_what_people_get_wrong_costs_something_and_is_named(bug: str, tmp_path: Path) -> None:
    assert cost(bug, dict(SIZES), tmp_path).synthetic > 1e-7
    cause, words = said(bug, tmp_path)
    assert cause
    assert " and " not in cause
    assert as_markdown([["what", "5", "1.0e-01", "0.0e+00", f"`{cause}`", words]]).count(words) == 1


def test_in_float32_another_eps_is_no_further_away_than_rounding() -> None:
    right, itself, *wrong = rows(dict(SIZES), plain("fused", tuple(sorted(SIZES.items()))))
    assert right[2] is not None
    assert right[2] < SAME_FUNCTION_BOUND
    assert itself[1] is not None
    assert itself[2] is None
    assert all(double is not None and double > 1e-10 for _, _, double in wrong)
    assert wrong[1][1] is not None
    assert wrong[1][1] < 2 * itself[1]
