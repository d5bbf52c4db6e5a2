"""The command line's `parity report` and `parity verify`, and the files beside JSON that a check writes."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.errors import ParityError
from parity.streams import progress_bar, show, width
from parity.writing import require_apart, require_folder, write

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from parity.report import Report

_FILES = ("html", "summary", "sarif")


def add_files(check: argparse.ArgumentParser) -> None:
    """Adds the options that name files for a check's report."""
    add = check.add_argument
    add("--html", metavar="PATH", help="write the report as an HTML page that needs no other file")
    add("--summary", metavar="PATH", help="write its summary as Markdown; to $GITHUB_STEP_SUMMARY it is appended")
    add("--sarif", metavar="PATH", help="write its causes as SARIF 2.1.0, pinned to the candidate's lines")


def require_folders(options: argparse.Namespace) -> None:
    """Raises ParityError if one of the files that are asked for cannot be written for want of a folder."""
    for path in asked(options).values():
        require_folder(Path(path))


@contextlib.contextmanager
def files_written(report: Report, options: argparse.Namespace) -> Iterator[None]:
    """Writes the files that are asked for when the context ends; each whatever becomes of the others."""
    with contextlib.ExitStack() as stack:
        for option, path in asked(options).items():
            stack.callback(_write, option, Path(path), report)
        yield


def _write(option: str, path: Path, report: Report) -> None:
    from parity.report import as_markdown, as_sarif, complete  # noqa: PLC0415  (torch takes seconds to import)

    if option == "--html":
        write(path, report.to_html())
    elif option == "--sarif":
        write(path, as_sarif(complete(report.to_dict())))
    else:
        write(path, _before(path) + as_markdown(complete(report.to_dict())))


def _before(path: Path) -> str:
    """Returns what a summary is appended to: all steps of a job of GitHub's write theirs to one file."""
    shared = os.environ.get("GITHUB_STEP_SUMMARY", "")
    if not shared or not path.exists() or path.resolve() != Path(shared).resolve():
        return ""
    return path.read_text(encoding="utf-8", errors="replace")


def asked(options: argparse.Namespace) -> dict[str, str]:
    """Returns the files that are asked for beside JSON, by option."""
    return {f"--{name}": path for name in _FILES if (path := getattr(options, name)) is not None}


def add_commands(commands: Any) -> list[argparse.ArgumentParser]:
    """Adds the commands that read saved reports to those of the command line, and returns them."""
    report = commands.add_parser(
        "report",
        help="draw a saved report again, or compare two",
        description="Draws a report that parity check --json has saved, as the check has; of two, says what has become "
        "better and worse. Exit status: 0, whatever the verdict is; 2 wrong usage, or no report.",
    )
    report.set_defaults(command="report", quiet=False, summary=None, sarif=None)
    add = report.add_argument
    add("report", metavar="REPORT.json", help="the saved report")
    add("other", nargs="?", metavar="OTHER.json", help="a later one, to be compared with it")
    add("--html", metavar="PATH", help="write it as an HTML page that needs no other file")
    add("-v", "--all-layers", action="store_true", help="show every layer and check, not only those that matter")
    verify = commands.add_parser(
        "verify",
        help="run the check of a saved report again: does its verdict still stand?",
        description="Hashes weights, weight map, the candidate's source files and the environment again, runs the "
        "check again with the report's options, from the folder in which it was run, and says what has changed. Exit "
        "status: 0 if the verdict stands, 1 if it doesn't or the report was edited, 2 wrong usage or input.",
    )
    verify.set_defaults(command="verify")
    verify.add_argument("report", metavar="REPORT.json", help="the saved report")
    verify.add_argument("--quiet", action="store_true", help="print the answer only, and no progress")
    return [report, verify]


def report(options: argparse.Namespace) -> int:
    """Draws a saved report, or two beside each other, and returns the exit status."""
    if options.html and options.other:
        raise ParityError("--html draws one report, not two beside each other")
    require_folders(options)
    require_apart({"--html": options.html}, (options.report, options.other))
    from rich.console import Console  # noqa: PLC0415  (keeps --help quick)

    from parity.report import as_html, drawn, drawn_beside, load  # noqa: PLC0415

    saved = load(Path(options.report))
    console = Console(markup=False, highlight=False, width=width())
    if options.other:
        other = load(Path(options.other))
        show(drawn_beside(saved, other, console))
        return 0
    if options.html:
        write(Path(options.html), as_html(saved))
    show(drawn(saved, console, all_layers=options.all_layers))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Says whether the verdict of a saved report still stands, and returns the exit status."""
    with progress_bar(quiet=options.quiet) as told, contextlib.redirect_stdout(sys.stderr):
        told("importing torch", 0, 0)
        from parity.verifying import verify as run_again  # noqa: PLC0415  (torch takes seconds to import)

        found = run_again(Path(options.report), told)
    lines = found.lines()[:1] if options.quiet else found.lines()
    show("".join(f"{line}\n" for line in lines))
    return 0 if found.stands else 1
