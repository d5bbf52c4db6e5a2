"""The command line's work in a process of its own, so that nothing a candidate does to its process looks like a result.

The parent has imported nothing of the candidate's, not even torch. It waits for the worker to say its exit status,
which no `os._exit(0)` does, hands on signals, and says in a sentence how the worker has ended where it ended otherwise.
In the worker the descriptor of stdout leads to stderr; results go to another one, which no print of a candidate's
reaches.
"""

from __future__ import annotations

import _thread
import contextlib
import io
import math
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import FrameType

FAILED = 2
INTERRUPTED = 130  # as a shell has it
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")

# how long a worker may take to clean up when its time is over, in seconds
_GRACE = 5.0

# after how many seconds a Ctrl-C is tried again that fell where it could not be minded
_AGAIN = 0.05


def in_a_process_of_its_own(
    work: Callable[[], int],
    say: Callable[[str], None],
    leave: Callable[[str], None] = lambda _: None,
    *,
    seconds: float | None = None,
    gigabytes: float | None = None,
) -> int:
    """Does the work in a forked process and returns its exit status; where a system cannot fork, in this one.

    Args:
        work: returns an exit status.
        say: tells the user a sentence.
        leave: told why the work has come to no end, where it couldn't say so itself.
        seconds: after which the worker is ended.
        gigabytes: of memory, 1e9 bytes each, that the worker may have.
    """
    if not hasattr(os, "fork"):
        if seconds is not None or gigabytes is not None:
            say("--timeout and --memory are for a process of its own, and this system cannot fork one; leave them out")
            return FAILED
        return work()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
    status, alive = os.pipe(), os.pipe()
    # Python runs code of its own as it forks, and would lose a Ctrl-C that falls into it
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    worker = os.fork()
    if worker == 0:
        os.close(status[0])
        os.close(alive[1])
        _work(work, say, status[1], alive[0], gigabytes, mask)
    os.close(status[1])
    os.close(alive[0])
    with contextlib.suppress(OSError):
        os.setpgid(worker, worker)
    return _Parent(worker, status[0], say, leave, seconds).wait(mask)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Lets no second Ctrl-C stop what tidies up after the first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


@contextlib.contextmanager
def interruptions_noted() -> Iterator[list[int]]:
    """Yields a list to which every Ctrl-C is added before it is raised: native code may make another error of it."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# --- the worker


def _work(
    work: Callable[[], int],
    say: Callable[[str], None],
    status: int,
    alive: int,
    gigabytes: float | None,
    mask: Collection[int],
) -> NoReturn:
    """Does the work, says its status, and leaves as Python does."""
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # a Ctrl-C at the terminal is the parent's, which hands it on once
    _results_apart()
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
    refusal = None if gigabytes is None else _limit(gigabytes)
    sys.unraisablehook = _raised_in_vain
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if refusal:
            say(refusal)
        code = FAILED if refusal else work()
    except KeyboardInterrupt:  # before the work has minded it, or after
        code = INTERRUPTED
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done but leaving
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout is not None:
            sys.stdout.flush()
        sys.stdout = sys.stderr  # what is printed as Python exits is no result
    with contextlib.suppress(OSError):  # the parent was killed
        os.write(status, bytes([code]))
    sys.exit(code)


def _raised_in_vain(what: sys.UnraisableHookArgs) -> None:
    """Takes what was raised where nothing can be, such as in a destructor; a Ctrl-C is tried again."""
    if what.exc_type is KeyboardInterrupt:
        threading.Timer(_AGAIN, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(what)


def _results_apart() -> None:
    """Lets `sys.stdout` write to a descriptor of its own, and whatever else writes to stdout's write to stderr."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    try:
        results = os.dup(sys.stdout.fileno())
        os.dup2(2, sys.stdout.fileno())
    except OSError:  # one of the two is closed
        return
    old = sys.stdout
    sys.stdout = io.TextIOWrapper(os.fdopen(results, "wb"), old.encoding, old.errors)


def _end_with_parent(alive: int) -> None:
    """Waits for the end of the parent, and ends this process as somebody who asks it to would."""
    with contextlib.suppress(OSError):
        os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _limit(gigabytes: float) -> str | None:
    """Limits this process's memory; returns why it cannot, in a sentence."""
    try:
        import resource  # noqa: PLC0415  (not everywhere)

        most = int(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    except (ImportError, AttributeError, ValueError, OSError) as error:
        return f"--memory {gigabytes:g}: this system sets no such limit ({error}); leave it out"
    return None


# --- the parent


class _Parent:
    """Waits for a worker.

    Args:
        worker: its process.
        status: a pipe on which it says its exit status.
        say: tells the user a sentence.
        leave: told why there is no exit status.
        seconds: after which it is ended.
    """

    def __init__(
        self,
        worker: int,
        status: int,
        say: Callable[[str], None],
        leave: Callable[[str], None],
        seconds: float | None,
    ) -> None:
        self._worker = worker
        self._status = status
        self._say = say
        self._leave = leave
        self._seconds = seconds
        self._forwarded: list[int] = []

    def wait(self, mask: Collection[int]) -> int:
        """Returns the exit status of the work.

        Args:
            mask: of signals, which is set again when they are minded.
        """
        before = {}
        for name in _FORWARDED:
            number = getattr(signal, name)
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, self._forward)
        stop = signal.signal(signal.SIGTSTP, self._stop)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            is_in_time = self._has_news(self._seconds)
            if not is_in_time:
                self._end()
            said = os.read(self._status, 1)
            how = self._ended(_GRACE if said else None)
            if is_in_time and said:
                return said[0]
            code, why = self._without_status(how) if is_in_time else (FAILED, self._is_late())
            self._leave(why)
            return code
        finally:
            signal.signal(signal.SIGTSTP, stop)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _has_news(self, seconds: float | None) -> bool:
        """Waits until the worker has said something, or has ended, which closes the pipe."""
        return bool(select.select([self._status], [], [], seconds)[0])

    def _end(self) -> None:
        self._signal(signal.SIGTERM)
        if not self._has_news(_GRACE):
            self._signal(signal.SIGKILL)

    def _ended(self, seconds: float | None) -> int:
        """Waits for the worker's end, which threads of a candidate's may put off, and returns how it was."""
        until = math.inf if seconds is None else time.monotonic() + seconds
        while time.monotonic() < until:
            process, how = os.waitpid(self._worker, 0 if seconds is None else os.WNOHANG)
            if process:
                return how
            time.sleep(0.01)
        self._signal(signal.SIGKILL)
        return os.waitpid(self._worker, 0)[1]

    def _signal(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._worker, number)

    def _forward(self, number: int, _: FrameType | None) -> None:
        self._forwarded.append(number)
        self._signal(number)

    def _stop(self, _: int, __: FrameType | None) -> None:
        """Ctrl-Z: both stop, and go on together."""
        self._signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._signal(signal.SIGCONT)

    def _is_late(self) -> str:
        """Says that there was no result in time; returns it as a phrase."""
        phrase = f"--timeout {self._seconds:g}: there was no result by then"
        self._say(f"{phrase}; give it more time, or fewer --modes")
        return phrase

    def _without_status(self, how: int) -> tuple[int, str]:
        """Says how a worker has ended that did not come to its end; returns the exit status, and how in a phrase."""
        if os.WIFEXITED(how):
            code = os.WEXITSTATUS(how)
            phrase = f"the candidate's code has ended the process, with exit status {code}, before there was a result"
            self._say(f"{phrase}; take what exits out of it")
            return FAILED, phrase
        number = os.WTERMSIG(how)
        name = signal.Signals(number).name
        phrase = f"the process was ended by {name}"
        if number in self._forwarded:
            return 128 + number, phrase
        why = {
            "SIGKILL": "most often because the machine has no memory left; use a smaller --batch or fewer layers",
            "SIGTERM": "by somebody else",
        }.get(name, "a crash in native code; --traceback shows nothing of it, `python -X faulthandler` does")
        self._say(f"{phrase}: {why}")
        return (FAILED if name != "SIGTERM" else 128 + number), phrase
