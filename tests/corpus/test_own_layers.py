"""What has tensors of its own in a candidate, and what no map is written for, is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parity import check
from tests.corpus.cases import SIZES, case_of
from tests.corpus.hosts import HOSTS
from tests.corpus.planting import write

if TYPE_CHECKING:
    from pathlib import Path

TOKENS, CLASSES = 26, SIZES["num_classes"]
_LOW = "nn.Linear({D}, 4, bias=False), nn.Linear(4, {rows}, bias=False)"

PLANTED = {
    "gated MLP": (
        {
            "block.built": "self.gate = nn.Linear({D}, {M})",
            "block.forward": "x = x + attention(norm_1(x))\ny = norm_2(x)\n"
            "return x + self.mlp.fc2(nn.functional.silu(self.gate(y)) * self.mlp.fc1(y))",
        },
        ("mlp-gated", "SiLU"),
    ),
    "fused gated MLP": (
        {
            "block.built": "{fc1} = nn.Linear({D}, 2 * {M})",
            "block.forward": "x = x + attention(norm_1(x))\none, other = self.mlp.fc1(norm_2(x)).chunk(2, -1)\n"
            "return x + self.mlp.fc2(one * nn.functional.gelu(other))",
        },
        ("mlp-gated", "GELU of the second"),
    ),
    "low rank beside the fused projection": (
        {
            "block.built": f"{{attn}}.low, {{attn}}.up = {_LOW.replace('{rows}', '3 * {D}')}",
            "attention.projected": "({projected} + 2 * self.up(self.low({x})))",
        },
        ("low-rank-branch", "rank 4"),
    ),
    "adapter": (
        {
            "block.built": f"self.low, self.up = {_LOW.replace('{rows}', '{D}')}",
            "block.forward": "x = x + attention(norm_1(x))\nx = x + mlp(norm_2(x))\n"
            "return x + self.up(nn.functional.gelu(self.low(x)))",
        },
        ("adapter", "GELU"),
    ),
    "head over all tokens": (
        {"model.built": f"{{head}} = nn.Linear({TOKENS} * {{D}}, {CLASSES})", "model.pool": "{normed}.flatten(1)"},
        ("head-shape", "all tokens laid end to end"),
    ),
    "head over class token and mean": (
        {
            "model.built": f"{{head}} = nn.Linear(2 * {{D}}, {CLASSES})",
            "model.pool": "torch.cat([{normed}[:, 0], {normed}[:, 1:].mean(1)], -1)",
        },
        ("head-shape", "the class token and the mean of the patches' tokens"),
    ),
    "hidden layer in the head": (
        {"model.built": f"{{head}} = nn.Sequential(nn.Linear({{D}}, 30), nn.ReLU(), nn.Linear(30, {CLASSES}))"},
        ("head-shape", "ReLU"),
    ),
    "hidden layer in a head that chooses a token": (
        {
            "top": "class Head(nn.Module):\n    def __init__(self, width, classes):\n        super().__init__()\n"
            "        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, classes)\n"
            "    def forward(self, x):\n        return self.out(torch.tanh(self.hidden(x[:, 0])))",
            "model.built": f"{{head}} = Head({{D}}, {CLASSES})",
            "model.pool": "{normed}",
        },
        ("extra-projection", "tanh"),
    ),
    "BatchNorm before the head": (
        {"model.built": "self.before = nn.BatchNorm1d({D}, affine=False)", "model.pooled": "self.before({pooled})"},
        ("extra-norm", "BatchNorm"),
    ),
    "BatchNorm over features": (
        {
            "top": "class Norm(nn.BatchNorm1d):\n    def forward(self, x):\n        return super().forward(x.mT).mT",
            "block.norm_2": "Norm({D})",
        },
        ("batch-norm", "running statistics"),
    ),
    "norm over tokens and features": (
        {"block.norm_1": f"nn.LayerNorm(({TOKENS}, {{D}}))"},
        ("layer-norm-axes", "tokens and features together"),
    ),
    "post-norm": (case_of("post-norm").bug.edits, ("post-norm", "after the residual additions")),
    "norms at the ends of the branches": (
        case_of("norms-at-the-ends-of-the-branches").bug.edits,
        ("post-norm", "ends of the branches"),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_named_by_one_cause_without_a_written_map(name: str, tmp_path: Path) -> None:
    edits, (id_, says) = PLANTED[name]
    report = check(write(tmp_path, HOSTS["fused"], [edits]), overrides=SIZES, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.explanation is not None
    assert report.explanation.complete, report.reasons
    assert [cause.id for cause in report.causes] == [id_], report.causes
    assert says in report.causes[0].statement
    assert not any("no known cause" in reason or "never used" in reason for reason in report.reasons)


def test_two_causes_at_one_place_are_preferred_to_a_formula(tmp_path: Path) -> None:
    hidden = f"{{head}} = nn.Sequential(nn.Linear({{D}}, 56), nn.GELU(), nn.Linear(56, {CLASSES}))"
    edits = {"model.final_norm": "nn.Identity()", "model.built": hidden}
    report = check(write(tmp_path, HOSTS["fused"], [edits]), overrides=SIZES, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.by_name, report.causes
    assert sorted(cause.id for cause in report.causes) == ["head-shape", "norm-missing"]


def test_mask_that_hides_every_key_is_said_where_it_begins(tmp_path: Path) -> None:
    edits = {"attention.softmax": "{scores}.masked_fill({scores} < torch.inf, -torch.inf).softmax(-1)"}
    report = check(write(tmp_path, HOSTS["fused"], [edits]), overrides=SIZES, modes=["eval"])
    unknown = [reason for reason in report.reasons if reason.startswith("no known cause at")]
    assert len(unknown) == 1
    assert "not finite; a softmax gives such values where a mask hides every key" in unknown[0]
    assert "shape" not in unknown[0]
    assert not any("random numbers" in reason for reason in report.reasons)
