"""One scalar, changed by 1e-8 of itself in a forward pass of the width of ViT-B/16, shows, and where it is."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import settings
from torch import nn
from torch.nn import functional as F

from parity import check
from tests.candidates import fused_qkv
from tests.corpus.hosts import HOSTS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.full_size

RELATIVE_CHANGE = 1e-8

# of full width always; 76 scalars at full depth in each of four rounds take half an hour
DEPTH, ROUNDS = (12, 4) if settings.get_current_profile_name() == "thorough" else (2, 1)

_VisionTransformer: Any = fused_qkv.VisionTransformer

# nothing is to be inferred from how a changed scalar is used
MAPPING = HOSTS["fused"].mapping

# the candidate's modules, and where the reference has them
_IN_BLOCK = {
    "norm1": "ln_1", "attn.qkv": "self_attention.in_proj", "attn.proj": "self_attention.out_proj", "norm2": "ln_2",
    "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3",
}  # fmt: skip
PLACES = {
    "patch_embed.proj": "conv_proj",
    **{f"blocks.{n}.{ours}": f"encoder.layers.encoder_layer_{n}.{theirs}"
       for n in range(DEPTH) for ours, theirs in _IN_BLOCK.items()},
    "norm": "encoder.ln",
    "head": "heads.head",
}  # fmt: skip


def _nudge(module: Any, generator: random.Random) -> None:
    """Makes a module compute with one scalar of its weight or bias changed, and its own tensors left alone."""
    name, draw = generator.choice(["weight", "bias"]), generator.random()

    def forward(x: torch.Tensor) -> torch.Tensor:
        values = {"weight": module.weight, "bias": module.bias}
        changed = values[name].detach().clone()
        changed.view(-1)[int(draw * changed.numel())] *= 1 + RELATIVE_CHANGE
        weight, bias = (values | {name: changed}).values()
        if isinstance(module, nn.Conv2d):
            return F.conv2d(x, weight, bias, module.stride)
        if isinstance(module, nn.LayerNorm):
            return F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)
        return F.linear(x, weight, bias)

    module.forward = forward


def _nudged_in_every_module(seed: int) -> nn.Module:
    model: nn.Module = _VisionTransformer(depth=DEPTH)
    generator = random.Random(seed)  # noqa: S311  (no secret)
    for name in PLACES:
        _nudge(model.get_submodule(name), generator)
    return model


def _nudged_token_or_position(seed: int) -> nn.Module:
    class Nudged(_VisionTransformer):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            generator = random.Random(seed)  # noqa: S311
            tensors = [self.cls_token.detach().clone(), self.pos_embed.detach().clone()]
            chosen = generator.choice(tensors).view(-1)
            chosen[generator.randrange(len(chosen))] *= 1 + RELATIVE_CHANGE
            x = self.patch_embed(x)
            x = torch.cat((tensors[0].expand(x.shape[0], -1, -1), x), dim=1)
            x = self.norm(self.blocks(self.pos_drop(x + tensors[1])))
            logits: torch.Tensor = self.head(x[:, 0])
            return logits

    model: nn.Module = Nudged(depth=DEPTH)
    return model


def _origins(model: nn.Module) -> Iterator[str]:
    overrides = {"num_layers": DEPTH}
    report = check(model, overrides=overrides, mapping=MAPPING, modes=["eval"], dtype="float64", batch=2)
    assert report.verdict == "divergent", report
    yield from (place.reference for place in report.origins)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_scalar_of_every_module_shows_in_that_module(seed: int) -> None:
    """Each module is given the reference's own input, so that each of the scalars is alone."""
    assert {*_origins(_nudged_in_every_module(seed))} == {*PLACES.values()}


@pytest.mark.parametrize("seed", range(2 * ROUNDS))
def test_a_scalar_of_token_or_positions_shows_between_patches_and_blocks(seed: int) -> None:
    assert next(_origins(_nudged_token_or_position(seed))) == "encoder.dropout"


def test_without_a_change_nothing_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_sensitivity.RELATIVE_CHANGE", 0.0)
    model: nn.Module = _VisionTransformer(depth=1)
    for name in PLACES:
        if not name.startswith("blocks") or name.startswith("blocks.0."):
            _nudge(model.get_submodule(name), random.Random(0))  # noqa: S311
    report = check(model, overrides={"num_layers": 1}, mapping=MAPPING, modes=["eval"], dtype="float64", batch=2)
    assert report.verdict == "equivalent", report
