"""What the equivalence suite, `pytest --pyargs parity`, says of a candidate on the torch that is imported."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

# what it needs besides parity itself
NEEDS = ("pytest>=8", "hypothesis>=6.100")

# pytest's exit status where all have passed, and where some have failed
_DONE = (0, 1)
_OUTCOMES = ("failure", "error", "skipped")


def tested(candidate: str, *more: str) -> dict[str, Any]:
    """Runs the suite in a process of its own, without what is at full size, of which a row has checks of its own.

    Args:
        candidate: as in `parity check`.
        more: arguments of pytest.

    Returns:
        How many tests have `passed`, the names of those that `failed`, and why others were `skipped`, with how many;
        only `why` where it has come to no end.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        words = ["-p", "parity.plugin", "-p", "no:cacheprovider", "-m", "not full_size", "-q", *more]
        suite = [sys.executable, "-m", "pytest", "--pyargs", "parity", *words]
        command = [*suite, f"--parity-candidate={candidate}", f"--junit-xml={results}"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603  (ours)
        if done.returncode not in _DONE:
            said = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
            return {"why": said[-1].strip() if said else f"exit status {done.returncode}"}
        cases = [*ET.parse(results).iter("testcase")]  # noqa: S314  (pytest's own)
    found: dict[str, Any] = {"passed": 0, "failed": [], "skipped": {}}
    for case in cases:
        outcome = next((child for child in case if child.tag in _OUTCOMES), None)
        if outcome is None:
            found["passed"] += 1
        elif outcome.tag == "skipped":
            why = outcome.get("message", "")
            found["skipped"][why] = found["skipped"].get(why, 0) + 1
        else:
            found["failed"].append(case.get("name"))
    return found
