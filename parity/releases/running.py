"""One release after the other: each once, whoever else does the same, and none of them again that is done."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import itertools
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parity.errors import ParityError
from parity.releases.environments import SOURCES, NotInstalledError, at_the_end, environment
from parity.releases.processes import able_to_run, ending_together
from parity.releases.row import BESIDE, NEEDS, ON, OURS
from parity.releases.rows import file_of, read_row
from parity.releases.testing import QUICK
from parity.writing import unwound_when_terminated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from parity.releases.pairs import Pair
    from parity.releases.rows import Row


@dataclass(frozen=True)
class Asked:
    """What is to be looked at.

    Attributes:
        candidate: `package.module:callable` or `path/to/file.py:callable`.
        pairs: the releases.
        folder: where rows are kept, and environments made.
        extra: requirements of the candidate's own.
        python: the interpreter that environments are made with; None: one that a release has builds for.
        keep: leave the environments there.
        jobs: so many releases at once.
    """

    candidate: str
    pairs: Sequence[Pair]
    folder: Path
    extra: Sequence[str] = ()
    python: str | None = None
    keep: bool = False
    jobs: int = 1


def run(asked: Asked, say: Callable[[str], None]) -> tuple[dict[str, Row], dict[str, str]]:
    """Looks at every release; those whose row is there already are left as they are.

    A release that somebody else is at work on is waited for when the others are done.

    Args:
        asked: what is to be looked at.
        say: told which release is being looked at.

    Returns:
        The rows, and why there is none of a release, by version of torch.

    Raises:
        ParityError: the folder cannot be written, there is no room, or the candidate's file is not there.
    """
    candidate, code = _absolute(asked.candidate), _digest_of_code(asked)
    try:
        asked.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParityError(f"--folder {asked.folder}: it cannot be made: {error.strerror}") from error
    rows: dict[str, Row] = {}
    missing: dict[str, str] = {}

    def look(pair: Pair, *, wait: bool) -> Pair | None:
        """Looks at a release; returns it where somebody else is at work on it."""
        with _locked(file_of(asked.folder, pair.torch, ".lock"), wait=wait) as is_ours:
            if not is_ours:
                return pair
            say(f"torch {pair.torch}, {next(number)} of {len(asked.pairs)}")
            try:
                rows[pair.torch] = _row(pair, asked, candidate, code)
            except NotInstalledError as error:
                missing[pair.torch] = f"{error}"
        return None

    number = itertools.count(1)
    with unwound_when_terminated():
        pairs = asked.pairs
        if asked.jobs > 1:  # those that take longest first
            pairs = sorted(pairs, key=lambda pair: pair.torch not in ON)
        busy = _in_jobs(functools.partial(look, wait=False), pairs, asked.jobs)
        _in_jobs(functools.partial(look, wait=True), [pair for pair in busy if pair], asked.jobs)
    known = [pair.torch for pair in asked.pairs]
    return {t: rows[t] for t in known if t in rows}, {t: missing[t] for t in known if t in missing}


def _in_jobs(look: Callable[[Pair], Pair | None], pairs: Sequence[Pair], jobs: int) -> list[Pair | None]:
    """Applies a function to releases, so many at once, and returns what it returns; an error ends them all."""
    if jobs == 1:
        return [*map(look, pairs)]
    with able_to_run(), ThreadPoolExecutor(jobs) as pool:
        done = [pool.submit(look, pair) for pair in pairs]
        with ending_together():
            try:
                for one in as_completed(done):
                    one.result()  # or its error, as soon as there is one
                return [one.result() for one in done]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _row(pair: Pair, asked: Asked, candidate: str, code: str) -> Row:
    """Returns the row of a release, made in an environment of its own if it is not there.

    Raises:
        NotInstalledError: it cannot be made on this release.
    """
    path = file_of(asked.folder, pair.torch)
    row = read_row(path)
    if row and (row["code"], row["candidate"]) == (code, asked.candidate):
        return row
    is_ours = asked.candidate == OURS
    extra = (*NEEDS, *asked.extra) if is_ours else asked.extra
    python = asked.python or (at_the_end(pair) if is_ours else None)
    with environment(pair, asked.folder, extra, python, keep=asked.keep) as made:
        path.unlink(missing_ok=True)
        done = made.run(["parity.releases.row", str(path.absolute()), candidate, asked.candidate, code], Path.cwd())
    row = read_row(path)
    if row is None:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        raise NotInstalledError(f"on torch {pair.torch} parity came to no end: {said[-1].strip()}")
    return row


def _absolute(candidate: str) -> str:
    """Returns a candidate as another folder's process finds it."""
    path, colon, name = candidate.rpartition(":")
    if not path.endswith((".py", ".ipynb")):
        return candidate
    if not Path(path).is_file():
        raise ParityError(f"there is no file {path}")
    return f"{Path(path).absolute()}{colon}{name}"


def _digest_of_code(asked: Asked) -> str:
    """Returns the digest of what decides about a row: code, the candidate, and what is asked."""
    beside = [SOURCES / name for name in (*QUICK, *(name.rpartition(":")[0] for name in BESIDE if "/" in name))]
    files = [*_sources(SOURCES / "parity"), *_sources(SOURCES / "vit"), *beside, *_files_of(asked.candidate)]
    found = hashlib.sha256(f"{asked.extra} {asked.python} {os.environ.get('ATEN_CPU_CAPABILITY')}\n".encode())
    for file in files:
        if file.is_file():
            found.update(f"{file.name}\n".encode() + file.read_bytes())
    return found.hexdigest()[:16]


def _sources(folder: Path) -> Iterator[Path]:
    """Yields the source files of a package, of this wing only what works inside an environment."""
    own = Path(__file__).parent
    yield from (
        file for file in sorted(folder.rglob("*.py")) if file.parent != own or file.name in ("row.py", "testing.py")
    )


def _files_of(candidate: str) -> list[Path]:
    path = candidate.rpartition(":")[0]
    if path.endswith((".py", ".ipynb")):
        return [Path(path)]
    top = path.partition(".")[0]
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(top)
        folders = list(spec.submodule_search_locations or []) if spec else []
        return [file for folder in folders for file in sorted(Path(folder).rglob("*.py"))] or (
            [Path(spec.origin)] if spec and spec.origin else []
        )
    return []


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Yields whether a lock was got, which ends with the process however that ends; where a system has none, it is."""
    try:
        import fcntl  # noqa: PLC0415  (not on Windows)
    except ImportError:
        yield True
        return
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
