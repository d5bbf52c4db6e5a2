from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import torch

from parity import check
from parity.tracing.measuring import SAME_FUNCTION_BOUND
from tests.corpus.cases import SIZES
from tests.corpus.combinations import COUNTS, OF_EACH_COUNT, Combination, combinations
from tests.corpus.running import built, difference, host_logits, logits

if TYPE_CHECKING:
    from pathlib import Path

COMBINATIONS = list(combinations())
SETTINGS = tuple(SIZES.items())


def test_there_are_as_many_of_each_count_as_promised() -> None:
    assert Counter(len(c.cases) for c in COMBINATIONS) == dict.fromkeys(COUNTS, 2 * OF_EACH_COUNT)
    assert list(combinations()) == COMBINATIONS
    with_other_parameters = [c for c in COMBINATIONS if any(case.bug.changes_parameters for case in c.cases)]
    assert 10 <= len(with_other_parameters) <= 100
    in_one_block = [c for c in COMBINATIONS if len({case.block for case in c.cases if case.block is not None}) == 1]
    assert len(in_one_block) >= 20


# What the search doesn't get to the end of: without a softmax, or with a projection that nothing uses, an attention's
# projections are not recognised; a gated MLP hides what is wrong before it.
UNEXPLAINED = {"5-bugs-7-fused", "3-traits-10-fused", "5-traits-7-separate"}

# What may be told by a formula, without a trait: eight bugs, of which several meet in one attention, or at the end.
BY_FORMULA = {"8-bugs-10-fused", "8-bugs-14-separate"}


_every = pytest.mark.parametrize(
    "combination",
    [
        pytest.param(one, id=one.id, marks=[pytest.mark.whole_corpus] * ((number + number // 3) % 3 > 0))
        for number, one in enumerate(COMBINATIONS)
    ],
)


@_every
def test_explanation_of_several_bugs_is_complete_and_minimal(combination: Combination, tmp_path: Path) -> None:
    report = check(combination.write(tmp_path), overrides=SIZES, mapping=combination.mapping, modes=["eval"])
    explanation = report.explanation
    assert report.verdict == "divergent"
    assert explanation is not None
    assert explanation.complete == (combination.id not in UNEXPLAINED), explanation.sentences("the reference")
    if explanation.complete:
        assert explanation.minimal
        assert explanation.residual <= SAME_FUNCTION_BOUND
        assert explanation.by_name or combination.id in BY_FORMULA or combination.has_trait
    else:
        assert explanation.unexplained
        assert explanation.residual > SAME_FUNCTION_BOUND


def test_nearly_all_combinations_are_explained_and_those_without_a_trait_by_name() -> None:
    assert len(UNEXPLAINED) <= 0.05 * len(COMBINATIONS)
    named = [combination for combination in COMBINATIONS if not combination.has_trait]
    assert len((UNEXPLAINED | BY_FORMULA) & {combination.id for combination in named}) <= 0.05 * len(named)


def _logits(combination: Combination, folder: Path) -> torch.Tensor:
    return logits(built(combination.write(folder), SIZES), combination.host, SETTINGS)


@_every
def test_combination_runs_and_each_of_its_bugs_does_something(combination: Combination, tmp_path: Path) -> None:
    found = _logits(combination, tmp_path)
    assert torch.isfinite(found).all()
    expected = host_logits(combination.host.name, SETTINGS, "synthetic", "eval", "float64")
    assert difference(expected, found) > SAME_FUNCTION_BOUND
    for case in combination.cases:
        assert difference(found, _logits(combination.without(case), tmp_path)) > SAME_FUNCTION_BOUND, case.id
