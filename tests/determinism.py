"""The same checks under other settings of the machine: does the answer stay, and where do bits move?

`python -m tests.determinism` runs them, each setting in a process of its own, and writes `docs/determinism.md` and its
`.json`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

import parity
from parity.releases import neighbours
from parity.releases.row import bits_of, processor, small
from parity.releases.rows import file_of
from parity.tracing import MODES
from tests.small import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parents[1]
NAME = "determinism"

# the same bits, other bits, and three bugs; the first in all phases that take no compiler
CHECKS = {
    "vit:ViT": ("forward", "backward", "training"),
    "tests/candidates/sdpa.py:FlashViT": ("forward",),
    "tests/candidates/eps_bias_pool.py:SmallViT": ("forward",),
}
_STEPS = 2

# whose bits are looked at: all layers in small, and what threads have enough to do for
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "small vit_b_16": (small("vit_b_16"), 2),
    "two blocks of vit_b_16": ({"num_layers": 2}, 1),
}


@dataclass(frozen=True)
class Setting:
    """What is another than in the first check.

    Attributes:
        what: in words.
        told: by which command or variable.
        variables: of the process's environment.
        tell: called before anything is run.
    """

    what: str
    told: str
    variables: dict[str, str] = field(default_factory=dict)
    tell: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Study:
    """What is looked at.

    Attributes:
        module: to be run with `--one SETTING --output FOLDER`.
        settings: by name, the one that all others are put beside first, and `again` for the same once more.
        checks: phases by candidate.
        device: where to run.
        dtypes: of whose layers bits are looked at.
    """

    module: str
    settings: dict[str, Setting]
    checks: dict[str, tuple[str, ...]]
    device: str = "cpu"
    dtypes: tuple[str, ...] = ("float32", "float64")


def _instructions(name: str) -> Setting:
    what = {"default": "no vector instructions of the processor's"}.get(name, f"{name.upper()} at most")
    return Setting(what, f"ATEN_CPU_CAPABILITY={name}", {"ATEN_CPU_CAPABILITY": name})


SETTINGS = {
    "first": Setting("one thread, all else as torch has it", "OMP_NUM_THREADS=1"),
    "again": Setting("nothing", "the same once more"),
    "threads": Setting("two threads", "OMP_NUM_THREADS=2", {"OMP_NUM_THREADS": "2"}),
    "default": _instructions("default"),
    "avx2": _instructions("avx2"),
    "onednn": Setting(
        "no oneDNN",
        "torch.backends.mkldnn.set_flags(False)",
        tell=lambda: torch.backends.mkldnn.set_flags(False),  # type: ignore[no-untyped-call]
    ),
    "flash": Setting(
        "no flash kernel for attention",
        "torch.backends.cuda.enable_flash_sdp(False)",
        tell=lambda: torch.backends.cuda.enable_flash_sdp(False),
    ),
    "deterministic": Setting(
        "deterministic algorithms alone",
        "torch.use_deterministic_algorithms(True)",
        tell=lambda: torch.use_deterministic_algorithms(True),
    ),
}


STUDY = Study("tests.determinism", SETTINGS, CHECKS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures under every setting and writes the page; returns 1 if an answer is another, or one is not repeated."""
    parser = argparse.ArgumentParser(prog="python -m tests.determinism", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder to write to (default: docs)")
    parser.add_argument("--one", choices=SETTINGS, help="measure in this process, and write to --output alone")
    options = parser.parse_args(arguments)
    if options.one:
        measure(STUDY, options.one, options.output)
        return 0
    found = studied(STUDY)
    publish(options.output, NAME, page(found), found)
    return int(any(row["other"] for row in found["settings"]))


def publish(folder: Path, name: str, text: str, found: dict[str, Any]) -> None:
    """Writes a page, and what it is drawn from."""
    for file, content in ((f"{name}.md", text), (f"{name}.json", json.dumps(found, indent=1) + "\n")):
        (folder / file).write_text(content, encoding="utf-8")


def studied(study: Study, *, at_once: int = 1) -> dict[str, Any]:
    """Measures under every setting, each in a process that is told of it before torch is imported.

    Args:
        study: what is looked at.
        at_once: so many processes.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPool(at_once) as pool:
        rows = pool.map(lambda name: _measured(study, name, Path(folder)), study.settings)
        return compared(rows, Path(folder))


def _measured(study: Study, name: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", study.module, "--one", name, "--output", str(folder)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", **study.settings[name].variables}
    subprocess.run(command, cwd=ROOT, env=surroundings, check=True)  # noqa: S603  (ours)
    row: dict[str, Any] = json.loads(file_of(folder, name).read_text(encoding="utf-8"))
    return row


def measure(study: Study, name: str, folder: Path) -> None:
    """Measures under one setting, in this process, and writes what was found to a folder."""
    study.settings[name].tell()
    reports = {
        candidate: parity.check(candidate, overrides=SMALL, phases=phases, steps=_STEPS, device=study.device).to_dict()
        for candidate, phases in study.checks.items()
    }
    tensors: dict[str, torch.Tensor] = {}
    where = reports[next(iter(study.checks))]["environment"]
    bits = functools.partial(bits_of, "vit:ViT", "vit_b_16", dtypes=study.dtypes, device=study.device)
    row = {
        "torch": name,  # a row of the matrix of releases, in which a setting has the release's place
        "machine": f"{platform.system()} {platform.machine()}", "processor": processor(), "code": "",
        "threads": 0, "libraries": {}, "cpu_capability": "",
        "bits": {model: bits(*sized, tensors) for model, sized in MODELS.items()},
        "reports": reports, "environment": where,
    }  # fmt: skip
    save_file(tensors, file_of(folder, name, ".safetensors"))
    file_of(folder, name).write_text(json.dumps(row), encoding="utf-8")


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    """Returns a report without what no two runs have in common: times, memory, and the digest that covers both."""
    kept = {key: value for key, value in report.items() if key not in ("timings", "peak_memory")}
    return kept | {"digests": {key: value for key, value in report["digests"].items() if key != "report"}}


def answer(report: dict[str, Any]) -> dict[str, Any]:
    """Returns what a report answers, which no setting of the machine may change: no number that rounding decides."""
    return {
        "verdict": report["verdict"],
        "verdicts of checks": {row["name"]: row["verdict"] for row in report["checks"]},
        "causes": [(row["id"], row["where"], row["hint"]) for row in report["causes"]],
        "explanation": {key: (report["explanation"] or {}).get(key) for key in ("complete", "minimal")},
        "weight map": report["mapping"]["entries"],
        "layers": {row["reference"]: row["status"] for row in report["layers"]},
    }


def compared(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Returns what the page is drawn from: each setting beside the first.

    Args:
        rows: what was measured, the first setting first.
        folder: in which the tensors are.
    """
    first, settings = rows[0], []
    for row in rows[1:]:
        (moved,) = neighbours([first, row], folder)
        settings.append(
            {
                "name": row["torch"],
                "environment": {k: v for k, v in row["environment"].items() if v != first["environment"][k]},
                "other": [*_other(first["reports"], row["reports"], is_again=row["torch"] == "again")],
                "instead": {
                    name: _in_short(report)
                    for name, report in row["reports"].items()
                    if _in_short(report) != _in_short(first["reports"][name])
                },
                "same_bits": moved.still,
                "moves": [*map(_as_json, moved.to_dict()["moves"])],
            }
        )
    return {
        "environment": first["environment"],
        "machine": f"{first['processor']}, {first['machine']}",
        "answers": {name: _in_short(report) for name, report in first["reports"].items()},
        "settings": settings,
    }


def _as_json(move: dict[str, Any]) -> dict[str, Any]:
    return {key: [*value] if isinstance(value, tuple) else value for key, value in move.items()}


def _other(before: dict[str, Any], after: dict[str, Any], *, is_again: bool) -> Iterator[str]:
    """Yields what is another in a report than it was; of one that was only repeated, everything has to be the same."""
    told = without_times if is_again else answer
    for name, report in before.items():
        one, other = told(report), told(after[name])
        yield from (f"{name}: {key}" for key in one if one[key] != other[key])


def _in_short(report: dict[str, Any]) -> str:
    causes = ", ".join(f"`{cause['id']}`" for cause in report["causes"])
    return f"`{report['verdict']}`{': ' * bool(causes)}{causes}"


def page(found: dict[str, Any]) -> str:
    """Returns the page.

    Args:
        found: as `compared` returns it.
    """
    where = "; ".join(f"{key} {value}" for key, value in found["environment"].items() if key != "platform")
    lines = [_HEAD, *answers(STUDY, found), _SETTINGS, *what_moves(STUDY, found), _MOVES, *moves(STUDY, found)]
    return "\n".join(lines) + f"\n{_FOOT}{found['machine']}; {where}.\n"


def answers(study: Study, found: dict[str, Any]) -> list[str]:
    """Returns the table of the checks and their answers."""
    lines = [f"| `{name}` | {', '.join(study.checks[name])} | {said} |" for name, said in found["answers"].items()]
    return ["| candidate | phases | answer |", "| --- | --- | --- |", *lines]


def what_moves(study: Study, found: dict[str, Any]) -> list[str]:
    """Returns the table of settings: whether the answers stayed, and how many passes have other bits."""
    lines = ["| what is another | told by | answers | passes whose bits moved | first in | logits |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in found["settings"]:
        setting = study.settings[row["name"]]
        moved = sum(len(move["modes"]) * len(move["sides"]) for move in row["moves"])
        firsts = ", ".join(f"`{first}`" for first in dict.fromkeys(move["first"] for move in row["moves"])) or "-"
        how_far = max((move["logits"] or 0 for move in row["moves"]), default=0)
        instead = [f"{name}: {answer}" for name, answer in row.get("instead", {}).items()]
        said = "; ".join(row["other"] + instead) or ("the same report" if row["name"] == "again" else "the same")
        lines.append(
            f"| {setting.what} | `{setting.told}` | {said} | {moved} of {moved + row['same_bits']} | {firsts} "
            f"| {f'{how_far:.1e}' if how_far else '-'} |"
        )
    return lines


def moves(study: Study, found: dict[str, Any]) -> list[str]:
    """Returns the table of layers that moved first, with how far the logits moved in each dtype."""
    columns = ("what is another", "who", "model", "modes", "first layer", "layers", f"logits, {study.dtypes[0]}",
               *study.dtypes[1:])  # fmt: skip
    lines = [line for row in found["settings"] for line in _moved(study, row)]
    return [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |", *lines]


def _moved(study: Study, row: dict[str, Any]) -> Iterator[str]:
    """Yields a line of the table for all moves that began alike, in whichever modes and dtypes."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for move in row["moves"]:
        groups.setdefault((*move["sides"], move["model"], move["first"], move["layers"]), []).append(move)
    for alike in groups.values():
        first = alike[0]
        modes = [mode for mode in MODES if any(mode in move["modes"] for move in alike)]
        far = [_far([m["logits"] for m in alike if m["dtype"] == dtype]) for dtype in study.dtypes]
        yield (
            f"| {study.settings[row['name']].what} | {'both' if len(first['sides']) == 2 else first['sides'][0]} "
            f"| {first['model']} | {'all' if len(modes) == len(MODES) else ', '.join(modes)} | `{first['first']}` "
            f"| {first['layers']} | {' | '.join(far)} |"
        )


def _far(logits: list[float | None]) -> str:
    """Returns the largest distance; nothing where no bit moved in this dtype, or no value was kept."""
    known = [distance for distance in logits if distance is not None]
    return f"{max(known):.1e}" if known else "-"


_HEAD = """# Determinism

The same check gives the same report, apart from `timings`, `peak_memory` and the digest that covers them. Threads, the
processor's instructions, oneDNN, the kernel of attention and deterministic algorithms may move bits of both models; the
answer stays. This page is written by

```bash
python -m tests.determinism
```

which runs three checks under each setting, of models of a few thousand parameters, in a process of its own:
"""

_SETTINGS = """
## What stays, and what moves

*Answers* are the verdict, that of each comparison, the causes and where they are, whether the explanation is complete
and minimal, the weight map, and each layer's status. Bits are those of every layer of torchvision's ViT and of ours, in
every mode, in float32 and float64, beside those of the first run (one thread, all else as torch has it). *Logits* says
how far these are from the first run's, relative to their norm, at most.
"""

_MOVES = """
## Which layer moves first

In the order of execution, and how many layers moved in all, with the largest distance of the logits in either dtype.
"""

_FOOT = """
Where bits move, the two models move together, so that `identical` stays `identical`: a check compares both under one
setting, and its report names it (`environment`). A report beside one from another setting (`parity report old.json
new.json`) may differ in numbers of the size of rounding, never in its answer.

What is not in parity's hands: a model that draws from a generator of its own, or reads a clock, is `inconclusive`.

Measured on """


if __name__ == "__main__":
    sys.exit(main())
