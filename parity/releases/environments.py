"""A virtual environment for one release: made, filled, used, and removed however that ends.

It is made by uv where that is on the path, and by venv and pip otherwise; where packages come from is their own
settings' business. It holds a copy of this package's code, so that the same runs on every release.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import TYPE_CHECKING

import parity
from parity.errors import ParityError
from parity.releases.pairs import OLDEST_PYTHON, PAIRS
from parity.releases.processes import run
from parity.releases.rows import file_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

    from parity.releases.pairs import Pair

# bytes: builds of torch for CUDA take up to 7e9, and the files that these are unpacked from 4e9
ROOM = 11e9

SOURCES = Path(parity.__file__).parents[1]

_NO_ROOM = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_NO_BUILD = re.compile(r"no matching distribution|no solution found|no compatible|not supported wheel", re.IGNORECASE)
_ADDRESS = re.compile(r"\w+://\S+")


class NotInstalledError(ParityError):
    """A release cannot be had here, which says nothing about the others."""


@dataclass(frozen=True)
class Environment:
    """Where a release is installed.

    Attributes:
        python: its interpreter.
        code: the folder with this package's code.
    """

    python: Path
    code: Path

    def run(self, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Runs a module of this package's code, with one thread, as if in a folder."""
        paths = [str(self.code), str(folder), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1"}
        # what was compiled for other instructions of the processor is not to be taken for this one's
        own["TORCHINDUCTOR_CACHE_DIR"] = str(self.code.with_name("compiled"))
        return run([str(self.python), "-m", *arguments], self.code, own)


@contextlib.contextmanager
def environment(
    pair: Pair, folder: Path, extra: Sequence[str] = (), python: str | None = None, *, keep: bool = False
) -> Iterator[Environment]:
    """Makes the environment of a release, and removes it when the context ends.

    Args:
        pair: the release.
        folder: in which it is made.
        extra: further requirements.
        python: the interpreter it is made with; None: one that the release has builds for.
        keep: leave it there.

    Raises:
        NotInstalledError: the release has no build for this machine, or cannot be installed.
        ParityError: there is no room for it.
    """
    place = file_of(folder, pair.torch, ".env")
    remove(place)
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        need = f"an environment takes about {ROOM / 1e9:.0f} GB"
        raise ParityError(f"{folder} has {free / 1e9:.1f} GB free, and {need}; make room, or name another --folder")
    try:
        made = _made(pair, place, python)
        _filled(pair, made, place, extra)
        yield Environment(made, _copied(place / "code"))
    finally:
        if not keep:
            remove(place)


def remove(place: Path) -> None:
    """Removes an environment, if there is one."""
    shutil.rmtree(place, ignore_errors=True)


def _made(pair: Pair, place: Path, python: str | None) -> Path:
    uv = shutil.which("uv")
    if uv:
        asked = python or ".".join(map(str, min(sys.version_info[:2], pair.newest_python)))
        made = run([uv, "venv", "--quiet", "--python", asked, str(place)], place.parent)
    else:
        made = run([python or _interpreter(pair), "-m", "venv", str(place)], place.parent)
    if made.returncode:
        raise _refused(pair, made, place)
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _interpreter(pair: Pair) -> str:
    """Returns an interpreter that a pair has builds for: the running one, or one on the path.

    Raises:
        NotInstalledError: there is none.
    """
    if sys.version_info[:2] <= pair.newest_python:
        return sys.executable
    found = next(filter(None, map(_on_path, range(pair.newest_python[1], OLDEST_PYTHON[1] - 1, -1))), None)
    if found:
        return found
    oldest, last, own = (".".join(map(str, v)) for v in (OLDEST_PYTHON, pair.newest_python, sys.version_info[:2]))
    builds = f"torch {pair.torch} has builds for Python {oldest} to {last}"
    raise NotInstalledError(f"{builds}, this is {own}, and none of those is on the path; install one, or uv")


def at_the_end(pair: Pair) -> str | None:
    """Returns the oldest interpreter on the path for the oldest pair, the newest for the newest; None for others."""
    minors = range(OLDEST_PYTHON[1], pair.newest_python[1] + 1)
    wanted = {PAIRS[0]: minors, PAIRS[-1]: reversed(minors)}.get(pair, ())
    return next(filter(None, map(_on_path, wanted)), None)


def _on_path(minor: int) -> str | None:
    """Returns the interpreter of Python 3.`minor` that is on the path; a shim that leads nowhere is none."""
    found = shutil.which(f"python3.{minor}")
    return found if found and not run([found, "-c", ""], Path.cwd()).returncode else None


def _filled(pair: Pair, python: Path, place: Path, extra: Sequence[str]) -> None:
    own = [f"torch=={pair.torch}", f"torchvision=={pair.torchvision}", *pair.needs, *_requirements(), *extra]
    uv = shutil.which("uv")
    pip = (
        [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install", "--no-compile"]
    )
    unpacked = place / "tmp"
    unpacked.mkdir()
    done = run([*pip, "--quiet", *own], place, {"TMPDIR": str(unpacked)})
    shutil.rmtree(unpacked, ignore_errors=True)
    if done.returncode:
        raise _refused(pair, done, place)


def _requirements() -> list[str]:
    """Returns what this package needs besides torch and torchvision."""
    try:
        needed = requires("vit-parity") or []
    except PackageNotFoundError as error:
        raise ParityError("nobody knows what parity needs where it is not installed: pip install -e .") from error
    named = ((re.split(r"[^\w.-]", line)[0].lower(), line) for line in needed)
    return [line for name, line in named if name not in ("torch", "torchvision") and "extra ==" not in line]


def _copied(place: Path) -> Path:
    """Copies this package's code, with the tests and candidates that are run for our own, and returns the folder."""
    ignored = shutil.ignore_patterns("__pycache__", "corpus", "fuzz")
    of_the_project = ("tests", "examples") if (SOURCES / "tests/candidates").is_dir() else ()
    for package in ("parity", "vit", *of_the_project):
        shutil.copytree(SOURCES / package, place / package, ignore=ignored)
    return place


def _refused(pair: Pair, done: subprocess.CompletedProcess[str], place: Path) -> ParityError:
    """Returns what an installer's refusal means, in a sentence."""
    said = _ADDRESS.sub("...", f"{done.stdout}\n{done.stderr}")
    if _NO_ROOM.search(said):
        return ParityError(f"there is no room left in {place.parent}; make some, or name another --folder")
    if _NO_BUILD.search(said):
        python, machine = ".".join(map(str, sys.version_info[:2])), f"{platform.system()} on {platform.machine()}"
        builds = f"torch {pair.torch} with torchvision {pair.torchvision}"
        return NotInstalledError(
            f"{builds} cannot be had for Python {python}, {machine}, from where packages come from"
        )
    lines = [line for line in said.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
    return NotInstalledError(f"torch {pair.torch} cannot be installed: {lines[-1].strip()}")
