"""The lines of source that a cause comes from: the candidate's, and those of the reference beside them."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import linecache
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from torch import nn

from parity.findings import Cause, CodeLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# the lines of a file, as a cause names them: `model.py:12, 14`
_LINES = re.compile(r"([^,\s][^,]*?):([1-9]\d{0,8}(?:, [1-9]\d{0,8})*)(?!\d)", re.ASCII)

_MOST_LINES = 6
_MOST_LETTERS = 200


def lines_named(source: str, files: Iterable[str]) -> list[tuple[str, int]]:
    """Returns the files and lines that a cause's `source` names, each file with its path where it is one of `files`."""
    known = {PurePath(file).name: file for file in files}
    return [(known.get(name, name), int(n)) for name, numbers in _LINES.findall(source) for n in numbers.split(", ")]


def with_code(cause: Cause, files: Sequence[str], reference: nn.Module) -> Cause:
    """Returns a cause with what its lines say, and those of the reference that do there what they should.

    Args:
        cause: what differs.
        files: of the candidate.
        reference: whose source is looked for lines that make or use one of the places that the cause concerns.
    """
    named = lines_named(cause.source, files)
    ours = [_line(file, n, linecache.getline(file, n)) for file, n in named]
    theirs = itertools.chain.from_iterable(_of_reference(reference, place) for place in cause.where)
    return dataclasses.replace(
        cause,
        candidate_code=tuple(line for line in dict.fromkeys(ours) if line.text)[:_MOST_LINES],
        reference_code=tuple(dict.fromkeys(theirs))[:_MOST_LINES],
    )


def _line(file: str, number: int, text: str) -> CodeLine:
    return CodeLine(f"{PurePath(file).name}:{number}", text.strip()[:_MOST_LETTERS])


def _of_reference(reference: nn.Module, place: str) -> Iterator[CodeLine]:
    """Yields the lines that make a module or tensor, and those that use it; of what torch has written, its owner's."""
    found: list[CodeLine] = []
    module: object = reference
    for part in place.split("."):
        if not isinstance(module, nn.Module):
            break
        if not type(module).__module__.startswith("torch."):
            found = [*_with_attribute(type(module), part)] or found
        module = getattr(module, part, None)
    yield from found


def _with_attribute(kind: type, name: str) -> Iterator[CodeLine]:
    """Yields the line of a class that assigns an attribute, and those that use it, each up to the next use of any."""
    try:
        lines, first = inspect.getsourcelines(kind)
        file = Path(inspect.getfile(kind)).name
    except (OSError, TypeError):
        return
    uses = re.compile(rf"\bself\.{re.escape(name)}\b")
    makes = re.compile(rf"\s*self\.{re.escape(name)}(:[^=]*)? = ")
    method, is_on = "", False
    for number, text in enumerate(lines, start=first):
        if begins := re.match(r"\s*def (\w+)", text):
            method, is_on = begins[1], False
        elif method == "__init__":
            if makes.match(text):
                yield _line(file, number, _whole(lines[number - first :]))
        elif uses.search(text) or (is_on and "self" not in text and text.strip()):
            is_on = True
            if not text.strip().startswith("#"):
                yield _line(file, number, text)
        else:
            is_on = is_on and not text.strip()


def _whole(lines: Sequence[str]) -> str:
    """Returns the first of some lines and those behind it that its brackets go on to, as one."""
    text = ""
    for line in lines:
        text += f"{' ' * (not text.endswith('('))}{line.strip()}"
        if len(text) > _MOST_LETTERS or text.count("(") <= text.count(")"):
            break
    return text
