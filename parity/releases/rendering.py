"""What the rows say: in short for a terminal, and as a page with a picture."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import jinja2

from parity.releases.pairs import PAIRS
from parity.releases.rows import NOT_CHECKED
from parity.tracing import MODES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from parity.releases.comparing import Neighbours
    from parity.releases.rows import Row

NAME = "torch-matrix"

# the worst comes last
_WORST = ("identical", "equivalent", NOT_CHECKED, "inconclusive", "divergent")
_SIGNS = dict(zip(_WORST, "=≈·?≠", strict=True))
_AS_FORWARD = "forward"

# the picture, in units of its view box
_CELL, _GAP, _LEFT, _TOP, _STEP = 26, 10, 150, 122, 36


def kept(rows: list[Row], beside: list[Neighbours]) -> dict[str, Any]:
    """Returns what the page is drawn from: the rows without the digests, and what moved between them, as JSON types."""
    without = [{key: value for key, value in row.items() if key != "bits"} for row in rows]
    found: dict[str, Any] = json.loads(json.dumps({"rows": without, "neighbours": [one.to_dict() for one in beside]}))
    return found


def drawn(found: dict[str, Any]) -> dict[str, str]:
    """Returns the page, its picture and what both are drawn from, by file name.

    Args:
        found: as `kept` returns it.
    """
    rows, beside = found["rows"], found["neighbours"]
    page = {
        "rows": rows,
        "beside": [{**one, "groups": [*_groups(one["moves"], len(_models(rows)))]} for one in beside],
        "headline": headline(rows),
        "absent": [pair.torch for pair in PAIRS if pair.torch not in {row["torch"] for row in rows}],
        "others": _others(rows),
        "phases": _all_phases(rows) if any(len(made["phases"]) > 1 for row in rows for made in row["checks"]) else [],
        "tests": [*_tests(rows)],
        "large": [(row["torch"], row["large"]) for row in rows if row.get("large")],
        "machines": [*dict.fromkeys(map(_machine, rows))],
    }
    return {
        f"{NAME}.md": _templates().get_template("page.md.j2").render(**page),
        f"{NAME}.svg": _templates().get_template("grid.svg.j2").render(**_grid(rows, beside)),
        f"{NAME}.json": _as_json(found),
    }


def _as_json(found: dict[str, Any]) -> str:
    """Returns JSON with a line for every row."""
    parts = [f'"{key}": [\n' + ",\n".join(map(json.dumps, found[key])) + "\n]" for key in ("rows", "neighbours")]
    return "{" + ",\n".join(parts) + "}"


def in_short(rows: Iterable[Row], missing: dict[str, str], beside: Iterable[Neighbours]) -> Iterator[str]:
    """Yields a line for every release, and for what has moved between them."""
    for row in rows:
        name = f"torch {row['torch']} with torchvision {row['torchvision']}"
        tests = "".join(f"; {what}: {_result(found)}" for what, found in row.get("tests", {}).items())
        large = "".join(f"; {model} at full depth: {said}" for model, said in row.get("large", {}).items())
        yield f"{name}: {verdict_of(row)}{_exceptions(row)}{large}{tests}"
    for torch, why in missing.items():
        yield f"torch {torch}: {NOT_CHECKED}: {why}"
    for one in beside:
        yield f"from {one.older} to {one.newer}: {_in_words(one)}"


def verdict_of(row: Row) -> str:
    """Returns the worst verdict on a row's candidate, in the forward pass."""
    return _worst(made["verdict"] for made in _own(row))


def exit_status(rows: Iterable[Row], missing: Collection[str]) -> int:
    """Returns 1 if the candidate is divergent or fails a test on one release, 3 if nothing is known on one, or 0."""
    rows = [*rows]
    tests = [found for row in rows for found in row.get("tests", {}).values()]
    large = [verdict for row in rows for verdict in row.get("large", {}).values()]
    unknown = [*missing, *(found for found in tests if "why" in found)]
    verdict = _worst([*map(verdict_of, rows), *large, *(NOT_CHECKED for _ in unknown)])
    if verdict == "divergent" or any(found.get("failed") for found in tests):
        return 1
    return 0 if verdict in ("identical", "equivalent") else 3


def headline(rows: list[Row]) -> str:
    """Says how many releases have which verdict."""
    verdicts = [verdict_of(row) for row in rows]
    counted = [f"`{word}` on {verdicts.count(word)}" for word in _WORST if word in verdicts]
    return f"{', '.join(counted)} of {len(rows)} releases"


def _machine(row: Row) -> str:
    return f"{row['processor']}, {row['machine']}, {row['threads']} thread{'s' * (row['threads'] != 1)}"


def _own(row: Row) -> list[dict[str, Any]]:
    """Returns the checks of a row's own candidate in the forward pass."""
    return [made for made in row["checks"] if made["candidate"] == row["candidate"] and made["phases"] == [_AS_FORWARD]]


def _worst(verdicts: Iterable[str]) -> str:
    return max((word if word in _WORST else NOT_CHECKED for word in verdicts), key=_WORST.index, default=NOT_CHECKED)


def _exceptions(row: Row) -> str:
    """Says which models a worse verdict is about, and why."""
    verdict = verdict_of(row)
    if verdict == "identical":
        return ""
    first = next(made for made in _own(row) if _worst([made["verdict"]]) == verdict)
    return f" ({first['model']}{': ' * bool(first['why'])}{first['why']})"


def _result(found: dict[str, Any]) -> str:
    """Says what tests have come to."""
    if "why" in found:
        return f"{NOT_CHECKED}: {found['why']}"
    failed = f", {len(found['failed'])} failed: {', '.join(found['failed'])}" if found["failed"] else ""
    skipped = f", {sum(found['skipped'].values())} skipped" if found["skipped"] else ""
    return f"{found['passed']} passed{skipped}{failed}"


def _tests(rows: list[Row]) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yields, of rows that know it, the release, what was run, what it has come to, and why some were skipped."""
    for row in rows:
        for what, found in row.get("tests", {}).items():
            yield row["torch"], what, _result(found), [*found.get("skipped", {})]


def _in_words(one: Neighbours) -> str:
    unlike = f"; the rows have {', '.join(one.unlike)}" if one.unlike else ""
    if not one.moves:
        return f"no bit moved in {one.still} passes{unlike}"
    number = sum(len(move.modes) * len(move.sides) for move in one.moves)
    began = "; ".join(_from(first, one) for first in dict.fromkeys(move.first for move in one.moves))
    return f"bits moved in {number} of {number + one.still} passes: {began}{unlike}"


def _from(first: str, one: Neighbours) -> str:
    """Says in which modes bits moved from one layer on, and how far the logits have."""
    moves = [move for move in one.moves if move.first == first]
    modes = [mode for mode in MODES if any(mode in move.modes for move in moves)]
    logits = _largest(move.logits for move in moves)
    return f"from {first} on in {', '.join(modes)}{'' if logits is None else f' (the logits by {logits:.1e})'}"


def _others(rows: list[Row]) -> dict[str, list[str]]:
    """Returns, by candidate that is checked beside, its verdict in every row."""
    names = dict.fromkeys(made["candidate"] for row in rows for made in row["checks"])
    beside = [name for name in names if any(name != row["candidate"] for row in rows)]
    return {
        name: [_worst(m["verdict"] for m in row["checks"] if m["candidate"] == name) for row in rows] for name in beside
    }


def _all_phases(rows: list[Row]) -> list[dict[str, Any]]:
    """Returns, for every row, the verdict of the check of all phases and what is said about it."""
    found = []
    for row in rows:
        lacking: dict[str, Any] = {"verdict": NOT_CHECKED, "why": "", "runs": {}}
        made = next((m for m in row["checks"] if len(m["phases"]) > 1), lacking)
        runs = made["runs"].items()
        other = [f"{name} `{verdict}`" for name, verdict in runs if verdict not in ("identical", "not compared")]
        missing = [name for name, verdict in runs if verdict == "not compared"]
        found.append(
            {"torch": row["torch"], "verdict": made["verdict"], "why": made["why"], "other": other, "missing": missing}
        )
    return found


def _models(rows: list[Row]) -> list[str]:
    return [*dict.fromkeys(made["model"] for row in rows for made in _own(row))]


def _groups(moves: list[dict[str, Any]], every: int) -> Iterator[dict[str, Any]]:
    """Yields moves that began in the same layer, in the same modes and dtype, as one."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for move in moves:
        groups.setdefault((*move["sides"], *move["modes"], move["dtype"], move["first"]), []).append(move)
    for alike in groups.values():
        yield {
            **alike[0],
            "models": "all" if len(alike) == every else ", ".join(move["model"] for move in alike),
            **{key: _largest(move[key] for move in alike) for key in ("first_ulp", "max_ulp", "logits_ulp", "logits")},
        }


def _largest(distances: Iterable[float | None]) -> float | None:
    return max((distance for distance in distances if distance is not None), default=None)


def _grid(rows: list[Row], beside: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns where everything stands in the picture: a row per release, a column per model and mode."""
    models = _models(rows)
    columns = [(model, mode) for model in models for mode in MODES]
    places = {column: _LEFT + n * _CELL + n // len(MODES) * _GAP for n, column in enumerate(columns)}
    heights = {row["torch"]: _TOP + n * _STEP for n, row in enumerate(rows)}
    cells = [
        {"x": places[made["model"], mode], "y": heights[row["torch"]], "word": word, "sign": _SIGNS[word]}
        for row in rows
        for made in _own(row)
        for mode in MODES
        for word in [_of_mode(made, mode)]
    ]
    marks = {
        (places[move["model"], mode], heights[one["newer"]], move["dtype"])
        for one in beside
        for move in one["moves"]
        for mode in move["modes"]
        if (move["model"], mode) in places and one["newer"] in heights
    }
    width = max(places.values(), default=_LEFT) + _CELL + 4 * _GAP
    return {
        "width": width,
        "height": _TOP + len(rows) * _STEP + 76,
        "cell": _CELL,
        "rows": [
            {"y": heights[row["torch"]], "torch": row["torch"], "torchvision": row["torchvision"]} for row in rows
        ],
        "models": [{"x": places[model, next(iter(MODES))], "name": model} for model in models],
        "modes": [{"x": x, "name": mode} for (_, mode), x in places.items()],
        "cells": cells,
        "marks": [{"x": x, "y": y, "dtype": dtype} for x, y, dtype in sorted(marks)],
        "signs": _SIGNS,
        "top": _TOP,
        "headline": headline(rows).replace("`", ""),
    }


def _of_mode(made: dict[str, Any], mode: str) -> str:
    found = [verdict for name, verdict in made["runs"].items() if name.split("/")[:2] == [_AS_FORWARD, mode]]
    return _worst(found)


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("parity.releases"),
        autoescape=jinja2.select_autoescape(("svg.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ulp"] = _ulp
    environment.globals["verdict"] = lambda row: f"{verdict_of(row)}{_exceptions(row)}"
    return environment


def _ulp(value: int | None) -> str:
    return (
        "-"
        if value is None
        else f"{value:,}"
        if value < 10**6
        else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    )
