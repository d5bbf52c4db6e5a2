"""How many small configurations are proved per second: a process per core, one thread each.

    python -m benchmarks.fuzz [--seconds 20]

The configurations are those of `parity.strategies`, drawn by Hypothesis; every one is built, mapped, compared at every
layer in float64 and float32, and has to be identical. One half is checked in eval mode alone, one in all four modes.
Beside it, how many a bare script would go through that builds both models and runs the same passes, comparing nothing.
"""

# ruff: noqa: T201  (printing is what it is for)

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
import warnings
from collections import defaultdict
from typing import Any, NamedTuple

MODES = {"eval mode": ["eval"], "all modes": ["eval", "eval-no-fastpath", "eval-grad", "train"]}


class Proved(NamedTuple):
    """How many configurations; in how many seconds; what the bare script took for them; the seconds by step."""

    done: int
    seconds: float
    bare: float
    steps: dict[str, float]


def prove(seed: int, modes: list[str], seconds: float) -> Proved:
    """Proves configurations until the time is over, and runs the bare script after each."""
    import torch  # noqa: PLC0415  (in the process that needs it)
    from hypothesis.errors import NonInteractiveExampleWarning  # noqa: PLC0415

    from benchmarks import floor  # noqa: PLC0415
    from parity import check, strategies  # noqa: PLC0415

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", NonInteractiveExampleWarning)
    configurations = strategies.configurations()
    drawn = [configurations.example() for _ in range(200)]
    check("vit:ViT", overrides=drawn[0])  # imports
    done, checking, bare = 0, 0.0, 0.0
    steps: dict[str, float] = defaultdict(float)
    while checking + bare < seconds:
        overrides = drawn[done % len(drawn)]
        began = time.perf_counter()
        report = check("vit:ViT", overrides=overrides, seed=seed + done, modes=modes)
        between = time.perf_counter()
        floor.run(overrides, modes)
        checking, bare = checking + between - began, bare + time.perf_counter() - between
        assert report.verdict == "identical", report
        done += 1
        for step, took in report.timings.items():
            steps[step.partition("/")[0]] += took
    return Proved(done, checking, bare, {**steps})


def measure(seconds: float) -> dict[str, Any]:
    """Returns the configurations per second of all processes together, by modes."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rates, bare, shares = {}, {}, {}
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for name, modes in MODES.items():
            found = pool.starmap(prove, [(10_000 * n, modes, seconds) for n in range(workers)])
            rates[name] = sum(one.done / one.seconds for one in found)
            bare[name] = sum(one.done / one.bare for one in found)
            total = sum(one.steps["total"] for one in found)
            steps = [step for step in found[0].steps if step != "total"]
            shares[name] = {step: sum(one.steps[step] for one in found) / total for step in steps}
            parts = ", ".join(f"{step} {share:.0%}" for step, share in shares[name].items())
            print(f"{name}: {rates[name]:.1f} per second, bare {bare[name]:.1f}; {parts}", flush=True)
    return {"processes": workers, "rates": rates, "bare": bare, "shares": shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    measure(parser.parse_args().seconds)


if __name__ == "__main__":
    main()
