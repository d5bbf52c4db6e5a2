"""What a check costs: `parity check` beside the bare script `floor.py`, in turn, several rounds.

    python benchmarks/cost.py [NAME [ROUNDS [MODULE:CALLABLE]]]

Without a callable the candidate is our own ViT; `tests.peers:timm_vit` is somebody else's. Prints the wall time of both
and the ratio of each round; the median is the one to quote.
"""

# ruff: noqa: T201  (printing is what it is for)

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "vit_b_16"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    candidate = sys.argv[3:4]
    check = [sys.executable, "-m", "parity", "check", *(candidate or ["vit:ViT"]), "--reference", name, "--quiet"]
    floor = [sys.executable, "-m", "benchmarks.floor", name, *candidate]
    ratios = []
    for _ in range(rounds):
        times = [_seconds(command) for command in (check, floor)]
        ratios.append(times[0] / times[1])
        print(f"check {times[0]:6.1f} s   floor {times[1]:6.1f} s   ratio {ratios[-1]:.3f}", flush=True)
    median = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    print(f"{' '.join([name, *candidate])}: median ratio {median}")


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  (our own two commands)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
