"""The command line. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity import matrix, saved_reports
from parity.command_line import parsed
from parity.errors import ParityError, in_one_line, lacks_memory, told
from parity.streams import keep_closed_ones_free, progress_bar, say, show, tell, width
from parity.supervising import FAILED, INTERRUPTED, in_a_process_of_its_own, interruptions_noted, undisturbed
from parity.unfinished import Unfinished
from parity.writing import require_apart, require_folder, whole, write

if TYPE_CHECKING:
    import argparse
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
    keep_closed_ones_free()
    try:
        options = parsed(None)
        with _unfinished(options) as unfinished:
            return in_a_process_of_its_own(
                lambda: _run(options, unfinished),
                say,
                lambda why: _leave(unfinished, why),
                seconds=options.timeout,
                gigabytes=options.memory,
            )
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(options: argparse.Namespace, unfinished: Unfinished | None) -> int:
    logged, interruptions = logging.StreamHandler(), list[int]()
    if options.traceback:
        logging.getLogger("parity").addHandler(logged)
    try:
        work = _COMMANDS[options.command]
        with interruptions_noted() as interruptions:
            status = work(options, unfinished) if unfinished else work(options)
    except BaseException as error:  # noqa: BLE001  (no crash may look like a verdict)
        with undisturbed():
            if options.traceback:
                traceback.print_exc()
            return _ended(KeyboardInterrupt() if interruptions else error, unfinished)
    finally:
        logging.getLogger("parity").removeHandler(logged)
    return status


def _ended(error: BaseException, unfinished: Unfinished | None) -> int:
    """Says what has ended the work, and returns the exit status."""
    if isinstance(error, KeyboardInterrupt):
        say("interrupted")
        _leave(unfinished, "it was interrupted")
        return INTERRUPTED
    say(told(error))
    if lacks_memory(error):
        _leave(unfinished, told(error))
    return FAILED


@contextlib.contextmanager
def _unfinished(options: argparse.Namespace) -> Iterator[Unfinished | None]:
    """Yields what keeps the report of a check, if one is asked for."""
    if options.command != "check" or options.json is None:
        yield None
        return
    names = {"reference": {"name": options.reference}, "candidate": {"name": options.candidate}}
    with tempfile.TemporaryFile(buffering=0) as notes:
        yield Unfinished(options.json, show, {"schema": 1, **names}, notes)


def _leave(unfinished: Unfinished | None, why: str) -> None:
    if unfinished is not None:
        try:
            unfinished.leave(why)
        except ParityError as error:
            say(f"{error}")


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
    given = (options.candidate, options.reference, options.mapping, options.weights, options.candidate_weights)
    require_apart({"--json": options.json, **saved_reports.asked(options)}, [*given, options.input])
    models = _models(options)
    with progress_bar(quiet=options.quiet) as progress, contextlib.redirect_stdout(sys.stderr):
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
        show(f"{report.to_json()}\n" if options.json == "-" else _rendered(report, options))
    if options.require == "identical" and report.verdict == "equivalent":
        say("equivalent, and --require identical was asked for")
        return 1
    return report.exit_status


def _map(options: argparse.Namespace) -> int:
    if options.output:
        require_folder(Path(options.output))
    if options.candidate_weights and not options.check_weights:
        raise ParityError("--candidate-weights are compared with the reference's: ask for that with --check-weights")
    given = (options.candidate, options.reference, options.weights, options.candidate_weights)
    require_apart({"-o": options.output}, given)  # a map may take the place of the one that it comes of
    models = _models(options)
    with progress_bar(quiet=False) as progress, contextlib.redirect_stdout(sys.stderr):
        progress("finding the weight map", 0, 0)
        from parity.mapping import find_map_of  # noqa: PLC0415  (torch takes seconds to import)

        setup, module, found = find_map_of(**models, weights=options.weights)
        own = _own_weights(options, setup, module, found) if options.check_weights else None
    for line in (f"{len(found.entries)} entries ({found.origin})", *found.remarks()):
        tell(line)
    if options.output:
        write(Path(options.output), found.to_toml().rstrip("\n"))
    else:
        show(found.to_toml())
    if own is not None:
        for line in _told(own):
            tell(line)
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
    require_apart({"--json": options.json}, (options.first, options.second, options.model))
    overrides = _key_values(options.overrides, "--set")
    arguments = _key_values(options.model_arg, "--model-arg")
    with progress_bar(quiet=False) as progress, contextlib.redirect_stdout(sys.stderr):
        progress("importing torch", 0, 0)
        from parity.diffing import diff  # noqa: PLC0415  (torch takes seconds to import)

        found = diff(options.first, options.second, model=options.model, overrides=overrides, model_args=arguments,
                     progress=progress)  # fmt: skip
    content = json.dumps(found.to_dict(), indent=1, allow_nan=False)
    if options.json != "-":
        show("".join(f"{in_one_line(line)}\n" for line in found.lines()))
    if options.json:
        show(f"{content}\n") if options.json == "-" else write(Path(options.json), content)
    return 0 if found.is_same else 1


def _convert(options: argparse.Namespace) -> int:
    output = Path(options.output)
    require_folder(output)
    if output.suffix != ".safetensors":
        raise ParityError(f"-o {output}: the file is written as safetensors; give it a name that ends in .safetensors")
    require_apart({"-o": options.output}, (options.candidate, options.reference, options.mapping, options.weights))
    models = _models(options)
    with progress_bar(quiet=False) as progress, contextlib.redirect_stdout(sys.stderr):
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
        say(sentence)
    what = f"{len(converted.state)} tensors of {converted.source} under {converted.names}'s names"
    folded = (f"folded: {sentence}" for sentence in converted.folds)
    lines = (f"{output}: {what}; proof: {converted.proof}", *folded, agreement)
    show("".join(f"{in_one_line(line)}\n" for line in lines))
    return 0


def _rendered(report: Report, options: argparse.Namespace) -> str:
    from rich.console import Console  # noqa: PLC0415  (keeps --help quick)

    if options.quiet:
        return f"{report.verdict}\n"
    console = Console(markup=False, highlight=False, width=width())
    return report.drawn(console, all_layers=options.all_layers)


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


_COMMANDS: dict[str, Callable[..., int]] = {
    "check": _check,
    "convert": _convert,
    "diff": _diff,
    "map": _map,
    "matrix": matrix.matrix,
    "report": saved_reports.report,
    "verify": saved_reports.verify,
}
