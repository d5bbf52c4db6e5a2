"""The kill matrix: what the harness says of every planted bug, beside what the usual checks would have said.

A section of its own has the faults of weight conversion.

python -m tests.corpus.matrix [--output docs/kill-matrix.md] [--json docs/kill-matrix.json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchvision
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from parity import check
from parity.models.weights import uniform
from tests.corpus.bug import FORMULA
from tests.corpus.bugs import BUGS
from tests.corpus.cases import SIZES, Case, cases
from tests.corpus.conversions import FAULTS, Conversion, conversions
from tests.corpus.equivalents import variants
from tests.corpus.hosts import HOSTS
from tests.corpus.ports import PORTS
from tests.corpus.right_conversions import right_conversions, unwrapped
from tests.corpus.running import built, logits, plain, reference_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import nn

    from parity.report.report import Report
    from tests.corpus.bug import Bug
    from tests.corpus.conversions import Fault
    from tests.corpus.hosts import Host

_IMAGES = 32  # that the usual checks look at


def _differs_by_default_tolerance(reference: torch.Tensor, candidate: torch.Tensor) -> bool:
    try:
        torch.testing.assert_close(candidate, reference)
    except AssertionError:
        return True
    return False


# What people compare two logits (B, classes) of equal shape by, in float32: whether that shows a difference.
_COMPARISONS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], bool]] = {
    "assert_close": _differs_by_default_tolerance,
    "atol 1e-3": lambda r, c: not torch.allclose(c, r, atol=1e-3),
    "cosine > .99": lambda r, c: bool((torch.cosine_similarity(r, c) <= 0.99).any()),
    "top-1": lambda r, c: bool((r.argmax(-1) != c.argmax(-1)).any()),
}
USUAL = ("parameters", "shape", *_COMPARISONS)
HARNESS = ("killed", "place right", "cause right")
CONVERTING = ("killed", "tensors right", "causes right")

# the published one
MATRIX = Path(__file__).parents[2] / "docs" / "kill-matrix.json"


@dataclass(frozen=True)
class Row:
    """What is said of one planted bug, or of one fault of conversion.

    Attributes:
        case: its id.
        bug: the bug's or the fault's.
        verdict: the harness's.
        origin: where it begins, as the harness says; a conversion begins nowhere.
        causes: ids of the causes that the harness names.
        says: by the name of a check, whether it catches the bug, or is right.
    """

    case: str
    bug: str
    verdict: str
    origin: str | None
    causes: list[str]
    says: dict[str, bool]


def usual(model: nn.Module, host: Host, settings: dict[str, Any]) -> dict[str, bool]:
    """Returns which of the usual checks catch a model that was planted in `host`, in eval mode and float32.

    Tensors that it shares with its host hold the reference's values; a tensor more or less doesn't stop the others.
    """
    key = tuple(settings.items())
    expected = reference_logits(key, "float32", _IMAGES)
    found = logits(model, host, key, dtype="float32", batch=_IMAGES)
    counts = [sum(p.numel() for p in m.parameters()) for m in (plain(host.name, key), model)]
    is_of_shape = expected.shape == found.shape
    return {
        "parameters": counts[0] != counts[1],
        "shape": not is_of_shape,
        **{name: not is_of_shape or differs(expected, found) for name, differs in _COMPARISONS.items()},
    }


def judged(case: Case, folder: Path) -> Row:
    """Plants a case and returns what the harness and the usual checks say of it."""
    spec = case.write(folder)
    report = check(spec, overrides=case.settings, mapping=case.mapping, modes=[case.bug.mode])
    return Row(
        case.id,
        case.bug.id,
        report.verdict,
        report.origin.describe() if report.origin else None,
        [cause.id for cause in report.causes],
        harness_says(case, report) | usual(built(spec, case.settings), case.host, case.settings),
    )


def harness_says(case: Case, report: Report) -> dict[str, bool]:
    """Returns what the harness has got right of a planted case."""
    unkilled = ("identical", "equivalent", "inconclusive")[: 2 if case.bug.changes_parameters else 3]
    return {
        "killed": report.verdict not in unkilled,
        "place right": report.origin is not None and report.origin.reference in case.first_places,
        "cause right": is_explained(case, report.causes),
    }


def is_explained(case: Case, causes: Sequence[Any]) -> bool:
    """Whether `causes`, which have an `id` and a `statement`, are those of the case, and no others."""
    found = {cause.id for cause in causes}
    accepted = [set(expected.split("|")) for expected in case.expected]
    is_complete = all(alternatives & found for alternatives in accepted) and found <= set().union(*accepted)
    return is_complete and (not case.bug.says or any(case.bug.says in cause.statement for cause in causes))


def converted(conversion: Conversion) -> Row:
    """Converts weights and returns what the harness and the usual checks say of the port that has them."""
    model, reference = conversion.converted(), conversion.original
    report = check(model, reference, mapping=conversion.port.mapping, modes=["eval"])
    return Row(
        conversion.id,
        conversion.fault.id,
        report.verdict,
        None,
        sorted({cause.id for cause in report.causes}),
        weights_say(conversion, report) | _compared_as_they_are(reference, model),
    )


def weights_say(conversion: Conversion, report: Report) -> dict[str, bool]:
    """Returns what the harness has got right of a faulty conversion."""
    weights = report.to_dict()["weights"]
    found = {tensor["candidate"]: tensor["cause"] for tensor in weights["tensors"]} if weights else {}
    return {
        "killed": report.verdict == "divergent" and "with other weights" in report.reasons[0],
        "tensors right": found.keys() == conversion.expected.keys(),
        "causes right": all(found.get(name) in causes for name, causes in conversion.expected.items()),
    }


def _compared_as_they_are(reference: nn.Module, model: nn.Module) -> dict[str, bool]:
    """Returns which comparisons of the logits catch a model with weights of its own, in eval mode and float32."""
    images = uniform("corpus", (_IMAGES, 3, SIZES["image_size"], SIZES["image_size"]))
    with torch.no_grad():
        expected, found = reference(images), unwrapped(model).float().eval()(images)
    return {name: differs(expected, found) for name, differs in _COMPARISONS.items()}


def false_alarms_of_weights(advance: Callable[[], None]) -> dict[str, int]:
    """Counts how often the harness and the comparisons flag a right conversion."""
    counts = dict.fromkeys(("killed", *_COMPARISONS), 0)
    for conversion in right_conversions():
        model = conversion.converted()
        report = check(model, conversion.original, mapping=conversion.mapping, modes=["eval"])
        counts["killed"] += report.verdict not in ("identical", "equivalent")
        for name, is_flagged in _compared_as_they_are(conversion.original, model).items():
            counts[name] += is_flagged
        advance()
    return counts


def false_alarms(advance: Callable[[], None]) -> dict[str, int]:
    """Counts how often the harness and the usual checks flag another way to the same function."""
    counts = dict.fromkeys(("killed", *USUAL), 0)
    for variant in variants():
        with tempfile.TemporaryDirectory() as folder:
            spec = variant.write(Path(folder))
            report: Report = check(spec, overrides=SIZES, mapping=variant.mapping, modes=["eval"])
            counts["killed"] += report.verdict not in ("identical", "equivalent")
            for name, is_flagged in usual(built(spec, SIZES), variant.host, SIZES).items():
                counts[name] += is_flagged
        advance()
    return counts


def summed(rows: Iterable[Row], names: Iterable[str]) -> dict[str, int]:
    """Counts, for each of the named checks, the rows that it catches or gets right."""
    counts = dict.fromkeys(names, 0)
    for row in rows:
        for name, is_so in row.says.items():
            counts[name] += is_so
    return counts


_SUMMARY = """\
# Kill matrix

**{killed} of {cases} planted cases killed** ({bugs} bugs in {hosts} implementations, in all blocks and in single ones);
the place is right in {place}, the cause in {cause}, {formulas} of them told by a formula. Of {ways} other ways to the
same function {flagged} are flagged.

The usual checks on the same models and weights catch, of {cases}: {usual}; of the {ways} right ones they
flag: {alarms}.

- *killed*: the verdict is `divergent`; where the parameters are others, not `identical` or `equivalent`.
- *place*, *cause*: the first place, and all causes and no others, are those that were planted. A cause that has no name
  is told by a formula; it is right if it says what was planted.
- the others: on {images} random images in float32 and eval mode, every tensor that both models have in common being the
  same; `assert_close` with torch's own tolerances, top-1 with the same class for each image.

Written by `python -m tests.corpus.matrix` with torch {torch}, torchvision {torchvision}, Python {python}; synthetic
weights, {sizes}.
"""


def as_markdown(rows: Sequence[Row], alarms: Mapping[str, int]) -> str:
    """Draws the matrix: a summary, and a table of bugs for every category."""
    counts = summed(rows, (*HARNESS, *USUAL))
    summary = _SUMMARY.format(
        killed=counts["killed"],
        cases=len(rows),
        bugs=len({row.bug for row in rows}),
        hosts=len(HOSTS),
        place=counts["place right"],
        cause=counts["cause right"],
        formulas=sum(row.says["cause right"] and FORMULA in row.causes for row in rows),
        ways=len(list(variants())),
        flagged=alarms["killed"],
        usual=", ".join(f"{name} {counts[name]}" for name in USUAL),
        alarms=", ".join(f"{name} {alarms[name]}" for name in USUAL),
        images=_IMAGES,
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        python=platform.python_version(),
        sizes=", ".join(f"{key} {value}" for key, value in SIZES.items()),
    )
    return summary + _tables(rows, BUGS, (*HARNESS, *USUAL), "bug")


_CONVERSIONS = """
# Conversions of weights

**{killed} of {cases} faulty conversions killed** ({faults} faults on the way to {ports} ports); the wrong tensors are
right in {tensors}, what is wrong with each of them in {causes}. Of {ways} right conversions {flagged} are flagged.

The usual comparisons of the logits catch, of {cases}: {usual}; of the {ways} right ones they flag: {alarms}.

- *killed*: the verdict is `divergent`, because of other weights.
- *tensors*, *causes*: just the wrong ones are listed, and for each a cause that is true of it is named.
- the others: as above, with both models as they are; parameters and shapes are always the same.
"""


def conversions_as_markdown(rows: Sequence[Row], alarms: Mapping[str, int]) -> str:
    """Draws the section of the conversions: a summary, and a table of faults for every category."""
    names = (*CONVERTING, *_COMPARISONS)
    counts = summed(rows, names)
    summary = _CONVERSIONS.format(
        killed=counts["killed"],
        cases=len(rows),
        faults=len({row.bug for row in rows}),
        ports=len(PORTS),
        tensors=counts["tensors right"],
        causes=counts["causes right"],
        ways=len(list(right_conversions())),
        flagged=alarms["killed"],
        usual=", ".join(f"{name} {counts[name]}" for name in _COMPARISONS),
        alarms=", ".join(f"{name} {alarms[name]}" for name in _COMPARISONS),
    )
    return summary + _tables(rows, FAULTS, names, "fault")


def _tables(rows: Sequence[Row], planted: Sequence[Bug | Fault], names: Sequence[str], kind: str) -> str:
    """Draws a table for every category of what was planted."""
    of_bug = defaultdict(list)
    for row in rows:
        of_bug[row.bug].append(row)
    header = (kind, "cases", *(name.removesuffix(" right") for name in names))
    lines: list[str] = []
    for category in dict.fromkeys(bug.category for bug in planted):
        shown = [bug.id for bug in planted if bug.category == category and bug.id in of_bug]
        if shown:
            title = f"## {category[0].upper()}{category[1:]}"
            lines += ["", title, "", _table_line(header), _table_line("---" for _ in header)]
        lines += [_table_line((bug, len(of_bug[bug]), *summed(of_bug[bug], names).values())) for bug in shown]
    return "".join(f"{line}\n" for line in lines)


def _table_line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def as_json(
    rows: Sequence[Row], alarms: Mapping[str, int], converted_rows: Sequence[Row], their_alarms: Mapping[str, int]
) -> str:
    """Returns the matrix as JSON: the sums, and every case."""
    content = {
        "torch": torch.__version__,
        "cases": len(rows),
        "caught": summed(rows, (*HARNESS, *USUAL)),
        "equivalents": len(list(variants())),
        "false_alarms": alarms,
        "rows": [asdict(row) for row in rows],
        "conversions": {
            "cases": len(converted_rows),
            "caught": summed(converted_rows, (*CONVERTING, *_COMPARISONS)),
            "right": len(list(right_conversions())),
            "false_alarms": their_alarms,
            "rows": [asdict(row) for row in converted_rows],
        },
    }
    return json.dumps(content, indent=1) + "\n"


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yields a temporary file beside `path` that takes its place once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(name)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judges all cases and conversions and writes the matrix, by default to stdout; returns 1 if any is not killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus.matrix", description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    parser.add_argument("--json", type=Path, help="JSON file to write")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose id contains this")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # faster for models this small
    chosen = [case for case in cases() if options.only in case.id]
    to_convert = [conversion for conversion in conversions() if options.only in conversion.id]
    if not chosen and not to_convert:
        parser.error(f"--only {options.only}: no case's id contains this")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len([*chosen, *variants(), *to_convert, *right_conversions()]))
        rows, converted_rows = [], []
        for case in chosen:
            progress.update(task, description=case.id)
            with tempfile.TemporaryDirectory() as folder:
                rows.append(judged(case, Path(folder)))
            progress.advance(task)
        progress.update(task, description="other ways to the same function")
        alarms = false_alarms(lambda: progress.advance(task))
        for conversion in to_convert:
            progress.update(task, description=conversion.id)
            converted_rows.append(converted(conversion))
            progress.advance(task)
        progress.update(task, description="right conversions")
        their_alarms = false_alarms_of_weights(lambda: progress.advance(task))
    markdown = as_markdown(rows, alarms) + conversions_as_markdown(converted_rows, their_alarms)
    as_data = as_json(rows, alarms, converted_rows, their_alarms)
    for path, content in ((options.output, markdown), (options.json, as_data)):
        if path:
            with written(path) as temporary:
                temporary.write_text(content, encoding="utf-8")
    if not options.output and not options.json:
        sys.stdout.write(markdown)
    return 0 if all(row.says["killed"] for row in (*rows, *converted_rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
