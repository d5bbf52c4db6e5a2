"""Saved reports: whatever a file holds that should be one, it is drawn in every form or refused in a sentence."""

from __future__ import annotations

import copy
import functools
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import vit
from parity import check
from parity.report import as_html, as_markdown, as_sarif, complete, drawn, drawn_beside, load
from tests.fuzz import budget, one_sentence
from tests.fuzz.edits import edited
from tests.fuzz.test_maps import SIZES

if TYPE_CHECKING:
    from pathlib import Path

_TEXT = st.text(st.characters() | st.sampled_from("\x1b\x7f\x9b\n\r\t\ud800[]{}\\\"'<>&"), max_size=6)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT | st.sampled_from([10**400, "divergent", 1]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2),
    max_leaves=4,
)
_PIECES = (b"null", b"[]", b"{}", b"[[[[", b"1e999", b"NaN", b"-0", b'"\\ud800"', b'"\\u001b[31m"', b"\xff", b"true")


@functools.cache
def _good() -> dict[str, Any]:
    """A report of a model that is wrong, which has something of everything."""
    found = check(lambda: vit.ViT(8, 3, 4, 8, 12, 2, 1, 0.0, 3), overrides=SIZES | {"num_heads": 4}, modes=["eval"])
    saved: dict[str, Any] = json.loads(found.to_json())
    return saved


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [path, *(found for key, part in inner for found in _paths(part, (*path, key)))]


@st.composite
def _changed(draw: st.DrawFn) -> bytes:
    """Draws what becomes of a report in which up to three values are others, or are gone."""
    report: Any = copy.deepcopy(_good())
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(_paths(report)[1:]))
        place = functools.reduce(lambda value, key: value[key], way, report)
        if draw(st.booleans()):
            place[last] = draw(_VALUES)
        else:
            del place[last]
        if not report:
            break
    return json.dumps(report).encode()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved") / "report.json"


_FILES = (
    _changed()
    | st.deferred(lambda: edited(json.dumps(_good()).encode(), _PIECES))
    | st.binary(max_size=40)
    | _VALUES.map(lambda value: json.dumps(value).encode())
)


@budget()
@given(_FILES)
def test_any_file_is_a_report_or_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with one_sentence():
        saved = load(file)
        assert complete(saved) == saved
    assert file.read_bytes() == content


@budget(20)
@given(_changed())
def test_any_report_that_is_read_is_drawn(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with one_sentence():
        saved = load(file)
        console = Console(markup=False, highlight=False, width=80)
        shown = [drawn(saved, console, all_layers=True), drawn_beside(saved, saved, console), as_html(saved),
                 as_markdown(saved)]  # fmt: skip
        for text in shown:
            assert saved["verdict"] in text
            assert all(letter.isprintable() or letter == "\n" for letter in text), text
        json.loads(as_sarif(saved), parse_constant=pytest.fail)
