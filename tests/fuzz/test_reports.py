"""Reports: whatever they are made of, they are JSON that can be read back, and text without orders to a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity.diagnosis import Layer, Place
from parity.diagnosis.attention_maps import AttentionMaps, Look, PatchMap
from parity.findings import Cause, CodeLine
from parity.models import Entry, WeightMap
from parity.report import Report, environment
from parity.report.report import Top
from tests.fuzz import budget
from tests.test_schema import VALIDATOR

TEXT = st.text(st.characters() | st.sampled_from("\x1b\x7f\x9b\n\r\t\ud800[]{}\\\"'<>&"), max_size=8) | st.none().map(
    lambda _: "x" * 10_000  # which Hypothesis need not spell out
)
NUMBER = st.none() | st.floats() | st.integers()
FLOAT = st.none() | st.floats()
NAMES = st.lists(TEXT, max_size=2).map(tuple)
ANYTHING = st.recursive(
    NUMBER | TEXT | st.binary(max_size=2) | st.booleans() | st.complex_numbers() | st.just(object) | st.fractions(),
    lambda inner: (
        st.lists(inner, max_size=2) | st.sets(TEXT, max_size=2) | st.dictionaries(TEXT | NUMBER, inner, max_size=2)
    ),
    max_leaves=5,
)
SETTINGS = st.dictionaries(TEXT, ANYTHING, max_size=2)
LAYERS = st.builds(
    Layer, TEXT, st.none() | TEXT, st.none() | st.booleans(), st.none() | st.integers(0, 2**63 - 1), FLOAT, FLOAT,
    FLOAT, st.sampled_from(["clean", "origin", "propagated", "not compared"]), st.none() | TEXT,
)  # fmt: skip
PLACES = st.builds(
    Place, st.sampled_from(["module", "glue"]), TEXT, TEXT, TEXT, TEXT, st.floats(), TEXT, st.none() | TEXT
)
CODE = st.tuples(st.builds(CodeLine, TEXT, TEXT))
CAUSES = st.builds(
    Cause, TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=2).map(tuple), FLOAT, FLOAT, TEXT, TEXT, CODE, CODE
)
PATCHES = st.none() | st.builds(PatchMap, st.floats().map(abs), st.just(("AZ", ".z")))
LOOKS = st.builds(Look, PATCHES, PATCHES, PATCHES)
ATTENTION = st.builds(AttentionMaps, TEXT, st.tuples(LOOKS), LOOKS, TEXT)
MAPS = st.builds(
    WeightMap,
    st.lists(st.builds(Entry, TEXT, TEXT, TEXT), max_size=2).map(tuple),
    TEXT,
    TEXT,
    NAMES,
    NAMES,
    NAMES,
    NAMES,
)
RANKS = st.lists(st.tuples(TEXT, st.floats()), min_size=2, max_size=2).map(tuple)
REPORTS = st.builds(
    Report,
    st.sampled_from(["identical", "equivalent", "divergent", "inconclusive"]),
    st.lists(TEXT, max_size=2),
    st.fixed_dictionaries({"name": TEXT, "config": SETTINGS, "weights": TEXT}),
    st.fixed_dictionaries({"name": TEXT, "config": SETTINGS, "defaults": st.lists(TEXT, max_size=2)}),
    SETTINGS,
    TEXT,
    mapping=st.none() | MAPS,
    left_over=st.tuples(NAMES, NAMES),
    notes=st.lists(TEXT, max_size=2),
    layers=st.lists(LAYERS, max_size=2),
    origins=st.lists(PLACES, max_size=2),
    causes=st.lists(CAUSES, max_size=2),
    top5=st.lists(st.builds(Top, TEXT, RANKS, RANKS), max_size=1),
    attention=st.lists(ATTENTION, max_size=1),
)


@budget()
@given(REPORTS)
def test_any_report_is_written_as_json(report: Report) -> None:
    text = report.to_json()
    assert text.isascii()
    written: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)
    VALIDATOR.validate(written | {"environment": environment()})
    assert written["verdict"] == report.verdict
    assert written["reasons"] == report.reasons
    assert len(written["layers"]) == len(report.layers)  # which no report has that could not be written


@budget(20)
@given(REPORTS)
def test_any_report_is_shown(report: Report) -> None:
    for shown in (f"{report}", report._repr_html_()):
        assert report.verdict in shown
        assert "could not be drawn" not in shown
        assert all(letter.isprintable() or letter == "\n" for letter in shown)
