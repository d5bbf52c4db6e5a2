"""The one exception the harness raises for what its user can mend, and how all others are told.

An error that nobody expects is somebody's: the candidate's own code raised it, the machine has no room, or parity has a
bug. `told` says which. What is a bug goes to the log `parity` as well, with its traceback.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sysconfig
import traceback
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_log = logging.getLogger("parity")
_log.addHandler(logging.NullHandler())

# what torch says, in the words of each of its allocators, where there is no room
_NO_ROOM = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "Storage size calculation overflowed",
    "failed to map segment",
    "Cannot allocate memory",
)

# libraries that parity calls: what they raise is the doing of whoever called them
_CALLED = ("torch", "torchvision", "einops", "greenlet", "numpy", "PIL", "rich", "safetensors")

# words of an error are told up to so many letters, and so many of a single word of a sentence, such as a name
_MOST_LETTERS = 300
_LONG_WORD = re.compile(r"(\S{200})\S{600,}(\S{200})")


def in_one_line(text: str) -> str:
    """Returns a text as one line without what a terminal would take for an order."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


class ParityError(ValueError):
    """Wrong input: an option, a file, a candidate that cannot be built or run. The message says what to do.

    It is one line that a terminal can show, whatever the names in it are made of.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_LONG_WORD.sub(r"\1...\2", in_one_line(message)))


class MappingError(ParityError):
    """The weight map is no bijection: tensors are missing, left over, or of another shape; the message lists them.

    Attributes:
        unmapped_reference: tensors of the reference without a counterpart.
        unmapped_candidate: tensors of the candidate without a counterpart.
    """

    def __init__(
        self, message: str, unmapped_reference: Iterable[str] = (), unmapped_candidate: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.unmapped_reference = tuple(unmapped_reference)
        self.unmapped_candidate = tuple(unmapped_candidate)


def listed(names: list[str], most: int = 6) -> str:
    """Joins `names` for a message, the first `most` of them and the number of the others."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def described(error: BaseException) -> str:
    """Says in one line what an error is: its name, its words, and the line of the user's own code that raised it."""
    said = _in_a_line(error)
    own = [frame for frame in _frames(error) if owner_of(frame.filename) == "user"]
    return f"{said} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else said


def _in_a_line(error: BaseException) -> str:
    try:
        words = " ".join(f"{error}".split())
    except Exception:  # noqa: BLE001  (whatever an error of somebody else's does when it is asked)
        words = ""
    words = words if len(words) <= _MOST_LETTERS else f"{words[:_MOST_LETTERS]} ..."
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def told(error: BaseException) -> str:
    """Says in one sentence what stopped parity, and who is to mend it."""
    if isinstance(error, ParityError):
        return f"{error}"
    if is_lack_of_memory(error):
        return f"there is not enough memory ({described(error)}); a smaller --batch takes less"
    if _is_users(error):
        return f"the candidate's own code failed: {described(error)}"
    if isinstance(error, FileNotFoundError) and error.filename is None:  # as os.getcwd() says it
        return "the current folder is no longer there; go to another one"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'} cannot be read or written: {error.strerror}"
    _log.error("a bug in parity itself", exc_info=error)
    inside = [frame for frame in _frames(error) if owner_of(frame.filename) == "parity"]
    where = f" in {Path(inside[-1].filename).name}, line {inside[-1].lineno}" if inside else ""
    return f"a bug in parity itself, {_in_a_line(error)}{where}; please report it"


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
    """Raises what the candidate's own code raises as the wrong input that it is, and likewise a lack of memory."""
    try:
        yield
    except ParityError:
        raise
    except (Exception, SystemExit) as error:
        if is_lack_of_memory(error) or _is_users(error):
            raise ParityError(told(error)) from error
        raise


class Failures:
    """What could not be done although it is no comparison that failed: the verdict stands, and the report says it.

    Attributes:
        sentences: why, by what could not be done.
    """

    def __init__(self) -> None:
        self.sentences: dict[str, str] = {}

    @contextlib.contextmanager
    def kept(self, what: str, *, besides: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Keeps what is raised while the context lasts, the first time it concerns `what`.

        Args:
            what: could not be done, as a sentence begins.
            besides: errors that are none of these, and are raised.
        """
        try:
            yield
        except besides:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  (no crash costs a verdict)
            if what not in self.sentences:
                self.sentences[what] = told(error)

    def told(self) -> list[str]:
        """Returns a sentence each."""
        return [f"{what}: {why}" for what, why in self.sentences.items()]


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an error says that the machine has no room."""
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, ImportError)) and any(words in described(error) for words in _NO_ROOM)
    )


def lacks_memory(error: BaseException) -> bool:
    """Whether what stopped parity is a lack of memory, whoever has told it in other words since."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return any(map(is_lack_of_memory, chain))


def _is_users(error: BaseException) -> bool:
    """Whether the code that failed, or that called the library that did, is neither parity's nor Python's."""
    owners = [owner for frame in _frames(error) if (owner := owner_of(frame.filename)) != "called"]
    return bool(owners) and owners[-1] != "parity"


def raised_inside(error: BaseException) -> bool:
    """Whether an error was raised by the user's own code or some library's, not by parity's call or by torch."""
    return owner_of(_frames(error)[-1].filename) in ("user", "library")


def _frames(error: BaseException) -> traceback.StackSummary:
    return traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)


@cache
def owner_of(file: str) -> str:
    """Says whose a source file is: `parity`, `called` by it (Python, torch ...), `library` (of others), or `user`."""
    if file.startswith("<"):
        return "called" if file.startswith("<frozen ") else "user"  # typed in, or made by torch for a model
    path = Path(file).absolute()
    if path.is_relative_to(Path(__file__).parent):
        return "parity"
    for kind in ("purelib", "platlib"):
        folder = Path(sysconfig.get_path(kind))
        if path.is_relative_to(folder):
            return "called" if path.relative_to(folder).parts[0].partition(".")[0] in _CALLED else "library"
    standard = any(path.is_relative_to(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib"))
    return "called" if standard else "user"
