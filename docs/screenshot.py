"""Draws what a failing check says, as `divergent.svg`: `python docs/screenshot.py`.

The command that is shown is the one that is run; what follows the model by depth is left out.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from parity.report import drawn, load

COMMAND = "parity check tests/candidates/eps_bias_pool.py:SmallViT --set image_size=32 --set num_layers=3"
LAST = "· rounding; "
WIDTH = 100
PICTURE = Path(__file__).with_name("divergent.svg")


def main() -> None:
    """Runs the command and writes the picture."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        subprocess.run([sys.executable, "-m", *shlex.split(COMMAND), "--json", file], check=False)  # noqa: S603  (ours)
        answer = drawn(load(file), Console(width=WIDTH, force_terminal=True, color_system="truecolor"))
    console = Console(width=WIDTH, record=True, file=io.StringIO())
    console.print(Text.assemble(("$ ", "dim"), COMMAND))
    for line in Text.from_ansi(answer).split():
        console.print(line, no_wrap=True)
        if line.plain.startswith(LAST):
            break
    console.print(Text("...", style="dim"))
    # nothing is fetched from elsewhere
    svg = re.sub(r" *@font-face \{.*?\}\n", "", console.export_svg(title="parity", unique_id="parity"), flags=re.DOTALL)
    PICTURE.write_text(svg.replace("Fira Code", "ui-monospace"), encoding="utf-8")


if __name__ == "__main__":
    main()
