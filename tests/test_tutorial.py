"""The tutorial's notebook runs from its first cell to its last, and what it shows is what it says."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def test_every_cell_runs_and_gives_the_answer_that_is_shown() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    answers = []
    for number, cell in enumerate(cells, 1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)  # noqa: S102  (our own)
        shown = ["".join(output["text"]) for output in cell["outputs"]]
        assert [text.splitlines()[0] for text in shown] == printed.getvalue().splitlines()[:1]
        answers += shown
    assert [text.partition(":")[0].partition("\n")[0] for text in answers] == [
        "identical", "identical", "identical", "parameters", "divergent"
    ]  # fmt: skip
    said = answers[3].splitlines()
    assert said[1:] == ["allclose(atol=1e-3): True", "the same classes: True"]
