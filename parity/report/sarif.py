"""A report as SARIF 2.1.0, which code hosts show beside the lines of a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from parity.report import answer
from parity.report.source_lines import lines_named

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_sarif(report: dict[str, Any]) -> str:
    """Returns a report as SARIF: a result per cause; one for the verdict where there is no cause to a difference.

    A result is pinned to the candidate's line where that is known, and else to the first line of its file.

    Args:
        report: its JSON types, complete as `saved.complete` makes it.
    """
    results = [
        _result(
            cause["id"] or "cause", _told(shown), "error", lines_named(cause["source"], _files(report)) or _file(report)
        )
        for cause, shown in zip(report["causes"], answer.causes(report), strict=True)
    ]
    if not results and report["verdict"] in ("divergent", "inconclusive"):
        text = f"{answer.headline(report)}: {answer.meaning(report)[0]}"
        level = "error" if report["verdict"] == "divergent" else "warning"
        results = [_result(report["verdict"], text, level, _file(report))]
    rules = [{"id": name} for name in dict.fromkeys(result["ruleId"] for result in results)]
    run = {"tool": {"driver": {"name": "parity", "rules": rules}}, "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def _result(rule: str, text: str, level: str, places: list[tuple[str, int]]) -> dict[str, Any]:
    locations = [
        {"physicalLocation": {"artifactLocation": {"uri": _address(file)}, "region": {"startLine": line}}}
        for file, line in places
    ]
    return {"ruleId": rule, "level": level, "message": {"text": text}, "locations": locations}


def _told(cause: answer.CauseShown) -> str:
    parts = (
        cause.statement,
        f"in {cause.where}" * bool(cause.where),
        cause.size,
        f"mend it with {cause.hint}" * bool(cause.hint),
    )
    return "; ".join(filter(None, parts))


def _files(report: dict[str, Any]) -> list[str]:
    """Returns the candidate's files, its own one first."""
    path = answer.name_of(report, "candidate").rpartition(":")[0]
    return [*([path] if path.endswith((".py", ".ipynb")) else []), *report["candidate"]["files"]]


def _file(report: dict[str, Any]) -> list[tuple[str, int]]:
    """Returns the first line of the candidate's own file, if it is known."""
    return [(file, 1) for file in _files(report)[:1]]


def _address(file: str) -> str:
    path = Path(file)
    inside = path.relative_to(Path.cwd()) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path
    return inside.as_uri() if inside.is_absolute() else quote(inside.as_posix())
