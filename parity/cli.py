"""The command line. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import json
import logging
import math
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from parity import saved_reports
from parity.errors import ParityError, in_one_line, lacks_memory, told
from parity.supervising import FAILED, INTERRUPTED, in_a_process_of_its_own, undisturbed
from parity.unfinished import Unfinished
from parity.writing import require_folder, whole, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from parity.mapping import Setup
    from parity.models import WeightMap
    from parity.report import Report
    from parity.transfer import OwnWeights


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    0: identical or equivalent; 1: divergent, or only equivalent under `--require identical`; 2: wrong usage or input;
    3: inconclusive; 130: interrupted.
    """
    options = parsed(arguments)
    with _unfinished(options) as unfinished:
        return _run(options, unfinished)


def console() -> int:
    """Runs the command line as `main` does, in a process of its own.

    Its exit status is that of `main`, or 143 where it was terminated, and 2 where the candidate or its native code has
    ended the process, or `--timeout` has. Where a report was asked for, that leaves the one so far.
    """
    try:
        options = parsed(None)
        with _unfinished(options) as unfinished:
            return in_a_process_of_its_own(
                lambda: _run(options, unfinished),
                _say,
                lambda why: _leave(unfinished, why),
                seconds=options.timeout,
                gigabytes=options.memory,
            )
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(options: argparse.Namespace, unfinished: Unfinished | None) -> int:
    logged = logging.StreamHandler()
    if options.traceback:
        logging.getLogger("parity").addHandler(logged)
    try:
        status: int = options.run(options, unfinished) if unfinished else options.run(options)
    except BaseException as error:  # noqa: BLE001  (no crash may look like a verdict)
        with undisturbed():
            if options.traceback:
                traceback.print_exc()
            return _ended(error, unfinished)
    finally:
        logging.getLogger("parity").removeHandler(logged)
    return status


def _ended(error: BaseException, unfinished: Unfinished | None) -> int:
    """Says what has ended the work, and returns the exit status."""
    if isinstance(error, KeyboardInterrupt):
        _say("interrupted")
        _leave(unfinished, "it was interrupted")
        return INTERRUPTED
    _say(told(error))
    if lacks_memory(error):
        _leave(unfinished, told(error))
    return FAILED


@contextlib.contextmanager
def _unfinished(options: argparse.Namespace) -> Iterator[Unfinished | None]:
    """Yields what keeps the report of a check, if one is asked for."""
    if options.run is not _check or options.json is None:
        yield None
        return
    names = {"reference": {"name": options.reference}, "candidate": {"name": options.candidate}}
    with tempfile.TemporaryFile(buffering=0) as notes:
        yield Unfinished(options.json, _print, {"schema": 1, **names}, notes)


def _leave(unfinished: Unfinished | None, why: str) -> None:
    if unfinished is not None:
        try:
            unfinished.leave(why)
        except ParityError as error:
            _say(f"{error}")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one sentence, with the closest word that it knows."""

    def error(self, message: str) -> NoReturn:
        """Says it, and exits with 2."""
        unknown = re.search(r"(?:unrecognized arguments: |invalid choice: ')([^\s'=]+)", message)
        choices = re.findall(r"[\w-]+", message.partition("choose from")[2])
        close = difflib.get_close_matches(unknown[1], choices or self._known(), n=1) if unknown else []
        hint = f"did you mean {close[0]}?" if close else f"{self.prog} --help lists what there is"
        _say(f"{message}; {hint}")
        self.exit(FAILED)

    def _known(self) -> list[str]:
        """Returns the names of all options, and those of its commands."""
        names = [name for action in self._actions for name in action.option_strings]
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
                names += [*action.choices, *(name for one in action.choices.values() for name in one._known())]  # noqa: SLF001
        return names


class _Version(argparse.Action):
    """Shows the versions of what decides about a result."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  (keeps --help quick)

        found = []
        for package in ("vit-parity", "torch", "torchvision"):
            with contextlib.suppress(PackageNotFoundError):
                found.append(f"{package} {version(package)}")
        _print(f"{', '.join(found)}\n")
        parser.exit()


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options; one that is given without a value is wrong usage."""
    parser = command_line()
    options = parser.parse_args(arguments)
    for key, value in vars(options).items():
        if value == "":
            flag = "CANDIDATE" if key == "candidate" else key.upper() if key in ("first", "second") else f"--{key}"
            _say(f"{flag.replace('_', '-')} is empty: give it a value, or leave it out")
            parser.exit(FAILED)
    return options


def command_line() -> _Parser:
    """Returns what reads the command line; `run` of what it reads does the work."""
    parser = _Parser(
        prog="parity", description="Proves that a hand-written ViT is numerically the same model as torchvision's."
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="show the versions of parity, torch and torchvision"
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
    _add_models(check)
    add("--weights", default="synthetic", metavar="WEIGHTS", help=f"synthetic (default), {_WEIGHTS}")
    _add_own_weights(check)
    add("--input", default="random", metavar="INPUT", help="random (default), or a picture or folder of pictures")
    add("--batch", type=int, default=3, metavar="N", help="images in the batch (default: 3)")
    add("--seed", type=int, default=0, metavar="N", help="of weights, random images and dropout (default: 0)")
    add("--dtype", default="float32", metavar="DTYPE",
        help="dtype under test beside float64: float32 (default), bfloat16, float16")
    add("--device", default="cpu", metavar="DEVICE", help="where to run (default: cpu); meta: compare only shapes")
    add("--modes", metavar="LIST", help="only these of eval,eval-no-fastpath,eval-grad,train (default: all)")
    add("--phases", default="forward", metavar="LIST",
        help="some of forward,backward,training,conditions (default: forward)")
    add("--steps", type=int, default=20, metavar="N", help="steps of the trajectories of training (default: 20)")
    add("--follow", action="store_true",
        help="the candidate's own sizes are meant: compare with torchvision's ViT of these sizes")
    add("--require", choices=("equivalent", "identical"), default="equivalent",
        help="identical: exit with 1 also when the candidate is only equivalent")
    add("--json", metavar="PATH", help="write the report as JSON; - for stdout, and nothing else there")
    saved_reports.add_files(check)
    add("-v", "--all-layers", action="store_true", help="show every layer and check, not only those that matter")
    add("--quiet", action="store_true", help="print the verdict only, and no progress")
    # fmt: on
    show_map = commands.add_parser(
        "map",
        help="show or write the weight map of a candidate",
        description="Finds which tensor of a torchvision ViT is which tensor of CANDIDATE, and prints the map as TOML.",
    )
    show_map.set_defaults(run=_map, quiet=False)
    _add_models(show_map)
    show_map.add_argument("-o", "--output", metavar="FILE", help="write the map to this file, for --mapping")
    show_map.add_argument("--weights", default="synthetic", metavar="WEIGHTS", help=f"of the reference: {_WEIGHTS}")
    _add_own_weights(show_map)
    show_map.add_argument("--check-weights", action="store_true",
                          help="compare the candidate's own weights with the reference's under this map")  # fmt: skip
    convert = commands.add_parser(
        "convert",
        help="move real weights into the candidate's own state dict, or back",
        description="Proves the weight map, and writes torchvision's weights under the names of CANDIDATE, as "
        "safetensors; or, with --reverse, the candidate's under torchvision's.",
    )
    convert.set_defaults(run=_convert, quiet=False)
    _add_models(convert)
    convert.add_argument(
        "--weights", required=True, metavar="WEIGHTS", help=f"{_WEIGHTS}; with --reverse a file of the candidate's own"
    )
    convert.add_argument("-o", "--output", required=True, metavar="OUT.safetensors", help="the file to write")
    convert.add_argument("--reverse", action="store_true", help="from the candidate's names to torchvision's")
    convert.add_argument("--force", action="store_true", help="convert although the map is not proved")
    diff = commands.add_parser(
        "diff",
        help="compare two checkpoints of one architecture, tensor by tensor",
        description="Compares two checkpoints of one architecture: which tensors differ, how, and what it does to the "
        "logits. A and B are files (PATH or PATH#KEY), or package.module:callable or file.py:callable that returns a "
        "model with its weights. Exit status: 0 the same weights, 1 others, 2 wrong usage or input.",
    )
    diff.set_defaults(run=_diff, quiet=False)
    add = diff.add_argument
    # fmt: off
    add("first", metavar="A", help="the one that is taken as right")
    add("second", metavar="B", help="the other")
    add("--model", metavar="CANDIDATE", help="what builds the model, where the files' names are not torchvision's")
    add("--model-arg", action="append", default=[], metavar="KEY=VALUE", help="an argument for it; may be repeated")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="what the files of a torchvision ViT don't show, such as num_heads=4; may be repeated")
    add("--json", metavar="PATH", help="write the answer as JSON; - for stdout, and nothing else there")
    # fmt: on
    for command in (check, show_map, convert, diff, *saved_reports.add_commands(commands, _print, _progress)):
        command.add_argument("--traceback", action="store_true", help="show the traceback of an error")
        command.add_argument(
            "--timeout", type=_positive, metavar="SECONDS", help="end it after that long, with status 2"
        )
        command.add_argument(
            "--memory", type=_positive, metavar="GB", help="let it have that much memory, 1e9 bytes each"
        )
    return parser


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")


_WEIGHTS = (
    "official, a member of torchvision's weights enum, own (those that another reference has when it is built), or a "
    "file: .pth, .safetensors, PATH#KEY"
)


def _add_models(command: argparse.ArgumentParser) -> None:
    """Adds the options that say what is compared with what."""
    add = command.add_argument
    # fmt: off
    add("candidate", nargs="?", default="vit:ViT", metavar="CANDIDATE",
        help="package.module:callable or path/to/file.py:callable that returns an nn.Module (default: vit:ViT)")
    add("--reference", default="vit_b_16", metavar="NAME",
        help="a ViT of torchvision's (default: vit_b_16), timm:NAME, transformers:CLASS, package.module:callable or "
        "path/to/file.py:callable")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change the configuration of a torchvision reference, such as image_size=384; may be repeated")
    add("--reference-arg", action="append", default=[], metavar="KEY=VALUE", dest="reference_args",
        help="an argument for a reference that is not torchvision's, such as img_size=384; may be repeated")
    add("--candidate-arg", action="append", default=[], metavar="KEY=VALUE", dest="candidate_args",
        help="an argument for the candidate that cannot be guessed (KEY.FIELD=VALUE in a config); may be repeated")
    add("--mapping", metavar="FILE", help="a written weight map (TOML)")
    # fmt: on


def _add_own_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument("--candidate-weights", metavar="PATH[#KEY]",
                         help="the candidate's own weights, in its own names: are they the reference's?")  # fmt: skip


def _models(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "candidate": options.candidate,
        "reference": options.reference,
        "overrides": _key_values(options.overrides, "--set"),
        "candidate_args": _key_values(options.candidate_args, "--candidate-arg"),
        "reference_args": _key_values(options.reference_args, "--reference-arg"),
        "mapping": options.mapping,
    }


def _check(options: argparse.Namespace, unfinished: Unfinished | None = None) -> int:
    if options.json not in (None, "-"):
        require_folder(Path(options.json))
    saved_reports.require_folders(options)
    models = _models(options)
    with _progress(quiet=options.quiet) as progress, contextlib.redirect_stdout(sys.stderr):
        progress("importing torch", 0, 0)
        from parity.checking import check  # noqa: PLC0415  (torch takes seconds to import)
        from parity.tracing import MODES  # noqa: PLC0415

        report = check(
            **models,
            weights=options.weights,
            candidate_weights=options.candidate_weights,
            input=options.input,
            batch=options.batch,
            seed=options.seed,
            dtype=options.dtype,
            device=options.device,
            modes=options.modes.split(",") if options.modes else tuple(MODES),
            phases=options.phases.split(","),
            steps=options.steps,
            follow=options.follow,
            progress=progress,
            so_far=unfinished.keep if unfinished else None,
        )
    with contextlib.ExitStack() as stack:
        if unfinished is not None:
            unfinished.give_up()
        if options.json not in (None, "-"):
            # the one is written whatever becomes of the other
            stack.callback(write, Path(options.json), report.to_json())
        stack.enter_context(saved_reports.files_written(report, options))
        _print(f"{report.to_json()}\n" if options.json == "-" else _rendered(report, options))
    if options.require == "identical" and report.verdict == "equivalent":
        _say("equivalent, and --require identical was asked for")
        return 1
    return report.exit_status


def _map(options: argparse.Namespace) -> int:
    if options.output:
        require_folder(Path(options.output))
    if options.candidate_weights and not options.check_weights:
        raise ParityError("--candidate-weights are compared with the reference's: ask for that with --check-weights")
    models = _models(options)
    with _progress(quiet=False) as progress, contextlib.redirect_stdout(sys.stderr):
        progress("finding the weight map", 0, 0)
        from parity.mapping import find_map_of  # noqa: PLC0415  (torch takes seconds to import)

        setup, module, found = find_map_of(**models, weights=options.weights)
        own = _own_weights(options, setup, module, found) if options.check_weights else None
    for line in (f"{len(found.entries)} entries ({found.origin})", *found.remarks()):
        _tell(line)
    if options.output:
        write(Path(options.output), found.to_toml().rstrip("\n"))
    else:
        _print(found.to_toml())
    if own is not None:
        for line in _told(own):
            _tell(line)
        if own.verdict == "different":
            return 1
    return 0 if found.is_complete else 3


def _own_weights(options: argparse.Namespace, setup: Setup, module: nn.Module, found: WeightMap) -> OwnWeights:
    """Compares the candidate's own weights with the reference's, tensor by tensor; nothing is run."""
    from parity.models import brought_by  # noqa: PLC0415  (torch takes seconds to import)
    from parity.transfer import compare_states  # noqa: PLC0415

    if setup.is_synthetic:
        raise ParityError("--check-weights: say whose weights they should be with --weights official or --weights PATH")
    brought = brought_by(setup.candidate, module, options.candidate_weights)
    if brought is None:
        raise ParityError("--check-weights: the candidate brings no weights; give them with --candidate-weights PATH")
    return compare_states(found, setup.weights.state_dict(setup.reference), brought.state, brought.source)


def _told(own: OwnWeights) -> list[str]:
    """Returns what is known of own weights, a line each."""
    return [own.summary(), *(f"{cause.statement}; {cause.hint}" for cause in own.causes), *own.notes]


def _diff(options: argparse.Namespace) -> int:
    if options.json not in (None, "-"):
        require_folder(Path(options.json))
    overrides = _key_values(options.overrides, "--set")
    arguments = _key_values(options.model_arg, "--model-arg")
    with _progress(quiet=False) as progress, contextlib.redirect_stdout(sys.stderr):
        progress("importing torch", 0, 0)
        from parity.diffing import diff  # noqa: PLC0415  (torch takes seconds to import)

        found = diff(options.first, options.second, model=options.model, overrides=overrides, model_args=arguments,
                     progress=progress)  # fmt: skip
    content = json.dumps(found.to_dict(), indent=1, allow_nan=False)
    if options.json != "-":
        _print("".join(f"{in_one_line(line)}\n" for line in found.lines()))
    if options.json:
        _print(f"{content}\n") if options.json == "-" else write(Path(options.json), content)
    return 0 if found.is_same else 1


def _convert(options: argparse.Namespace) -> int:
    output = Path(options.output)
    require_folder(output)
    if output.suffix != ".safetensors":
        raise ParityError(f"-o {output}: the file is written as safetensors; give it a name that ends in .safetensors")
    models = _models(options)
    with _progress(quiet=False) as progress, contextlib.redirect_stdout(sys.stderr):
        progress("importing torch", 0, 0)
        from parity.converting import convert  # noqa: PLC0415  (torch takes seconds to import)

        converted = convert(
            **models, weights=options.weights, reverse=options.reverse, force=options.force, progress=progress
        )
        progress("writing and reading back", 0, 0)
        with whole(output) as temporary:
            agreement = converted.write(temporary)
    proved_for = converted.report.mapping
    left = proved_for.without_counterpart() if proved_for and not converted.is_proved else ()
    for sentence in (*converted.notes, *left):
        _say(sentence)
    what = f"{len(converted.state)} tensors of {converted.source} under {converted.names}'s names"
    folded = (f"folded: {sentence}" for sentence in converted.folds)
    lines = (f"{output}: {what}; proof: {converted.proof}", *folded, agreement)
    _print("".join(f"{in_one_line(line)}\n" for line in lines))
    return 0


def _rendered(report: Report, options: argparse.Namespace) -> str:
    from rich.console import Console  # noqa: PLC0415  (keeps --help quick)

    if options.quiet:
        return f"{report.verdict}\n"
    console = Console(markup=False, highlight=False, width=saved_reports.width())
    return report.drawn(console, all_layers=options.all_layers)


def _print(text: str) -> None:
    """Writes to stdout; that nobody reads it, or stops early, says nothing about the verdict."""
    if sys.stdout is None:
        return
    is_real = sys.stdout is sys.__stdout__
    try:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
        if is_real:
            os.dup2(2, sys.stdout.fileno())  # what a candidate prints when Python exits is not a result
    except OSError as error:
        if is_real:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try once more as it exits
        if not isinstance(error, BrokenPipeError):
            raise ParityError(f"stdout cannot be written: {error.strerror}") from error


def _say(sentence: str) -> None:
    """Says something to the user."""
    _tell(f"parity: {sentence}")


def _tell(line: str) -> None:
    """Writes a line to stderr, if that takes it."""
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.write(f"{in_one_line(line)}\n")
            sys.stderr.flush()


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function that draws a progress bar on stderr; nothing is drawn where that is no terminal."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
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
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: too many brackets
            values[key] = text
    return values
