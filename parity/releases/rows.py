"""What is kept of one release: a line of JSON, and the tensors that its digests stand for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from parity.releases.pairs import PAIRS

if TYPE_CHECKING:
    from pathlib import Path

Row: TypeAlias = dict[str, Any]

SCHEMA = 1

# words that are no verdict: what a release lacks is not checked, never passed
NOT_CHECKED = "not checked"

# what a row calls the output of a whole model, beside the layers' names
LOGITS = "logits"

_KEYS = {
    "torch": str, "torchvision": str, "python": str, "machine": str, "processor": str, "cpu_capability": str,
    "threads": int, "libraries": dict, "candidate": str, "code": str, "checks": list, "bits": dict,
}  # fmt: skip


def file_of(folder: Path, torch: str, suffix: str = ".json") -> Path:
    """Returns the file in which a release's row is, or another one beside it."""
    return folder / f"torch-{torch}{suffix}"


def read_row(path: Path) -> Row | None:
    """Returns a row; None where there is none, or one that was cut off or is of another schema."""
    try:
        row = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and row.get("schema") == SCHEMA
    return row if is_row and all(isinstance(row.get(key), kind) for key, kind in _KEYS.items()) else None


def rows_in(folder: Path) -> list[Row]:
    """Returns the rows that there are, the oldest release first."""
    found = (read_row(file_of(folder, pair.torch)) for pair in PAIRS)
    return [row for row in found if row is not None]
