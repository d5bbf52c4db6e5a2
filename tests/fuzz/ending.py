"""Runs `parity ARGUMENTS` again and again, each in a process that is forked with torch imported, and ends it.

`python -m tests.fuzz.ending ARGUMENTS` reads lines `SECONDS SIGNAL`, and writes for each what became of the command as
JSON: its status, negative for a signal, what it said, and the seconds it took.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from typing import IO, NoReturn

from parity import checking, converting
from parity.cli import console
from parity.mapping import find_map_of
from parity.supervising import INTERRUPTED

MODULES = (checking, converting, find_map_of)  # what the commands import as they run


def _run(said: IO[bytes]) -> NoReturn:
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a test runner may have been told to ignore
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(said.fileno(), 2)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    except KeyboardInterrupt:  # before the command has begun
        os._exit(INTERRUPTED)
    code = 1
    try:
        code = console()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001  (this is what must not be)
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    """Does what every line of stdin asks for."""
    for line in sys.stdin:
        seconds, number = line.split()
        with tempfile.TemporaryFile() as said:
            begun = time.monotonic()
            gone, until_gone = os.pipe()
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            process = os.fork()
            if process == 0:
                os.close(gone)
                _run(said)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(until_gone)
            timer = threading.Timer(float(seconds), os.kill, (process, int(number)))
            timer.start()
            _, how = os.waitpid(process, 0)
            timer.cancel()
            timer.join()
            os.read(gone, 1)  # the end of its workers
            os.close(gone)
            said.seek(0)
            about = {"status": os.waitstatus_to_exitcode(how), "said": said.read().decode(errors="replace")}
        sys.stdout.write(json.dumps(about | {"seconds": time.monotonic() - begun}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
