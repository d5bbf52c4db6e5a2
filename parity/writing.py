"""Files that are written whole or not at all: into a temporary file first, which then takes the name."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import signal
import stat
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from parity.errors import ParityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# seconds that a pipe waits for somebody who reads it
_PATIENCE = 20.0


def require_folder(path: Path) -> None:
    """Raises ParityError if no file can be written there: for want of a folder, or since the path leads nowhere."""
    if f"{path}" == "-":
        raise ParityError("a file cannot be called -; give it a name")
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # such as links in a circle, and names that are too long
        raise ParityError(f"{path} cannot be written: {error.strerror}") from error
    if not path.parent.is_dir():
        raise ParityError(f"{path} cannot be written: there is no folder {path.parent}")
    if path.is_dir():
        raise ParityError(f"{path} cannot be written: it is a folder")


def require_apart(written: Mapping[str, str | None], read: Iterable[str | None]) -> None:
    """Raises ParityError if a file that is to be written is read as well, or is to hold two things.

    Args:
        written: by option, the paths of files that are to be written; None and `-` are no files.
        read: what says where to read from: `PATH`, `PATH#KEY` or `PATH:CALLABLE`, among other things.
    """
    forms = [(spec, spec.rpartition(":")[0], spec.rpartition("#")[0]) for spec in read if spec]
    paths = [path for form in forms for path in form if path]
    options = {option: path for option, path in written.items() if path not in (None, "-")}
    for number, (option, path) in enumerate(options.items()):
        if any(_is_same(path, other) for other in paths):
            raise ParityError(f"{option} {path}: that file is read, and would be lost; give it another name")
        for other in list(options)[:number]:
            if _is_same(path, options[other]):
                raise ParityError(f"{other} and {option} are one file, {path}; give one of them another name")


def _is_same(one: str, other: str) -> bool:
    """Whether two paths lead to one ordinary file, which may not be there yet."""
    with contextlib.suppress(OSError, ValueError):
        here, there = Path(one).resolve(), Path(other).resolve()
        return (here == there or here.samefile(there)) and (here.is_file() or not here.exists())
    return False


def write(path: Path, content: str) -> None:
    """Writes a text and a line's end to a file, whole or not at all.

    Raises:
        ParityError: it cannot be written; the message says why.
    """
    with whole(path) as temporary:
        temporary.write_bytes(f"{content}\n".encode())


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a temporary file, which takes the place of `path` if nothing is raised, and is gone otherwise.

    What is no ordinary file, such as a pipe, is written to as it is. A file that is there keeps its mode, a new one
    gets that of the umask. What a process has left that was killed as it wrote is removed.

    Raises:
        ParityError: it cannot be written; the message says why.
    """
    path = path.resolve()
    is_file = path.is_file() or not path.exists()
    folder = path.parent if is_file else Path(tempfile.gettempdir())
    temporary = folder / f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}"
    try:
        with unwound_when_terminated():
            try:
                _clear(folder, path)
                temporary.touch(mode=0o600, exist_ok=False)
                yield temporary
                if is_file:
                    temporary.chmod(_mode(path))
                    temporary.replace(path)
                else:
                    _hand_over(temporary.read_bytes(), path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ParityError(f"{path} cannot be written: {error.strerror}") from error


def _hand_over(content: bytes, path: Path) -> None:
    """Writes to what is no ordinary file; a pipe is given some time in which somebody begins to read it."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
            break
        except OSError as error:
            if error.errno != errno.ENXIO or not path.is_fifo():
                raise
            if time.monotonic() > until:
                raise OSError(errno.ENXIO, f"nobody has read from the pipe for {_PATIENCE:g} seconds") from error
            time.sleep(_PATIENCE / 100)
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _mode(path: Path) -> int:
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)  # there is no way to read it without setting it
    os.umask(mask)
    return 0o666 & ~mask


def _clear(folder: Path, path: Path) -> None:
    """Removes the temporary files for `path` of processes that are no more."""
    pattern = re.compile(rf"\.{re.escape(path.stem)}\.(\d+)-[0-9a-f]{{8}}{re.escape(path.suffix)}")
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = pattern.fullmatch(entry.name)
            if match and not _lives(int(match[1])):
                Path(entry.path).unlink(missing_ok=True)


def _lives(process: int) -> bool:
    if os.name == "nt":  # where asking would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


class _Terminated(BaseException):
    """SIGTERM, which else would end the process where it stands."""


@contextlib.contextmanager
def unwound_when_terminated() -> Iterator[None]:
    """Lets SIGTERM clean up what is left behind before it ends the process."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def unwind(*_: object) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
