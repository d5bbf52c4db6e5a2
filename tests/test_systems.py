"""Systems that lack what Unix has: parity works without, and says what it cannot do there."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import SMALL_OPTIONS

if TYPE_CHECKING:
    from pathlib import Path

# what Python has on Unix alone, taken away before anything of parity is imported; torch does without it on Windows
WITHOUT_UNIX = """
import os, signal, sys
import torch, torchvision
for name in ("resource", "fcntl", "termios", "pwd", "grp"):
    sys.modules[name] = None
for name in ("fork", "sysconf", "killpg", "setpgid"):
    vars(os).pop(name, None)
for name in ("SIGKILL", "SIGHUP", "SIGQUIT", "SIGTSTP", "SIGSTOP", "SIGCONT", "SIGALRM", "pthread_sigmask"):
    vars(signal).pop(name, None)
"""
COMMAND_LINE = "from parity.cli import console\nsys.exit(console())"


def _done(before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"{before}\n{COMMAND_LINE}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (ours)


def test_check_where_nothing_of_unix_is_there(tmp_path: Path) -> None:
    files = tmp_path / "report.json", tmp_path / "report.html"
    wanted = f"--json={files[0]}", f"--html={files[1]}"
    done = _done(WITHOUT_UNIX, "check", *SMALL_OPTIONS, "--phases=forward,training", "--steps=2", *wanted)
    assert done.returncode == 0, done.stderr
    report = json.loads(files[0].read_text())
    assert (report["verdict"], report["complete"], report["peak_memory"]) == ("identical", True, None)
    assert files[1].read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("option", ["--timeout=60", "--memory=60"])
def test_limit_of_a_process_that_cannot_be_forked_is_refused(option: str) -> None:
    done = _done(WITHOUT_UNIX, "check", *SMALL_OPTIONS, option)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "parity: --timeout and --memory are for a process of its own, and this system cannot fork one; leave them out\n"
    )


@pytest.mark.parametrize(
    ("system", "why"),
    [
        ("sys.modules['resource'] = None", "import of resource halted"),
        (
            "import resource\ndef no(*_): raise ValueError('it is above the maximum')\nresource.setrlimit = no",
            "maximum",
        ),
    ],
)
def test_limit_of_memory_that_a_system_refuses_is_no_result(system: str, why: str) -> None:
    done = _done(f"import sys\n{system}", "check", *SMALL_OPTIONS, "--memory=60")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("parity: --memory 60: this system sets no such limit (")
    assert why in done.stderr
