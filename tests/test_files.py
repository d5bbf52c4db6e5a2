"""Files that cannot be read or written to the end: one sentence, status 2, and nothing is damaged or left over."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

import vit
from parity import ParityError, check, reading, writing
from parity.models import read_map
from parity.releases import row
from tests.conftest import SMALL_OPTIONS
from tests.small import OURS, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Command = Callable[..., tuple[int, str, str]]

resource: Any = pytest.importorskip("resource")
MAP = Path(vit.__file__).parents[1] / "parity" / "maps" / "scratch_vit.toml"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reading, "_PATIENCE", 0.2)
    monkeypatch.setattr(writing, "_PATIENCE", 0.2)


# --- what is read


def _weights() -> Path:
    save_file(vit.ViT(**OURS).state_dict(), "weights.safetensors")
    return Path("weights.safetensors")


NO_FILES = {
    ("check", "--mapping", "pipe"): "nobody has written to the pipe",
    ("check", "--mapping", "/dev/zero"): "it is neither a file nor a pipe",
    ("check", "--mapping", "."): "it is neither a file nor a pipe",
    ("check", "--weights", "pipe"): "--weights pipe: expected",
    ("check", "--weights", "pipe.safetensors"): "there is no weights file",
    ("check", "--input", "."): "pipe.png cannot be read as a picture: it is no file",
    ("check", "--json", "pipe"): "nobody has read from the pipe",
    ("check", "--summary", "-"): "a file cannot be called -",
    ("report", "pipe"): "nobody has written to the pipe",
    ("report", "/dev/zero"): "it is neither a file nor a pipe",
    ("verify", "pipe"): "nobody has written to the pipe",
    ("diff", "pipe.pth", "pipe.pth"): "there is no weights file",
}


@pytest.mark.parametrize("arguments", NO_FILES, ids=" ".join)
def test_what_has_no_end_or_is_no_file_is_refused(arguments: tuple[str, ...], run: Command) -> None:
    for name in ("pipe", "pipe.safetensors", "pipe.png", "pipe.pth"):
        os.mkfifo(name)
    sizes = [*SMALL_OPTIONS, "--modes=eval"] if arguments[0] == "check" else []
    status, out, err = run(*arguments, *sizes)
    assert (status, err.count("\n")) == (2, 1), err
    assert NO_FILES[arguments] in err
    assert not out or "--json" in arguments


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="the system has no names for open files")
def test_map_comes_out_of_a_pipe_that_somebody_writes_to_in_the_end() -> None:
    out, into = os.pipe()

    def work() -> None:
        time.sleep(0.5)
        with os.fdopen(into, "wb") as stream:
            stream.write(MAP.read_bytes())

    writer = threading.Thread(target=work)
    writer.start()
    assert read_map(Path(f"/dev/fd/{out}")).rules == read_map(MAP).rules
    writer.join()
    os.close(out)


def test_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST", 10)
    with pytest.raises(ParityError, match="it holds more than"):
        read_map(MAP)


def test_pointer_to_a_large_file_is_said() -> None:
    Path("large.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ParityError, match="get it with git lfs pull"):
        check(vit.ViT(**OURS), overrides=SMALL, weights="large.safetensors")


def test_folder_that_is_gone_is_said(run: Command) -> None:
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").rmdir()
    assert run("check", *SMALL_OPTIONS) == (
        2, "", "parity: the current folder is no longer there; go to another one\n",
    )  # fmt: skip


# --- what is written

READ_TOO = [
    ["check", "mine.py:ViT", "--json", "mine.py"],
    ["check", "--mapping", "map.toml", "--html", "map.toml"],
    ["check", "--weights", "weights.safetensors", "--json", "link"],
    ["convert", "--weights", "weights.safetensors", "-o", "weights.safetensors"],
    ["map", "mine.py:ViT", "-o", "mine.py"],
    ["diff", "weights.safetensors#model", "weights.safetensors", "--json", "weights.safetensors"],
    ["report", "report.json", "--html", "report.json"],
]


@pytest.mark.parametrize("arguments", READ_TOO, ids=" ".join)
def test_no_file_is_written_that_is_read(arguments: list[str], run: Command) -> None:
    _weights()
    for name in ("mine.py", "map.toml", "report.json"):
        Path(name).write_text("as it was")
    Path("link").symlink_to("weights.safetensors")
    before = {file: file.read_bytes() for file in Path().iterdir()}
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "that file is read, and would be lost; give it another name" in err
    assert {file: file.read_bytes() for file in Path().iterdir()} == before


def test_two_files_have_two_names(run: Command) -> None:
    status, _, err = run("check", "--json", "report", "--html", "./report")
    assert status == 2
    assert "--json and --html are one file, ./report; give one of them another name" in err


def test_map_may_take_the_place_of_the_one_that_it_comes_of(run: Command) -> None:
    shutil.copy(MAP, "map.toml")
    assert run("map", *SMALL_OPTIONS, "--mapping", "map.toml", "-o", "map.toml")[0] == 0


@contextlib.contextmanager
def _disk_of(size: int) -> Iterator[None]:
    """Lets no file become larger than so many bytes, which fails as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITING = [
    ["check", "--modes=eval", "--quiet", "--json"],
    ["check", "--modes=eval", "--quiet", "--html"],
    ["check", "--modes=eval", "--quiet", "--summary"],
    ["check", "--modes=eval", "--quiet", "--sarif"],
    ["map", "-o"],
    ["convert", "--weights=synthetic", "-o"],
]


@pytest.mark.parametrize("before", [[], ["as it was"]])
@pytest.mark.parametrize("arguments", WRITING, ids=lambda arguments: f"{arguments[0]} {arguments[-1]}")
def test_full_disk_is_one_sentence_and_leaves_what_was_there(
    arguments: list[str], before: list[str], run: Command
) -> None:
    file = Path("written.safetensors")
    for content in before:
        file.write_text(content)
    with _disk_of(100):
        status, _, err = run(*arguments, file, *SMALL_OPTIONS)
    said = [line for line in err.splitlines() if line.startswith("parity: ")]
    assert status == 2
    assert len(said) == 1
    assert said[0].endswith(f"written.safetensors cannot be written: {os.strerror(errno.EFBIG)}")
    assert [entry.read_text() for entry in Path().iterdir()] == before


def test_row_of_a_release_is_not_written_by_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row, "made", lambda *_: ({"torch": "2.0"}, {"digest": torch.ones(1000)}))
    monkeypatch.setattr(sys, "argv", ["row", "row.json", "vit:ViT", "ours", "0"])
    with _disk_of(100), pytest.raises(ParityError, match=r"row\.safetensors cannot be written"):
        row.main()
    assert not [*Path().iterdir()]


def test_device_without_room_is_one_sentence(run: Command) -> None:
    status, _, err = run("map", *SMALL_OPTIONS, "-o", "/dev/full")
    assert status == 2
    assert err.splitlines()[-1] == f"parity: /dev/full cannot be written: {os.strerror(errno.ENOSPC)}"


@pytest.mark.parametrize("closed", [">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_cost_no_verdict_and_no_file(closed: str, run: Command) -> None:
    Path("printing.py").write_text(
        "import os, vit\ndef build():\n    [os.write(n, b'not for a file') for n in (1, 2)]\n"
        f"    return vit.ViT(**{OURS})\n"
    )
    arguments = ["check", "printing.py:build", *(f"--set={k}={v}" for k, v in SMALL.items()), "--json", "report.json"]
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "parity", *arguments, "--modes=eval"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603
    assert run("report", "report.json")[0] == 0
