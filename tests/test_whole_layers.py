"""Layers that a candidate has otherwise as a whole, and tensors that lie otherwise, make one cause each, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
