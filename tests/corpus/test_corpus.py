from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from parity.tracing.measuring import SAME_FUNCTION_BOUND
from tests.corpus.bugs import BUGS
from tests.corpus.cases import SIZES, case_of, cases
from tests.corpus.hosts import HOSTS, Host
from tests.corpus.planting import OverlapError, plant
from tests.corpus.running import built, difference, host_logits, logits, plain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.corpus.bug import Bug
    from tests.corpus.cases import Case

CASES = list(cases())
OF_BUG = {bug.id: [case for case in CASES if case.bug == bug] for bug in BUGS}


def test_there_are_as_many_bugs_and_cases_as_promised() -> None:
    assert len(BUGS) >= 270
    assert len(CASES) >= 850
    assert len(HOSTS) == 3
    in_single_blocks = Counter((case.host.name, case.block) for case in CASES if case.block is not None)
    assert len(in_single_blocks) == len(HOSTS) * SIZES["num_layers"], "each block of each host has bugs of its own"


def test_ids_are_unique() -> None:
    assert len({bug.id for bug in BUGS}) == len(BUGS)
    assert len({case.id for case in CASES}) == len(CASES)


def test_every_bug_says_where_it_begins_and_those_of_eval_mode_what_causes_them() -> None:
    assert all(bug.place for bug in BUGS)
    assert all(bug.causes for bug in BUGS if bug.mode == "eval")


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_every_part_stands_once_in_a_source(host: Host) -> None:
    for name, part in host.parts.items():
        source = host.source([name])
        start, end, new = part.edit(source, "new")
        assert source[start:end] == part.text.partition("«")[2].partition("»")[0], name
        assert "new" in new


def test_changes_to_one_piece_of_a_source_are_refused() -> None:
    with pytest.raises(OverlapError):
        plant(HOSTS["fused"], [{"model.norm": "{encoded}"}, {"model.blocks": "pass"}])


def test_change_to_one_block_leaves_the_others_alone(tmp_path: Path) -> None:
    case = case_of("eps-1e-5-in-second-norm", "fused", block=1)
    model = built(case.write(tmp_path), case.settings)
    eps = [module.eps for name, module in model.named_modules() if name.endswith(".norm2")]
    assert eps == [1e-6, 1e-5, 1e-6]


def _run(case: Case, folder: Path, weights: str) -> tuple[float, bool]:
    """Returns how far a case's logits are from its host's, and whether its parameters are others."""
    settings, mode, dtype = tuple(case.settings.items()), case.bug.mode, case.bug.dtype
    model = built(case.write(folder), case.settings)
    expected = host_logits(case.host.name, settings, weights, mode, dtype)
    shapes = sorted(tuple(p.shape) for p in model.parameters())
    found = logits(model, case.host, settings, weights, mode, dtype)
    return difference(expected, found), shapes != _host_shapes(case)


def _host_shapes(case: Case) -> list[tuple[int, ...]]:
    return sorted(tuple(p.shape) for p in plain(case.host.name, tuple(case.settings.items())).parameters())


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.id)
def test_planted_bug_runs_and_changes_the_function(bug: Bug, tmp_path: Path) -> None:
    for case in OF_BUG[bug.id]:
        off, has_other_parameters = _run(case, tmp_path, "synthetic")
        assert off > SAME_FUNCTION_BOUND, case.id
        assert has_other_parameters == bug.changes_parameters, case.id


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.id)
def test_fresh_weights_hide_just_the_bugs_that_say_so(bug: Bug, tmp_path: Path) -> None:
    for case in OF_BUG[bug.id][:1]:
        off, _ = _run(case, tmp_path, "initial")
        assert (off <= SAME_FUNCTION_BOUND) == bug.zero_in_torchvision_init, (case.id, off)
