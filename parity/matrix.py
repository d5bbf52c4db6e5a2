"""The command line's `parity matrix`: the same check on many releases of torch."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.errors import ParityError
from parity.streams import show, tell
from parity.writing import write

if TYPE_CHECKING:
    import argparse

_FOLDER = ".parity-matrix"


def add_command(commands: Any) -> argparse.ArgumentParser:
    """Adds the command to those of the command line, and returns it."""
    command: argparse.ArgumentParser = commands.add_parser(
        "matrix",
        help="check a candidate on many releases of torch: is it the same on all, and what moved between them?",
        description="Checks CANDIDATE on release after release of torch, each in a virtual environment that is "
        "made by uv or pip and removed when done, and says which layer's bits moved between neighbours. What is done "
        "already is not done again. On our own ViT the equivalence suite is run as well. Exit status: 0 identical or "
        "equivalent on all, 1 divergent on one or a test has failed, 2 wrong usage or input, 3 inconclusive or not "
        "checked on one.",
    )
    command.set_defaults(command="matrix", quiet=False)
    add = command.add_argument
    # fmt: off
    add("candidate", nargs="?", default="vit:ViT", metavar="CANDIDATE",
        help="package.module:callable or path/to/file.py:callable that returns an nn.Module (default: vit:ViT)")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--torch", metavar="LIST", help="only these releases, such as 2.4,2.8,2.14 (default: all)")
    which.add_argument("-n", "--newest", type=int, metavar="N", help="only the newest N releases")
    add("--with", action="append", default=[], metavar="REQUIREMENT", dest="extra",
        help="install this as well, for the candidate; may be repeated")
    add("--python", metavar="PYTHON",
        help="make environments with this interpreter (default: this one, or another that a release has builds for)")
    add("--folder", default=_FOLDER, metavar="PATH",
        help=f"where results are kept and environments made, some 11 GB at a time (default: {_FOLDER})")
    add("-j", "--jobs", type=int, default=1, metavar="N", help="look at N releases at once (default: 1)")
    add("--keep", action="store_true", help="leave the environments there, to look into a release by hand")
    add("--render", action="store_true",
        help="run nothing: write torch-matrix.md, .svg and .json from the results that are there")
    add("-o", "--output", default="docs", metavar="FOLDER", help="where --render writes (default: docs)")
    # fmt: on
    return command


def matrix(options: argparse.Namespace) -> int:
    """Runs what is asked for and says what was found, or draws what is there; returns the exit status."""
    with contextlib.redirect_stdout(sys.stderr):
        from parity.releases import (  # noqa: PLC0415  (torch takes seconds to import)
            PAIRS,
            Asked,
            exit_status,
            in_short,
            neighbours,
            newest,
            picked,
            run,
        )

        folder = Path(options.folder)
        if options.render:
            return _render(folder, Path(options.output))
        if options.newest is not None and options.newest < 1:
            raise ParityError(f"--newest {options.newest}: expected a positive whole number")
        if options.jobs < 1:
            raise ParityError(f"--jobs {options.jobs}: expected a positive whole number")
        pairs = [*PAIRS]
        if options.newest:
            pairs = newest(options.newest)
        elif options.torch:
            pairs = picked(options.torch)
        asked = Asked(options.candidate, pairs, folder, options.extra, options.python, options.keep, options.jobs)
        found, missing = run(asked, tell)
        rows = [found[pair.torch] for pair in pairs if pair.torch in found]
        lines = [*in_short(rows, missing, neighbours(rows, folder))]
    show("".join(f"{line}\n" for line in lines))
    return exit_status(rows, missing)


def _render(folder: Path, output: Path) -> int:
    from parity.releases import drawn, kept, neighbours, rows_in  # noqa: PLC0415  (torch takes seconds to import)

    rows = rows_in(folder)
    if not rows:
        raise ParityError(f"--folder {folder}: there are no results in it; run parity matrix first")
    if not output.is_dir():
        raise ParityError(f"--output {output}: there is no such folder")
    for name, content in drawn(kept(rows, neighbours(rows, folder))).items():
        write(output / name, content.rstrip("\n"))
    return 0
