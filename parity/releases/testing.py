"""What tests say on the torch that is imported: the equivalence suite of a candidate, and the quick ones of ours."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

# what they need besides parity itself
NEEDS = ("pytest>=8", "hypothesis>=6.100", "scikit-learn>=1.3")

# those of ours that are about what torch does, and take less than a minute
QUICK = tuple(
    f"tests/test_{name}.py" for name in ("vit", "mapping", "weights", "fast", "tracing", "measuring", "dropout")
)

# pytest's exit status where all have passed, and where some have failed
_DONE = (0, 1)
_OUTCOMES = ("failure", "error", "skipped")


def equivalence_suite(candidate: str) -> dict[str, Any]:
    """Runs `pytest --pyargs parity` without what is at full size, of which a row has checks of its own.

    Args:
        candidate: as in `parity check`.

    Returns:
        As `tested` does.
    """
    return tested("--pyargs", "parity", "-p", "parity.plugin", f"--parity-candidate={candidate}")


def quick_tests(sources: Path) -> dict[str, Any] | None:
    """Runs the quick tests of this project, and returns what `tested` does; None where it is installed without them."""
    files = [sources / name for name in QUICK]
    return tested(*map(str, files)) if all(file.is_file() for file in files) else None


def tested(*words: str) -> dict[str, Any]:
    """Runs pytest in a process of its own, without tests at full size.

    Args:
        words: its arguments.

    Returns:
        How many tests have `passed`, the names of those that `failed`, and why others were `skipped`, with how many;
        only `why` where it has come to no end.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        own = ["-p", "no:cacheprovider", "-m", "not full_size", "-q", f"--junit-xml={results}"]
        command = [sys.executable, "-m", "pytest", *words, *own]
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
