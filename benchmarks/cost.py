"""What a check costs: `parity check` beside the bare script `floor.py`, in turn, several rounds.

    python -m benchmarks.cost [NAME] [--rounds 7] [--modes LIST] [--backward] [--candidate MODULE:CALLABLE]

Without a candidate it is our own ViT; `tests.peers:timm_vit` is somebody else's. Prints wall time, processor time and
peak memory of both, and the ratio of each round; the median is the one to quote.
"""

# ruff: noqa: T201  (printing is what it is for)

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple


class Usage(NamedTuple):
    """What a process has taken: wall and processor time in seconds, and at most how many bytes of memory.

    Linux counts the memory of the process that has started it, if that is more; this one has less than any check.
    """

    seconds: float
    processor: float
    memory: int


def usage_of(command: list[str]) -> Usage:
    """Runs a command to its end and returns what it has taken.

    Raises:
        SystemExit: it failed.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  (our own commands)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
    return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def compare(name: str, rounds: int, modes: str, candidate: str | None, *, backward: bool) -> dict[str, Any]:
    """Runs both in turn; which comes first alternates. Returns ratios of wall time and what both have taken."""
    check = [sys.executable, "-m", "parity", "check", candidate or "vit:ViT", "--reference", name, "--quiet"]
    floor = [sys.executable, "-m", "benchmarks.floor", name]
    check += ["--phases", "backward"] if backward else ["--modes", modes]
    floor += ["--backward"] if backward else ["--modes", modes]
    floor += ["--candidate", candidate] if candidate else []
    found: dict[str, list[Usage]] = {"check": [], "floor": []}
    for number in range(rounds):
        for which in ("check", "floor") if number % 2 else ("floor", "check"):
            found[which].append(usage_of(check if which == "check" else floor))
        one, other = found["check"][-1], found["floor"][-1]
        print(
            f"check {one.seconds:6.1f} s {one.memory / 1e9:5.2f} GB   floor {other.seconds:6.1f} s "
            f"{other.memory / 1e9:5.2f} GB   ratio {one.seconds / other.seconds:.3f}",
            flush=True,
        )
    pairs = list(zip(found["check"], found["floor"], strict=True))
    return {
        "name": name,
        "candidate": candidate or "ours",
        "what": "backward" if backward else f"forward, {modes}",
        "wall": [one.seconds / other.seconds for one, other in pairs],
        "processor": [one.processor / other.processor for one, other in pairs],
        "memory": max(one.memory for one in found["check"]),
        "floor_memory": max(one.memory for one in found["floor"]),
        "seconds": statistics.median(one.seconds for one in found["check"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="vit_b_16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--modes", default="eval,eval-no-fastpath,eval-grad,train")
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--candidate")
    options = parser.parse_args()
    found = compare(options.name, options.rounds, options.modes, options.candidate, backward=options.backward)
    for key in ("wall", "processor"):
        ratios = found[key]
        print(f"{key} time: median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
