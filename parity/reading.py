"""Files that are read as a whole: ordinary ones, and pipes that somebody writes to."""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# bytes of a map or a report; the largest reports of large models have a few million
_MOST = 2**28

# seconds that a pipe waits for somebody who writes to it; who has it open may be at work for as long as that takes
_PATIENCE = 20.0


def content_of(path: Path) -> bytes:
    """Returns what an ordinary file holds, or what comes out of a pipe, such as a shell's `<(command)`.

    Raises:
        OSError: it cannot be read, is neither of the two, has no end, or nobody writes to it.
    """
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
        raise OSError(errno.EINVAL, "it is neither a file nor a pipe")
    if stat.S_ISFIFO(kind):
        return _piped(path)
    with path.open("rb") as file:
        content = file.read(_MOST + 1)
    _require_end(len(content))
    return content


def _piped(path: Path) -> bytes:
    content, has_begun = bytearray(), False
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # which doesn't wait for somebody who writes
    try:
        while True:
            try:
                piece = os.read(descriptor, 2**16)
            except BlockingIOError:  # somebody holds it open, and has nothing to say yet
                has_begun = True
                select.select([descriptor], [], [])
                continue
            content += piece
            _require_end(len(content))
            if not piece and has_begun:
                return bytes(content)
            if not piece and not select.select([descriptor], [], [], _PATIENCE)[0]:
                raise OSError(errno.ETIMEDOUT, f"nobody has written to the pipe for {_PATIENCE:g} seconds")
            has_begun = True
    finally:
        os.close(descriptor)


def _require_end(size: int) -> None:
    if size > _MOST:
        raise OSError(errno.EFBIG, f"it holds more than {_MOST // 10**6} MB")
