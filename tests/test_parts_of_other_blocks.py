"""Blocks that use another block's part although each has its own: whose is told, at which line, and what to use."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from parity import check
from tests.odd_vit import OddViT
from tests.small import SMALL

_SIZES = SMALL | {"num_layers": 3}


class _Staged(nn.Module):
    """Every block has an MLP, and all use the one that the middle one has."""

    used = 1

    def __init__(
        self, image_size: int, patch_size: int, num_layers: int, num_heads: int, hidden_dim: int, mlp_dim: int,
        num_classes: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.heads = num_heads
        self.patches = nn.Conv2d(3, hidden_dim, patch_size, patch_size)
        self.first = nn.Parameter(torch.zeros(1, 1, hidden_dim))
        self.table = nn.Parameter(torch.zeros((image_size // patch_size) ** 2 + 1, hidden_dim))
        self.blocks: Any = nn.ModuleList(
            nn.ModuleDict({
                "before": nn.LayerNorm(hidden_dim, 1e-6), "qkv": nn.Linear(hidden_dim, 3 * hidden_dim),
                "out": nn.Linear(hidden_dim, hidden_dim), "between": nn.LayerNorm(hidden_dim, 1e-6),
                "up": nn.Linear(hidden_dim, mlp_dim), "down": nn.Linear(mlp_dim, hidden_dim),
            })
            for _ in range(num_layers)
        )  # fmt: skip
        self.last = nn.LayerNorm(hidden_dim, 1e-6)
        self.classes = nn.Linear(hidden_dim, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.first.expand(len(images), 1, -1), self.patches(images).flatten(2).mT], 1) + self.table
        for block in self.blocks:
            q, k, v = block["qkv"](block["before"](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            x = x + block["out"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            other = self.blocks[self.used]
            x = x + other["down"](F.gelu(other["up"](block["between"](x))))
        logits: torch.Tensor = self.classes(self.last(x)[:, 0])
        return logits


class _Last(_Staged):
    used = 2


def _line() -> str:
    source, start = inspect.getsourcelines(_Staged)
    number = start + next(n for n, line in enumerate(source) if 'other["down"]' in line)
    return f"test_parts_of_other_blocks.py:{number}"


def test_whose_part_all_blocks_use_is_told_with_its_line_and_what_to_use_instead() -> None:
    for candidate, number in ((_Staged, 1), (_Last, 2)):
        report = check(candidate, overrides=_SIZES, modes=["eval"])
        (cause,) = report.causes
        assert cause.id == "block-sharing"
        assert cause.statement.startswith(f"the MLP of block {number} in mlp of all 3 blocks")
        assert cause.source == _line()
        others = sorted({0, 1, 2} - {number})
        assert cause.hint.startswith("each block's own, which your model has and never uses: ")
        assert all(f"blocks.{n}.up" in cause.hint for n in others)


def test_tensors_without_a_counterpart_are_one_short_sentence_where_all_is_explained() -> None:
    report = check(_Staged, overrides=_SIZES, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    said = [reason for reason in report.reasons if "no counterpart" in reason]
    assert len(said) == 1
    assert "closest" not in said[0]
    remarks = report.to_dict()["mapping"]["remarks"]
    assert [remark.startswith("never used") for remark in remarks].index(True) == 0
    assert sum("without counterpart" in remark for remark in remarks) == 1


def test_one_norm_before_every_branch_of_all_blocks_is_one_cause() -> None:
    model = OddViT({}, eps=1e-5)
    for block in model.blocks:
        block.norm_1 = block.norm_2 = model.blocks[0].norm_1
    report = check(model, overrides=SMALL, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete, report
    assert [cause.id for cause in report.causes] == ["norm-shared", "layer-norm-eps"]
    assert report.causes[0].statement.startswith("one and the same norm before every branch")
