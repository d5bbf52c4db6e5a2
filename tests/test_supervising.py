"""The process that the command line works in: whatever a candidate does to it, the parent says what became of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork, so there is one process")

HEAD = "import ctypes, os, signal, sys, time\nfrom parity.supervising import in_a_process_of_its_own as alone\n"
HEAD += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a test runner may have been told to ignore


def _command(work: str, options: str = "") -> list[str]:
    say = "lambda sentence: print(sentence, file=sys.stderr)"
    return [sys.executable, "-c", f"{HEAD}def work():\n    {work}\nsys.exit(alone(work, {say}, {options}))"]


def _done(work: str, options: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(work, options), capture_output=True, text=True, check=False, timeout=60)  # noqa: S603


@pytest.mark.parametrize("status", [0, 1, 3, 130])
def test_status_of_the_work_is_the_status(status: int) -> None:
    done = _done(f"print('result'); return {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, "result\n", "")


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        ("os._exit(0)", "the candidate's code has ended the process, with exit status 0, before there was a result"),
        ("ctypes.string_at(0)", "ended by SIGSEGV: a crash in native code"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL: most often because the machine has no memory left"),
        ("time.sleep(60)", "--timeout 1: there was no result by then"),
    ],
)
def test_end_without_a_status_is_a_failure(work: str, sentence: str) -> None:
    done = _done(work, "seconds=1" if "sleep" in work else "")
    assert done.returncode == 2
    assert sentence in done.stderr


def test_what_a_candidate_writes_to_stdout_is_no_result() -> None:
    work = "os.write(1, b'noise'); print('more noise', file=sys.__stdout__, flush=True); print('result'); return 0"
    done = _done(work)
    assert (done.returncode, done.stdout) == (0, "result\n")
    assert "more noise" in done.stderr


def test_threads_that_a_candidate_has_left_are_not_waited_for() -> None:
    begun = time.monotonic()
    assert _done("import threading; threading.Thread(target=time.sleep, args=(50,)).start(); return 1").returncode == 1
    assert time.monotonic() - begun < 40


def test_memory_is_limited() -> None:
    work = "try: bytearray(2 * 10**9)\n    except MemoryError: return 9"
    assert _done(work, "gigabytes=0.5").returncode == 9


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 7), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_signals_reach_the_worker_and_nobody_is_left_behind(number: int, status: int, tmp_path: Path) -> None:
    sign = tmp_path / "worker"
    work = (
        f"open({str(sign)!r}, 'w').write(str(os.getpid()))\n"
        "    try: time.sleep(60)\n    except KeyboardInterrupt: return 7"
    )
    process = subprocess.Popen(_command(work))  # noqa: S603
    while not sign.exists() or not sign.read_text():
        time.sleep(0.01)
    worker = int(sign.read_text())
    process.send_signal(number)
    assert process.wait(timeout=30) == status
    for _ in range(500):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("the worker goes on")


def test_command_line_survives_its_candidate(tmp_path: Path) -> None:
    writing = "import os\nfrom vit import ViT as Right\nos.write(1, b'loading')\n"
    for name, line in (("ViT", "os.write(1, b'forward')"), ("Leaving", "os._exit(0)")):
        forward = f"def forward(self, x):\n        {line}\n        return super().forward(x)"
        writing += f"class {name}(Right):\n    {forward}\n"
    (tmp_path / "leaving.py").write_text(writing)
    options = ["--set=image_size=32", "--set=num_layers=1", "--set=hidden_dim=48", "--set=num_heads=4", "--modes=eval"]
    for name, status in (("ViT", 0), ("Leaving", 2)):
        command = [sys.executable, "-m", "parity", "check", f"{tmp_path}/leaving.py:{name}", *options, "--json=-"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        assert done.returncode == status, done.stderr
        report = json.loads(done.stdout)
        assert (report["verdict"], report["complete"]) == (
            ("identical", True) if status == 0 else ("inconclusive", False)
        )
        if status != 0:
            assert "has ended the process" in done.stderr
