"""The lines of source that a cause comes from: the candidate's, and those of the reference beside them."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import linecache
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from torch import nn

from parity.findings import Cause, CodeLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# the lines of a file, as a cause names them: `model.py:12, 14`
_LINES = re.compile(r"([^,\s][^,]*?):([1-9]\d{0,8}(?:, [1-9]\d{0,8})*)(?!\d)", re.ASCII)

_MOST_LINES = 8
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
    ours = [_line(file, n, linecache.getline(file, n)) for file, n in lines_named(cause.source, files)]
    theirs = itertools.chain.from_iterable(_of_reference(reference, place) for place in cause.where)
    return dataclasses.replace(
        cause,
        candidate_code=tuple(line for line in dict.fromkeys(ours) if line.text)[:_MOST_LINES],
        reference_code=tuple(dict.fromkeys(theirs))[:_MOST_LINES],
    )


def _line(file: str, number: int, text: str) -> CodeLine:
    return CodeLine(f"{PurePath(file).name}:{number}", text.strip()[:_MOST_LETTERS])


def _of_reference(reference: nn.Module, place: str) -> Iterator[CodeLine]:
    """Yields the lines that make a module or tensor, and those that use it; of what torch has written, its owner's.

    Of one of many alike, which no line names, its own are yielded.
    """
    found: list[CodeLine] = []
    module: object = reference
    is_named = True
    for part in place.split("."):
        if not isinstance(module, nn.Module):
            break
        is_named = False
        if not _is_torchs(module):
            named = [*_with_attribute(type(module), part)]
            found, is_named = named or found, bool(named)
        module = getattr(module, part, None)
    if not is_named and isinstance(module, nn.Module) and not _is_torchs(module):
        found = [*_of_forward(type(module))] or found
    yield from found


def _is_torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def _of_forward(kind: type) -> Iterator[CodeLine]:
    """Yields the lines of a class's forward pass."""
    lines, first, file = _source(kind.forward) if hasattr(kind, "forward") else ([], 0, "")
    for number, text in enumerate(lines[1:], start=first + 1):
        if text.strip() and not text.strip().startswith(("#", "torch._assert")):
            yield _line(file, number, text)


def _source(of: Any) -> tuple[list[str], int, str]:
    """Returns the lines of a class or function, the number of the first, and the file; none where nobody has them."""
    try:
        lines, first = inspect.getsourcelines(of)
        return lines, first, Path(inspect.getfile(of)).name
    except (OSError, TypeError):
        return [], 0, ""


def _with_attribute(kind: type, name: str) -> Iterator[CodeLine]:
    """Yields the line of a class that assigns an attribute, and those that use it, each up to the next use of any."""
    lines, first, file = _source(kind)
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
    return text.replace(", )", ")")
