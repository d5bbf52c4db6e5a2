"""What is written where: results to stdout, progress and errors to stderr, and what attempts print nowhere."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from typing import TYPE_CHECKING

from parity.errors import ParityError, in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# columns of a report that goes to a file or a pipe, which is not cut to some terminal's
_WIDTH = 200


def show(text: str) -> None:
    """Writes to stdout; that nobody reads it, or stops early, says nothing about the verdict."""
    if sys.stdout is None:
        return
    is_real = sys.stdout is sys.__stdout__
    try:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
        if is_real:
            os.dup2(2, sys.stdout.fileno())  # what a candidate prints when Python exits is not a result
    except OSError as error:
        if is_real:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try once more as it exits
        if not isinstance(error, BrokenPipeError):
            raise ParityError(f"stdout cannot be written: {error.strerror}") from error


def keep_closed_ones_free() -> None:
    """Opens the standard streams that are closed to nowhere, so that no file becomes one of them.

    Native code and `os.write` know streams by their numbers, and would write to that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which gets the lowest number that is free


def say(sentence: str) -> None:
    """Says something to the user."""
    tell(f"parity: {sentence}")


def tell(line: str) -> None:
    """Writes a line to stderr, if that takes it."""
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.write(f"{in_one_line(line)}\n")
            sys.stderr.flush()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keeps from the user what somebody's code prints in attempts, which may be many."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function that draws a progress bar on stderr; nothing is drawn where that is no terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console  # noqa: PLC0415  (keeps --help quick)
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def draw(what: str, done: int, to_do: int) -> None:
            bar.update(task, description=what, completed=done, total=to_do or None)

        yield draw


def width() -> int:
    """Returns how many columns there are for a report on stdout."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if is_terminal else _WIDTH
