"""A report as Markdown, for the summary of a job: the answer and its causes, and the rest folded away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from parity.report import answer
from parity.report.wording import number, ulps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# letters that mean something in Markdown, HTML or a table's row: they are written by their number
_SPECIAL = re.compile(r"[\\`*_\[\]#!|~<>&$@]|:(?=//)|(?<=www)\.|^[-+=]|^\d+[.)](?=\s|$)")

_MOST_LAYERS = 100


def as_markdown(report: dict[str, Any]) -> str:
    """Returns a report as Markdown.

    Args:
        report: its JSON types, complete as `saved.complete` makes it.
    """
    return "\n".join(_lines(report)) + "\n"


def escaped(text: str) -> str:
    """Returns a text that Markdown shows as it is, in one line."""
    return _SPECIAL.sub(lambda found: "".join(f"&#{ord(letter)};" for letter in found[0]), " ".join(text.split()))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    verdict, _, says = answer.headline(report).partition(": ")
    meaning, reasons = answer.meaning(report)
    yield from (f"### {verdict}: {escaped(says)}", "", escaped(meaning), "")
    causes = answer.causes(report)
    if causes:
        answers = ((c.statement, c.source or c.candidate or c.where, c.size, c.hint, c.id) for c in causes)
        yield from _table(("what", "where", "how much", "mend it with", "cause"), answers)
    checks = [(c["name"], c["verdict"], number(c["relative"]), ulps(c["max_ulp"]), number(c["noise_ratio"]))
              for c in report["checks"]]  # fmt: skip
    if checks:
        head = ("check", "verdict", "relative error", "ULP", "times the noise")
        yield from _folded(f"{len(checks)} comparisons", _table(head, checks))
    places = answer.origins(report)
    if places:
        rows = ((place.where, place.candidate, place.much) for place in places[:_MOST_LAYERS])
        yield from _folded(
            "where there is an error of its own", _table(("reference", "candidate", "relative error"), rows)
        )
    if reasons:
        yield from _folded("why", [*(f"- {escaped(reason)}" for reason in reasons), ""])
    about = [(title, text) for title, text in answer.about(report, every=True) if text]
    again = [("command", answer.command(report))] if answer.command(report) else []
    environment = [(key, f"{value}") for key, value in report["environment"].items()]
    yield from _folded("what was compared, and where", _table(("", ""), [*about, *environment, *again]))


def _folded(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield from (f"<details><summary>{escaped(title)}</summary>", "", *lines, "</details>", "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(escaped, row))} |"
    yield ""
