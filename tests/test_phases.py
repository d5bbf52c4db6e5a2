"""Beyond the forward pass: gradients and training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parity import check
from parity.conftest import SMALL
from tests.planted_phases import BACKWARD, RECIPES, TRAINING

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


@pytest.mark.parametrize("bug", TRAINING)
def test_bug_of_training_is_divergent_and_named(bug: str, tmp_path: Path) -> None:
    change, cause, where = TRAINING[bug]
    report = check(change.write(tmp_path), overrides=SMALL, phases=["training"], steps=4)
    assert report.verdict == "divergent", report
    found = {found.id: found for found in report.causes}
    assert list(found) == [cause], report
    assert where in found[cause].where


@pytest.mark.parametrize("recipe", RECIPES)
def test_other_recipe_is_named_and_not_divergent(recipe: str, tmp_path: Path) -> None:
    change, cause, where = RECIPES[recipe]
    report = check(change.write(tmp_path), overrides=SMALL, phases=["training"], steps=2)
    assert report.verdict == "equivalent", report
    assert [found.id for found in report.causes] == [cause], report
    assert where in report.causes[0].where
    assert "other recipe" in {made.verdict for made in report.checks}
    assert report.causes[0].statement in " ".join(report.reasons)
