"""Reports that were saved: read again, and given every key that a renderer asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from parity.errors import ParityError
from parity.reading import content_of
from parity.report.plain import LARGEST, in_a_line, printable

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1

# the verdicts, and the command line's exit status for each
EXIT_STATUS = {"identical": 0, "equivalent": 0, "divergent": 1, "inconclusive": 3}

# What a renderer asks for, and what it gets where a report hasn't got it. A list has one entry, which all of its
# entries look like, and so has an object whose one key is `...`; None stands for any single value, and an object in a
# tuple may be missing altogether.
_CODE = {"at": "", "text": ""}
_CAUSE = {"id": "", "statement": "", "where": [""], "residual": None, "without": None, "hint": "",
          "source": "", "candidate_code": [_CODE], "reference_code": [_CODE]}  # fmt: skip
_CHECK = {"name": "", "verdict": "", "why": None, "relative": None, "max_abs": None, "max_ulp": None,
          "identical": None, "noise_ratio": None, "points": None,
          "rows": [{"reference": "", "candidate": "", "what": "", "relative": None, "noise": None}]}  # fmt: skip
_PLACES = ({"rows": "", "leading": None, "largest": None, "cells": [""], "patches": [""]},)
_LAYER = {"reference": "", "candidate": None, "identical": None, "max_ulp": None, "noise_ratio": None,
          "isolated": None, "accumulated": None, "status": "", "why": None,
          "sizes": ({"ulps": [None], "reference": [None], "candidate": [None]},), "places": _PLACES,
          "rounded": None}  # fmt: skip
_PLACE = {"kind": "", "reference": "", "candidate": "", "before": "", "after": "", "isolated": None, "check": "",
          "problem": None, "places": _PLACES}  # fmt: skip
_MAPPING = {"tensors": None, "parameters": None, "source": "", "origin": "", "unmapped_reference": [""],
            "unmapped_candidate": [""], "certified_by_bijection": [""], "remarks": [""],
            "entries": [{"reference": "", "candidate": "", "layout": ""}]}  # fmt: skip
_WEIGHTS = {"verdict": "", "source": "", "compared": None, "notes": [""],
            "as_is": ({"relative": None, "max_abs": None, "identical": None},),
            "tensors": [{"candidate": "", "reference": "", "cause": "", "statement": "",
                         "relative": None}]}  # fmt: skip
_PATCHES = ({"largest": None, "patches": [""]},)
_LOOK = {"reference": _PATCHES, "candidate": _PATCHES, "difference": _PATCHES}
_REPORT = {
    "verdict": "",
    "reasons": [""],
    "reference": {"name": "the reference", "config": {}, "arguments": {}, "weights": ""},
    "candidate": {"name": "the candidate", "config": {}, "defaults": [""], "bound": {...: {"why": ""}}, "files": [""]},
    "environment": {},
    "input": "",
    "mapping": _MAPPING,
    "notes": [""],
    "checks": [_CHECK],
    "layers": [_LAYER],
    "origins": [_PLACE],
    "causes": [_CAUSE],
    "explanation": ({"complete": None, "minimal": None, "residual": None, "sentence": "", "of_train_mode": None},),
    "weights": (_WEIGHTS,),
    "top5": [{"picture": "", "reference": [[None]], "candidate": [[None]]}],
    "attention": [{"picture": "", "blocks": [_LOOK], "rollout": _LOOK, "why": ""}],
    "timings": {},
    "peak_memory": None,
    "options": {},
    "digests": {},
    "complete": None,
}


def read(path: Path) -> dict[str, Any]:
    """Reads a saved report and returns it as it is.

    Raises:
        ParityError: it cannot be read, or is no report; the message says why.
    """
    try:
        report: dict[str, Any] = json.loads(content_of(path))
    except OSError as error:
        raise ParityError(f"the report {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ParityError(f"{path} is no report: it is not JSON; write one with parity check --json") from error
    try:
        complete(report)
    except ParityError as error:
        raise ParityError(f"{path} is no report: {error}; write one with parity check --json") from error
    return report


def load(path: Path) -> dict[str, Any]:
    """Reads a saved report and returns it, complete.

    Raises:
        ParityError: it cannot be read, or is no report; the message says why.
    """
    return complete(read(path))


def complete(report: Any) -> dict[str, Any]:
    """Returns a report's JSON types with every key, and text that a terminal takes for no order.

    Raises:
        ParityError: it is no report; the message says why.
    """
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise ParityError(f"it has no schema {SCHEMA}")
    if report.get("verdict") not in [*EXIT_STATUS]:
        raise ParityError("it has no verdict")
    fitted: dict[str, Any] = _fitted(_REPORT, report, "it")
    return fitted


def _fitted(template: Any, value: Any, name: str) -> Any:
    """Returns a value in the form of a template; what the template doesn't know stays, as text is shown."""
    if isinstance(template, tuple):
        return None if value is None else _fitted(template[0], value, name)
    if isinstance(template, dict):
        if not isinstance(value, dict):
            raise ParityError(f"{name} is no object")
        if ... in template:
            return {in_a_line(key): _fitted(template[...], item, name) for key, item in value.items()}
        known = {
            key: _fitted(inner, value[key] if key in value else _nothing(inner), key) for key, inner in template.items()
        }
        return known | {in_a_line(key): _shown(item) for key, item in value.items() if key not in template}
    if isinstance(template, list):
        if not isinstance(value, list):
            raise ParityError(f"{name} is no list")
        return [_fitted(template[0], item, f"an entry of {name}") for item in value]
    if isinstance(value, (dict, list)):
        raise ParityError(f"{name} is no single value")
    return _shown(template if value is None else value if template is None else f"{value}")


def _nothing(template: Any) -> Any:
    """Returns what stands for a key that a report hasn't got."""
    if isinstance(template, dict):
        return {}
    return [] if isinstance(template, list) else None


def _shown(value: Any) -> Any:
    """Returns a value whose texts are lines that can be printed."""
    if isinstance(value, str):
        return printable(value.replace("\n", " "))
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"{value}"
    if isinstance(value, dict):
        return {in_a_line(key): _shown(item) for key, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value
