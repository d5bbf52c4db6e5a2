"""The answer, as it is drawn: on a terminal of any width, from the report or from what was saved of it."""

from __future__ import annotations

import copy
import html
import html.parser
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import parity
from parity.errors import ParityError
from parity.report.answer import headline, origins, stages
from parity.report.comparing import compare
from parity.report.markdown import as_markdown, escaped
from parity.report.page import as_html
from parity.report.sarif import as_sarif
from parity.report.saved import complete, load
from parity.report.terminal import drawn, lines
from parity.report.wording import above_rounding, decades, number, shortened, together, ulps, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZES = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96,
         "num_classes": 10}  # fmt: skip
THREE = "tests/candidates/eps_bias_pool.py:SmallViT"
EVIL = ("<script>alert(1)</script>", "\x1b[31mred\x07", "[red]x[/red]", "a|b`c*", "{{ 7*7 }}", "]]>", "\ud800", "a\nb",
        "</details>", "\u202etxt", "x" * 300, "漢" * 120, "\u200d", '" onload="x', "javascript:x")  # fmt: skip


@pytest.fixture(scope="module")
def three() -> parity.Report:
    """Of a candidate that is wrong three times."""
    return parity.check(THREE, overrides=SIZES, modes=["eval"])


@pytest.fixture(scope="module")
def same() -> parity.Report:
    """Of a candidate that is right to the bit."""
    return parity.check("vit:ViT", overrides=SIZES, modes=["eval"])


def _text(report: dict[str, Any], width: int = 80, *, all_layers: bool = False) -> str:
    return "\n".join(line.plain for line in lines(complete(report), width, all_layers=all_layers))


def test_answer_comes_first_and_last(three: parity.Report) -> None:
    first, *_, last = _text(three.to_dict(), 100).splitlines()
    assert first == f"divergent: {THREE} is not vit_b_16"
    assert last.startswith(f"divergent: {THREE} and vit_b_16, ")


def test_cause_says_where_how_much_and_what_to_write(three: parity.Report) -> None:
    said = " ".join(_text(three.to_dict()).split())
    assert (
        "2. LayerNorm eps 1e-05 in all 5 norms; the reference has 1e-06 where encoder.layers.encoder_layer_{0-1}.ln_1"
        in said
    )
    assert "much alone it moves the logits by 3.3e-06, 3.3e9 times rounding mend nn.LayerNorm(dim, eps=1e-6)" in said


def test_one_cause_moves_the_logits_by_what_the_checks_measure(three: parity.Report) -> None:
    report = three.to_dict()
    report["causes"] = report["causes"][:1]
    (check,) = (check for check in report["checks"] if check["name"] == "forward/eval/float64")
    check["relative"] = 0.125
    assert "   much    it moves the logits by 0.12, " in _text(report)
    report["explanation"]["complete"] = False
    assert "   much    alone it moves the logits by " in _text(report)


def test_doubts_about_the_map_are_left_out_where_the_explanation_closes(three: parity.Report) -> None:
    report = three.to_dict()
    report["mapping"]["remarks"] = ["without counterpart: a", "warning: b"]
    assert "without counterpart: a" in _text(report)
    assert "warning: b" not in _text(report)
    assert "warning: b" in _text(report, all_layers=True)
    report["explanation"]["complete"] = False
    assert "warning: b" in _text(report)


def test_source_of_a_cause_is_shown_where_it_is_known(three: parity.Report) -> None:
    report = three.to_dict()
    shown = _text(report, 120)
    assert "   at      eps_bias_pool.py:30: return self.fn(self.norm(x)) + x\n" in shown
    assert "\n           eps_bias_pool.py:57: x = self.norm(self.transformer(x + self.pos_embedding))\n" in shown
    cause = report["causes"][1]
    cause["candidate_code"] *= 3
    assert "\n           and 3 more\n   cause   layer-norm-eps" in _text(report)
    cause["candidate_code"] = []
    assert "   at      eps_bias_pool.py:30, 57\n   cause   layer-norm-eps" in _text(report)
    cause["source"] = ""
    assert "   mend    nn.LayerNorm(dim, eps=1e-6)\n   cause   layer-norm-eps" in _text(report)


def test_strip_has_a_cell_for_each_block(three: parity.Report, same: parity.Report) -> None:
    assert "depth       in   0   1 out\nown error    ·   E   E   E\nsummed up    ·   E   E   E" in _text(
        three.to_dict()
    )
    assert "own error    ·   ·   ·   ·" in _text(same.to_dict())


def test_last_cell_knows_the_logits(same: parity.Report) -> None:
    report = same.to_dict()
    report["checks"][0]["relative"] = 1e-3
    assert "summed up    ·   ·   ·   C" in _text(report)


def test_strip_is_broken_into_lines_where_it_is_deep(same: parity.Report) -> None:
    report = same.to_dict()
    template = report["layers"][-1]
    report["layers"] = [template | {"reference": f"blocks.{n}{part}"} for n in range(400) for part in ("", ".norm")]
    labels = [line.split()[1:] for line in _text(report).splitlines() if line.startswith("depth")]
    assert [label for line in labels for label in line] == [f"{n}" for n in range(400)]


def test_what_cannot_be_compared_is_no_rounding(same: parity.Report) -> None:
    report = same.to_dict()
    blocks = [row for row in report["layers"] if "encoder_layer_0" in row["reference"]]
    for row in blocks:
        row |= {"status": "not compared", "isolated": None, "accumulated": None}
    for row in (row for row in report["layers"] if "encoder_layer_1" in row["reference"]):
        row |= {"status": "origin", "isolated": None, "accumulated": None}
    assert "own error    ·   ?   !   ·" in _text(report)


def test_places_that_are_alike_are_one_row(three: parity.Report) -> None:
    begins = origins(complete(three.to_dict()))
    assert [place.where for place in begins][:2] == [
        "encoder.layers.encoder_layer_{0-1}.ln_1", "encoder.layers.encoder_layer_{0-1}.self_attention.in_proj"
    ]  # fmt: skip
    assert begins[0].candidate == "transformer.{0,2}.norm"
    assert [place.much for place in begins] == sorted((p.much for p in begins), key=lambda much: float(much) < 0)


def test_both_ends_of_code_between_modules_are_named(three: parity.Report) -> None:
    shown = [" ".join(line.split()) for line in _text(three.to_dict(), 120).splitlines()]
    assert any(line.startswith("between the output of encoder.ln and the input of heads.head 0.") for line in shown)


def test_place_that_the_statement_names_is_not_named_again(three: parity.Report) -> None:
    report = three.to_dict()
    report["causes"] = [report["causes"][0] | {"statement": "b.weight: times 2", "where": ["b.weight"]}]
    assert "   where" not in _text(report)


@pytest.mark.parametrize("all_layers", [False, True])
def test_no_number_of_nineteen_digits(three: parity.Report, *, all_layers: bool) -> None:
    report = three.to_dict()
    report["checks"][0]["max_ulp"] = report["layers"][0]["max_ulp"] = 9205362094994097341
    assert "9205362094994097341" not in _text(report, 200, all_layers=all_layers)


def test_short_form_is_that_of_the_exception(three: parity.Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(AssertionError) as failure:
        parity.assert_parity(THREE, overrides=SIZES, modes=["eval"])
    said, shown = (f"{answer}".splitlines() for answer in (failure.value, three))
    assert [line for line in said if "took" not in line] == [line for line in shown if "took" not in line]


def test_saved_report_is_drawn_as_the_report_itself(three: parity.Report, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(three.to_json())
    console = Console(width=90, markup=False)
    assert drawn(load(file), console) == three.drawn(console)


@pytest.mark.parametrize(
    ("content", "why"),
    [("{", "not JSON"), ("[" * 100_000, "not JSON"), ("[]", "no schema 1"), ('{"schema": 2}', "no schema 1"),
     ('{"schema": 1, "verdict": "right"}', "no verdict"), ('{"schema": 1, "verdict": []}', "no verdict"),
     ('{"schema": 1, "verdict": "identical", "layers": 3}', "layers is no list"),
     ('{"schema": 1, "verdict": "identical", "causes": [1]}', "an entry of causes is no object"),
     ('{"schema": 1, "verdict": "identical", "input": {}}', "input is no single value")],
)  # fmt: skip
def test_what_is_no_report_is_refused(content: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(content)
    with pytest.raises(ParityError, match=f"no report: .*{why}.*; write one with parity check --json"):
        load(file)


def renamed(value: Any, name: str) -> Any:
    """Returns a report's values with a name in every text but those that a report's form needs."""
    if isinstance(value, dict):
        kept = ("verdict", "schema", "status", "kind", "check")
        return {key: item if key in kept else renamed(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, name) for item in value]
    return f"{value}{name}" if isinstance(value, str) else value


NAMES = st.text(min_size=1, max_size=40) | st.sampled_from(EVIL)


@settings(max_examples=50, deadline=None)
@given(name=NAMES, width=st.integers(40, 200), all_layers=st.booleans())
@example(name="\u202etxt\x1b[31m\ud800", width=80, all_layers=True)
@example(name="漢" * 120, width=41, all_layers=True)
def test_no_line_is_too_long_and_no_name_is_an_order(
    three: parity.Report, name: str, width: int, *, all_layers: bool
) -> None:
    report = renamed(copy.deepcopy(three.to_dict()), name)
    for line in _text(report, width, all_layers=all_layers).splitlines():
        assert cell_len(line) <= width
        assert line.isprintable()


def short(value: Any) -> Any:
    """Returns a report's values with one entry of each list."""
    if isinstance(value, dict):
        return {key: short(item) for key, item in value.items()}
    return [short(item) for item in value[:1]] if isinstance(value, list) else value


def _edited(value: Any, odd: Any) -> Iterator[Any]:
    """Yields a report's values with an odd one in each place, one after the other."""
    yield odd
    if isinstance(value, dict):
        yield from (value | {key: other} for key, item in value.items() for other in _edited(item, odd))
    elif isinstance(value, list):
        yield from ([other, *value[1:]] for item in value[:1] for other in _edited(item, odd))


@pytest.mark.parametrize("odd", [None, True, -1, 10**400, 1e308, "", "x", [], {}, [1], {"a": 1}, [[]]], ids=repr)
def test_report_that_somebody_has_edited_is_drawn_or_refused(three: parity.Report, odd: Any) -> None:
    whole = complete(three.to_dict())
    pictures = [{"picture": "cat.png", "reference": [["cat", 0.5]], "candidate": [["cat", 0.5]]}]
    report = short(three.to_dict()) | {"top5": pictures}
    report["checks"][0]["rows"] = [{"reference": "a", "candidate": "b", "what": "c", "relative": 1.0, "noise": 1.0}]
    report["weights"] = {"verdict": "different", "as_is": {}, "notes": ["a note"],
                         "tensors": [{"candidate": "a", "statement": "b"}]}  # fmt: skip
    for edited in _edited(report, odd):
        try:
            shown = complete(edited)
        except ParityError:
            continue
        assert list(lines(shown, 80, all_layers=True))
        for draw in (as_html, as_markdown, as_sarif):
            assert draw(shown)
        for pair in ((shown, whole), (whole, shown)):
            assert compare(*pair).headline()


def test_modes_that_were_not_run_are_named_under_the_logits(three: parity.Report) -> None:
    report = three.to_dict()
    made = [check for check in report["checks"] if check["name"].startswith("forward/eval/")]
    assert "the same operations" not in _text(report)
    report["checks"] += [
        check | {"name": check["name"].replace("eval", mode), "why": "as in eval"}
        for check in made
        for mode in ("a", "b")
    ]
    said = _text(report, 120).splitlines()
    assert "a, b: the same operations as in eval, so that these are its results" in said
    assert "noise: so many times the reference's own rounding, both against float64" in said


def test_json_and_terminal_agree_in_every_number(three: parity.Report) -> None:
    said = _text(three.to_dict(), 200, all_layers=True).replace("> 1e9", ">1e9").splitlines()
    for layer in json.loads(three.to_json())["layers"]:
        if layer["status"] != "not compared":
            row = next(line.split() for line in reversed(said) if line.split()[:1] == [layer["reference"]])
            assert [number(layer["isolated"]), number(layer["accumulated"])] == row[5:7]


def test_words() -> None:
    assert [number(x) for x in (None, 0.0, 1.0, 1.23e-5, 1.7e6, float("inf"), True)] == [
        "-", "0", "1", "1.2e-05", "1.7e6", "not finite", "True"
    ]  # fmt: skip
    assert [ulps(x) for x in (None, 3, 10**9 + 1)] == ["-", "3", "> 1e9"]
    assert (above_rounding(3.3e-6), above_rounding(2e-15)) == ("3.3e9 times rounding", "")
    assert [decades(x) for x in (None, 0.0, 9e-15, 1e-14, 1e-6, 1e9)] == [0, 0, 0, 1, 9, 15]
    assert (shortened("a.b.ccc", 5), shortened("abc", 3), shortened("abc", 0)) == ("….ccc", "abc", "")
    assert wrapped("one two three", 9, "- ") == ["- one two", "  three"]
    assert together(["b.0.x", "b.1.x", "b.3.x", "c"]) == "b.{0-1,3}.x, c"
    assert together(f"{letter}" for letter in "abcde") == "a, b, c and 2 more"


def test_headline_is_one_line_whatever_the_names(same: parity.Report) -> None:
    report = complete(same.to_dict())
    report["candidate"]["name"] = report["reference"]["name"] = "folder/" * 30
    for verdict in ("identical", "equivalent", "divergent", "inconclusive"):
        assert len(headline(report | {"verdict": verdict}, 80)) <= 80


def test_weights_alone_are_said_to_be_what_differs() -> None:
    report = complete({"schema": 1, "verdict": "divergent", "weights": {"verdict": "different"},
                       "candidate": {"name": "mine"}, "reference": {"name": "theirs"}})  # fmt: skip
    assert headline(report) == "divergent: mine is theirs with other weights"
    assert stages(report) == []


def test_report_of_a_few_keys_is_drawn() -> None:
    assert _text({"schema": 1, "verdict": "inconclusive", "reasons": ["why"]}).startswith("inconclusive: nothing")


# --- the page


class Page(html.parser.HTMLParser):
    """Notes the elements of a page, its text, and what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.words.append(data)


def test_page_has_the_answer_the_causes_the_layers_and_the_map(three: parity.Report) -> None:
    shown = Page(three.to_html())
    words = " ".join(" ".join(shown.words).split())
    for cause in three.causes:
        assert cause.statement in words
    for layer in three.layers:
        assert layer.reference in words
    assert three.mapping is not None
    for entry in three.mapping.entries:
        assert entry.candidate in words
    assert not shown.open


def test_page_needs_nothing_and_can_be_read_aloud(three: parity.Report) -> None:
    text = three.to_html()
    shown = Page(text)
    tags = [tag for tag, _ in shown.elements]
    assert not {"link", "img", "iframe", "object"} & {*tags}
    assert not any({"src", "href", "onclick"} & attributes.keys() for _, attributes in shown.elements)
    assert "http" not in text.replace('http-equiv="Content-Security-Policy"', "")
    assert [tag for tag in tags if tag in ("h1", "h2")].index("h1") == 0
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in shown.elements if tag == "th")
    identifiers = [attributes["id"] for _, attributes in shown.elements if "id" in attributes]
    assert len(identifiers) == len({*identifiers})
    named = {name for _, a in shown.elements for name in (a.get("aria-labelledby") or "").split()}
    assert named <= {*identifiers}


@settings(max_examples=30, deadline=None)
@given(name=NAMES)
@example(name="</script><script>alert(1)</script>")
@example(name='" onload="x')
def test_no_name_is_markup_in_a_page(three: parity.Report, name: str) -> None:
    plain = {tag for tag, _ in Page(three.to_html()).elements}
    shown = Page(as_html(complete(renamed(copy.deepcopy(three.to_dict()), name))))
    tags = [tag for tag, _ in shown.elements]
    assert {*tags} <= plain | {"desc", "circle", "polyline"}
    assert tags.count("script") == 1
    assert not shown.open
    assert not any(attribute.startswith("on") for _, attributes in shown.elements for attribute in attributes)


def test_page_of_many_layers_is_small(same: parity.Report) -> None:
    report = same.to_dict()
    template = report["layers"][-1]
    report["layers"] = [template | {"reference": f"blocks.{n}.part{p}"} for n in range(32) for p in range(14)]
    assert len(as_html(complete(report))) < 1e6


def _drawn_layer(report: parity.Report) -> dict[str, Any]:
    """Returns a layer of which everything is drawn."""
    return next(row for row in report.to_dict()["layers"] if row["sizes"] and row["places"])


def test_page_draws_the_errors_of_each_layer_and_tells_them(three: parity.Report) -> None:
    layers = complete(three.to_dict())["layers"]
    drawn = [row["reference"] for row in layers if row["sizes"] or row["places"]]
    shown = Page(three.to_html())
    words = " ".join(" ".join(shown.words).split())
    assert len(drawn) > 10
    assert all(f"{name}: its errors, drawn" in words for name in drawn)
    pictures = [
        attributes
        for tag, attributes in shown.elements
        if tag == "svg" and not {"aria-labelledby", "aria-hidden"} & attributes.keys()
    ]
    assert len(pictures) > 2 * len(drawn)
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)
    opened = [attributes for tag, attributes in shown.elements if tag == "details" and "open" in attributes]
    assert [attributes["class"] for attributes in opened] == ["stage", "layer"]


def test_page_draws_both_dtypes_and_the_rounding_of_each(three: parity.Report) -> None:
    page = as_html(complete(three.to_dict()))
    assert "summed up in float32" in page
    assert "rounding in float64 (1e-15) and in float32 (6e-08)" in page
    assert page.count('<polyline class="sum rounded"') == 1
    exact = as_html(complete(three.to_dict() | {"options": {"dtype": "float64"}}))
    assert "rounding in float64 (1e-15)<" in exact
    assert "sum rounded" not in exact.partition("</style>")[2]


def test_page_shows_the_lines_of_a_cause_beside_those_of_torchvision(three: parity.Report) -> None:
    words = " ".join(" ".join(Page(three.to_html()).words).split())
    assert "eps_bias_pool.py:30 return self.fn(self.norm(x)) + x" in words
    assert "x = self.ln_1(input)" in words
    assert "x = x[:, 0]" in words


def test_own_weights_are_marked_in_the_map(same: parity.Report) -> None:
    report = same.to_dict()
    assert "own weights" not in as_html(complete(report))
    entries = [
        {"reference": f"r{part}", "candidate": part, "layout": "identity"} for part in ("kv[0:2]", "kv[2:4]", "q")
    ]
    report["mapping"]["entries"] = entries
    report["weights"] = {"verdict": "different", "tensors": [{"candidate": "kv", "statement": "times 2"}]}
    words = " ".join(Page(as_html(complete(report))).words)
    assert [words.count(mark) for mark in ("≠ times 2", "= same")] == [2, 1]


def test_page_draws_where_both_models_look(three: parity.Report, same: parity.Report) -> None:
    def told(report: dict[str, Any]) -> list[str]:
        drawn = [attributes for tag, attributes in Page(as_html(complete(report))).elements if tag == "svg"]
        return [f"{a['aria-label']}" for a in drawn if a.get("class") == "look"]

    assert told(same.to_dict()) == [f"{what}, attention: the same" for what in ("all blocks", "block 0", "block 1")]
    assert all("at most 0.0" in words for words in told(three.to_dict()))
    report = three.to_dict()
    report["attention"][0] |= {"why": "no softmax", "blocks": []}
    report["attention"][0]["rollout"] |= {"candidate": None, "difference": None}
    assert told(report) == ["all blocks, attention: the reference's alone"]
    assert "The candidate's attention was not found: no softmax." in as_html(complete(report))


def test_page_of_many_layers_that_differ_is_small(three: parity.Report) -> None:
    report, template = three.to_dict(), _drawn_layer(three)
    rows = [("Z1" * 8)[n % 2 :][:16] for n in range(17)]  # no two parts alike
    template["places"] |= {"cells": rows, "patches": rows}
    report["layers"] = [template | {"reference": f"blocks.{n}.part{p}"} for n in range(32) for p in range(14)]
    assert 1e6 < len(as_html(complete(report))) < 1e7


@pytest.mark.parametrize("odd", [None, True, -1, 10**400, 1e308, 1e-320, "", "x", [], [1], {"a": 1}], ids=repr)
def test_figures_of_a_report_that_somebody_has_edited_are_drawn_or_refused(three: parity.Report, odd: Any) -> None:
    report, layer = three.to_dict(), _drawn_layer(three)
    report["layers"] = [layer]
    for key in ("sizes", "places"):
        for edited in _edited(layer[key], odd):
            layers = [layer | {key: edited}]
            try:
                shown = complete(report | {"layers": layers})
            except ParityError:
                continue
            assert as_html(shown)


def test_notebook_shows_the_top_of_the_page(three: parity.Report) -> None:
    shown = Page(three._repr_html_())
    assert "The 3 causes" in shown.words
    assert "script" not in [tag for tag, _ in shown.elements]
    assert not shown.open


def test_page_that_cannot_be_drawn_says_so(three: parity.Report, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("parity.report.page._chart", broken)
    for text in (three.to_html(), three._repr_html_()):
        assert "divergent: " in text
        assert "the page could not be drawn: " in text


# --- the command line


def test_saved_report_is_drawn_again_and_written_as_a_page(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    options = [f"--set={key}={value}" for key, value in SIZES.items()]
    saved, first, second = (tmp_path / name for name in ("report.json", "first.html", "second.html"))
    status, out, _ = run("check", THREE, *options, "--modes", "eval", "--json", saved, "--html", first)
    assert (status, "3. the mean of all tokens" in out) == (1, True)
    assert run("report", saved, "--html", second) == (0, out, "")
    assert second.read_text() == first.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["missing.json"], "the report missing.json cannot be read: No such file or directory"),
     (["pyproject.toml"], "pyproject.toml is no report: it is not JSON"),
     (["pyproject.toml", "--html", "missing/page.html"], "there is no folder missing")],
)  # fmt: skip
def test_what_cannot_be_drawn_is_one_sentence_and_status_2(
    arguments: list[str], message: str, run: Callable[..., tuple[int, str, str]]
) -> None:
    status, out, err = run("report", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


# --- two reports beside each other


def test_two_reports_are_compared(
    three: parity.Report, same: parity.Report, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    files = [tmp_path / "three.json", tmp_path / "same.json"]
    for file, report in zip(files, (three, same), strict=True):
        file.write_text(report.to_json())
    status, out, _ = run("report", *files)
    assert status == 0
    assert out.startswith("identical, was divergent: 3 causes gone, 3 places better\n")
    assert "encoder.layers.encoder_layer_{0-1}.ln_1  4.3e-06  same bits" in out
    status, out, _ = run("report", *reversed(files))
    assert status == 0
    assert out.startswith("divergent, was identical: 3 causes appeared, 3 places worse\n")
    assert run("report", files[0], files[1], "--html", tmp_path / "page.html")[0] == 2


def test_nothing_has_changed(three: parity.Report) -> None:
    report = complete(three.to_dict())
    found = compare(report, report)
    assert found.headline() == "divergent as before: no cause, no layer has changed"
    assert (found.weights, found.around) == ((), ())


def test_what_else_has_changed_is_said(same: parity.Report) -> None:
    before, after = complete(same.to_dict()), complete(same.to_dict())
    after["environment"]["torch"] = "9.9"
    after["weights"] = {"tensors": [{"candidate": "head.weight", "statement": "times 2"}]}
    after["layers"][-1]["identical"], after["layers"][0]["status"] = False, "not compared"
    found = compare(before, after)
    assert found.headline().startswith("identical as before: no cause")
    assert found.weights == ("only after: head.weight: times 2",)
    assert found.around == (
        f"torch is 9.9, was {torch.__version__}",
        f"no longer compared: {after['layers'][0]['reference']}",
        f"other bits within rounding: {after['layers'][-1]['reference']}",
    )


# --- files of continuous integration


def test_summary_has_the_answer_and_folds_the_rest(three: parity.Report) -> None:
    text = as_markdown(complete(three.to_dict()))
    assert text.startswith("### divergent: tests/candidates/eps\\_bias".replace("\\_", "&#95;"))
    assert "| nn.LayerNorm(dim, eps=1e-6) | layer-norm-eps |" in text
    assert text.count("<details>") == text.count("</details>") == 4


def _code_of(letters: str) -> str:
    return html.unescape(letters)


@settings(max_examples=200, deadline=None)
@given(name=st.text(max_size=40) | st.sampled_from(EVIL))
def test_escaped_text_means_nothing_in_markdown(name: str) -> None:
    text = escaped(name)
    assert not {*"\\`*_[]|<>~$@\n"} & {*text}
    assert "://" not in text
    assert re.sub(r"&#\d+;", "", text).count("&") == 0
    assert _code_of(text) == " ".join(name.split()) or max(name) >= "\x80" or min(name) < " "


@settings(max_examples=30, deadline=None)
@given(name=NAMES)
def test_no_name_is_markup_in_a_summary(three: parity.Report, name: str) -> None:
    plain = as_markdown(complete(three.to_dict()))
    text = as_markdown(complete(renamed(copy.deepcopy(three.to_dict()), name)))
    assert {*re.findall(r"<[^>]*>", text)} == {*re.findall(r"<[^>]*>", plain)}
    for line in text.splitlines():
        assert line[:1] in ("", "#", "|", "-", "<") or not line.startswith("    ")


def test_summary_is_appended_to_that_of_a_job(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours.md", tmp_path / "theirs.md"
    for file in (ours, theirs):
        file.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(theirs))
    options = [*(f"--set={key}={value}" for key, value in SIZES.items()), "--modes", "eval"]
    for file in (ours, theirs):
        assert run("check", *options, "--summary", file)[0] == 0
    assert ours.read_text().startswith("### identical: vit:ViT is vit&#95;b&#95;16, to the bit\n")
    assert theirs.read_text() == f"before\n{ours.read_text()}"


def test_sarif_has_a_result_per_cause_at_the_candidates_line(three: parity.Report) -> None:
    report = complete(three.to_dict())
    report["candidate"]["files"] = ["a folder/model.py"]
    report["causes"][0]["source"] = ""
    report["causes"][1]["source"] = "model.py:12, 14, other.py:3"
    run_of = json.loads(as_sarif(report))["runs"][0]
    assert [result["ruleId"] for result in run_of["results"]] == ["qkv-bias", "layer-norm-eps", "pooling"]
    assert [rule["id"] for rule in run_of["tool"]["driver"]["rules"]] == ["qkv-bias", "layer-norm-eps", "pooling"]
    places = [
        [(place["artifactLocation"]["uri"], place["region"]["startLine"]) for location in result["locations"]
         for place in [location["physicalLocation"]]] for result in run_of["results"]
    ]  # fmt: skip
    assert places[0] == [("tests/candidates/eps_bias_pool.py", 1)]
    assert places[1] == [("a%20folder/model.py", 12), ("a%20folder/model.py", 14), ("other.py", 3)]


def test_sarif_without_causes_has_the_verdict(same: parity.Report) -> None:
    report = complete(same.to_dict())
    levels = {}
    for verdict in ("identical", "equivalent", "divergent", "inconclusive"):
        results = json.loads(as_sarif(report | {"verdict": verdict}))["runs"][0]["results"]
        levels[verdict] = [(result["ruleId"], result["level"]) for result in results]
    assert levels == {"identical": [], "equivalent": [], "divergent": [("divergent", "error")],
                      "inconclusive": [("inconclusive", "warning")]}  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(name=NAMES)
def test_any_name_is_sarif(three: parity.Report, name: str) -> None:
    report = complete(renamed(copy.deepcopy(three.to_dict()), name))
    assert len(json.loads(as_sarif(report).encode())["runs"][0]["results"]) == 3
