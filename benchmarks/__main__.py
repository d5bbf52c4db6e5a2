"""`python -m benchmarks`: measures, and writes docs/performance.md with its picture and its figures.

    python -m benchmarks                       everything, one to two hours on two cores
    python -m benchmarks speed cost            these parts again; the others are kept
    python -m benchmarks draw                  nothing again: table and picture from docs/performance.json
    python -m benchmarks compare OLD NEW       two such files, of two torch releases or two commits

Parts are speed (ours beside others), cost (a check beside a bare script), growth (with depth and width) and fuzz.
"""

# ruff: noqa: T201  (printing is what it is for)

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import cost, fuzz, growth
from benchmarks.conftest import versions
from benchmarks.performance import compared, draw, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Row = dict[str, Any]

DOCS = Path(__file__).parents[1] / "docs"

# name, rounds, and whether gradients are compared or the forward pass in eval mode
COSTS = [
    ("vit_b_16", 7, False),
    ("vit_l_16", 7, False),
    ("vit_h_14", 7, False),
    ("vit_b_16", 2, True),
    ("vit_h_14", 1, True),
]


def speed(known: list[Row], saved: str | None) -> Iterator[list[Row]]:
    """Runs the pytest benchmarks, or reads what they have saved: seconds by group and implementation."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(saved or Path(folder) / "benchmarks.json")
        if saved is None:
            command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", "--all-groups"]
            subprocess.run([*command, f"--benchmark-json={file}"], check=True)  # noqa: S603  (our own)
        rows = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
    yield renewed(known, [{"group": row["group"], **row["extra_info"]} for row in rows], "group")


def costs(known: list[Row]) -> Iterator[list[Row]]:
    """Times all of `COSTS`; every one that is done is kept, should a later one fail."""
    for name, rounds, backward in COSTS:
        known = renewed(known, [cost.compare(name, rounds, "eval", None, backward=backward)], "name", "what")
        yield known


def renewed(known: list[Row], found: list[Row], *keys: str) -> list[Row]:
    """Returns the rows that were found, in the place of known ones of the same keys if there are such."""
    rows = {tuple(row[key] for key in keys): row for row in known}
    return list((rows | {tuple(row[key] for key in keys): row for row in found}).values())


def machine() -> dict[str, Any]:
    """Returns what the figures were measured on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": model or platform.processor(),
        "cores": cores,
        "python": platform.python_version(),
    } | versions()


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="speed, cost, growth, fuzz, draw; or compare OLD NEW")
    parser.add_argument(
        "--speed-json", metavar="FILE", help="what `pytest --all-groups --benchmark-json` has saved, for speed"
    )
    options = parser.parse_args()
    if options.parts[:1] == ["compare"]:
        if len(options.parts) != 3 or not all(Path(name).is_file() for name in options.parts[1:]):
            parser.error("compare wants two files performance.json that `python -m benchmarks` has written")
        old, new = (json.loads(Path(name).read_text(encoding="utf-8")) for name in options.parts[1:])
        print(compared(old, new))
        return
    measures: dict[str, Callable[[Any], Iterable[Any]]] = {
        "speed": lambda known: speed(known, options.speed_json),
        "cost": costs,
        "growth": lambda _: [growth.measure_all(growth.DEPTHS, growth.WIDTHS)],
        "fuzz": lambda _: [fuzz.measure(20.0)],
    }
    unknown = set(options.parts) - {*measures, "draw"}
    if unknown:
        parser.error(f"unknown part {min(unknown)}; the parts are {', '.join(measures)} and draw")
    file = DOCS / "performance.json"
    known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for part in options.parts or measures:
        if part in measures:
            for found in measures[part](known.get(part, [])):
                known |= {part: found, "machine": machine()}
                _write(file, json.dumps(known, indent=1) + "\n")
    _write(DOCS / "performance.md", write(known))
    draw(known, DOCS / "performance.png")


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    new = path.with_suffix(path.suffix + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


if __name__ == "__main__":
    main()
