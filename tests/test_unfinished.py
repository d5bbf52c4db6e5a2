"""A check that comes to no end leaves the report so far, where one was asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from parity import check
from parity.errors import ParityError
from tests.conftest import SMALL_OPTIONS
from tests.test_supervising import _done

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity.report import Report

ONE_MODE = [*SMALL_OPTIONS, "--modes=eval"]


def _interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def _no_room(*_: Any, **__: Any) -> None:
    raise ParityError("the candidate failed") from MemoryError()


@pytest.mark.parametrize(
    ("end", "status", "why"), [(_interrupt, 130, "it was interrupted"), (_no_room, 2, "the candidate failed")]
)
def test_what_was_measured_is_in_the_report(
    end: Callable[..., None],
    status: int,
    why: str,
    run: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("parity.checking.in_place", end)
    file = tmp_path / "report.json"
    assert run("check", *ONE_MODE, "--json", file)[0] == status
    before_any_check = json.loads(file.read_text())
    assert before_any_check["reasons"] == [f"the check came to no end: {why} (after the step build)"]
    assert before_any_check["candidate"]["name"] == "vit:ViT"
    monkeypatch.undo()
    monkeypatch.setattr("parity.question.layers", _once(end))
    found, out, _ = run("check", *ONE_MODE, "--json=-")
    report = json.loads(out)
    assert (found, report["verdict"], report["complete"]) == (status, "inconclusive", False)
    assert report["reasons"] == [f"the check came to no end: {why} (after the step forward/eval/float64)"]
    assert [made["name"] for made in report["checks"]] == ["forward/eval/float64"]
    assert "clean" in {layer["status"] for layer in report["layers"]}
    assert len(report["mapping"]["entries"]) == report["mapping"]["tensors"] > 0


def _once(end: Callable[..., None]) -> Callable[..., Any]:
    """Returns what is `layers` once, and ends the check after that."""
    from parity.diagnosis import layers

    calls: list[int] = []

    def ending(*arguments: Any) -> Any:
        if calls:
            end()
        calls.append(1)
        return layers(*arguments)

    return ending


def test_input_that_is_wrong_leaves_no_report(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert run("check", "nothing.py:ViT", *ONE_MODE, "--json", file)[0] == 2
    assert not file.exists()


def test_finished_report_is_complete_whatever_was_found(run: Callable[..., tuple[int, str, str]]) -> None:
    out = run("check", "torch.nn:Flatten", *ONE_MODE, "--json=-")[1]
    assert json.loads(out)["complete"] is True
    given: list[Report] = []
    report = check("vit:ViT", overrides={"num_layers": 1, "image_size": 32}, modes=["eval"], so_far=given.append)
    assert report.complete
    assert [(len(one.checks), one.complete) for one in given] == [(0, False), (1, False), (2, False)]


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork, so there is one process")


@needs_fork
@pytest.mark.parametrize(
    ("work", "options", "why"),
    [
        ("ctypes.string_at(0)", "", "the process was ended by SIGSEGV"),
        (
            "os._exit(0)",
            "",
            "the candidate's code has ended the process, with exit status 0, before there was a result",
        ),
        ("time.sleep(60)", ", seconds=1", "--timeout 1: there was no result by then"),
        ("os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)", "", "the process was ended by SIGTERM"),
    ],
)
def test_parent_is_told_why_there_is_no_end(work: str, options: str, why: str) -> None:
    done = _done(work, f"lambda why: print('left:', why){options}")
    assert done.stdout == f"left: {why}\n"


CRASHING = """
import ctypes
from vit import ViT as Right

class ViT(Right):
    def forward(self, x):
        if self.training:
            ctypes.string_at(0)
        return super().forward(x)
"""


@needs_fork
def test_crash_of_the_process_leaves_the_report(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    command = [sys.executable, "-m", "parity", "check", f"{tmp_path}/crashing.py:ViT", *SMALL_OPTIONS, "--json=-"]
    done = subprocess.run([*command, "--modes=eval,train"], capture_output=True, text=True, check=False)  # noqa: S603
    report = json.loads(done.stdout)
    assert (done.returncode, report["complete"]) == (2, False)
    assert f"ended by {signal.SIGSEGV.name} (after the step forward/eval/float64)" in report["reasons"][0]
    assert [made["verdict"] for made in report["checks"]] == ["identical"]
