"""Names in reports: whatever they are made of, they are no markup and no order, in whatever form it is drawn."""

from __future__ import annotations

import copy
import functools
import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from parity import check
from parity.report import as_html, as_markdown, as_sarif, complete
from parity.report.terminal import lines
from tests.fuzz import budget
from tests.test_report import NAMES, SIZES, THREE, Page, renamed, short

_TAGS = re.compile(r"<[^>]*>")
_PIECES = (
    "<", ">", "</", "script", "style", "!--", "-->", "]]>", "&lt;", '"', "'", " onload=", "javascript:", "{{", "}}",
    "{%", "`", "|", "](x)", "http://x", "\x1b[31m", "\x9b0m", "\r\n", "\ud800", "\u202e", "\u200d", "漢", "[red]", "\\",
)  # fmt: skip


@functools.cache
def _good() -> dict[str, Any]:
    """A report that has one of everything: a cause with its lines, a layer with its errors, where both look."""
    report = check(THREE, overrides=SIZES, modes=["eval"]).to_dict()
    drawn = next(row for row in report["layers"] if row["sizes"] and row["places"])
    picture = {"picture": "cat.png", "reference": [["cat", 0.5]], "candidate": [["cat", 0.5]]}
    weights = {"verdict": "different", "source": "port.pth", "as_is": {}, "notes": ["a note"],
               "tensors": [{"candidate": "a", "reference": "a", "cause": "b", "statement": "c"}]}  # fmt: skip
    return short(report | {"layers": [drawn], "top5": [picture], "weights": weights})  # type: ignore[no-any-return]


@functools.cache
def _tags_of_page() -> frozenset[str]:
    return frozenset(tag for tag, _ in Page(as_html(complete(_good()))).elements)


@functools.cache
def _tags_of_summary() -> frozenset[str]:
    return frozenset(_TAGS.findall(as_markdown(complete(_good()))))


@budget()
@given(NAMES | st.lists(st.sampled_from(_PIECES), min_size=1, max_size=8).map("".join))
def test_no_name_is_markup_or_an_order(name: str) -> None:
    report = complete(renamed(copy.deepcopy(_good()), name))
    page = Page(as_html(report))
    tags = [tag for tag, _ in page.elements]
    assert {*tags} <= _tags_of_page()
    assert tags.count("script") == tags.count("style") == 1
    assert not page.open
    assert not any(key.startswith("on") or key in ("src", "href") for _, keys in page.elements for key in keys)
    for line in lines(report, 80, all_layers=True):
        assert line.plain.isprintable()
        assert cell_len(line.plain) <= 80
    assert {*_TAGS.findall(as_markdown(report))} <= _tags_of_summary()
    assert len(json.loads(as_sarif(report).encode())["runs"][0]["results"]) == 1
