"""Layers that a candidate has otherwise as a whole, and tensors that lie otherwise, make one cause each, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import vit
from parity import check
from tests.small import OURS, SMALL

if TYPE_CHECKING:
    from parity.report import Report

    Tensor = torch.Tensor


def _explained(candidate: nn.Module, **overrides: int) -> Report:
    report = check(candidate, overrides={**SMALL, **overrides}, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.minimal
    return report


# the reference's MLP may be as wide, so that the one Linear is taken for one of its two
@pytest.mark.parametrize("width", [48, 96])
def test_mlp_of_one_linear_is_one_cause(width: int) -> None:
    candidate = vit.ViT(**{**OURS, "hidden_dim": width})
    for block in candidate.attn_layers:
        assert isinstance(block, nn.Module)
        block.MLP = nn.Linear(48, 48)
    report = _explained(candidate, mlp_dim=width)
    assert [cause.id for cause in report.causes] == ["mlp-width"]
    assert report.causes[0].statement.startswith("one Linear ")


def test_head_that_is_not_called_is_one_cause() -> None:
    class Headless(vit.ViT):
        def forward(self, images: Tensor) -> Tensor:
            x = self.patches(images)
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding
            features: Tensor = self.ln(self.attn_layers(x))[:, 0]
            return features

    report = _explained(Headless(**OURS))
    assert [cause.id for cause in report.causes] == ["head-missing"]


def test_tokens_in_rows_and_columns_are_no_difference_of_their_own() -> None:
    class InRows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Linear(192, 48)
            layer = nn.TransformerEncoderLayer(48, 4, 96, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
            self.blocks = nn.TransformerEncoder(layer, 2, nn.LayerNorm(48, eps=1e-6), enable_nested_tensor=False)
            self.head = nn.Linear(48, 10)

        def forward(self, images: Tensor) -> Tensor:
            x = images.reshape(len(images), 3, 4, 8, 4, 8).permute(0, 2, 4, 1, 3, 5).flatten(3)
            x = self.patch(x).flatten(1, 2)
            x = x + torch.arange(16 * 48.0).sin().view(16, 48).to(x)
            logits: Tensor = self.head(self.blocks(x).mean(1))
            return logits

    report = _explained(InRows())
    assert {cause.id for cause in report.causes} == {"class-token-missing", "position-fixed", "pooling"}


def test_norms_behind_branches_without_a_projection_are_the_blocks_own() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(48, 48) for _ in range(3))
            self.norm_1, self.norm_2 = nn.LayerNorm(48, eps=1e-6), nn.LayerNorm(48, eps=1e-6)
            self.mlp = nn.Sequential(nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 48))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (one(x).unflatten(-1, (4, 12)).transpose(1, 2) for one in (self.q, self.k, self.v))
            attended = (q @ k.transpose(-2, -1) * 12**-0.5).softmax(-1) @ v
            x = self.norm_1(x + attended.transpose(1, 2).flatten(2))
            normed: Tensor = self.norm_2(x + self.mlp(x))
            return normed

    class Behind(nn.Module):
        """No final norm, but one behind the patch projection, so that there are as many as the reference has."""

        def __init__(self) -> None:
            super().__init__()
            self.patch, self.norm = nn.Conv2d(3, 48, 8, 8), nn.LayerNorm(48)
            self.token, self.table = nn.Parameter(torch.zeros(1, 1, 48)), nn.Parameter(torch.zeros(1, 17, 48))
            self.blocks, self.head = nn.ModuleList(Block() for _ in range(2)), nn.Linear(48, 10)

        def forward(self, images: Tensor) -> Tensor:
            x = self.norm(self.patch(images).flatten(2).transpose(1, 2))
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.table
            for block in self.blocks:
                x = block(x)
            logits: Tensor = self.head(x[:, 0])
            return logits

    report = _explained(Behind())
    assert {cause.id for cause in report.causes} == {"extra-norm", "out-proj-missing", "post-norm", "norm-missing"}


def test_attention_that_leaves_the_output_projection_to_its_block_is_no_projection() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(48, 48) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (one(x).unflatten(-1, (4, 12)).transpose(1, 2) for one in (self.q, self.k, self.v))
            attended: Tensor = (q @ k.transpose(-2, -1) * 12**-0.5).softmax(-1) @ v
            return attended.transpose(1, 2).flatten(2)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.out = Attention(), nn.Linear(48, 48)
            self.norm_1, self.norm_2 = nn.LayerNorm(48, eps=1e-6), nn.LayerNorm(48, eps=1e-6)
            self.mlp = nn.Sequential(nn.Linear(48, 96), nn.ReLU(), nn.Linear(96, 48))

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm_1(x + self.out(self.attention(x)))
            normed: Tensor = self.norm_2(x + self.mlp(x))
            return normed

    candidate = vit.ViT(**OURS)
    candidate.attn_layers = nn.Sequential(Block(), Block())
    report = _explained(candidate)
    assert {cause.id for cause in report.causes} == {"post-norm", "activation"}
    places = [layer.reference for layer in report.layers if layer.candidate == "attn_layers.0.attention"]
    assert places == []


def test_of_causes_that_go_as_far_the_one_that_explains_what_follows_is_named() -> None:
    class SideBySide(nn.Module):
        """What enters the second norm is what attention not being used would give as well."""

        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            block: Any = self.block
            y = block.pre_norm(x)
            middle = x + block.attention(y, y, y)[0]
            result: Tensor = middle + block.MLP(block.norm(x))
            return result

    candidate = vit.ViT(**OURS)
    candidate.attn_layers = nn.Sequential(*(SideBySide(block) for block in candidate.attn_layers))
    for norm in candidate.modules():
        if isinstance(norm, nn.LayerNorm):
            norm.eps = 1e-5
    report = _explained(candidate)
    assert {cause.id for cause in report.causes} == {"layer-norm-eps", "parallel-branches"}
    (cause,) = (cause for cause in report.causes if cause.id == "parallel-branches")
    assert cause.statement.startswith("attention and MLP side by side in all 2 blocks")
