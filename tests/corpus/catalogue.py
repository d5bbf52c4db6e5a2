"""The page of all causes, written from the catalogue itself and from the bugs that are planted for each."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from parity.explanation.causes.catalogue import catalogue
from parity.explanation.proof import of_the_reference
from parity.models.reference import configuration
from tests.corpus.bugs import BUGS
from tests.corpus.matrix import written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parity.explanation.bending import Kind

_MOST = 4  # phrases of one cause


def page() -> str:
    """Returns the page as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    by_id: dict[str, list[Kind]] = defaultdict(list)
    for kind in catalogue(configuration("vit_b_16")):
        by_id[kind.id].append(kind)
    planted: dict[str, list[str]] = defaultdict(list)
    for bug in BUGS:
        for cause in bug.causes:
            for id_ in cause.split("|"):
                planted[id_].append(bug.id)
    entries = sum(map(len, by_id.values()))
    yield f"""# The catalogue of causes

What can be named: {entries} entries under {len(by_id)} ids, in the order in which they are tried, in a report's words
and with the numbers of ViT-B/16. VALUE is solved for. Causes for tensors of a candidate's own (a norm, a projection, a
table of positions) are made for each candidate and don't stand here. What no entry fits is told as a formula
([which bug it is](causes.md)).

Each is planted in the tests under the names in its last line, which the [kill matrix](kill-matrix.md) lists. Written by
`python -m tests.corpus.catalogue --output docs/catalogue.md`."""
    for id_, kinds in by_id.items():
        phrases = list(dict.fromkeys(kind.phrase.replace("{value}", "VALUE").rstrip(",") for kind in kinds))
        yield f"\n## {id_}\n"
        yield f"> {_literal(phrases[0])}; {_literal(of_the_reference(kinds[0].instead).replace('{value}', 'VALUE'))}\n"
        if len(phrases) > 1:
            more = f"; and {len(phrases) - _MOST} more" if len(phrases) > _MOST else ""
            yield f"- Also: {'; '.join(map(_literal, phrases[1:_MOST]))}{more}"
        yield f"- Mend: `{kinds[0].hint}`"
        if planted[id_]:
            yield f"- Planted as {', '.join(f'`{bug}`' for bug in dict.fromkeys(planted[id_]))}."


def _literal(text: str) -> str:
    """Returns text in which Markdown finds no markup."""
    return "".join(f"\\{letter}" if letter in "*_<>[]`" else letter for letter in text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page, by default to stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus.catalogue", description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args(arguments)
    if options.output:
        with written(options.output) as temporary:
            temporary.write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
