"""The report of a check that comes to no end: what was found so far, for whoever asked for a report.

The worker notes the report after every step, in a file without a name that its parent reads as well. So it is there
however the worker ends.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.writing import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO

    from parity.report import Report


class Unfinished:
    """Keeps the report so far.

    Args:
        target: where the report is wanted: a path, or `-` for stdout.
        show: writes a text to stdout.
        empty: the report before anything is known, as JSON types.
        notes: a file without a name.
    """

    def __init__(self, target: str, show: Callable[[str], None], empty: dict[str, Any], notes: FileIO) -> None:
        self._target = target if target == "-" else str(Path(target).absolute())
        self._show = show
        self._empty = empty
        self._notes = notes

    def keep(self, report: Report) -> None:
        """Notes the report so far."""
        with contextlib.suppress(Exception):  # of a bug of ours, which the report at the end tells of
            self._note(report.to_dict())

    def give_up(self) -> None:
        """Says that the finished report takes the place of this one."""
        self._note(None)

    def _note(self, report: dict[str, Any] | None) -> None:
        with contextlib.suppress(OSError):  # no room for it: then what was noted before is all there is
            self._notes.write(b"\n" + json.dumps(report).encode())

    def leave(self, why: str) -> None:
        """Writes the report so far to where it is wanted, unless the finished one is there.

        Args:
            why: there is no finished one, in a sentence.

        Raises:
            ParityError: it cannot be written.
        """
        report = self._noted()
        if report is None:
            return
        steps = [*report.get("timings", ())]
        after = f"after the step {steps[-1]}" if steps else "before the first step was done"
        report |= {
            "verdict": "inconclusive",
            "reasons": [f"the check came to no end: {why} ({after})"],
            "complete": False,
        }
        content = json.dumps(report, indent=1)
        if self._target == "-":
            self._show(f"{content}\n")
        else:
            write(Path(self._target), content)

    def _noted(self) -> dict[str, Any] | None:
        self._notes.seek(0)
        for line in reversed(self._notes.read().split(b"\n")):
            with contextlib.suppress(ValueError):  # it was cut off
                noted: dict[str, Any] | None = json.loads(line)
                return noted
        return self._empty
