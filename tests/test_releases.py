"""The matrix of releases: which pairs there are, how they are run, what is said of neighbours, and the page."""

from __future__ import annotations

import configparser
import contextlib
import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import torch
from safetensors.torch import save_file

from parity.errors import ParityError
from parity.releases import environments, processes, row, running, testing
from parity.releases.comparing import neighbours
from parity.releases.environments import Environment, NotInstalledError, environment
from parity.releases.pairs import PAIRS, Pair, newest, picked
from parity.releases.rendering import drawn, exit_status, in_short, kept
from parity.releases.rows import LOGITS, file_of, read_row, rows_in
from parity.releases.running import Asked, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parents[1]
_OLD, _NEW = PAIRS[-2], PAIRS[-1]


def _quiet(*_: object) -> None:
    pass


def _row(pair: Pair, **changes: Any) -> dict[str, Any]:
    """Returns a row of one small model, as `row` makes it."""
    runs = {f"forward/eval/{dtype}": "identical" for dtype in ("float64", "float32")}
    checks = [{"candidate": "vit:ViT", "model": "small", "phases": ["forward"], "verdict": "identical", "why": "",
               "runs": runs}]  # fmt: skip
    return {
        "schema": 1, "torch": pair.torch, "torchvision": pair.torchvision, "python": "3.11.7", "machine": "Linux",
        "processor": "x", "cpu_capability": "AVX2", "threads": 1, "libraries": {"oneDNN": "3.0"},
        "candidate": "vit:ViT", "code": "c", "checks": checks, "bits": {},
    } | changes  # fmt: skip


def _bits(layers: dict[str, str], **changes: Any) -> dict[str, Any]:
    both = {"reference": layers, "candidate": layers}
    return {"small": {"weights": "w", "images": "i", "runs": {"eval/float32": both}} | changes}


# --- pairs


def test_pairs_are_those_of_tox() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "tox.ini")
    lines = parser["testenv"]["deps"]
    assert re.findall(r"torch2\.\d+: torch==(\S+)", lines) == [pair.torch for pair in PAIRS]
    assert re.findall(r"torch2\.\d+: torchvision==(\S+)", lines) == [pair.torchvision for pair in PAIRS]
    (minors,) = re.findall(r"torch2\.\{(\S+)\}: numpy<2", lines)
    assert minors.split(",") == [pair.minor.removeprefix("2.") for pair in PAIRS if pair.needs]


def test_no_release_is_missing() -> None:
    """A torch that is newer than all known pairs is installed: give it a pair here and in tox.ini."""
    assert tuple(map(int, torch.__version__.split(".")[:2])) <= PAIRS[-1].release


def test_workflow_runs_all_pairs_on_a_python_that_they_have_builds_for() -> None:
    text = (ROOT / ".github/workflows/matrix.yml").read_text()
    assert re.findall(r"NEWEST: .*\|\| (\d+) }}", text) == [f"{len(PAIRS)}"]
    oldest_python = ".".join(map(str, min(p.newest_python for p in PAIRS)))
    assert re.findall(r'python-version: "(.+)"', text)[:2] == [oldest_python] * 2
    (tested,) = re.findall(r"pair: \[(.+?)\]", text, re.DOTALL)
    assert re.split(r",\s+", tested) == [f"torch{pair.minor}" for pair in PAIRS]
    assert f"matrix.pair != 'torch{PAIRS[len(PAIRS) // 2].minor}'" in text


def test_pairs_are_picked_by_either_name_in_their_own_order() -> None:
    assert [pair.torch for pair in picked("2.14, 2.4,2.8.0")] == ["2.4.1", "2.8.0", "2.14.1"]
    assert [*newest(1)] == [PAIRS[-1]]
    for names, said in (("1.13", "--torch 1.13: expected some of 2.0, 2.1"), (" , ", "it names no release")):
        with pytest.raises(ParityError, match=said):
            picked(names)


# --- environments


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[list[str]]]:
    """Gives the place of venv and pip to something that only says what they were asked, and answers as is told."""
    asked: list[list[str]] = []

    def answer(says: str) -> list[list[str]]:
        def fake(command: list[str], *_: object) -> subprocess.CompletedProcess[str]:
            asked.append(command)
            if "venv" in command:
                Path(command[-1]).mkdir()
            is_refused = bool(says) and "install" in command
            return subprocess.CompletedProcess(command, int(is_refused), "", says * is_refused)

        monkeypatch.setattr(environments, "run", fake)
        monkeypatch.setattr(environments, "ROOM", 0.0)
        return asked

    return answer


@pytest.mark.parametrize("uv", [None, "/bin/uv"])
def test_environment_is_made_filled_and_removed(
    uv: str | None, installer: Callable[[str], list[list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: uv if name == "uv" else None)
    asked = installer("")
    with environment(_NEW, tmp_path, ["timm"]) as made:
        assert (made.code / "parity" / "cli.py").exists()
        assert (made.code / "vit" / "model.py").exists()
        assert not (made.code / "parity" / "__pycache__").exists()
    venv, install = asked[:2]
    assert venv[0] == (uv or sys.executable)
    assert install[0] == (uv or str(made.python))
    wanted = [f"torch=={_NEW.torch}", f"torchvision=={_NEW.torchvision}", "timm"]
    assert [word for word in install if word in wanted] == wanted
    with environment(_NEW, tmp_path, (), "/other/python"):
        pass
    assert "/other/python" in asked[2][: 5 if uv else 1]
    assert any(word.startswith("einops") for word in install)
    assert not [word for word in install if word.startswith("torch>=")]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("says", "kind", "told"),
    [
        ("ERROR: No matching distribution found for torch==2.0.1", NotInstalledError, "cannot be had for Python 3"),
        ("OSError: [Errno 28] No space left on device", ParityError, "there is no room left in"),
        ("trying\nfetching https://somewhere/torch failed\n", NotInstalledError, "fetching ... failed"),
    ],
)
def test_what_an_installer_refuses_is_one_sentence(
    says: str, kind: type[ParityError], told: str, installer: Callable[[str], Any], tmp_path: Path
) -> None:
    installer(says)
    with pytest.raises(ParityError, match=re.escape(told)) as raised, environment(_NEW, tmp_path):
        pass
    assert type(raised.value) is kind
    assert [*tmp_path.iterdir()] == []


def test_full_disk_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "ROOM", float("inf"))
    with pytest.raises(ParityError, match="GB free, and an environment takes about"), environment(_NEW, tmp_path):
        pass
    assert [*tmp_path.iterdir()] == []


def test_release_without_a_build_for_any_python_here_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environments, "ROOM", 0.0)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    old = Pair("2.0.1", "0.15.2", (3, 9))
    said = r"torch 2\.0\.1 has builds for Python 3\.10 to 3\.9, this is"
    with pytest.raises(NotInstalledError, match=said), environment(old, tmp_path):
        pass


# --- running


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gives the place of environments to the running interpreter, in which a row is made up, and lists the releases."""
    made: list[str] = []

    class Here(Environment):
        def run(self, arguments: Any, _: Path) -> subprocess.CompletedProcess[str]:
            path, (name, code) = Path(arguments[1]), arguments[3:]
            pair = next(pair for pair in PAIRS if path == file_of(path.parent, pair.torch))
            path.write_text(json.dumps(_row(pair, candidate=name, code=code)))
            return subprocess.CompletedProcess(arguments, 0, "", "")

    @contextlib.contextmanager
    def fake(pair: Pair, *_: object, **__: object) -> Iterator[Environment]:
        made.append(pair.torch)
        yield Here(Path(sys.executable), ROOT)

    monkeypatch.setattr(running, "environment", fake)
    return made


def test_what_is_done_is_not_done_again_unless_it_is_broken_or_the_code_another(
    here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked("vit:ViT", [_OLD, _NEW], tmp_path)
    rows, missing = run(asked, _quiet)
    assert ([*rows], missing) == ([_OLD.torch, _NEW.torch], {})
    assert run(asked, _quiet) == (rows, {})
    assert here == [_OLD.torch, _NEW.torch]
    file_of(tmp_path, _NEW.torch).write_text('{"schema": 1, "torch": "2.1')
    assert run(asked, _quiet)[0] == rows
    assert here == [_OLD.torch, _NEW.torch, _NEW.torch]
    assert [row["torch"] for row in rows_in(tmp_path)] == [_OLD.torch, _NEW.torch]
    candidate = tmp_path / "own.py"
    candidate.write_text("import vit\nViT = vit.ViT\n")
    own = Asked(f"{candidate}:ViT", [_NEW], tmp_path)
    for text in ("", "", "# another\n"):
        candidate.write_text(candidate.read_text() + text)
        run(own, _quiet)
    assert here[3:] == [_NEW.torch] * 2
    monkeypatch.setattr(running, "SOURCES", tmp_path)
    run(own, _quiet)
    assert here[5:] == [_NEW.torch], "other code"


@pytest.mark.usefixtures("here")
def test_what_our_own_is_looked_at_with_is_installed_for_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, needed = vars(running)["environment"], []

    def noting(pair: Pair, folder: Path, extra: Sequence[str], python: str | None, **options: Any) -> Any:
        needed.append(([*extra], python))
        return fake(pair, folder, extra, python, **options)

    monkeypatch.setattr(running, "environment", noting)
    monkeypatch.setattr(running, "at_the_end", lambda _: "python3.13")
    for candidate, python in (("vit:ViT", None), ("vit:ViT", "mine"), ("vit:FastViT", None)):
        run(Asked(candidate, [_NEW], tmp_path, ["own"], python), _quiet)
    ours = [*row.NEEDS, "own"]
    assert needed == [(ours, "python3.13"), (ours, "mine"), (["own"], None)]


def test_release_that_cannot_be_installed_leaves_the_others(
    here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = vars(running)["environment"]

    def refuse(pair: Pair, *rest: Any, **options: Any) -> Any:
        if pair == _OLD:
            raise NotInstalledError("no build")
        return fake(pair, *rest, **options)

    monkeypatch.setattr(running, "environment", refuse)
    rows, missing = run(Asked("vit:ViT", [_OLD, _NEW], tmp_path), _quiet)
    assert ([*rows], missing, here) == ([_NEW.torch], {_OLD.torch: "no build"}, [_NEW.torch])
    assert f"torch {_OLD.torch}: not checked: no build" in in_short(rows.values(), missing, [])
    assert exit_status(rows.values(), missing) == 3


def test_crash_inside_is_told_and_no_old_row_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_of(tmp_path, _NEW.torch).write_text(json.dumps(_row(_NEW, code="before")))

    class Crashing(Environment):
        def run(self, arguments: Any, _: Path) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(arguments, 1, "", "Traceback\nImportError: no such name\n\n")

    monkeypatch.setattr(running, "environment", lambda *_, **__: contextlib.nullcontext(Crashing(Path(), Path())))
    rows, missing = run(Asked("vit:ViT", [_NEW], tmp_path), _quiet)
    assert (rows, missing) == (
        {},
        {_NEW.torch: f"on torch {_NEW.torch} parity came to no end: ImportError: no such name"},
    )


def test_release_that_another_run_is_at_work_on_comes_last(here: list[str], tmp_path: Path) -> None:
    lock = file_of(tmp_path, _OLD.torch, ".lock")
    script = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)"
    command = [sys.executable, "-c", f"{script}; print(flush=True); time.sleep(2)", str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:  # noqa: S603  (ours)
        assert other.stdout
        other.stdout.readline()
        run(Asked("vit:ViT", [_OLD, _NEW], tmp_path), _quiet)
        assert other.poll() == 0 or other.wait(1) == 0
    assert here == [_NEW.torch, _OLD.torch]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_environments_are_removed_when_the_command_is_stopped(
    number: signal.Signals, jobs: int, tmp_path: Path
) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from parity import cli\n"
        "from parity.releases import environments\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell ignores for what it runs behind it
        "def fill(*_):\n"
        "    print('filling', file=sys.stderr, flush=True)\n"
        "    environments.run([sys.executable, '-c', 'import time; time.sleep(60)'], Path())\n"
        "environments.ROOM = 0.0\n"
        "environments._filled = fill\n"
        "environments._made = lambda pair, place, python: place.mkdir()\n"
        "sys.exit(cli.console())\n"
    )
    folder = tmp_path / "rows"
    command = [sys.executable, str(script), "matrix", f"--newest={jobs}", f"--jobs={jobs}", f"--folder={folder}"]
    with subprocess.Popen(  # noqa: S603  (ours)
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as it:
        assert it.stderr
        lines = [it.stderr.readline() for _ in range(2 * jobs)]
        assert len([line for line in lines if "filling" in line]) == jobs, lines
        assert len([*folder.glob("*.env")]) == jobs
        time.sleep(0.2)
        it.send_signal(number)
        assert it.wait(20) == 128 + number
    assert {path.suffix for path in folder.iterdir()} == {".lock"}


def test_releases_are_looked_at_beside_each_other(here: list[str], tmp_path: Path) -> None:
    meeting, said = threading.Barrier(2, timeout=20), []

    def say(words: str) -> None:
        said.append(words)
        meeting.wait()

    rows, missing = run(Asked("vit:ViT", [_OLD, _NEW], tmp_path, jobs=2), say)
    assert ([*rows], missing) == ([_OLD.torch, _NEW.torch], {})
    assert {*here} == {_OLD.torch, _NEW.torch}
    assert sorted(line.partition(", ")[2] for line in said) == ["1 of 2", "2 of 2"]


def test_error_of_one_release_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), []

    def look(pair: Pair, *_: Any) -> None:
        if pair == _OLD:
            begun.wait(20)
            raise ParityError("no room")
        begun.set()
        try:
            processes.run([sys.executable, "-c", "import time; time.sleep(20); open('to the end', 'w')"], tmp_path)
        except processes.StoppedError:
            ended.append(pair)
            raise

    monkeypatch.setattr(running, "_row", look)
    with pytest.raises(ParityError, match="no room"):
        run(Asked("vit:ViT", [_OLD, _NEW], tmp_path, jobs=2), _quiet)
    assert ended == [_NEW]
    assert not (tmp_path / "to the end").exists()
    assert processes.run([sys.executable, "-c", "print('again')"], tmp_path).stdout == "again\n"


# --- a row


@pytest.fixture(scope="module")
def bits() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a row says of the bits of one small architecture."""
    tensors: dict[str, torch.Tensor] = {}
    return row.bits_of("vit:ViT", "vit_b_16", row.small("vit_b_16"), 2, tensors), tensors


def test_digests_are_of_every_layer_in_every_mode_and_dtype(bits: tuple[dict[str, Any], Any]) -> None:
    found, tensors = bits
    assert len(found["runs"]) == 8
    for name, made in found["runs"].items():
        if "why" in made:
            assert name.startswith("eval-no-fastpath/"), made
            continue
        assert made["reference"] == made["candidate"], name
        assert [*made["reference"]][-1] == LOGITS
        assert len(made["reference"]) == 28
        assert {*made["reference"].values()} <= {*tensors}
    eval_mode, train = (found["runs"][f"{mode}/float32"]["reference"] for mode in ("eval", "train"))
    assert eval_mode["conv_proj"] == train["conv_proj"]
    assert eval_mode["encoder.dropout"] != train["encoder.dropout"]
    assert tensors[train[LOGITS]].dtype == torch.float32
    again = row.bits_of("vit:ViT", "vit_b_16", row.small("vit_b_16"), 2, {})
    assert again == found


def test_what_cannot_be_checked_says_why() -> None:
    made = row._checked("nowhere:ViT", "nowhere:ViT", "small vit_b_16", ("forward",))  # noqa: SLF001
    assert made["verdict"] == "not checked"
    assert "nowhere" in made["why"]
    assert "nowhere" in row.bits_of("nowhere:ViT", "vit_b_16", {}, 1, {})["why"]
    rows = [_row(_NEW, checks=[made], candidate="nowhere:ViT")]
    assert exit_status(rows, {}) == 3
    assert "not checked (small vit_b_16: " in next(in_short(rows, {}, []))


_RESULTS = """<testsuites><testsuite>
<testcase name="test_one"/>
<testcase name="test_two"><failure message="no">assert</failure></testcase>
<testcase name="test_three"><skipped message="this torch has none"/></testcase>
</testsuite></testsuites>"""


def test_what_the_equivalence_suite_says_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def fake(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        Path(command[-1].removeprefix("--junit-xml=")).write_text(_RESULTS)
        return subprocess.CompletedProcess(command, 1, "1 failed", "")

    monkeypatch.setattr(subprocess, "run", fake)
    found = testing.equivalence_suite("own.py:ViT")
    assert found == {"passed": 1, "failed": ["test_two"], "skipped": {"this torch has none": 1}}
    assert {"--pyargs", "parity", "--parity-candidate=own.py:ViT"} <= {*asked[0]}
    assert testing.quick_tests(ROOT) == found
    assert {str(ROOT / file) for file in testing.QUICK} <= {*asked[1]}
    assert testing.quick_tests(ROOT / "docs") is None
    rows = [_row(_NEW, tests={"quick tests": found})]
    assert exit_status(rows, {}) == 1
    (line,) = in_short(rows, {}, [])
    assert line.endswith(": identical; quick tests: 1 passed, 1 skipped, 1 failed: test_two")
    page = drawn(kept(rows, []))["torch-matrix.md"]
    assert f"| {_NEW.torch} | quick tests | 1 passed, 1 skipped, 1 failed: test_two | this torch has none |" in page
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 4, "", "no such option\n"))
    assert testing.equivalence_suite("own.py:ViT") == {"why": "no such option"}


def test_suite_that_came_to_no_end_is_no_success() -> None:
    rows = [_row(_NEW, tests={"quick tests": {"why": "no module named pytest"}})]
    assert exit_status(rows, {}) == 3
    assert next(in_short(rows, {}, [])).endswith("quick tests: not checked: no module named pytest")


@pytest.mark.parametrize(("verdict", "status"), [("identical", 0), ("divergent", 1), ("not checked: no memory", 3)])
def test_largest_architectures_count(verdict: str, status: int) -> None:
    rows = [_row(_NEW, large={"vit_h_14": verdict})]
    assert exit_status(rows, {}) == status
    assert next(in_short(rows, {}, [])).endswith(f"; vit_h_14 at full depth: {verdict}")
    assert (
        f"| torch | vit_h_14 |\n| --- | --- |\n| {_NEW.torch} | {verdict} |" in drawn(kept(rows, []))["torch-matrix.md"]
    )


def test_largest_architectures_are_looked_at_on_three_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fake(_: str, name: str, **__: object) -> SimpleNamespace:
        asked.append(name)
        if name == "vit_h_14":
            raise MemoryError
        return SimpleNamespace(verdict="identical")

    monkeypatch.setattr(row, "check", fake)
    found = [row.of_the_largest("vit:ViT", pair.torch) for pair in PAIRS]
    assert [name for said in found for name in said] == asked
    assert asked == [*row.LARGE] * 3
    assert found[0]["vit_h_14"].startswith("not checked: ")


def test_supported_pythons_are_tried_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "_on_path", lambda minor: None if minor == 14 else f"python3.{minor}")
    assert environments.at_the_end(PAIRS[0]) == "python3.10"
    assert environments.at_the_end(PAIRS[-1]) == "python3.13"
    assert environments.at_the_end(PAIRS[7]) is None


def test_environment_gets_what_the_groups_of_the_project_name() -> None:
    groups = (ROOT / "pyproject.toml").read_text()
    assert [need for need in row.NEEDS if f'"{need}"' not in groups] == []


# --- neighbours


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    """Two rows, whose neighbour has a layer and the logits moved by one and by three units of the last place."""
    still, layer, logits = torch.tensor([0.5]), torch.tensor([1.0, -2.0]), torch.tensor([3.0])

    def moved(tensor: torch.Tensor, by: int) -> torch.Tensor:
        return (tensor.view(torch.int32) + by).view(torch.float32)

    before = {"s": still, "a": layer, "l": logits}
    after = {"s": still, "b": moved(layer, 1), "m": moved(logits, 3)}
    made = []
    for pair, tensors in ((_OLD, before), (_NEW, after)):
        save_file(tensors, file_of(tmp_path, pair.torch, ".safetensors"))
        layers = dict(zip(("conv_proj", "encoder.ln", LOGITS), tensors, strict=True))
        made.append(_row(pair, bits=_bits(layers)))
    return made


def test_where_bits_moved_first_and_how_far(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    (found,) = neighbours(rows, tmp_path)
    assert (found.older, found.newer, found.unlike, found.changed) == (_OLD.torch, _NEW.torch, (), ())
    (move,) = found.moves
    assert (move.sides, move.model, move.modes) == (("reference", "candidate"), "small", ("eval",))
    assert (move.first, move.first_ulp, move.max_ulp, move.logits_ulp, move.layers) == ("encoder.ln", 1, 3, 3, 2)
    assert found.still == 0
    assert found.not_compared == {}
    said = "bits moved in 2 of 2 passes: from encoder.ln on in eval (the logits by 2.4e-07)"
    assert [*in_short(rows, {}, [found])][-1] == f"from {_OLD.torch} to {_NEW.torch}: {said}"
    (found,) = neighbours([rows[0], {**rows[0], "torch": _NEW.torch}], tmp_path)
    assert (found.moves, found.still) == ((), 2)


def test_one_side_that_moved_alone_and_modes_that_moved_alike(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    older, newer = rows
    for one in (older["bits"], newer["bits"]):
        both = one["small"]["runs"]["eval/float32"]
        one["small"]["runs"] |= {"eval-grad/float32": both, "train/float32": {**both}}
    newer["bits"]["small"]["runs"]["train/float32"]["reference"] = older["bits"]["small"]["runs"]["eval/float32"][
        "reference"
    ]
    (found,) = neighbours(rows, tmp_path)
    assert {(move.sides, move.modes) for move in found.moves} == {
        (("reference", "candidate"), ("eval", "eval-grad")),
        (("candidate",), ("train",)),
    }
    assert found.still == 1


@pytest.mark.parametrize("what", ["weights", "images"])
def test_other_weights_or_images_are_not_compared(what: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    rows[1]["bits"]["small"][what] = "other"
    (found,) = neighbours(rows, tmp_path)
    assert (found.moves, found.not_compared) == ((), {f"other {what}": 2})


def test_pass_that_one_release_lacks_is_not_compared(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    rows[0]["bits"]["small"]["runs"]["eval/float32"] = {"why": "no switch"}
    (found,) = neighbours(rows, tmp_path)
    assert (found.moves, found.still, found.not_compared) == ((), 0, {"one of the two cannot run it": 2})


def test_tensors_that_are_gone_leave_the_place_without_a_distance(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    file_of(tmp_path, _OLD.torch, ".safetensors").write_bytes(b"cut off")
    (found,) = neighbours(rows, tmp_path)
    assert [(move.first, move.first_ulp, move.logits_ulp) for move in found.moves] == [("encoder.ln", None, None)]


def test_what_else_is_another_is_said(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    rows[1] |= {"processor": "y", "threads": 2, "code": "d", "libraries": {"oneDNN": "3.1"}, "cpu_capability": "AVX512"}
    (found,) = neighbours(rows, tmp_path)
    assert found.unlike == (
        "another processor (x, y)", "other threads (1, 2)", "other code of parity, vit or the candidate",
    )  # fmt: skip
    assert found.changed == ("oneDNN 3.0 to 3.1", "instructions AVX2 to AVX512")


# --- the page


def test_page_and_picture_show_verdicts_and_moves(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    rows[1]["checks"][0]["runs"]["forward/eval/float32"] = "divergent"
    rows[1]["checks"][0] |= {"verdict": "divergent", "why": "it begins in encoder.ln"}
    files = drawn(kept(rows, neighbours(rows, tmp_path)))
    assert [*files] == ["torch-matrix.md", "torch-matrix.svg", "torch-matrix.json"]
    page, picture, found = files.values()
    assert "`identical` on 1, `divergent` on 1 of 2 releases" in page
    assert "| divergent (small: it begins in encoder.ln) |" in page
    assert f"Not checked: torch {PAIRS[0].torch}, " in page
    assert f"### From {_OLD.torch} to {_NEW.torch}" in page
    assert "| both | eval | float32 | all | `encoder.ln` | 1 | 3 | 3 | 2.4e-07 |" in page
    drawing = ET.fromstring(picture)  # noqa: S314  (our own)
    texts = ["".join(text.itertext()) for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert "≠" in texts
    assert f"{_NEW.torch} with {_NEW.torchvision}" in texts
    marks = [path for path in drawing.iter("{http://www.w3.org/2000/svg}path") if path.get("class") == "float32"]
    assert len(marks) == 2, "one move, and the legend"
    assert drawn(json.loads(found)) == files
    assert exit_status(rows, {}) == 1


def test_published_page_is_drawn_from_its_rows() -> None:
    files = drawn(json.loads((ROOT / "docs" / "torch-matrix.json").read_text()))
    for name, content in files.items():
        assert (ROOT / "docs" / name).read_text() == f"{content.rstrip()}\n", name


def test_command_draws_what_is_there(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    assert run("matrix", "--render", f"--folder={tmp_path}")[::2] == (
        2, f"parity: --folder {tmp_path}: there are no results in it; run parity matrix first\n",
    )  # fmt: skip
    file_of(tmp_path, _NEW.torch).write_text(json.dumps(_row(_NEW)))
    assert run("matrix", "--render", f"--folder={tmp_path}", f"--output={tmp_path}") == (0, "", "")
    assert (tmp_path / "torch-matrix.svg").exists()
    for wrong, said in (
        (["--torch", "3.0"], "--torch 3.0: expected some of 2.0, "),
        (["-n", "0"], "--newest 0: expected a positive whole number"),
        (["nowhere.py:ViT"], "there is no file nowhere.py"),
    ):
        status, _, told = run("matrix", f"--folder={tmp_path}", *wrong)
        assert (status, said in told) == (2, True), told


def test_command_says_what_was_found(run: Callable[..., tuple[int, str, str]], here: list[str], tmp_path: Path) -> None:
    status, shown, told = run("matrix", "--newest", "2", f"--folder={tmp_path}")
    assert (status, here) == (0, [_OLD.torch, _NEW.torch])
    assert told.splitlines() == [f"torch {_OLD.torch}, 1 of 2", f"torch {_NEW.torch}, 2 of 2"]
    assert shown.splitlines() == [
        *(f"torch {pair.torch} with torchvision {pair.torchvision}: identical" for pair in (_OLD, _NEW)),
        f"from {_OLD.torch} to {_NEW.torch}: no bit moved in 0 passes",
    ]


def test_row_of_another_schema_is_none(tmp_path: Path) -> None:
    path = file_of(tmp_path, _NEW.torch)
    for wrong in ({"schema": 2}, {"bits": None}, {"checks": "none"}):
        path.write_text(json.dumps(copy.deepcopy(_row(_NEW)) | wrong))
        assert read_row(path) is None
