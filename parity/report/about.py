"""What a report says beside what was found: what was asked, how much memory it took, and what pictures show."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from parity.report.plain import as_json
from parity.report.report import Top

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.diagnosis import Check


def options_asked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a check as a report keeps them: models that were handed over, not named, are None."""
    kept = {key: value for key, value in arguments.items() if key not in ("progress", "so_far")}
    for side in ("candidate", "reference"):
        kept[side] = kept[side] if isinstance(kept[side], str) else None
    if kept["mapping"] is not None:
        kept["mapping"] = f"{kept['mapping']}"
    options: dict[str, Any] = as_json(kept)
    return options


def peak_memory() -> int | None:
    """Returns the most memory that this process has had so far, in bytes; None where the platform doesn't tell."""
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def top5(checks: list[Check], pictures: tuple[str, ...], categories: Sequence[str]) -> list[Top]:
    """Returns the likeliest classes of every picture by both models, from the last check that was made.

    There are none where an output is not (B, classes).

    Args:
        checks: of the forward pass.
        pictures: names of the first images of the batch.
        categories: names of the classes; empty where nobody knows.
    """
    shown = next((check.free for check in reversed(checks) if check.free), None)
    if (
        shown is None
        or shown.reference_output.ndim != 2
        or shown.candidate_output.shape != shown.reference_output.shape
    ):
        return []

    def best(logits: torch.Tensor) -> tuple[tuple[str, float], ...]:
        values, classes = logits.double().softmax(-1).topk(min(5, len(logits)))
        names = [categories[c] if c < len(categories) else f"class {c}" for c in classes.tolist()]
        return tuple(zip(names, values.tolist(), strict=True))

    rows = zip(pictures, shown.reference_output, shown.candidate_output, strict=False)
    return [Top(name, best(expected), best(found)) for name, expected, found in rows]
