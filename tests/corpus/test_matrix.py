from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.corpus.cases import SIZES, case_of
from tests.corpus.conversions import conversions
from tests.corpus.hosts import HOSTS, Host
from tests.corpus.matrix import CONVERTING, HARNESS, USUAL, converted, is_explained, judged, main, summed, usual
from tests.corpus.ports import PORTS
from tests.corpus.right_conversions import right_conversions
from tests.corpus.running import plain

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Cause:
    id: str
    statement: str = ""


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_usual_checks_pass_a_right_host(host: Host) -> None:
    assert usual(plain(host.name, tuple(SIZES.items())), host, SIZES) == dict.fromkeys(USUAL, False)


def test_faint_bug_escapes_all_usual_checks_and_not_the_harness(tmp_path: Path) -> None:
    row = judged(case_of("eps-1.1e-6-in-first-norm", "fused", 1), tmp_path)
    assert row.says["killed"]
    assert row.says["place right"]
    assert not any(row.says[name] for name in USUAL)


def test_other_parameters_and_other_functions_are_caught_by_what_looks_at_them(tmp_path: Path) -> None:
    missing = judged(case_of("head-bias-missing"), tmp_path).says
    assert missing["parameters"]
    other = judged(case_of("patch-tokens-reshaped"), tmp_path).says
    assert not other["parameters"]
    assert all(other[name] for name in ("assert_close", "atol 1e-3", "cosine > .99"))


def test_cause_is_right_if_all_are_named_and_no_others() -> None:
    case = case_of("pool-mean")
    assert is_explained(case, [Cause("pooling", "the mean of all tokens")])
    assert not is_explained(case, [Cause("pooling", "the mean of all tokens"), Cause("norm-missing")])
    either = case_of("images-scaled-in-place")
    assert is_explained(either, [Cause("image-scale")])
    assert is_explained(either, [Cause("input-in-place")])
    assert not is_explained(either, [])
    says = case_of("eps-1e-5-in-final-norm")
    assert is_explained(says, [Cause("layer-norm-eps", "LayerNorm eps is 1e-05")])
    assert not is_explained(says, [Cause("layer-norm-eps", "LayerNorm eps is 1e-12")])


def test_command_writes_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.corpus.matrix.variants", lambda: iter(()))
    monkeypatch.setattr("tests.corpus.matrix.right_conversions", lambda: iter(()))
    table, data = tmp_path / "docs" / "matrix.md", tmp_path / "docs" / "matrix.json"
    assert main(["--only", "pool-mean-of", "--output", str(table), "--json", str(data)]) == 0
    content = json.loads(data.read_text())
    assert content["caught"]["killed"] == content["cases"] == len(content["rows"]) == len(HOSTS)
    assert "**3 of 3 planted cases killed**" in table.read_text()
    assert "| pool-mean-of-patches | 3 | 3 | 3 |" in table.read_text()
    assert {path.name for path in (tmp_path / "docs").iterdir()} == {"matrix.md", "matrix.json"}


def test_sums_count_rows(tmp_path: Path) -> None:
    row = judged(case_of("pool-max"), tmp_path)
    assert summed([row, row], (*HARNESS, *USUAL))["killed"] == 2


def test_faint_fault_of_conversion_escapes_all_comparisons_but_the_closest_and_not_the_harness() -> None:
    says = converted(next(conversion for conversion in conversions() if conversion.id == "noise-fused")).says
    assert all(says[name] for name in CONVERTING)
    assert not any(says[name] for name in ("cosine > .99", "top-1"))


def test_command_has_a_section_of_conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.corpus.matrix.variants", lambda: iter(()))
    plain = [conversion for conversion in right_conversions() if conversion.way.id == "plain"]
    monkeypatch.setattr("tests.corpus.matrix.right_conversions", lambda: iter(plain))
    table, data = tmp_path / "matrix.md", tmp_path / "matrix.json"
    assert main(["--only", "classes-back-to-front", "--output", str(table), "--json", str(data)]) == 0
    section = json.loads(data.read_text())["conversions"]
    assert section["caught"]["causes right"] == section["cases"] == len(section["rows"]) == len(PORTS)
    assert section["false_alarms"]["killed"] == 0
    assert "**3 of 3 faulty conversions killed** (1 faults on the way to 3 ports)" in table.read_text()
    assert "| classes-back-to-front | 3 | 3 | 3 | 3 |" in table.read_text()
