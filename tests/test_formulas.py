"""What has no name is told by a formula, with the line that it comes from, and proved by a graft."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parity import check
from parity.explanation.formulas.reading import Reading
from parity.explanation.formulas.recording import Recording
from parity.explanation.formulas.replaying import Graft
from parity.tracing import Alignment, Point
from tests.odd_vit import Block, OddViT
from tests.small import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.report import Report

    Tensor = torch.Tensor

DISTANCES = (torch.stack(torch.meshgrid(torch.arange(4) - 1.5, torch.arange(4) - 1.5, indexing="ij")).norm(dim=0)).view(
    16, 1
)


def _weighed(x: Tensor) -> Tensor:
    sizes: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.sum(x * sizes.softmax(1), 1, keepdim=True)


def _best(scores: Tensor) -> Tensor:
    return scores.masked_fill(scores < scores.topk(5, -1).values[..., -1:], -torch.inf)


def _by_mean_size(x: Tensor) -> Tensor:
    return (x - x.abs().mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + 1e-6)


# what is done where, and what is said of it and of the reference
TRAITS: dict[str, tuple[str, Callable[..., Tensor], str, str]] = {
    "odd activation": ("activation", lambda x: x * torch.cos(x), "x * cos(x)", "gelu(x)"),
    "activation by its mean": ("activation", lambda x: F.gelu(x) * x.mean(), "gelu(x) * mean(x, axes all)", "gelu(x)"),
    "soft scores": ("scores", lambda s: s - s**3 / 100, "(q @ k^T / sqrt(12))^3 / 100", "softmax(q @ k^T / sqrt(12))"),
    "best keys": ("scores", _best, "masked_fill(q @ k^T / sqrt(12)", "q @ k^T / sqrt(12)"),
    "symmetric weights": (
        "weights",
        lambda a: (a + a.transpose(-2, -1)) / 2,
        "(softmax(q @ k^T / sqrt(12)) + transpose(softmax(q @ k^T / sqrt(12)))) @ v / 2",
        "softmax(q @ k^T / sqrt(12)) @ v",
    ),
    "unit weights": (
        "weights",
        lambda a: a / a.norm(dim=-1, keepdim=True),
        "linalg_vector_norm(softmax(",
        "softmax(q @ k^T / sqrt(12))",
    ),
    "heads mixed": ("query", lambda q: q + 0.1 * q.flip(1), "(q + flip(q, 1) / 10) @ k^T", "q @ k^T"),
    "values summed up": ("value", lambda v: v.cumsum(2), "@ cumsum(v, 2)", "@ v"),
    "squared branch": ("residual", lambda x, y: x + y**2, "x + y^2", "x + y"),
    "in place": ("branch", lambda y: y.sin_().mul_(0.3), "3 * sin(", "x + y"),
    "neighbours": ("branch", lambda y: (y.roll(1, 1) + y + y.roll(-1, 1)) / 3, "roll(y, 1, 1)", "x + y"),
    "tokens rolled": ("entering", lambda x: x.roll(1, 1), "roll(x, 1, 1)", "x"),
    "mean size": ("standardised", _by_mean_size, "x - mean(abs(x))", "x - mean(x)"),
    "patches by distance": ("patches", lambda x: x * torch.exp(-DISTANCES.to(x)), "* exp(", "x"),
    "bent positions": ("positions", lambda table: table.tanh(), "tanh(encoder.pos_embedding)", "pos_embedding"),
    "first tokens again": ("between", lambda x, first: x + 0.1 * first, "/ 10", ""),
    "tokens weighed": ("pooled", _weighed, "sum(", "x"),
    "hyperbolic logits": ("logits", lambda y: y.sinh(), "sinh(x)", "x"),
}


def _explained(place: str, trait: Callable[..., Tensor], **options: Any) -> Report:
    report = check(OddViT({place: trait}, **options), overrides=SMALL, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.explanation is not None
    return report


def _lines(trait: Callable[..., Tensor]) -> set[str]:
    lines, first = inspect.getsourcelines(trait)
    return {str(first + number) for number in range(len(lines))}


@pytest.mark.usefixtures("brief_search")
@pytest.mark.parametrize("name", TRAITS)
def test_trait_without_a_name_is_told_by_formula_and_line(name: str) -> None:
    place, trait, phrase, instead = TRAITS[name]
    report = _explained(place, trait)
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.minimal
    assert not report.explanation.by_name
    (cause,) = report.causes
    assert cause.id == "graft"
    file, _, numbers = cause.source.partition(":")
    assert file == "test_formulas.py"
    assert numbers.split(", ")[0] in _lines(trait)
    ours, theirs = cause.statement.removeprefix(f"{cause.source}: ").split("; the reference: ")
    assert phrase in ours
    assert instead in theirs
    assert not cause.hint
    assert cause.without is not None
    assert cause.without > 1e-9


def test_letters_of_a_formula_are_said_to_be_what() -> None:
    (cause,) = _explained("activation", lambda x: x * torch.cos(x)).causes
    assert cause.statement.endswith("; the reference: gelu(x), where x is the output of mlp.0")
    (cause,) = _explained("weights", lambda a: a + 0.1).causes
    assert cause.statement.count("where") == 0, "q, k and v speak for themselves"
    (cause,) = _explained("entering", _first_head_beside_the_last).causes
    assert cause.statement.endswith(" in all 2 blocks; the reference: x, where x is the input of the block")


def _first_head_beside_the_last(heads: Tensor) -> Tensor:
    return torch.cat([heads[:, :1] * 0.75 + heads[:, -1:] * 0.25, heads[:, 1:]], 1)


def test_part_keeps_its_axis_where_the_source_keeps_it() -> None:
    (cause,) = _explained("value", _first_head_beside_the_last).causes
    assert "cat([v[:, 3:4] / 4 + 0.75 * v[:, 0:1], v[:, 1:4]], 1)" in cause.statement
    (cause,) = _explained("weights", _first_head_beside_the_last).causes
    assert cause.statement.endswith("; the reference: y, where y is softmax(q @ k^T / sqrt(12))")


@pytest.mark.parametrize("name", ["odd activation", "soft scores", "neighbours", "hyperbolic logits"])
def test_causes_with_a_name_keep_it_beside_a_graft(name: str) -> None:
    place, trait, *_ = TRAITS[name]
    report = _explained(place, trait, blocks=(1,), eps=1e-5, head_bias=False)
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.minimal
    assert sorted(cause.id for cause in report.causes) == ["graft", "head-bias", "layer-norm-eps"]
    eps = next(cause for cause in report.causes if cause.id == "layer-norm-eps")
    assert len(eps.where) == 5
    assert eps.source.startswith("odd_vit.py:")


@pytest.mark.parametrize(
    ("place", "trait", "id_"),
    [("activation", F.relu, "activation"), ("branch", torch.tanh, "extra-activation"),
     ("logits", lambda y: y.softmax(-1), "output-activation"), ("positions", lambda table: -table, "position-scale")],
)  # fmt: skip
def test_cause_with_a_name_is_preferred(place: str, trait: Callable[..., Tensor], id_: str) -> None:
    report = _explained(place, trait)
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.by_name
    assert [cause.id for cause in report.causes] == [id_]
    assert ".py:" in report.causes[0].source


class AttendingTwice(Block):
    """A second attention through the norm and weights of the first looks like that norm in place of the second one."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attended(self.norm_1(x))
        return super().forward(x)


def test_name_that_a_formula_takes_back_is_not_said() -> None:
    model = OddViT({})
    model.blocks = nn.ModuleList(AttendingTwice({}, 1e-6) for _ in range(2))
    report = check(model, overrides=SMALL, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete, report
    assert [cause.id for cause in report.causes] == ["graft"], report
    # what is too long for a formula is shown as it stands in the source
    assert re.search(r"odd_vit\.py:[\d, ]+: `.+; .+` and \d+ more lines", report.causes[0].statement)


def test_factor_of_the_logits_is_said_once() -> None:
    (cause,) = _explained("logits", lambda y: y / 0.07).causes
    assert "logits times 14.285714" in cause.statement


def test_number_that_random_numbers_leave_is_no_cause() -> None:
    report = _explained("branch", lambda y: y * (torch.rand(len(y), 1, 1) < 1) / 0.9)
    assert [cause.id for cause in report.causes] == ["random-numbers"], report


def test_graft_is_as_small_as_the_aligned_points_allow() -> None:
    report = _explained(*TRAITS["odd activation"][:2])
    assert report.explanation is not None
    grafts = [change.value for change in report.explanation.changes]
    assert [graft.point.module for graft in grafts] == [f"encoder.layers.encoder_layer_{n}.mlp.3" for n in range(2)]
    assert [[operation.name for operation in graft.stretch.operations] for graft in grafts] == [["cos", "mul"]] * 2


@pytest.mark.usefixtures("brief_search")
def test_what_is_no_graft_is_said() -> None:
    report = _explained("branch", lambda y: y * float(y.detach().std()))
    assert report.explanation is not None
    assert not report.explanation.complete
    assert any("(a value is read in Python at test_formulas.py:" in reason for reason in report.reasons)


# --- recording and reading

START, END = Point("start", 0, "leave"), Point("end", 0, "leave")
NOWHERE = Alignment({}, {}, (), frozenset())


def _recorded(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Recording, Tensor]:
    recording = Recording({})
    with recording, torch.no_grad():
        recording.passes(START, x)
        result = function(x)
        recording.passes(END, result)
    return recording, result


def _in_place(x: Tensor) -> Tensor:
    x = x + 1
    first = x[:, 0]
    first *= 2
    x += 3
    return x[:, :2].transpose(0, 1).reshape(-1) * torch.tensor(2.0)


def test_what_is_written_in_place_is_carried_out_again_in_order() -> None:
    x, other = torch.randn(3, 4), torch.randn(3, 4)
    recording, _ = _recorded(_in_place, x)
    stretch = recording.stretch(END, {START})
    assert stretch is not None
    graft = Graft(END, ("end", "before leave", 0), stretch, NOWHERE, {})
    assert graft.entering == (START,)
    assert torch.equal(graft.carried_out(torch.empty(6), other), _in_place(other))


def test_stretch_begins_at_the_nearest_points() -> None:
    middle = Point("middle", 0, "leave")

    def function(x: Tensor) -> Tensor:
        x = x.sin().cos()
        recording.passes(middle, x)
        return x.exp() + 1

    recording = Recording({})
    with recording:
        x = torch.randn(3)
        recording.passes(START, x)
        recording.passes(END, function(x))
    for known, names in (({START}, ["sin", "cos", "exp", "add"]), ({START, middle}, ["exp", "add"])):
        stretch = recording.stretch(END, known)
        assert stretch is not None
        assert [operation.name for operation in stretch.operations] == names
    assert recording.stretch(Point("nowhere", 0, "leave"), {START}) is None


Q, W = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.randn(4, 4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: F.scaled_dot_product_attention(x, x, x), lambda x: (x @ x.transpose(-1, -2) / 2).softmax(-1) @ x),
        (
            lambda x: F.layer_norm(x, (4,), eps=1e-3),
            lambda x: (x - x.mean(-1, keepdim=True)) * (x.var(-1, unbiased=False, keepdim=True) + 1e-3).rsqrt(),
        ),
        (lambda x: F.linear(x, W), lambda x: torch.einsum("bhnd,cd->bhnc", x, W)),
        (lambda x: (x * 0.5) @ W, lambda x: (x @ W) / 2),
        (lambda x: F.dropout(x, 0.5, training=False) - x / 4, lambda x: x.contiguous() + x * -0.25),
        (lambda x: torch.sqrt(x.square() + 1) * x, lambda x: x * (1 + x * x) ** 0.5),
        (lambda x: x.chunk(2, -1)[1].exp(), lambda x: x[..., 2:].exp()),
        (lambda x: x.unflatten(-1, (2, 2)).unbind(-2)[1], lambda x: x.split(2, -1)[1]),
    ],
)
def test_other_ways_to_write_it_are_the_same_term(one: Callable[..., Tensor], other: Callable[..., Tensor]) -> None:
    for second, is_same in ((other, True), (lambda x: other(x).tan(), False)):
        reading = Reading({}, lambda point: point, {}, keep=False)
        terms = []
        for function in (one, second):
            stretch = _recorded(function, Q)[0].stretch(END, {START})
            assert stretch is not None
            terms.append(reading.term_of(stretch))
        assert (terms[0] is terms[1]) == is_same


class _OnPatches(OddViT):
    """Does something with the pixels of each patch."""

    def __init__(self, done: Callable[[Tensor], Tensor]) -> None:
        super().__init__({})
        self.projection = nn.Linear(192, 48)
        del self.patch
        self.of_patches = done

    def forward(self, images: Tensor) -> Tensor:
        x = images.view(-1, 3, 4, 8, 4, 8).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        x = self.projection(self.of_patches(x))
        x = torch.cat([self.token.expand(len(images), -1, -1), x], 1) + self.table
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x)[:, 0])
        return logits


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (lambda x: x - x.mean(-1, keepdim=True), "mean(x as (3, 16, 192))"),
        (lambda x: x - x.mean(1, keepdim=True).tanh(), "mean(x as (3, 16, 192), axis -2)"),
        (lambda x: x * x[:, :, 5:6].cos(), "cos((x as (3, 16, 192))[:, :, 5:6])"),
    ],
)
def test_axes_of_what_was_arranged_otherwise_are_those_of_a_shape(done: Callable[[Tensor], Tensor], said: str) -> None:
    report = check(_OnPatches(done), overrides=SMALL, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    (cause,) = report.causes
    assert said in cause.statement, report
    assert cause.statement.endswith("where x is the images")


def test_bound_that_nothing_has_reached_is_no_absent_number() -> None:
    def standardised(x: Tensor) -> Tensor:
        variance = x.var(-1, keepdim=True, correction=0)
        return (x - x.mean(-1, keepdim=True)) / variance.clamp(min=1e-6).sqrt()

    report = check(OddViT({"standardised": standardised}), overrides=SMALL, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    (cause,) = report.causes
    assert cause.id == "graft", report
    assert "clamp(" in cause.statement
