"""How many small configurations are proved per second: a process per core, one thread each.

    python -m benchmarks.fuzz [--seconds 20]

The configurations are those of `parity.strategies`, drawn by Hypothesis; every one is built, mapped, compared at every
layer in float64 and float32, and has to be identical. One half is checked in eval mode alone, one in all four modes.
"""

# ruff: noqa: T201  (printing is what it is for)

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import warnings
from collections import defaultdict
from typing import Any

MODES = {"eval mode": ["eval"], "all modes": ["eval", "eval-no-fastpath", "eval-grad", "train"]}


def prove(seed: int, modes: list[str], seconds: float) -> tuple[int, float, dict[str, float]]:
    """Proves configurations until the time is over.

    Returns:
        How many; in how many seconds; the seconds by step of a check.
    """
    import torch  # noqa: PLC0415  (in the process that needs it)
    from hypothesis.errors import NonInteractiveExampleWarning  # noqa: PLC0415

    from parity import check, strategies  # noqa: PLC0415

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", NonInteractiveExampleWarning)
    configurations = strategies.configurations()
    drawn = [configurations.example() for _ in range(200)]
    check("vit:ViT", overrides=drawn[0])  # imports
    began, done = time.perf_counter(), 0
    steps: dict[str, float] = defaultdict(float)
    while time.perf_counter() - began < seconds:
        report = check("vit:ViT", overrides=drawn[done % len(drawn)], seed=seed + done, modes=modes)
        assert report.verdict == "identical", report
        done += 1
        for step, took in report.timings.items():
            steps[step.partition("/")[0]] += took
    return done, time.perf_counter() - began, {**steps}


def measure(seconds: float) -> dict[str, Any]:
    """Returns the configurations per second of all processes together, by modes."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rates, shares = {}, {}
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for name, modes in MODES.items():
            found = pool.starmap(prove, [(10_000 * n, modes, seconds) for n in range(workers)])
            rates[name] = sum(done / took for done, took, _ in found)
            total = sum(steps["total"] for *_, steps in found)
            shares[name] = {step: sum(s[step] for *_, s in found) / total for step in found[0][2] if step != "total"}
            parts = ", ".join(f"{step} {share:.0%}" for step, share in shares[name].items())
            print(f"{name}: {rates[name]:.1f} configurations per second in {workers} processes; {parts}", flush=True)
    return {"processes": workers, "rates": rates, "shares": shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    measure(parser.parse_args().seconds)


if __name__ == "__main__":
    main()
