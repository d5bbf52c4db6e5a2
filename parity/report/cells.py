"""Grids of cells as strokes of a picture: one path for all cells of a step, so that a page stays small."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def shades(rows: list[list[int]], least: int, opacity: Callable[[int], float]) -> list[tuple[str, str]]:
    """Returns opacities and the paths that are drawn with them, cells of a unit wide and high.

    Args:
        rows: the step of every cell.
        least: the smallest step that is drawn.
        opacity: of a step.
    """
    strokes: dict[int, list[str]] = defaultdict(list)
    for y, row in enumerate(rows):
        x = 0
        for step, run in groupby(row):
            length = len([*run])
            if step >= least:
                strokes[step].append(f"M{x} {y}h{length}")
            x += length
    return [(f"{opacity(step):.2f}", "".join(drawn)) for step, drawn in sorted(strokes.items())]
