from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from parity import check
from parity.tracing.measuring import SAME_FUNCTION_BOUND
from tests.corpus.bugs import BUGS
from tests.corpus.cases import SIZES, case_of, cases
from tests.corpus.hosts import HOSTS
from tests.corpus.matrix import HARNESS, MATRIX, harness_says, is_explained
from tests.corpus.planting import write
from tests.corpus.running import initial

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from _pytest.mark.structures import ParameterSet

    from parity.report.report import Report
    from tests.corpus.cases import Case

# told by a formula that says less than the name does, or by its place alone
UNNAMED = {"heads-on-halves-separate"}


ALL = list(cases())


def _in_turn(first: int, every: int) -> list[ParameterSet]:
    """Returns all cases, of which some need no --whole-corpus: a bug in one of its hosts, which take turns.

    Args:
        first: the host of the first bug.
        every: of so many bugs it is one.
    """
    taken = {bug.id: bug.hosts[(number + first) % len(bug.hosts)] for number, bug in enumerate(BUGS)}
    skipped = {bug.id for number, bug in enumerate(BUGS) if number % every}

    def is_other(case: Case) -> bool:
        return case.bug.id in skipped or case.host.name != taken[case.bug.id]

    others = pytest.mark.whole_corpus
    return [pytest.param(case, id=case.id, marks=[others] * is_other(case)) for case in ALL]


@pytest.fixture
def _brief(case: Case, request: pytest.FixtureRequest) -> None:
    if case.id in UNNAMED:
        request.getfixturevalue("brief_search")


@pytest.fixture(scope="session")
def fresh_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], str]:
    """Files of weights as torchvision draws them, with a random head; one per architecture."""
    files: dict[tuple[tuple[str, object], ...], Path] = {}

    def file_for(case: Case) -> str:
        key = tuple(case.settings.items())
        if key not in files:
            files[key] = tmp_path_factory.mktemp("fresh") / "fresh.pth"
            torch.save(initial(case.settings), files[key])
        return str(files[key])

    return file_for


def _require_divergent(case: Case, report: Report) -> None:
    if case.bug.changes_parameters:
        assert report.verdict in ("divergent", "inconclusive"), report
    else:
        assert report.verdict == "divergent", report
    if report.origin is not None:
        assert report.origin.reference in case.first_places, report
    else:
        assert case.bug.changes_parameters, report
    if not case.bug.spreads:
        assert {place.reference for place in report.origins} <= case.places, report


PUBLISHED = {row["case"]: row["says"] for row in json.loads(MATRIX.read_text(encoding="utf-8"))["rows"]}


@pytest.mark.usefixtures("_brief")
@pytest.mark.parametrize("case", _in_turn(first=0, every=1))
def test_planted_bug_is_divergent_from_where_it_was_planted_and_named(case: Case, tmp_path: Path) -> None:
    report = check(case.write(tmp_path), overrides=case.settings, mapping=case.mapping, modes=[case.bug.mode])
    _require_divergent(case, report)
    assert is_explained(case, report.causes) == (case.id not in UNNAMED), report
    assert harness_says(case, report) == {name: PUBLISHED[case.id][name] for name in HARNESS}
    if report.explanation and report.explanation.complete:
        assert report.explanation.residual <= SAME_FUNCTION_BOUND
        assert report.explanation.minimal
        assert all((cause.without or 0) > SAME_FUNCTION_BOUND for cause in report.explanation.causes)


@pytest.mark.full_size
@pytest.mark.usefixtures("_brief")
@pytest.mark.parametrize("case", _in_turn(first=1, every=3))
def test_planted_bug_is_divergent_with_fresh_weights(
    case: Case, fresh_weights: Callable[[Case], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.bug.mode != "train":  # where masks cannot be aligned, the explanation is the proof
        monkeypatch.setattr("parity.checking.explain", lambda *_: (None, []))
        monkeypatch.setattr("parity.checking.mixing", lambda *_: None)  # without names it would be told in their place
    report = check(
        case.write(tmp_path),
        overrides=case.settings,
        mapping=case.mapping,
        weights=fresh_weights(case),
        modes=[case.bug.mode],
        dtype=case.bug.dtype,
    )
    if not case.bug.zero_in_torchvision_init:
        _require_divergent(case, report)
    elif case.bug.changes_parameters:
        assert report.verdict in ("divergent", "inconclusive"), report


_BLOCK = "encoder.layers.encoder_layer_1"


@pytest.mark.parametrize(
    ("bug", "host", "block", "where"),
    [
        ("class-token-last", "ours", None, "between the output of conv_proj and the input of encoder.dropout"),
        ("patch-tokens-reshaped", "fused", None, "between the output of conv_proj and the input of encoder.dropout"),
        ("images-scaled-in-place", "separate", None, "between the input and the input of conv_proj"),
        ("eps-1.1e-6-in-first-norm", "fused", 1, f"in {_BLOCK}.ln_1 (candidate: blocks.1.norm1)"),
        ("eps-1e-5-in-final-norm", "separate", None, "in encoder.ln (candidate: ln_final)"),
        ("activation-tanh-gelu", "ours", 1, f"in {_BLOCK}.mlp.1 (candidate: attn_layers.1.MLP.1)"),
        ("scale-by-width", "ours", 1, f"in {_BLOCK}.self_attention (candidate: attn_layers.1.attention)"),
        ("softmax-over-queries", "fused", 1,
         f"between the output of {_BLOCK}.self_attention.in_proj and the input of {_BLOCK}.self_attention.out_proj"),
        ("query-and-key-swapped-in-the-block", "ours", 1,
         f"between the output of {_BLOCK}.ln_1 and the input of {_BLOCK}.ln_2"),
        ("attention-residual-missing", "ours", 1,
         f"between the output of {_BLOCK}.dropout and the input of {_BLOCK}.ln_2"),
        ("mlp-residual-from-the-normed-input", "fused", 1,
         f"between the output of {_BLOCK}.mlp and the output of {_BLOCK}"),
        ("mlp-under-autocast", "ours", 1, f"in {_BLOCK}.mlp.0"),
        ("pool-mean", "ours", None, "between the output of encoder.ln and the input of heads.head"),
        ("final-norm-not-applied", "ours", None,
         "between the output of encoder.layers and the input of heads.head"),
        ("logits-softmax", "ours", None, "between the output of heads.head and the logits"),
    ],
)  # fmt: skip
def test_first_reason_says_where_it_begins(bug: str, host: str, block: int | None, where: str, tmp_path: Path) -> None:
    case = case_of(bug, host, block)
    report = check(case.write(tmp_path), overrides=SIZES, mapping=case.mapping, modes=[case.bug.mode])
    assert where in report.reasons[0]
    assert report.origin is not None
    assert report.origin.isolated > 1e-10


def test_every_mode_shows_a_bug_of_eval_mode(tmp_path: Path) -> None:
    report = check(case_of("softmax-over-heads").write(tmp_path), overrides=SIZES)
    assert {check.verdict for check in report.checks} - {"not compared"} == {"divergent"}


def test_bug_of_train_mode_leaves_eval_mode_alone(tmp_path: Path) -> None:
    report = check(case_of("dropout-after-attention-missing").write(tmp_path), overrides=SIZES)
    assert report.reasons[0].startswith("identical in eval mode; in train mode dropout is missing")
    assert {check.verdict for check in report.checks if "train" not in check.name} - {"not compared"} == {"identical"}


def test_faint_bug_leaves_the_float32_bits_of_another_seed_alone(tmp_path: Path) -> None:
    """The reason for float64: with eps 1.1e-6 in one block, float32 is no less accurate than the reference itself."""
    report = check(case_of("eps-1.1e-6-in-first-norm", block=2).write(tmp_path), overrides=SIZES)
    by_name = {check.name: check for check in report.checks}
    assert by_name["forward/eval/float64"].verdict == "divergent"
    assert by_name["forward/eval/float32"].verdict in ("identical", "equivalent")


def test_several_bugs_are_all_listed_in_order(tmp_path: Path) -> None:
    bugs = case_of("pool-mean").bug, case_of("eps-1e-5-in-second-norm").bug
    candidate = write(tmp_path, HOSTS["ours"], [bugs[0].edits], {1: [bugs[1].edits]})
    report = check(candidate, overrides=SIZES)
    assert [place.reference for place in report.origins] == ["encoder.layers.encoder_layer_1.ln_2", "heads.head"]
    assert [place.kind for place in report.origins] == ["module", "glue"]


def test_one_eps_everywhere_is_an_origin_in_every_norm(tmp_path: Path) -> None:
    report = check(case_of("eps-1e-5-everywhere").write(tmp_path), overrides=SIZES)
    assert [layer.reference for layer in report.layers if layer.status == "origin"] == [
        *(f"encoder.layers.encoder_layer_{block}.{norm}" for block in range(3) for norm in ("ln_1", "ln_2")),
        "encoder.ln",
    ]


def test_table_shows_the_origin_and_what_only_carries_it_on(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    options = [f"--set={key}={value}" for key, value in SIZES.items()]
    status, out, _ = run("check", case_of("activation-tanh-gelu", block=1).write(tmp_path), *options, "-v")
    assert status == 1
    row = {line.split()[0]: line for line in out.splitlines() if line.startswith("encoder.")}
    assert row["encoder.layers.encoder_layer_1.mlp.1"].rstrip().endswith("origin")
    assert row["encoder.layers.encoder_layer_1.mlp.3"].rstrip().endswith("propagated")
    assert row["encoder.layers.encoder_layer_0"].rstrip().endswith("clean")
    assert out.splitlines()[-1].startswith("divergent: ")
