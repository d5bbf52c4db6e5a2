"""The table and the picture of `docs/performance.md`, made of what was measured."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CEILING = "matrix multiplications alone"

_HEAD = """
This page is written by `python -m benchmarks` (after `pip install --group bench`), and every figure on it comes from
`docs/performance.json`, which that command writes too. Times are wall times of things that were run in turn, so what
is given is a ratio, and the spread of single rounds in brackets; the machine is noisy.
"""
_SPEED = """
All have the same weights and were given the same images; their logits were compared before they were timed. *Times as
fast* is against torchvision in the same round, and *torchvision, once more* shows how much of that is noise. *Of the
ceiling* is the time of the blocks' matrix multiplications alone, with the fastest kernel there is, by the time of the
whole model: what is left to gain. The fast path leaves out what nobody needs of the last block, so it may come above 1.
`vit_pytorch` is another architecture, without biases of query, key and value, and cannot hold these weights. `ours,
fast` is `vit.FastViT`, proved `equivalent` by `parity check vit:FastViT`.
"""
_COST = """
Beside a bare script ([`benchmarks/floor.py`](../benchmarks/floor.py)) that imports torch, builds both models with
shared weights and runs the same passes, comparing nothing. `python -m benchmarks.cost` runs one line of it.
"""
_GROWTH = """
Our ViT beside torchvision's at the patches and heads of H/14, eval mode, both dtypes, two images, a process each
(`python -m benchmarks.growth`). Memory is what is needed beside one float32 copy of the weights.
"""
_FUZZ = """
Drawn by `parity.strategies`, one process of one thread per core (`python -m benchmarks.fuzz`). Their arithmetic takes
next to no time. What does is Python: building two models, torch's calls of modules, and some 120 stops per pass to look
at what enters and leaves. *Bare* is how many a script would go through that builds both and runs the same passes,
comparing nothing: seven of each model in eval mode, thirteen in all modes. *align* runs both once to see in which order
modules are called, *forward* is the compared passes, and *doubts* runs them bare on other images.
"""
_SHOWN = ("vit_b_16, forward, batch 1", "vit_b_16, forward, batch 8", "vit_l_16, forward, batch 8")


def ratios(row: dict[str, Any], name: str) -> list[float]:
    """Returns, round by round, how many times as fast as the baseline an implementation was."""
    seconds = row["seconds"]
    return [base / own for base, own in zip(seconds[row["baseline"]], seconds[name], strict=True)]


def spread(values: list[float], digits: int = 2) -> str:
    """Returns the median and, in brackets, the least and the largest."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def fastest_first(row: dict[str, Any]) -> list[str]:
    """Returns the implementations in the order of how fast they were."""
    return sorted(row["seconds"], key=lambda name: -statistics.median(ratios(row, name)))


def listed(row: dict[str, Any]) -> Iterator[str]:
    """Yields a group's lines for a terminal: what each implementation took, and how many times as fast it was."""
    yield f"{'implementation':<28}  seconds  times as fast as {row['baseline']}"
    for name in fastest_first(row):
        yield f"{name:<28}  {statistics.median(row['seconds'][name]):7.3f}  {spread(ratios(row, name))}"


def write(known: dict[str, Any]) -> str:
    """Returns the page, in Markdown."""
    machine = ", ".join(f"{key} {value}" for key, value in known["machine"].items())
    picture = "![How fast, and how a check grows](performance.png)"
    parts = ["# Performance", _HEAD.strip(), f"Measured with {machine}.", picture]
    for part, lines in (("speed", _speed), ("cost", _cost), ("growth", _growth), ("fuzz", _fuzz)):
        if part in known:
            parts.append("\n".join(lines(known[part])))
    return "\n\n".join(parts) + "\n"


def _speed(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "## The scratch ViT beside others"
    yield ""
    yield _SPEED.strip()
    for row in rows:
        yield ""
        yield f"**{row['group']}**, {len(row['seconds'][row['baseline']])} rounds"
        yield ""
        has_ceiling = CEILING in row["seconds"]
        yield (
            "| implementation | times as fast | of the ceiling |"
            if has_ceiling
            else "| implementation | times as fast |"
        )
        yield "| --- | --- | --- |" if has_ceiling else "| --- | --- |"
        for name in fastest_first(row):
            cells = [name, spread(ratios(row, name))]
            if has_ceiling:
                pairs = zip(row["seconds"][CEILING], row["seconds"][name], strict=True)
                cells.append(f"{statistics.median(one / other for one, other in pairs):.2f}")
            yield f"| {' | '.join(cells)} |"


def _cost(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "## What a check costs"
    yield ""
    yield _COST.strip()
    yield ""
    yield "| check | rounds | wall time | processor time | memory at most | the script's |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        cells = [
            f"{row['name']}, {row['candidate']}, {row['what']}",
            f"{len(row['wall'])}",
            spread(row["wall"]),
            spread(row["processor"]),
            f"{row['memory'] / 1e9:.2f} GB",
            f"{row['floor_memory'] / 1e9:.2f} GB",
        ]
        yield f"| {' | '.join(cells)} |"


def _growth(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    yield "## How a check grows"
    yield ""
    yield _GROWTH.strip()
    for kind, rows in found.items():
        first = rows[0]
        yield ""
        yield f"| {kind} | time, {first[_key(kind)]} being 1 | memory beside the weights |"
        yield "| --- | --- | --- |"
        for row in rows:
            memory = (row["memory"] - row["weights"]) / 1e9
            yield f"| {row[_key(kind)]} | {row['seconds'] / first['seconds']:.2f} | {memory:.2f} GB |"


def _key(kind: str) -> str:
    return "layers" if kind == "depth" else "width"


def _fuzz(found: dict[str, Any]) -> Iterator[str]:
    yield "## Small configurations proved per second"
    yield ""
    yield _FUZZ.strip()
    yield ""
    yield "| checked in | per second | bare | where the time goes |"
    yield "| --- | --- | --- | --- |"
    for name, rate in found["rates"].items():
        shares = ", ".join(f"{step} {share:.0%}" for step, share in found["shares"][name].items())
        yield f"| {name}, float64 and float32 | {rate:.0f} | {found['bare'][name]:.0f} | {shares} |"


def draw(known: dict[str, Any], file: Path) -> None:
    """Draws how fast the implementations are and how a check grows."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (only for the picture)

    figure = Figure(figsize=(13, 8), layout="constrained")
    rows = [row for row in known.get("speed", []) if row["group"] in _SHOWN]
    upper, lower = figure.subfigures(2, 1, height_ratios=(3, 2))  # type: ignore[misc]
    for axes, row in zip(upper.subplots(1, max(1, len(rows)), squeeze=False)[0], rows, strict=False):
        names = sorted(row["seconds"], key=lambda name: statistics.median(ratios(row, name)))
        middle = [statistics.median(ratios(row, name)) for name in names]
        sides = [
            [m - min(ratios(row, name)) for m, name in zip(middle, names, strict=True)],
            [max(ratios(row, name)) - m for m, name in zip(middle, names, strict=True)],
        ]
        colours = ["#c44e52" if n.startswith("ours") else "#bbbbbb" if n == CEILING else "#4c72b0" for n in names]
        axes.barh(names, middle, xerr=sides, color=colours, error_kw={"elinewidth": 1, "ecolor": "#444444"})
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_title(row["group"])
        axes.set_xlabel("times as fast as torchvision")
    growth = known.get("growth", {})
    for axes, (kind, points) in zip(lower.subplots(1, 2), growth.items(), strict=False):
        x = [row[_key(kind)] for row in points]
        axes.plot(x, [row["seconds"] / points[0]["seconds"] for row in points], "o-", color="#4c72b0")
        axes.set_xlabel("blocks, 1280 wide" if kind == "depth" else "width, 4 blocks")
        axes.set_ylabel("time of a check, relative", color="#4c72b0")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
        other = axes.twinx()
        other.plot(x, [(row["memory"] - row["weights"]) / 1e9 for row in points], "s--", color="#c44e52")
        other.set_ylabel("GB beside the weights", color="#c44e52")
        other.set_ylim(0, other.get_ylim()[1] * 1.1)
    figure.savefig(file, dpi=110)


def compared(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Returns, a line each, how ratios have changed from one set of figures to another."""
    before = {row["group"]: row for row in old["speed"]}
    lines = []
    for row in new["speed"]:
        for name in row["seconds"]:
            if name in before.get(row["group"], {"seconds": {}})["seconds"]:
                one, other = ratios(before[row["group"]], name), ratios(row, name)
                change = statistics.median(other) / statistics.median(one)
                lines.append(f"{row['group']}, {name}: {spread(one)} -> {spread(other)}, times {change:.2f}")
    return "\n".join(lines)
