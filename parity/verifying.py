"""A saved report as a certificate: everything is hashed again, the check is run again, and what has changed is said."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parity.checking import check
from parity.errors import ParityError
from parity.report import complete, digest_of_report, read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_SAID = {"candidate": "the candidate's code has changed", "weights": "the weights have changed",
         "map": "the weight map is another one"}  # fmt: skip


@dataclass(frozen=True)
class Verification:
    """What has become of a report's verdict.

    Attributes:
        before: the verdict that the report says.
        after: that of the check that was run again.
        why: the new check's first reason.
        changes: what isn't as it was, a sentence each.
        is_edited: whether the report itself is not as it was written.
    """

    before: str
    after: str
    why: str
    changes: tuple[str, ...]
    is_edited: bool

    @property
    def stands(self) -> bool:
        """Whether the verdict still holds, and is the one that was written."""
        return self.before == self.after and not self.is_edited

    def lines(self) -> list[str]:
        """Returns what there is to say, a line each, the answer first."""
        edited = ["the report was edited after it was written, so what it says is nobody's verdict"] * self.is_edited
        if self.stands:
            answer = f"the verdict stands: {self.after}"
        elif self.before == self.after:
            answer = f"the report proves nothing, although the check run again is {self.after} as well"
        else:
            answer = f"the verdict does not stand: it is {self.after}, and was {self.before}: {self.why}"
        return [answer, *(f"- {said}" for said in [*edited, *self.changes] or ["nothing has changed"])]


def verify(path: Path, progress: Callable[[str, int, int], None] = lambda *_: None) -> Verification:
    """Runs the check of a saved report again and says what has changed since.

    Args:
        path: of the report.
        progress: told what is being done, how many points are done, and of how many (0: not known).

    Raises:
        ParityError: it is no report, or of a check that cannot be run again; the message says what to do.
    """
    saved = read(path)
    before = complete(saved)
    if not before["complete"]:
        raise ParityError(f"{path} is the report of a check that came to no end; run that again")
    if "report" not in before["digests"]:
        raise ParityError(f"{path} has no digests, so nobody can tell what has changed; write it anew")
    known = inspect.signature(check).parameters
    options = {key: value for key, value in saved.get("options", {}).items() if key in known}
    for side in ("candidate", "reference"):
        if not isinstance(options.get(side), str):
            raise ParityError(
                f"{path} is of a {side} that was handed over in Python; only one that is named, "
                "package.module:callable or file.py:callable, can be built again"
            )
    after = complete(check(**options, progress=progress).to_dict())
    return Verification(
        before=before["verdict"],
        after=after["verdict"],
        why=next(iter(after["reasons"]), ""),
        changes=tuple(_changes(before, after)),
        is_edited=digest_of_report(saved) != before["digests"]["report"],
    )


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    old, new = before["environment"], after["environment"]
    keys = [key for key in old if key in new and old[key] != new[key]]  # an older report tells of fewer
    changed = [f"the environment has changed: {key} is {new[key]}, was {old[key]}" for key in keys]
    digests = before["digests"], after["digests"]
    return changed + [said for key, said in _SAID.items() if digests[0].get(key) != digests[1].get(key)]
