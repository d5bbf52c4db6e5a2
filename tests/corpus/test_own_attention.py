"""What a candidate's attention has of its own, and learned numbers, are named and cost nothing of the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.corpus.conftest import one_cause

if TYPE_CHECKING:
    from pathlib import Path

_RMS = """class Rms(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.scale"""
_GROUPS = "{t}.view({B}, {N}, -1, {d}).transpose(1, 2)"
_SPREAD = f"{_GROUPS}.repeat_interleave({{H}} // ({{t}}.shape[-1] // {{d}}), 1)"
_TILED = f"{_GROUPS}.repeat(1, {{H}} // ({{t}}.shape[-1] // {{d}}), 1, 1)"
_FEWER = "{attn}.w_k, {attn}.w_v = (nn.Linear({D}, ROWS) for _ in range(2))"

# host, edits, id of the cause, and what is said of it
WAYS = {
    "norms-of-all-heads": (
        "separate",
        {"block.built": "{attn}.q_norm, {attn}.k_norm = (nn.LayerNorm({D}) for _ in range(2))",
         "attention.projected": "torch.cat([self.q_norm(self.w_q({x})), self.k_norm(self.w_k({x})), "
         "self.w_v({x})], -1)"},
        "extra-norm", "LayerNorm of query and key (layers.*.mha.q_norm and layers.*.mha.k_norm), eps 1e-05",
    ),
    "root-mean-square": (
        "fused",
        {"top": _RMS, "block.built": "{attn}.q_norm, {attn}.k_norm = Rms({D} // {heads}), Rms({D} // {heads})",
         "attention.before": "{k}, {q} = self.k_norm({k}), self.q_norm({q})\n"},
        "extra-norm", "RMSNorm of query and key (blocks.*.attn.k_norm and blocks.*.attn.q_norm), eps 1e-06",
    ),
    "norm-of-keys-alone": (
        "fused",
        {"block.built": "{attn}.k_norm = nn.LayerNorm({D} // {heads}, eps=1e-6)",
         "attention.before": "{k} = self.k_norm({k})\n"},
        "extra-norm", "LayerNorm of key (blocks.*.attn.k_norm), eps 1e-06",
    ),
    "one-norm-for-both": (
        "fused",
        {"block.built": "{attn}.norm = nn.LayerNorm({D} // {heads}, eps=1e-6)",
         "attention.before": "{q}, {k} = self.norm({q}), self.norm({k})\n"},
        "extra-norm", "(blocks.*.attn.norm)",
    ),
    "temperature-in-logarithms": (
        "fused",
        {"block.built": "{attn}.log_scale = nn.Parameter(torch.ones({heads}, 1, 1))",
         "attention.before": "{q}, {k} = (nn.functional.normalize(t, dim=-1) for t in ({q}, {k}))\n",
         "attention.scores": "{q} @ {k}.transpose(-2, -1) * self.log_scale.clamp(max=4.6051701859880914).exp()"},
        "cosine-attention", "times exp(blocks.*.attn.log_scale)",
    ),
    "one-temperature-for-all-heads": (
        "fused",
        {"block.built": "{attn}.temperature = nn.Parameter(torch.ones(1))",
         "attention.scores": "{q} @ {k}.transpose(-2, -1) * self.temperature"},
        "attention-scale", "attention scale blocks.*.attn.temperature",
    ),
    "learned-number-for-both-branches": (
        "fused",
        {"block.built": "self.alpha = nn.Parameter(torch.zeros(1))",
         "block.residual_1": "{x} + self.alpha * {branch}", "block.residual_2": "{x} + {branch} * self.alpha"},
        "extra-scale", "both branches times a learned number (blocks.*.alpha) in all 3 blocks",
    ),
    "two-keys-for-neighbours": (
        "separate",
        {"block.built": _FEWER.replace("ROWS", "{D} // 2"), "attention.split": _SPREAD},
        "shared-heads", "2 keys and values for 4 heads (layers.*.mha.w_k and layers.*.mha.w_v), neighbours alike",
    ),
    "two-keys-in-turn": (
        "separate",
        {"block.built": _FEWER.replace("ROWS", "{D} // 2"), "attention.split": _TILED},
        "shared-heads", "given out in turn",
    ),
    "one-key-for-all-in-a-fused-projection": (
        "separate",
        {"block.built": "{attn}.w_q = nn.Linear({D}, {D} + 2 * ({D} // {heads}))\n"
         "{attn}.w_k = {attn}.w_v = None",
         "attention.projected": "torch.cat([part.repeat(1, 1, {H} * {d} // part.shape[-1]) for part in "
         "self.w_q({x}).split([{H} * {d}, {d}, {d}], -1)], -1)"},
        "shared-heads", "one key and value for all heads",
    ),
    "one-key-for-all": (
        "separate",
        {"block.built": _FEWER.replace("ROWS", "{D} // {heads}"), "attention.split": _SPREAD},
        "shared-heads", "one key and value for all heads",
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_attention_with_more_than_the_reference_is_named_in_every_mode(way: str, tmp_path: Path) -> None:
    unmapped = one_cause(WAYS[way], tmp_path).to_dict()["mapping"]["unmapped_reference"]
    assert all("in_proj" in name and "[40:120]" in name for name in unmapped)
