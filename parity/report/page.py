"""A report as an HTML page that needs no other file, and the part of it that a notebook shows."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jinja2
import torch

from parity.diagnosis import DTYPES
from parity.report import answer
from parity.report.figures import Figures, figures_of
from parity.report.looks import pictures_of
from parity.report.wording import ROUNDING, count, decades, is_number, number, ulps
from parity.tracing import SAME_FUNCTION_BOUND

# how warm an error is: clean, or from so many decades above rounding on
_WARM = (2, 5, 9)

# the chart: its size, and the powers of ten that it shows; an error of 0 stands at the lowest
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 300, 64, 944, 12, 264
_LOWEST, _HIGHEST = -17, 1
_TICKS = (-16, -8, -4, 0)
_MOST_LABELS = 24

_KINDS = {"not compared": "doubt", "other recipe": "doubt", "set aside": "doubt"}


@dataclass
class Chart:
    """Where everything stands in the picture of the error against depth, in units of its view box.

    Attributes:
        words: the picture, told.
        ticks: levels of error, with their labels.
        blocks: where each block begins.
        lines: the accumulated error in float64, as polylines.
        rounded: the same in the dtype under test.
        dtype: that dtype.
        rounding: half a unit of its last place; an empty text where that dtype is float64.
        points: the isolated errors.
    """

    words: str
    ticks: list[dict[str, Any]]
    blocks: list[dict[str, Any]]
    lines: list[str]
    rounded: list[str]
    dtype: str
    rounding: str
    points: list[dict[str, Any]] = field(default_factory=list)
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _RIGHT
    top: int = _TOP
    bottom: int = _BOTTOM
    floor: str = f"{ROUNDING:.0e}"
    bound: str = f"{SAME_FUNCTION_BOUND:.0e}"


@dataclass(frozen=True)
class Drawn:
    """What is drawn of a layer, or of the code between two.

    Attributes:
        title: its name.
        figures: the pictures.
        begins: whether a difference begins there.
    """

    title: str
    figures: Figures
    begins: bool


def as_html(report: dict[str, Any]) -> str:
    """Returns a report as a whole page.

    Args:
        report: its JSON types, complete as `saved.complete` makes it.
    """
    stages = answer.stages(report)
    glue = _glue(report, stages)
    drawn = [_drawn(stage, glue.get(stage.name, [])) for stage in stages]
    return _templates().get_template("page.html.j2").render(
        **_top(report),
        stages=stages,
        first=next((stage for stage in stages if stage.is_origin), None),
        drawn=drawn,
        first_drawn=next((one for of_stage in drawn for one in of_stage if one.begins), None),
        dtype=report["options"].get("dtype") or "float32",
        titles=[_title(stage) for stage in stages],
        glue=glue,
        numbers=_numbers(report),
        own=[_own(report, entry["candidate"]) for entry in report["mapping"]["entries"]],
        about=list(answer.about(report, every=True)),
        command=answer.command(report),
        tops=list(answer.tops(report)),
        pictures=pictures_of(report),
    )  # fmt: skip


def excerpt(report: dict[str, Any]) -> str:
    """Returns the top of the page as a part of another one: the answer, its causes, the error against depth."""
    top = _templates().get_template("top.html.j2").render(**_top(report))
    style = _templates().get_template("style.css").render()
    return f'<div class="parity"><style>{style}</style>{top}</main></div>'


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("parity.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"number": number, "ulps": ulps, "count": count, "heat": _heat, "kind": _kind}
    return environment


def _top(report: dict[str, Any]) -> dict[str, Any]:
    meaning, reasons = answer.meaning(report)
    seconds = report["timings"].get("total")
    return {
        "report": report,
        "headline": answer.headline(report).partition(": ")[2],
        "meaning": meaning,
        "reasons": reasons,
        "causes": answer.causes(report),
        "compared": answer.compared(report),
        "seconds": number(seconds) if is_number(seconds) else "",
        "chart": _chart(report),
    }


def _heat(value: Any) -> int:
    """Returns how warm an error is, from 0 to 3."""
    return sum(decades(value) >= least for least in _WARM)


def _kind(word: str) -> str:
    """Returns the class of an element that shows a verdict or a status."""
    return _KINDS.get(word, word if word.isalpha() else "")


def _title(stage: answer.Stage) -> str:
    around = {answer.BEFORE: "Before the blocks", answer.AFTER: "Behind the blocks"}
    return around.get(stage.name, f"Block {stage.label}")


def _glue(report: dict[str, Any], stages: list[answer.Stage]) -> dict[str, list[dict[str, Any]]]:
    """Returns the code between modules that has an error of its own, by the stage that shows it."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for place in report["origins"]:
        if place["kind"] != "module":
            holding = (s.name for s in stages if any(row["reference"] == place["reference"] for row in s.layers))
            found[next(holding, stages[-1].name)].append(place)
    return found


def _own(report: dict[str, Any], part: str) -> list[str]:
    """Says what is wrong with a tensor of the candidate's own weights, of which the map may take a part alone."""
    whole = part.partition("[")[0]
    tensors = (report["weights"] or {}).get("tensors", ())
    return [tensor["statement"] for tensor in tensors if tensor["candidate"] in (part, whole)]


def _numbers(report: dict[str, Any]) -> dict[str, int]:
    """Returns a number for each layer, by which its row, its point and its figures know each other."""
    return {layer["reference"]: number for number, layer in enumerate(report["layers"])}


def _drawn(stage: answer.Stage, glue: list[dict[str, Any]]) -> list[Drawn]:
    """Returns what is drawn of a stage's layers, and of the code between them that has an error of its own."""
    rows = [(row["reference"], row, row["status"] == "origin") for row in stage.layers]
    rows += [(f"between {place['before']} and {place['after']}", place, True) for place in glue]
    return [Drawn(title, shown, begins) for title, row, begins in rows if (shown := figures_of(row))]


def _chart(report: dict[str, Any]) -> Chart | None:
    """Returns the picture of the error against depth; None where nothing was measured."""
    staged = [(stage, layer) for stage in answer.stages(report) for layer in stage.layers]
    shown = [(s, row) for s, row in staged if is_number(row["isolated"]) or is_number(row["accumulated"])]
    if not shown:
        return None
    step = (_RIGHT - _LEFT) / len(shown)
    places = [_LEFT + step * (place + 0.5) for place in range(len(shown))]
    firsts = [n for n, (stage, _) in enumerate(shown) if n == 0 or stage is not shown[n - 1][0]]
    every = math.ceil(len(firsts) / _MOST_LABELS)
    names = [name if n % every == 0 else "" for n, name in enumerate(shown[first][0].label for first in firsts)]
    blocks = [{"at": round(places[n] - step / 2, 1), "label": name} for n, name in zip(firsts, names, strict=True)]
    dtype = f"{report['options'].get('dtype') or 'float32'}"
    rounding = torch.finfo(DTYPES[dtype]).eps / 2 if dtype in DTYPES and dtype != "float64" else None
    levels = [*((10.0**power, f"1e{power:02d}" if power else "1", "grid") for power in _TICKS),
              (ROUNDING, "", "floor"), (SAME_FUNCTION_BOUND, f"{SAME_FUNCTION_BOUND:.0e}", "bound"),
              *([(rounding, "", "floor")] if rounding else [])]  # fmt: skip
    numbers = _numbers(report)
    begins = {p["reference"]: p["isolated"] for p in report["origins"] if is_number(p["isolated"])}
    own = [(x, row["reference"], row["isolated"]) for x, (_, row) in zip(places, shown, strict=True)]
    points = [
        {
            "x": f"{x:.1f}",
            "y": f"{_height(begins.get(name, error)):.1f}",
            "begins": name in begins,
            "number": numbers.get(name, ""),
            "label": f"{name}: {number(begins.get(name, error))}",
        }
        for x, name, error in own
        if is_number(error)
    ]
    return Chart(
        words=_told(report, [row for _, row in shown]),
        ticks=[{"at": round(_height(level), 1), "label": label, "kind": kind} for level, label, kind in levels],
        blocks=blocks,
        lines=list(_lines(places, [row["accumulated"] for _, row in shown])),
        rounded=list(_lines(places, [row["rounded"] for _, row in shown])) if rounding else [],
        dtype=dtype,
        rounding=f"{rounding:.0e}" if rounding else "",
        points=points,
    )


def _height(value: float) -> float:
    power = min(_HIGHEST, max(_LOWEST, math.log10(value))) if value > 0 else _LOWEST
    return _BOTTOM - (power - _LOWEST) / (_HIGHEST - _LOWEST) * (_BOTTOM - _TOP)


def _lines(places: list[float], values: list[Any]) -> list[str]:
    """Returns the points of a line through `values`, and of another one behind each gap."""
    pairs = itertools.groupby(zip(places, values, strict=True), lambda pair: is_number(pair[1]))
    return [" ".join(f"{x:.1f},{_height(y):.1f}" for x, y in part) for there, part in pairs if there]


def _told(report: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Says what the picture shows."""
    first = next((row["reference"] for row in rows if row["status"] == "origin"), None)
    own, summed = ([row[key] for row in rows if is_number(row[key])] for key in ("isolated", "accumulated"))
    begins = f"a difference begins in {first}; " if first else ""
    most = [
        f"the largest {what} is {number(max(sizes))}"
        for what, sizes in (("own error", own), ("error summed up", summed))
        if sizes
    ]
    return f"{len(rows)} layers; {begins}{', '.join(most)}; {answer.name_of(report, 'reference')} is the reference"
