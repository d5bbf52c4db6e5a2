"""The same check gives the same report, and no setting of the machine changes what it answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from parity import check
from tests.determinism import CHECKS, NAME, ROOT, SETTINGS, answer, compared, page, without_times
from tests.small import SMALL

if TYPE_CHECKING:
    from pathlib import Path

_PUBLISHED: dict[str, Any] = json.loads((ROOT / "docs" / f"{NAME}.json").read_text())


def _report(candidate: str, **options: Any) -> dict[str, Any]:
    return check(candidate, overrides=SMALL, **options).to_dict()


@pytest.mark.parametrize("candidate", CHECKS)
def test_same_check_gives_the_same_report_apart_from_times(candidate: str) -> None:
    one, other = (_report(candidate) for _ in range(2))
    assert json.dumps(without_times(one)) == json.dumps(without_times(other))


def test_same_phases_give_the_same_report_apart_from_times() -> None:
    phases = ("forward", "backward", "training", "conditions")
    one, other = (_report("vit:ViT", phases=phases, steps=2, modes=["eval", "train"]) for _ in range(2))
    assert json.dumps(without_times(one)) == json.dumps(without_times(other))


def test_other_settings_in_the_same_process_leave_the_answer() -> None:
    candidate = [*CHECKS][-1]
    expected = answer(_report(candidate))
    threads = torch.get_num_threads()
    for change, back in (
        (lambda: torch.set_num_threads(threads + 1), lambda: torch.set_num_threads(threads)),
        (lambda: torch.backends.cuda.enable_flash_sdp(False), lambda: torch.backends.cuda.enable_flash_sdp(True)),
    ):
        change()
        try:
            assert answer(_report(candidate)) == expected
        finally:
            back()


def _row(name: str, logits: str, report: dict[str, Any]) -> dict[str, Any]:
    layers = {"conv_proj": "same", "logits": logits}
    runs = {"eval/float32": {"reference": layers, "candidate": layers}}
    return {
        "torch": name, "machine": "m", "processor": "p", "code": "", "threads": 0, "libraries": {},
        "cpu_capability": "", "bits": {"small": {"weights": "w", "images": "i", "runs": runs}},
        "reports": dict.fromkeys(CHECKS, report), "environment": report["environment"],
    }  # fmt: skip


def test_page_says_what_is_another(tmp_path: Path) -> None:
    report = _report("vit:ViT", modes=["eval"])
    other = report | {"verdict": "divergent", "environment": report["environment"] | {"threads": 9}}
    later = report | {"timings": {"forward": 9.0}, "notes": ["said once more"]}
    found = compared([_row("first", "a", report), _row("again", "a", later), _row("threads", "b", other)], tmp_path)
    again, threads = found["settings"]
    assert again["other"] == [f"{name}: notes" for name in CHECKS]
    assert (again["moves"], again["same_bits"]) == ([], 2)
    assert threads["other"] == [f"{name}: verdict" for name in CHECKS]
    assert threads["environment"] == {"threads": 9}
    text = page(found)
    assert "| two threads | `OMP_NUM_THREADS=2` | vit:ViT: verdict; " in text
    assert "| 2 of 2 | `logits` | - |" in text


def test_published_page_is_drawn_from_what_was_measured() -> None:
    assert (ROOT / "docs" / f"{NAME}.md").read_text() == page(_PUBLISHED), "python -m tests.determinism"


def test_published_answers_are_the_same_under_every_setting() -> None:
    assert [row["name"] for row in _PUBLISHED["settings"]] == [*SETTINGS][1:]
    assert [row["other"] for row in _PUBLISHED["settings"] if row["other"]] == []
