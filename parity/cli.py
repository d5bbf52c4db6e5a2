"""The command line: `parity check`. Results go to stdout, progress and errors to stderr."""

# ruff: noqa: T201  (printing is what a command line is for)

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.errors import ParityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from parity.report import Report

USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    0: identical or equivalent; 1: divergent, or only equivalent under `--require identical`; 2: wrong usage or input;
    3: inconclusive.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except Exception as error:  # noqa: BLE001  (no crash may look like a verdict)
        if options.traceback:
            traceback.print_exc()
        is_users = isinstance(error, ParityError)
        what = error if is_users else f"a bug in parity itself, {type(error).__name__}: {error}; please report it"
        hint = "" if is_users or options.traceback else " with what --traceback shows"
        print(f"parity: {what}{hint}", file=sys.stderr)
        return USAGE_ERROR
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parity", description="Proves that a hand-written ViT is numerically the same model as torchvision's."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="compare a candidate with a reference, layer by layer",
        description="Compares CANDIDATE with a torchvision ViT, layer by layer, in float64 and float32, ends with a "
        "verdict. Exit status: 0 identical or equivalent, 1 divergent, 2 wrong usage or input, 3 inconclusive.",
    )
    check.set_defaults(run=_check)
    add = check.add_argument
    # fmt: off
    add("candidate", nargs="?", default="vit:ViT", metavar="CANDIDATE",
        help="package.module:callable or path/to/file.py:callable that returns an nn.Module (default: vit:ViT)")
    add("--reference", default="vit_b_16", metavar="NAME", help="a ViT of torchvision's (default: vit_b_16)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change the reference's configuration, such as image_size=384; may be repeated")
    add("--candidate-arg", action="append", default=[], metavar="KEY=VALUE", dest="candidate_args",
        help="an argument for the candidate that cannot be guessed; may be repeated")
    add("--weights", default="synthetic", metavar="WEIGHTS",
        help="synthetic (default), official, a member of torchvision's weights enum, or a .pth or .safetensors file")
    add("--mapping", metavar="FILE", help="a written weight map (TOML)")
    add("--input", default="random", metavar="INPUT", help="random (default), or a picture or folder of pictures")
    add("--batch", type=int, default=3, metavar="N", help="images in the batch (default: 3)")
    add("--seed", type=int, default=0, metavar="N", help="of weights, random images and dropout (default: 0)")
    add("--dtype", default="float32", metavar="DTYPE",
        help="dtype under test beside float64: float32 (default), bfloat16, float16")
    add("--device", default="cpu", metavar="DEVICE", help="where to run (default: cpu)")
    add("--modes", metavar="LIST", help="only these of eval,eval-no-fastpath,eval-grad,train (default: all)")
    add("--require", choices=("equivalent", "identical"), default="equivalent",
        help="identical: exit with 1 also when the candidate is only equivalent")
    add("--json", metavar="PATH", help="write the report as JSON; - for stdout, and nothing else there")
    add("--all-layers", action="store_true", help="show every layer, not only blocks and those that differ")
    add("--quiet", action="store_true", help="print the verdict only, and no progress")
    add("--traceback", action="store_true", help="show the traceback of an error")
    # fmt: on
    return parser


def _check(options: argparse.Namespace) -> int:
    if options.json not in (None, "-"):
        _require_folder(Path(options.json))
    overrides = _key_values(options.overrides, "--set")
    candidate_args = _key_values(options.candidate_args, "--candidate-arg")

    with _progress(quiet=options.quiet) as progress, contextlib.redirect_stdout(sys.stderr):
        progress("importing torch", 0, 0)
        from parity.checking import check  # noqa: PLC0415  (torch takes seconds to import)
        from parity.tracing import MODES  # noqa: PLC0415

        report = check(
            options.candidate,
            options.reference,
            overrides=overrides,
            candidate_args=candidate_args,
            weights=options.weights,
            mapping=options.mapping,
            input=options.input,
            batch=options.batch,
            seed=options.seed,
            dtype=options.dtype,
            device=options.device,
            modes=options.modes.split(",") if options.modes else tuple(MODES),
            progress=progress,
        )
    _print(f"{report.to_json()}\n" if options.json == "-" else _rendered(report, options))
    if options.json not in (None, "-"):
        _write(Path(options.json), report.to_json())
    if options.require == "identical" and report.verdict == "equivalent":
        print("parity: equivalent, and --require identical was asked for", file=sys.stderr)
        return 1
    return report.exit_status


def _rendered(report: Report, options: argparse.Namespace) -> str:
    from rich.console import Console  # noqa: PLC0415  (keeps --help quick)

    # a table that goes to a file or a pipe is not cut to some terminal's width
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 200)
    with console.capture() as capture:
        console.print(report.verdict if options.quiet else report.render(all_layers=options.all_layers), crop=False)
    return capture.get()


def _print(text: str) -> None:
    """Writes to stdout; whoever reads it may stop early, which says nothing about the verdict."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function that draws a progress bar on stderr; nothing is drawn where that is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console  # noqa: PLC0415  (keeps --help quick)
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, done: int, to_do: int) -> None:
            bar.update(task, description=what, completed=done, total=to_do or None)

        yield show


def _key_values(pairs: list[str], option: str) -> dict[str, Any]:
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise ParityError(f"{option} {pair}: expected KEY=VALUE")
        try:
            values[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[key] = text
    return values


def _require_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise ParityError(f"the report cannot be written to {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ParityError(f"the report cannot be written to {path}: it is a folder")


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all; what is no ordinary file, such as a pipe, is written to as it is."""
    path = path.resolve()
    try:
        if path.exists() and not path.is_file():
            path.write_text(text + "\n", encoding="utf-8")
            return
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ParityError(f"the report cannot be written to {path}: {error.strerror}") from error
