"""Commands that are run beside each other, and end together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

from parity.errors import ParityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class StoppedError(ParityError):
    """What was at work has been ended."""


_AT_WORK: set[subprocess.Popen[str]] = set()
_BEGINNING = threading.Lock()  # nothing begins while all is ended
_STOPPED = threading.Event()


def run(command: Sequence[str], folder: Path, own: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end and returns what it has said; whatever interrupts that ends it, with all that it began.

    Args:
        command: with its arguments.
        folder: to run in.
        own: variables of its environment beside this process's.

    Raises:
        StoppedError: somebody has ended all commands.
        ParityError: it cannot be run.
    """
    process = _begun(command, folder, own or {})
    with process:
        try:
            output, errors = process.communicate()
        except BaseException:
            _end(process)
            raise
        finally:
            _AT_WORK.discard(process)
    if _STOPPED.is_set():
        raise StoppedError("it was stopped")
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _begun(command: Sequence[str], folder: Path, own: dict[str, str]) -> subprocess.Popen[str]:
    with _BEGINNING:
        if _STOPPED.is_set():
            raise StoppedError("it was stopped")
        try:
            process = subprocess.Popen(  # noqa: S603  (the user's own interpreter and installer)
                command, cwd=folder, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ParityError(f"{command[0]} cannot be run: {error.strerror}") from error
        _AT_WORK.add(process)
        return process


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Ends all commands that other threads run, if the context ends by an error."""
    try:
        yield
    except BaseException:
        with _BEGINNING:
            _STOPPED.set()
            for process in [*_AT_WORK]:
                _end(process)
        raise


@contextlib.contextmanager
def able_to_run() -> Iterator[None]:
    """Lets commands run again after all were ended."""
    try:
        yield
    finally:
        _STOPPED.clear()


def _end(process: subprocess.Popen[str]) -> None:
    """Kills a process, and where there are process groups all that it has begun."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
