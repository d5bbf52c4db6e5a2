"""Train mode in a plain check: where a candidate drops otherwise than the reference is named and proved."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from rich.console import Console
from torch import nn

from parity import check
from parity.diagnosis import soundness
from parity.tracing.draws import ACTIVATION, fixed_sites, sites_of
from parity.tracing.masks import MasksByValue
from parity.tracing.modes import Mode
from tests.candidates import tutorial
from tests.odd_vit import Block as OddBlock
from tests.odd_vit import OddViT
from tests.small import SMALL

if TYPE_CHECKING:
    from parity.report.report import Report

FOLDER = Path(__file__).parent / "candidates"
SIZES = {
    "image_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96,
    "num_classes": 10,
}  # fmt: skip
_TRAIN = Mode("train", train=True, grad=True)

Edit = tuple[str, str]

_HELPERS = """

class Path(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training:
            return x
        kept = (1 - self.rate + torch.rand(len(x), 1, 1, dtype=x.dtype)).floor()
        return x * kept / (1 - self.rate)


def keep_small(x, rate, training):
    return x * (torch.rand_like(x) < 1 - rate) / (1 - rate) if training else x


def keep_large(x, rate, training):
    return x * (torch.rand(x.shape) > rate).to(x.dtype) / (1 - rate) if training else x


def fill_dropped(x, rate, training):
    return x.masked_fill(torch.rand_like(x) < rate, 0) / (1 - rate) if training else x


class """

# what makes the tutorial's dropout torchvision's
_MENDED: list[Edit] = [
    (
        "x = x + self.attention(normed, normed, normed)[0]",
        "x = x + self.after(self.attention(normed, normed, normed)[0])",
    ),
    (
        "        self.norm = nn.LayerNorm(",
        "        self.after = nn.Dropout(dropout)\n        self.norm = nn.LayerNorm(",
    ),
    ("num_heads, dropout=0.0):", "num_heads, dropout=0.0, attn_drop=0.0):"),
    ("dropout=dropout, batch_first", "dropout=attn_drop, batch_first"),
    ("        num_classes=1000,\n", "        num_classes=1000,\n        attn_drop=0.0,\n"),
    ("num_heads, dropout) for", "num_heads, dropout, attn_drop) for"),
]
_HOSTS: dict[str, tuple[str, str, list[Edit]]] = {
    "block": ("tutorial", "ViT", _MENDED),
    "functions": ("separate_qkv", "ViTClassifier", []),
}


def _checked(folder: Path, host: str, *edits: Edit) -> Report:
    file, entry_point, first = _HOSTS[host]
    source = (FOLDER / f"{file}.py").read_text(encoding="utf-8").replace("\n\nclass ", _HELPERS, 1)
    for old, new in (*first, *edits):
        assert old in source, old
        source = source.replace(old, new)
    candidate = folder / "candidate.py"
    candidate.write_text(source, encoding="utf-8")
    return check(f"{candidate}:{entry_point}", overrides=SIZES)


_AFTER = "self.after(self.attention(normed, normed, normed)[0])"
_UNDROPPED = "self.attention(normed, normed, normed)[0]"
_ATTENDED, _HIDDEN = "self.drop(self.mha(self.ln_attn(x)))", "self.drop(F.gelu(self.ff_in(self.ln_ff(x))))"
_WEIGHTS = "self.dropout(F.softmax(scores, dim=-1))"
_PATH = ("self.drop = nn.Dropout(dropout)\n\n", "self.drop = nn.Dropout(dropout)\n        self.path = Path(0.2)\n\n")
_END = "            nn.Linear(hidden_dim, embed_dim),\n            nn.Dropout(dropout),\n"

# host, edits, cause, what is said of it, and one of its places
FAULTS: list[tuple[str, list[Edit], str, str, str]] = [
    ("block", [(_AFTER, _UNDROPPED)], "dropout-missing",
     "dropout is missing on the attention's output (blocks 0 to 2)", "encoder_layer_0.dropout"),
    ("functions", [(_HIDDEN, "F.gelu(self.ff_in(self.ln_ff(x)))")], "dropout-missing",
     "dropout is missing on the MLP's hidden features after the activation (blocks 0 to 2)", "encoder_layer_0.mlp.2"),
    ("block", [("self.head(self.ln(x[:, 0]))", "self.head(self.dropout(self.ln(x[:, 0])))")], "dropout-extra",
     "dropout of rate 0.13 acts on the head's input", "heads"),
    ("block", [("self.head = nn.Linear(embed_dim, num_classes)",
                "self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(embed_dim, num_classes))")],
     "dropout-extra", "dropout of rate 0.13 acts on the head's input", "heads"),
    ("functions", [("x = self.to_patches(images)", "x = F.dropout(self.to_patches(images), 0.5, self.training)")],
     "dropout-extra", "dropout of rate 0.5 acts on the patches' features", "conv_proj"),
    ("block", [(_END, _END[:46]), ("self.MLP(self.norm(x))", "self.MLP(self.after(self.norm(x)))")],
     "dropout-elsewhere", "dropout acts on the MLP's input, not on its output (blocks 0 to 2)", "encoder_layer_0.ln_2"),
    ("functions", [("self.drop(self.ff_out(hidden))", "self.ff_out(hidden)"),
                   ("self.ff_in(self.ln_ff(x))", "self.ff_in(self.drop(self.ln_ff(x)))")],
     "dropout-elsewhere", "dropout acts on the MLP's input, not on its output", "encoder_layer_0.mlp.4"),
    ("block", [("self.after = nn.Dropout(dropout)", "self.after = nn.Dropout(dropout / 2)")], "dropout-rate",
     "dropout on the attention's output has rate 0.065 (blocks 0 to 2)", "encoder_layer_0.dropout"),
    ("functions", [("self.dropout = nn.Dropout(attn_dropout)", "self.dropout = nn.Dropout(0.5)")], "dropout-rate",
     "dropout on the attention's weights has rate 0.5 (blocks 0 to 2)", "encoder_layer_0.self_attention"),
    ("block", [("self.after = nn.Dropout(", "self.after = Path(")], "stochastic-depth",
     "dropout of rate 0.13 on the attention's output drops whole images", "encoder_layer_0.dropout"),
    ("block", [(_AFTER, f"self.after({_UNDROPPED}.transpose(1, 2)).transpose(1, 2)"),
               ("self.after = nn.Dropout(", "self.after = nn.Dropout1d(")], "dropout-shape",
     "dropout of rate 0.13 on the attention's output drops whole channels", "encoder_layer_0.dropout"),
    ("functions", [("self.dropout = nn.Dropout(", "self.dropout = nn.Dropout2d(")], "dropout-shape",
     "dropout of rate 0.21 on the attention's weights drops whole heads (blocks 0 to 2)",
     "encoder_layer_0.self_attention"),
    ("functions", [_PATH, (_ATTENDED, f"self.path({_ATTENDED})")], "stochastic-depth",
     "dropout of rate 0.2 on the attention's output drops whole images", "encoder_layer_0"),
    ("block", [("            nn.GELU(),\n            nn.Dropout(dropout),\n",
                "            nn.Dropout(dropout),\n            nn.GELU(),\n")], "dropout-order",
     "dropout acts on the MLP's hidden features before the activation, not afterwards", "encoder_layer_0.mlp.1"),
    ("block", [(f"x + {_AFTER}", f"self.after(x + {_UNDROPPED})")], "dropout-order",
     "dropout acts on the stream after the attention, not on the attention's output", "encoder_layer_0.dropout"),
    ("functions", [("self.drop(torch.cat([cls, x], dim=1) + self.positions)",
                    "self.drop(torch.cat([cls, x], dim=1)) + self.positions")], "dropout-order",
     "dropout acts on the tokens before the positions are added, not afterwards", "class_token"),
    ("functions", [(_WEIGHTS, "F.softmax(self.dropout(scores), dim=-1)")], "dropout-order",
     "dropout acts on the attention's scores, not on its weights (blocks 0 to 2)", "encoder_layer_0.self_attention"),
    ("block", [("x = self.dropout(x)", "x = self.dropout(self.dropout(x))")], "dropout-extra",
     "dropout of rate 0.13 acts on the tokens after the positions are added, once more", "encoder.dropout"),
    ("functions", [("self.split(self.w_v(x))", "self.split(self.drop_values(self.w_v(x)))"),
                   ("self.dropout = nn.Dropout(attn_dropout)",
                    "self.dropout = nn.Dropout(attn_dropout)\n        self.drop_values = nn.Dropout(0.3)")],
     "dropout-extra", "dropout of rate 0.3 acts on the attention's values", "encoder_layer_0.self_attention"),
    # a rate that no argument of the reference's names
    ("block", [("        dropout=0.0,\n        num_classes=1000,\n        attn_drop=0.0,\n",
                "        num_classes=1000,\n        amount=0.1,\n"),
               ("num_heads, dropout, attn_drop) for", "num_heads, amount) for"),
               ("self.dropout = nn.Dropout(dropout)", "self.dropout = nn.Identity()")], "dropout-extra",
     "dropout of rate 0.1 acts on the attention's output, the MLP's hidden features", "encoder_layer_0.mlp.4"),
    ("functions", [("        dropout=0.0,\n        attn_dropout=0.0,\n", "        amount=0.1,\n"),
                   ("d_ff, dropout, attn_dropout) for", "d_ff, 0.0, amount) for"),
                   ("self.drop = nn.Dropout(dropout)\n        self.layers",
                    "self.drop = nn.Identity()\n        self.layers")],
     "dropout-extra", "dropout of rate 0.1 acts on the attention's weights", "encoder_layer_0.self_attention"),
]  # fmt: skip


@pytest.mark.parametrize(("host", "edits", "cause", "said", "where"), FAULTS)
def test_other_dropout_is_named_and_proved(
    host: str, edits: list[Edit], cause: str, said: str, where: str, tmp_path: Path
) -> None:
    report = _checked(tmp_path, host, *edits)
    assert report.verdict == "divergent", report
    assert [found.id for found in report.causes] == [cause], report
    assert said in report.causes[0].statement
    assert any(place.endswith(where) for place in report.causes[0].where), report.causes
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.minimal
    assert "in eval mode; in train mode dropout" in report.reasons[0]
    assert said in report.reasons[0]


def test_tutorial_gets_its_one_sentence_and_fits_on_a_screen() -> None:
    report = check(f"{FOLDER / 'tutorial.py'}:ViT", overrides=SIZES)
    assert report.verdict == "divergent", report
    sentence = "dropout acts on the attention's weights, not on its output (blocks 0 to 2)"
    assert report.reasons[0] == f"identical in eval mode; in train mode {sentence}"
    assert [cause.id for cause in report.causes] == ["dropout-elsewhere"]
    drawn = report.drawn(Console(width=100))
    assert sum(1 + len(line) // 101 for line in drawn.splitlines()) <= 42, drawn
    assert len(report.drawn(Console(width=100), all_layers=True)) > len(drawn)


RIGHT: list[tuple[str, list[Edit]]] = [
    ("block", []),
    ("block", [(_AFTER, f"keep_small({_UNDROPPED}, self.after.p, self.training)")]),
    ("block", [(_AFTER, f"keep_large({_UNDROPPED}, self.after.p, self.training)")]),
    ("block", [(_AFTER, f"fill_dropped({_UNDROPPED}, self.after.p, self.training)")]),
    ("functions", [(_WEIGHTS, "torch.stack([self.dropout(w) for w in F.softmax(scores, dim=-1).unbind(1)], 1)")]),
]


@pytest.mark.parametrize(("host", "edits"), RIGHT)
def test_same_dropout_drawn_in_another_way_is_not_flagged(host: str, edits: list[Edit], tmp_path: Path) -> None:
    report = _checked(tmp_path, host, *edits)
    assert report.verdict in ("identical", "equivalent"), report
    assert not report.causes


def test_second_dropout_at_one_place_is_one_more(tmp_path: Path) -> None:
    twice = ("x + self.MLP(self.norm(x))", "x + self.after(self.MLP(self.norm(x)))")
    report = _checked(tmp_path, "block", twice)
    (cause,) = report.causes
    assert cause.statement == (
        "in train mode one more dropout of rate 0.13 acts on the MLP's output (blocks 0 to 2); the reference has no "
        "other there"
    )


def test_dropout_is_named_beside_attention_over_the_images(tmp_path: Path) -> None:
    """Masks of the attention's weights then are of the images, and not of the tokens."""
    report = _checked(tmp_path, "block", ("batch_first=True", "batch_first=False"), (_AFTER, _UNDROPPED))
    assert [cause.id for cause in report.causes] == ["batch-first", "dropout-missing"], report
    assert report.explanation is not None
    assert report.explanation.complete


_POOLED, _TOKENS = "self.ln_final(x)[:, 0, :]", "self.drop(torch.cat([cls, x], dim=1) + self.positions)"
_MISSING = (_ATTENDED, "self.mha(self.ln_attn(x))")
BESIDE: list[tuple[list[Edit], set[str]]] = [
    ([("self.drop(self.ff_out(hidden))", "self.drop(F.gelu(self.ff_out(hidden)))")], {"extra-activation"}),
    ([("self.drop(self.ff_out(hidden))", "self.drop(F.gelu(self.ff_out(hidden)))"), _MISSING],
     {"extra-activation", "dropout-missing"}),
    ([("self.drop(self.ff_out(hidden))", "F.gelu(self.drop(self.ff_out(hidden)))"), _MISSING],
     {"extra-activation", "dropout-missing"}),
    ([(_TOKENS, "F.dropout(torch.cat([cls, x], dim=1) + self.positions, self.drop.p)"), _MISSING],
     {"dropout-in-eval", "dropout-missing"}),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "causes"), BESIDE)
def test_train_mode_is_explained_beside_what_differs_anyway(
    edits: list[Edit], causes: set[str], tmp_path: Path
) -> None:
    report = _checked(tmp_path, "functions", *edits)
    assert {found.id for found in report.causes} == causes, report
    assert report.explanation is not None
    assert report.explanation.complete
    said = "in train mode dropout is missing on the attention's output"
    assert (said in " ".join(report.reasons)) == ("dropout-missing" in causes)


def test_why_train_mode_is_not_compared_is_said_beside_a_cause(tmp_path: Path) -> None:
    turned = "self.dropout(F.softmax(scores, dim=-1).transpose(1, 2)).transpose(1, 2)"
    report = _checked(tmp_path, "functions", (_WEIGHTS, turned), ("d_model, eps=1e-6", "d_model, eps=1e-5"))
    assert [found.id for found in report.causes] == ["layer-norm-eps"], report
    why = "both drop at the same rates and as often, but over another layout, so that masks cannot be aligned"
    assert f"train: not compared, since {why}" in report.drawn(Console(width=200))


_BACKWARDS = [(_TOKENS, "self.drop((torch.cat([cls, x], dim=1) + self.positions).flip(1))"),
              (_POOLED, "self.ln_final(x)[:, -1]")]  # fmt: skip


def test_same_dropouts_of_tokens_in_another_order_are_not_flagged(tmp_path: Path) -> None:
    report = _checked(tmp_path, "functions", *_BACKWARDS)
    assert report.verdict == "equivalent", report
    made = {made["name"]: made["why"] for made in report.to_dict()["checks"]}
    assert made["forward/train/float64"].startswith("what is dropped is decided by its value")
    assert made["forward/train/float32"].startswith("without dropout")


@pytest.mark.parametrize(
    "edit",
    [
        (_HIDDEN, "F.gelu(self.drop(self.ff_in(self.ln_ff(x))))"),
        (_HIDDEN, "self.drop(F.gelu(self.drop(self.ff_in(self.ln_ff(x)))))"),
        (_WEIGHTS, "F.softmax(self.dropout(scores), dim=-1)"),
        (_ATTENDED, "self.mha(self.ln_attn(x))"),
        ("self.dropout = nn.Dropout(attn_dropout)", "self.dropout = nn.Dropout(0.5)"),
    ],
)
def test_other_dropout_of_tokens_in_another_order_is_no_success(edit: Edit, tmp_path: Path) -> None:
    assert _checked(tmp_path, "functions", *_BACKWARDS, edit).verdict == "divergent"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ((_WEIGHTS, "F.softmax(scores, dim=-1)"), "dropout is missing on the attention's weights"),
        ((_ATTENDED, "self.mha(self.ln_attn(x))"), "dropout is missing on the attention's output"),
    ],
)
def test_other_dropout_of_a_model_whose_class_token_is_the_last_is_named(edit: Edit, said: str, tmp_path: Path) -> None:
    last = [("torch.cat([cls, x], dim=1)", "torch.cat([x, cls], dim=1)"), (_POOLED, "self.ln_final(x)[:, -1, :]")]
    report = _checked(tmp_path, "functions", *last, edit)
    assert [cause.id for cause in report.causes] == ["dropout-missing"], report
    assert said in report.causes[0].statement
    assert report.explanation is not None
    assert report.explanation.complete


def test_values_decide_once_what_a_mask_drops() -> None:
    """Wherever they stand; a mask that is used again drops what it has dropped before."""
    x, order = torch.rand(4, 6, 8, dtype=torch.float64), torch.randperm(6)
    with MasksByValue():
        dropped = [nn.functional.dropout(tokens, 0.4) for tokens in (x, x[:, order])]
        channels = nn.functional.dropout1d(x, 0.4), nn.functional.dropout1d(x[:, order], 0.4)
        mask = torch.empty_like(x).bernoulli_(0.6)
        first, again = x * mask, x.flip(1) * mask
    for one, other in (dropped, channels):
        assert torch.equal(one[:, order], other)
        assert 0 < (one == 0).float().mean() < 0.8
    assert torch.equal(first == 0, again == 0)


def test_missing_dropout_is_named_beside_masks_drawn_head_by_head(tmp_path: Path) -> None:
    report = _checked(tmp_path, "functions", *RIGHT[-1][1], (_ATTENDED, "self.mha(self.ln_attn(x))"))
    assert [cause.id for cause in report.causes] == ["dropout-missing"], report


def test_bug_of_eval_mode_and_a_dropout_are_both_named(tmp_path: Path) -> None:
    eps = ("self.pre_norm = nn.LayerNorm(embed_dim, eps=1e-06)", "self.pre_norm = nn.LayerNorm(embed_dim)")
    report = _checked(tmp_path, "block", (_AFTER, _UNDROPPED), eps)
    assert [cause.id for cause in report.causes] == ["layer-norm-eps", "dropout-missing"], report
    assert report.explanation is not None
    assert report.explanation.complete
    assert "and in train mode dropout is missing on the attention's output" in " ".join(report.reasons)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("nn.GELU(), nn.Dropout(0.3)", "after the activation"),
        ("nn.Dropout(0.3), nn.GELU()", "before the activation"),
    ],
)
def test_dropout_inside_a_head_of_its_own_is_named(layers: str, said: str, tmp_path: Path) -> None:
    head = f"nn.Sequential(nn.Linear(embed_dim, 72), {layers}, nn.Linear(72, num_classes))"
    report = _checked(tmp_path, "block", ("nn.Linear(embed_dim, num_classes)", head), (_AFTER, _UNDROPPED))
    assert [cause.id for cause in report.causes] == ["head-shape", "dropout-extra", "dropout-missing"], report
    assert f"dropout of rate 0.3 acts inside the head of its own, {said}" in report.causes[1].statement
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.minimal


def test_only_what_another_reference_drops_otherwise_is_named() -> None:
    """The tutorial's attention is the reference's here, and so is what it lacks."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "hidden_dim": 96, "num_heads": 4, "num_layers": 2}
    build = functools.partial(tutorial.ViT, **sizes, num_classes=10, dropout=0.1)
    reference, candidate = build(), build()
    candidate.dropout.p = 0.4
    report = check(candidate, reference=reference, weights="synthetic")
    assert [cause.id for cause in report.causes] == ["dropout-rate"], report
    assert report.causes[0].where == ("dropout",)
    assert report.causes[0].statement.endswith("has rate 0.4; the reference has rate 0.1")


_ON_WEIGHTS = "the reference has one of rate 0.21 on the attention's weights"
_FORMULA = (_WEIGHTS, "self.dropout(F.softmax(scores.sin() * scores.abs(), dim=-1))")
_SMOOTHED = (_WEIGHTS, "self.dropout(0.9 * F.softmax(scores, dim=-1) + 0.1 / scores.shape[-1])")


def test_formula_may_drop_what_it_makes_of_the_weights(tmp_path: Path) -> None:
    report = _checked(tmp_path, "functions", _SMOOTHED)
    assert [cause.id for cause in report.causes] == ["graft"], report
    assert report.explanation is not None
    assert report.explanation.complete


@pytest.mark.parametrize("edits", [[], [(_HIDDEN, "F.gelu(self.ff_in(self.ln_ff(x)))")]])
def test_formula_keeps_the_dropout_of_the_weights(edits: list[Edit], tmp_path: Path) -> None:
    report = _checked(tmp_path, "functions", _FORMULA, *edits)
    assert [cause.id for cause in report.causes] == ["graft", *["dropout-missing"] * len(edits)], report
    assert report.explanation is not None
    assert report.explanation.complete


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (
            "F.softmax(self.dropout(scores.sin() * scores.abs()), dim=-1)",
            f"dropout acts in candidate.py:LINE, not on the attention's weights (blocks 0 to 2); {_ON_WEIGHTS}",
        ),
        (
            "self.dropout(self.dropout(F.softmax(scores.sin() * scores.abs(), dim=-1)))",
            "one more dropout of rate 0.21 acts in candidate.py:LINE (blocks 0 to 2); the reference has no other there",
        ),
        (
            "F.dropout(F.softmax(scores.sin() * scores.abs(), dim=-1), 0.5, self.training)",
            "dropout on the attention's weights has rate 0.5 (blocks 0 to 2); the reference has rate 0.21",
        ),
        (
            "F.softmax(scores.sin() * scores.abs(), dim=-1)",
            "dropout is missing on the attention's weights (blocks 0 to 2); the reference has one of rate 0.21",
        ),
    ],
)
def test_other_dropout_in_a_formula_is_told_apart_from_it(weights: str, said: str, tmp_path: Path) -> None:
    report = _checked(tmp_path, "functions", (_WEIGHTS, weights))
    assert report.verdict == "divergent"
    assert report.explanation is not None
    assert report.explanation.complete
    formula, dropout = report.causes
    assert formula.id == "graft", report
    assert re.sub(r"py:\d+", "py:LINE", dropout.statement) == f"in train mode {said}"


_DROPPED = "        x = self.dropout(x)\n"
_IF_TRAINING = "        if self.training:\n            x = x + 0.1 * torch.randn(x.shape[1:], dtype=x.dtype)\n"


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("        x = x * (1 + self.training / 9)\n", "1.1111111111111112 in place of 1.0"),
        (_IF_TRAINING, "`x = x + 0.1 * torch.randn(x.shape[1:], dtype=x.dtype)` (candidate.py:"),
        # an attribute that is read in eval mode alone, as nn.MultiheadAttention of torch 2.0 does
        ("        x = x * (1 + (self.training or x.ndim == 0) / 9)\n", "1.1111111111111112 in place of 1.0"),
    ],
)
def test_what_else_is_done_in_train_mode_alone_is_named_beside_a_dropout(added: str, said: str, tmp_path: Path) -> None:
    report = _checked(tmp_path, "block", (_DROPPED, _DROPPED + added), (_AFTER, _UNDROPPED))
    assert [cause.id for cause in report.causes] == ["train-mode-alone", "dropout-missing"], report
    assert said in report.causes[0].statement
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.minimal


def test_difference_of_train_mode_that_cannot_be_taken_back_stays_open(tmp_path: Path) -> None:
    report = _checked(tmp_path, "block", (_DROPPED, f"{_DROPPED}        x = x.neg() if self.training else x.clone()\n"))
    assert report.verdict == "divergent"
    assert report.explanation is not None
    assert not report.explanation.complete
    assert report.reasons[0] == "identical in eval mode; in train mode the logits differ, and no cause was found"
    assert not report.causes


def test_masks_that_the_candidate_fixes_itself_are_no_other_way_to_draw(tmp_path: Path) -> None:
    seeded = ("        x = self.dropout(x)\n", "        torch.manual_seed(123)\n        x = self.dropout(x)\n")
    report = _checked(tmp_path, "block", seeded)
    assert report.verdict == "divergent"
    assert report.explanation is not None
    assert not report.explanation.complete


class _Drawing(nn.Module):
    def __init__(self, *, seeded: bool = False) -> None:
        super().__init__()
        self.seeded = seeded

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.seeded:
            torch.manual_seed(7)
        x = nn.functional.dropout(x, 0.5)
        x = x * (torch.rand_like(x) > 0.3) + x * (torch.rand(len(x), 1) < 0.6) * (torch.rand(len(x), 1) >= 0.0)
        return x * (0.8 + torch.rand(len(x), 1)).floor() + torch.bernoulli(torch.full_like(x, 0.9))


def test_rates_are_read_off_masks_of_any_make() -> None:
    drawn = sites_of(_Drawing(), torch.ones(4, 64), _TRAIN, 0, "candidate")
    made = [(site.rate, site.shape) for site in drawn if site.kind != ACTIVATION]
    assert made == [(0.5, (4, 64)), (0.3, (4, 64)), (0.4, (4, 1)), (0.2, (4, 1)), (0.1, (4, 64))]


def test_draws_under_an_own_seed_are_told() -> None:
    fixed = [
        len(fixed_sites(_Drawing(seeded=seeded), torch.ones(4, 64), _TRAIN, 0, "candidate")) for seeded in (False, True)
    ]
    assert fixed == [0, 3]


def test_dropouts_on_a_gpu_draw_alike_for_both_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU has a generator of its own, for which another one stands in here."""
    gpu = torch.Generator()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [gpu.get_state()])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: gpu.set_state(states[0]))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", gpu.manual_seed)

    def dropout(values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:  # noqa: ARG001, FBT001, FBT002
        return values * (torch.rand(values.shape, generator=gpu) >= p) / (1 - p) if training else values

    monkeypatch.setattr(torch.nn.functional, "dropout", dropout)
    monkeypatch.setattr(soundness, "_first", functools.cache(soundness._First))  # noqa: SLF001  (of this torch)
    before = gpu.get_state()
    report = check("vit:ViT", overrides=SIZES, modes=["eval", "train"])
    assert report.verdict == "identical", report
    assert torch.equal(gpu.get_state(), before)


def test_what_is_done_in_eval_mode_alone_is_said_to_be(tmp_path: Path) -> None:
    report = _checked(tmp_path, "block", (_AFTER, f"{_AFTER} * (1 if self.training else 0.8)"))
    assert [cause.id for cause in report.causes] == ["residual-scale"], report
    assert (
        "in train mode your model is vit_b_16; in eval mode it is vit_b_16 with the output of attention times 0.8"
        in " ".join(report.reasons)
    )


class _Unprojected(nn.Module):
    """Attention with its norm and without a projection of its output, whose weights are dropped."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(48, eps=1e-6)
        self.projections, self.dropout = nn.Linear(48, 144, bias=False), nn.Dropout(rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.projections(self.norm(x)).view(len(x), -1, 3, 4, 12).permute(2, 0, 3, 1, 4)
        y = self.dropout((q @ k.mT / 12**0.5).softmax(-1)) @ v
        merged: torch.Tensor = y.transpose(1, 2).flatten(2)
        return merged


def test_dropout_is_named_beside_a_projection_that_is_not_there() -> None:
    class Block(OddBlock):
        def __init__(self, rate: float) -> None:
            super().__init__({}, 1e-6)
            del self.qkv, self.proj, self.norm_1
            self.attention = _Unprojected(rate)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.attention(x)
            y: torch.Tensor = x + self.fc2(nn.functional.gelu(self.fc1(self.norm_2(x))))
            return y

    class Model(OddViT):
        def __init__(self, dropout: float = 0.0) -> None:
            super().__init__({})
            self.blocks = nn.ModuleList(Block(dropout) for _ in range(2))

    report = check(Model, overrides=SMALL)
    assert report.explanation is not None
    assert report.explanation.complete, report
    assert {cause.id for cause in report.causes} == {
        "out-proj-missing", "qkv-bias", "dropout-missing", "dropout-elsewhere",
    }  # fmt: skip


def test_dropout_of_eval_mode_hides_nothing_else() -> None:
    """Torch's attention drops whatever the mode is; the branches are normed where they are added."""

    class Block(OddBlock):
        def attended(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.qkv(x).view(len(x), -1, 3, 4, 12).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=0.1)
            attended: torch.Tensor = self.proj(y.transpose(1, 2).flatten(2))
            return attended

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm_1(x + self.attended(x))
            normed: torch.Tensor = self.norm_2(x + self.fc2(nn.functional.gelu(self.fc1(x))))
            return normed

    model = OddViT({})
    model.blocks = nn.ModuleList(Block({}, 1e-5) for _ in range(2))
    report = check(model, overrides=SMALL, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete, report
    assert {cause.id for cause in report.causes} == {"post-norm", "layer-norm-eps", "dropout-in-eval"}
