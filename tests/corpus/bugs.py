"""Bugs that hand-written and ported ViTs have: what changes in the source, where that begins, and what causes it.

Those in which a model is of another family stand in `traits.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.corpus.bug import (
    ACTIVATION,
    ATTENTION,
    CONV,
    FINAL_NORM,
    HEAD,
    HEADS,
    LAYER,
    LOGITS,
    MLP,
    MLP_OUTPUT,
    NORM_1,
    NORM_2,
    NORM_PARTS,
    NORMS,
    PROJECTIONS,
    RESIDUAL_1,
    RESIDUAL_2,
    SUM_1,
    TOKENS,
    Bug,
    activation,
    norms_by,
    own_activation,
    own_norm,
    own_patches,
)
from tests.corpus.slips import SLIPS
from tests.corpus.traits import TRAIT, TRAITS

_SINUSOIDS = '''def sinusoids(count, width):
    """A fixed table of positions, (1, count, width), as in the Transformer of 2017."""
    angles = torch.arange(count)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]'''

_PATCHES = [
    Bug(id="patch-kernel-transposed", edits={"patches.features": "{conv}({images}.mT).mT"}, place=CONV, also=TOKENS,
        causes=("patch-pixel-order",)),
    Bug(id="patch-pixels-transposed", edits=own_patches("0, 2, 3, 1, 5, 4"), place=(*CONV, *TOKENS),
        causes=("patch-pixel-order",)),
    Bug(id="patch-pixels-channels-last", edits=own_patches("0, 2, 3, 4, 5, 1"), place=(*CONV, *TOKENS),
        causes=("patch-pixel-order",)),
    Bug(id="patch-pixels-by-columns-channels-last", edits=own_patches("0, 2, 3, 5, 4, 1"), place=(*CONV, *TOKENS),
        causes=("patch-pixel-order",)),
    Bug(id="patch-channels-flipped", edits={"patches.features": "{conv}({images}.flip(1))"}, place=CONV,
        causes=("patch-channels",)),
    Bug(id="patch-tokens-reshaped", edits={"patches.tokens": "return {f}.reshape({f}.shape[0], -1, {f}.shape[1])"},
        place=TOKENS, causes=("patch-reshape",)),
    Bug(id="patch-unfold-without-permute", place=(*CONV, *TOKENS), causes=("patch-reshape",),
        edits={"patches.features": "nn.functional.linear("
               "{images}.unfold(2, *[{conv}.stride[0]] * 2).unfold(3, *[{conv}.stride[0]] * 2)"
               ".reshape({images}.shape[0], *[{images}.shape[-1] // {conv}.stride[0]] * 2, -1), "
               "{conv}.weight.flatten(1), {conv}.bias).permute(0, 3, 1, 2)"}),
    Bug(id="patches-column-major", edits={"patches.tokens": "return {f}.transpose(2, 3).flatten(2).transpose(1, 2)"},
        place=TOKENS, causes=("patch-order",)),
    Bug(id="patch-bias-missing", edits={"model.built": "{conv}.bias = None"}, place=CONV, causes=("patch-bias",),
        changes_parameters=True, zero_in_torchvision_init=True),
    Bug(id="patch-bias-not-applied", place=(*CONV, *TOKENS), causes=("patch-bias",), zero_in_torchvision_init=True,
        edits={"patches.features": "nn.functional.conv2d({images}, {conv}.weight, stride={conv}.stride)"}),
    Bug(id="activation-after-patches", edits={"patches.features": "nn.functional.relu({conv}({images}))"},
        place=TOKENS, causes=("extra-activation",), says="ReLU"),
    Bug(id="norm-after-patches-without-parameters", place=TOKENS, causes=("extra-norm",),
        edits={"patches.tokens": "tokens = {f}.flatten(2).transpose(1, 2)\n"
               "return nn.functional.layer_norm(tokens, tokens.shape[-1:])"}),
    Bug(id="images-divided-by-255", edits={"model.images": "{images} / 255"}, place=CONV, causes=("image-scale",)),
    Bug(id="images-to-minus-one-and-one", edits={"model.images": "{images} * 2 - 1"}, place=CONV,
        causes=("image-scale",)),
    Bug(id="images-scaled-in-place", edits={"model.images": "{images}.mul_(2)"}, place=CONV,
        causes=("input-in-place|image-scale",)),
    Bug(id="images-in-half-precision", edits={"model.images": "{images}.half().to({images}.dtype)"}, place=CONV,
        causes=("hidden-cast",), says="float16"),
]  # fmt: skip

_CLASS_TOKEN = [
    Bug(id="class-token-last", edits={"model.cat": "torch.cat([x, {class_token}], dim=1)"}, place=TOKENS,
        causes=("class-token-place|pooling",)),
    Bug(id="class-token-zeros", edits={"model.class_token": "torch.zeros_like({cls}).expand(x.shape[0], -1, -1)"},
        place=TOKENS, causes=("class-token-zero",), zero_in_torchvision_init=True),
    Bug(id="class-token-no-parameter", place=TOKENS, causes=("class-token-zero",), changes_parameters=True,
        zero_in_torchvision_init=True,
        edits={"model.built": "del {cls}\n{cls} = torch.zeros(1, 1, {D})",
               "model.class_token": "{cls}.to(x).expand(x.shape[0], -1, -1)"}),
    Bug(id="class-token-missing", edits={"model.positions": "{tokens}[:, 1:] + {positions}[:, 1:]"}, place=TOKENS,
        causes=("class-token-missing",), spreads=True),
]  # fmt: skip

_GRID = "round(({positions}.shape[1] - 1) ** 0.5)"

_POSITIONS = [
    Bug(id="positions-missing", edits={"model.positions": "{tokens}"}, place=TOKENS, causes=("position-missing",)),
    Bug(id="positions-missing-with-their-table", place=TOKENS, causes=("position-missing",), changes_parameters=True,
        edits={"model.positions": "{tokens}", "model.built": "{positions} = None"}),
    Bug(id="positions-one-too-far", edits={"model.positions": "{tokens} + {positions}.roll(1, dims=1)"}, place=TOKENS,
        causes=("position-shift",)),
    Bug(id="positions-one-too-early", edits={"model.positions": "{tokens} + {positions}.roll(-1, dims=1)"},
        place=TOKENS, causes=("position-shift",)),
    Bug(id="positions-of-transposed-grid", place=TOKENS, causes=("position-transposed",),
        edits={"model.positions": "{tokens} + torch.cat([{positions}[:, :1], {positions}[:, 1:]"
               f".unflatten(1, ({_GRID}, -1)).transpose(1, 2).flatten(1, 2)], dim=1)"}),
    Bug(id="positions-before-class-token", place=TOKENS, causes=("position-of-class-token",),
        edits={"model.positions": "torch.cat([{tokens}[:, :1], {tokens}[:, 1:] + {positions}[:, 1:]], dim=1)"}),
    Bug(id="positions-before-class-token-from-first-row", place=TOKENS, causes=("position-of-class-token",),
        edits={"model.positions": "torch.cat([{tokens}[:, :1], {tokens}[:, 1:] + {positions}[:, :-1]], dim=1)"}),
    Bug(id="positions-of-class-token-only", place=TOKENS, causes=("position-missing",),
        edits={"model.positions": "torch.cat([{tokens}[:, :1] + {positions}[:, :1], {tokens}[:, 1:]], dim=1)"}),
    Bug(id="positions-twice", edits={"model.positions": "{tokens} + {positions} + {positions}"}, place=TOKENS,
        causes=("position-doubled",)),
    Bug(id="positions-sinusoidal", place=TOKENS, causes=("position-fixed",),
        edits={"top": _SINUSOIDS,
               "model.positions": "{tokens} + sinusoids(*{positions}.shape[1:]).to({positions})"}),
    Bug(id="positions-sinusoidal-buffer", place=TOKENS, causes=("position-fixed",), changes_parameters=True,
        edits={"top": _SINUSOIDS,
               "model.built": "table = sinusoids(*{positions}.shape[1:])\ndel {positions}\n"
               "self.register_buffer('{positions_name}', table, persistent=False)"}),
    Bug(id="tokens-scaled-before-positions", place=TOKENS, causes=("token-scale",),
        edits={"model.positions": "{tokens} * {positions}.shape[-1] ** 0.5 + {positions}"}),
    Bug(id="tokens-scaled-after-positions", edits={"model.positions": "({tokens} + {positions}) * 0.5"}, place=TOKENS,
        causes=("token-scale",), says="0.5"),
    Bug(id="tokens-in-bfloat16", edits={"model.positions": "({tokens} + {positions}).bfloat16().to({positions})"},
        place=TOKENS, causes=("hidden-cast",), says="bfloat16"),
    Bug(id="tokens-in-float32", edits={"model.positions": "({tokens} + {positions}).float().to({positions})"},
        place=TOKENS, causes=("hidden-cast",), says="float32"),
    Bug(id="activation-after-positions", edits={"model.positions": "nn.functional.gelu({tokens} + {positions})"},
        place=TOKENS, causes=("extra-activation",), says="GELU"),
    Bug(id="norm-before-blocks", place=TOKENS, causes=("extra-norm",), changes_parameters=True,
        edits={"model.built": "self.norm_before = nn.LayerNorm({D})",
               "model.dropped": "self.norm_before({dropout}({embedded}))"}),
    Bug(id="norm-before-blocks-without-parameters", place=TOKENS, causes=("extra-norm",),
        edits={"model.positions": "nn.functional.layer_norm({tokens} + {positions}, {positions}.shape[-1:])"}),
    Bug(id="dropout-of-tokens-in-eval", edits={"model.dropped": "nn.functional.dropout({embedded}, {rate})"},
        place=TOKENS, causes=("dropout-in-eval",)),
]  # fmt: skip


# norms


_NORM_BUGS = [
    *(
        Bug(id=f"eps-{eps}-{name}", edits=norms_by(f"nn.LayerNorm({{D}}, eps={eps})", where=where), place=place,
            causes=("layer-norm-eps",), says=says, in_one_block=in_one_block)
        for name, where, place, eps, says, in_one_block in (
            ("everywhere", NORM_PARTS, NORMS, "1e-5", "1e-05", False),
            ("everywhere", NORM_PARTS, NORMS, "1e-12", "1e-12", True),
            ("in-first-norm", ("block.norm_1",), NORM_1, "1e-5", "1e-05", None),
            ("in-second-norm", ("block.norm_2",), NORM_2, "1e-5", "1e-05", None),
            ("in-first-norm", ("block.norm_1",), NORM_1, "1.1e-6", "1.1e-06", None),
            ("in-second-norm", ("block.norm_2",), NORM_2, "1e-3", "0.001", None),
            ("in-final-norm", ("model.final_norm",), FINAL_NORM, "1e-5", "1e-05", None),
            ("in-final-norm", ("model.final_norm",), FINAL_NORM, "1.1e-6", "1.1e-06", None),
            ("in-final-norm", ("model.final_norm",), FINAL_NORM, "1e-8", "1e-08", None),
        )
    ),
    Bug(id="norms-unbiased", place=NORMS, causes=("layer-norm-unbiased",), in_one_block=True,
        edits=own_norm("UnbiasedNorm",
                        "(x - mean) / (x.var(-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias")),
    Bug(id="norms-with-eps-outside-the-root", place=NORMS, causes=("layer-norm-std-eps",), in_one_block=True,
        edits=own_norm("OuterEpsNorm", "(x - mean) / (x.std(-1, correction=0, keepdim=True) + self.eps)"
                        " * self.weight + self.bias")),
    Bug(id="norms-of-the-annotated-transformer", place=NORMS, in_one_block=True,
        causes=("layer-norm-std-eps",), says="unbiased",
        edits=own_norm("AnnotatedNorm",
                        "(x - mean) / (x.std(-1, keepdim=True) + self.eps) * self.weight + self.bias")),
    Bug(id="norms-over-tokens-too", place=NORMS, causes=("layer-norm-axes",), in_one_block=True,
        edits=own_norm("WholeNorm",
                        "nn.functional.layer_norm(x, x.shape[1:], eps=self.eps) * self.weight + self.bias")),
    Bug(id="norms-over-tokens", place=NORMS, causes=("layer-norm-axes",), in_one_block=True,
        edits=own_norm("TokenNorm", "nn.functional.layer_norm(x.mT, x.shape[1:2], eps=self.eps).mT"
                        " * self.weight + self.bias")),
    Bug(id="norms-by-root-mean-square", place=NORMS, causes=("rms-norm",), in_one_block=True,
        edits=own_norm("RootMeanSquareNorm",
                        "x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight + self.bias")),
    *(
        Bug(id=f"norms-in-{dtype}", place=NORMS, causes=("norm-dtype",), says=dtype, in_one_block=True,
            edits=own_norm(f"{dtype.title()}Norm",
                            f"nn.functional.layer_norm(*(t.to(torch.{dtype}) if torch.is_tensor(t) else t for t in "
                            "(x, self.normalized_shape, self.weight, self.bias)), self.eps).to(x)"))
        for dtype in ("bfloat16", "float32")
    ),
    Bug(id="norms-without-bias", place=NORMS, causes=("layer-norm-bias",), changes_parameters=True,
        zero_in_torchvision_init=True,
        edits={"block.built": "{norm_1}.bias = {norm_2}.bias = None", "model.built": "{final_norm}.bias = None"}),
    Bug(id="norms-without-scale", place=NORMS, causes=("layer-norm-scale",), changes_parameters=True,
        zero_in_torchvision_init=True,
        edits=own_norm("ShiftNorm", "nn.functional.layer_norm(x, x.shape[-1:], None, self.bias, self.eps)")
        | {"block.built": "{norm_1}.weight = {norm_2}.weight = None", "model.built": "{final_norm}.weight = None"}),
    Bug(id="norms-without-scale-and-bias", place=(*NORMS, *PROJECTIONS, *MLP, *HEAD),
        causes=("layer-norm-affine",), changes_parameters=True, zero_in_torchvision_init=True,
        edits=norms_by("nn.LayerNorm({D}, eps=1e-6, elementwise_affine=False)")),
    Bug(id="norm-scale-not-applied", place=NORM_2, causes=("layer-norm-scale",), zero_in_torchvision_init=True,
        edits={"top": "class UnscaledNorm(nn.LayerNorm):\n    def forward(self, x):\n"
               "        return nn.functional.layer_norm(x, x.shape[-1:], None, self.bias, self.eps)",
               "block.norm_2": "UnscaledNorm({D}, eps=1e-6)"}),
    Bug(id="norm-bias-not-applied", place=NORM_1, causes=("layer-norm-bias",), zero_in_torchvision_init=True,
        edits={"top": "class UnshiftedNorm(nn.LayerNorm):\n    def forward(self, x):\n"
               "        return nn.functional.layer_norm(x, x.shape[-1:], self.weight, None, self.eps)",
               "block.norm_1": "UnshiftedNorm({D}, eps=1e-6)"}),
    Bug(id="first-norm-not-applied", edits={"block.normed_1": "{x}"}, place=(*PROJECTIONS, *NORM_1),
        causes=("norm-missing",)),
    Bug(id="second-norm-not-applied", edits={"block.normed_2": "{x}"},
        place=(*MLP, *NORM_2), causes=("norm-missing",)),
    Bug(id="second-norm-missing", changes_parameters=True, causes=("norm-missing",),
        edits={"block.normed_2": "{x}", "block.built": "{norm_2} = None"},
        place=(*MLP, *NORM_2)),
    Bug(id="final-norm-not-applied", edits={"model.norm": "{encoded}"}, place=(*FINAL_NORM, *HEAD),
        causes=("norm-missing",)),
    Bug(id="final-norm-missing", edits={"model.norm": "{encoded}", "model.built": "{final_norm} = None"},
        place=(*FINAL_NORM, *HEAD), causes=("norm-missing",), changes_parameters=True),
    Bug(id="post-norm", causes=("post-norm",),
        place=(*PROJECTIONS, *NORMS, *MLP, LAYER),
        edits={"block.forward": "x = norm_1(x + attention(x))\nreturn norm_2(x + mlp(x))"}),
    Bug(id="norms-swapped", edits={"block.normed_1": "{norm_2}(x)", "block.normed_2": "{norm_1}(x)"},
        place=(*NORM_1, *NORM_2), also=(*PROJECTIONS, *MLP), causes=("norms-swapped",),
        zero_in_torchvision_init=True),
    Bug(id="first-norm-used-twice", edits={"block.normed_2": "{norm_1}(x)"}, causes=("norm-shared",),
        place=(*NORM_1, *NORM_2, *MLP), zero_in_torchvision_init=True),
    Bug(id="one-norm-for-both", edits={"block.built": "{norm_2} = {norm_1}"}, causes=("norm-shared",),
        place=(*NORM_1, *NORM_2, *MLP), changes_parameters=True,
        zero_in_torchvision_init=True),
    Bug(id="final-norm-after-every-block", causes=("final-norm-everywhere|extra-norm",),
        edits={"model.blocks": "for block in {layers}:\n    x = {final_norm}(block(x))"},
        place=("encoder.layers.encoder_layer_1",), also=("encoder.layers.encoder_layer_2", *FINAL_NORM, *HEAD)),
    Bug(id="final-norm-twice", edits={"model.norm": "{final_norm}({final_norm}({encoded}))"}, causes=("extra-norm",),
        place=(*FINAL_NORM, *HEAD)),
    Bug(id="norm-of-queries-and-keys", causes=("extra-norm",), place=HEADS,
        edits={"attention.before": "{q}, {k} = (nn.functional.layer_norm(t, t.shape[-1:]) for t in ({q}, {k}))\n"}),
    Bug(id="norm-after-attention", changes_parameters=True, causes=("extra-norm",), **SUM_1,
        edits={"block.built": "self.norm_after = nn.LayerNorm({D})",
               "block.residual_1": "{x} + self.norm_after({branch})"}),
]  # fmt: skip


# attention

_SOFTMAX = "{scores}.softmax(-1)"
_RAW = "{q} @ {k}.transpose(-2, -1)"


def _unbiased(statements: str) -> dict[str, Any]:
    """Removes biases of a built block; torch's own attention cannot do without some, so ours is written out."""
    edits = {"block.built": statements}
    return {"edits": edits, "per_host": {"ours": edits | {"attention.out": "{out}"}}}


_SCALED = f"({_RAW} * {{d}} ** -0.5)"

_ROTARY = '''def turned(x, base, *, pairs):
    """Turns features of (B, H, N, d) two by two by their token's place; halves or neighbours are paired."""
    count, width = x.shape[-2:]
    rates = base ** (-torch.arange(0, width, 2).to(x) / width)
    cos, sin = (f(torch.outer(torch.arange(count).to(x), rates)) for f in (torch.cos, torch.sin))
    one, other = (x[..., ::2], x[..., 1::2]) if pairs else x.chunk(2, dim=-1)
    both = one * cos - other * sin, other * cos + one * sin
    return torch.stack(both, dim=-1).flatten(-2) if pairs else torch.cat(both, dim=-1)'''

_DISTANCES = '''def distances(scores):
    """How far two tokens are apart, (H, N, N), at half the rate in every next head."""
    place = torch.arange(scores.shape[-1]).to(scores)
    rates = 0.5 ** torch.arange(1, scores.shape[1] + 1).to(scores)
    return rates[:, None, None] * (place[:, None] - place).abs()'''


def _hidden(statement: str, name: str, says: str, scores: str) -> Bug:
    """A mask, made by a statement; the last block's shows only where it hides something from the class token."""
    return Bug(
        id=name, place=HEADS, in_one_block="[1:" not in statement, causes=("attention-mask",), says=says,
        edits={"attention.before": f"hidden = torch.zeros({{N}}, {{N}}, dtype=torch.bool)\n{statement}\n",
               "attention.scores": scores},
    )  # fmt: skip


_SCORES = [
    Bug(id="scale-by-width-after-softmax", place=HEADS, causes=("scale-after-softmax",), says="width",
        edits={"attention.scores": _RAW, "attention.softmax": f"{_SOFTMAX} * {{D}} ** -0.5"}),
    Bug(id="scores-softly-capped", edits={"attention.scores": f"5 * ({_SCALED} / 5).tanh()"}, place=HEADS,
        causes=("score-cap",), says="5 * tanh"),
    Bug(id="scores-clamped", edits={"attention.scores": f"{_SCALED}.clamp(-0.5, 0.5)"}, place=HEADS,
        causes=("score-cap",), says="0.5"),
    Bug(id="cosine-attention", place=HEADS, causes=("cosine-attention",), says="10",
        edits={"attention.before": "{q}, {k} = (nn.functional.normalize(t, dim=-1) for t in ({q}, {k}))\n",
               "attention.scores": f"{_RAW} * 10"}),
    Bug(id="softmax-over-heads-and-keys", place=HEADS, causes=("softmax-axis",), says="heads and keys",
        edits={"attention.softmax": "{scores}.transpose(1, 2).flatten(-2).softmax(-1).unflatten(-1, ({H}, -1))"
               ".transpose(1, 2)"}),
    *(
        Bug(id=f"rotary-positions-{name}", place=HEADS, causes=("rotary-positions",), says=says,
            edits={"top": _ROTARY,
                   "attention.before": f"{{q}}, {{k}} = (turned(t, {base}, pairs={pairs}) for t in ({{q}}, {{k}}))\n"})
        for name, base, pairs, says in (("of-halves", 10000, False, "halves"), ("of-pairs", 100, True, "base 100,"))
    ),
    Bug(id="distance-bias", place=HEADS, causes=("distance-bias",), says="0.5 ** head",
        edits={"top": _DISTANCES, "attention.softmax": "({scores} - distances({scores})).softmax(-1)"}),
    _hidden("hidden[:, -4:] = True", "last-tokens-masked", "last 4 tokens",
            f"{_SCALED}.masked_fill(hidden, float('-inf'))"),
    _hidden("hidden[1:, 0] = True", "class-token-masked", "no patch sees the class token",
            f"{_SCALED}.masked_fill(hidden, -1e9)"),
    _hidden("hidden[:, -3:] = True", "mask-added-as-numbers", "as numbers", f"{_SCALED} + (~hidden).to({{q}})"),
    _hidden("hidden[:, -3:] = True", "mask-of-zero-scores", "set to 0", f"{_SCALED} * ~hidden"),
    Bug(id="first-heads-key-and-value-for-all", place=HEADS, causes=("shared-heads",),
        edits={"attention.before": "{k}, {v} = (t[:, :1].expand_as(t) for t in ({k}, {v}))\n"}),
    Bug(id="heads-merged-with-images", edits={"attention.merge": "{mixed}.transpose(0, 1).reshape({B}, {N}, {D})"},
        place=HEADS, causes=("head-merge",), says="images"),
    Bug(id="attention-over-heads", edits={"attention.split": "{t}.view({B}, {N}, {H}, -1)"}, place=HEADS,
        causes=("attention-axis",)),
]  # fmt: skip

_ATTENTION_BUGS = [
    Bug(id="qkv-bias-missing", **_unbiased("{no_qkv_bias}"), place=PROJECTIONS, causes=("qkv-bias",),
        changes_parameters=True, zero_in_torchvision_init=True),
    Bug(id="attention-without-any-bias", **_unbiased("{no_qkv_bias}\n{out}.bias = None"),
        place=(*PROJECTIONS, *HEADS), causes=("qkv-bias", "out-proj-bias"), changes_parameters=True,
        zero_in_torchvision_init=True),
    Bug(id="query-bias-missing", hosts=("separate",), edits={"block.built": "{attn}.w_q.bias = None"},
        place=PROJECTIONS, causes=("qkv-bias",), changes_parameters=True, zero_in_torchvision_init=True),
    Bug(id="value-bias-missing", hosts=("separate",), edits={"block.built": "{attn}.w_v.bias = None"},
        place=PROJECTIONS, causes=("qkv-bias",), changes_parameters=True, zero_in_torchvision_init=True),
    Bug(id="qkv-bias-not-applied", edits={"attention.projected": "nn.functional.linear({x}, {qkv_weight})"},
        place=(*PROJECTIONS, *HEADS), causes=("qkv-bias",), zero_in_torchvision_init=True),
    Bug(id="query-and-key-swapped", edits={"attention.parts": "{k}, {q}, {v}"}, place=HEADS, causes=("qkv-order",)),
    Bug(id="key-and-value-swapped", edits={"attention.parts": "{q}, {v}, {k}"}, place=HEADS, causes=("qkv-order",)),
    Bug(id="query-and-value-swapped", edits={"attention.parts": "{v}, {k}, {q}"}, place=HEADS, causes=("qkv-order",)),
    Bug(id="qkv-read-as-kvq", edits={"attention.parts": "{k}, {v}, {q}"}, place=HEADS, causes=("qkv-order",)),
    Bug(id="qkv-read-as-vqk", edits={"attention.parts": "{v}, {q}, {k}"}, place=HEADS, causes=("qkv-order",)),
    Bug(id="query-and-key-swapped-in-the-block", hosts=("ours",), causes=("qkv-order",), **SUM_1,
        edits={"block.forward": "a, y = self.attention, norm_1(x)\n"
               "heads, width = a.num_heads, y.shape[-1]\n"
               "q, k, v = (\n"
               "    t.unflatten(-1, (heads, width // heads)).transpose(1, 2)\n"
               "    for t in nn.functional.linear(y, a.in_proj_weight, a.in_proj_bias).chunk(3, -1)\n"
               ")\n"
               "y = nn.functional.scaled_dot_product_attention(k, q, v).transpose(1, 2).flatten(2)\n"
               "x = x + nn.functional.linear(y, a.out_proj.weight, a.out_proj.bias)\n"
               "return x + mlp(norm_2(x))"}),
    Bug(id="qkv-read-head-by-head", hosts=("ours", "fused"), place=HEADS, causes=("qkv-layout",),
        edits={"attention.projected": "{projected}.unflatten(-1, ({H}, 3, -1)).transpose(2, 3).flatten(2)"}),
    Bug(id="qkv-read-as-innermost", hosts=("ours", "fused"), place=HEADS, causes=("qkv-layout",),
        edits={"attention.projected": "{projected}.unflatten(-1, ({H}, -1, 3)).movedim(-1, 2).flatten(2)"}),
    Bug(id="head-features-read-before-heads", place=HEADS, causes=("qkv-layout",),
        edits={"attention.split": "{t}.view({B}, {N}, -1, {H}).permute(0, 3, 1, 2)"}),
    Bug(id="qkv-weights-transposed", place=(*PROJECTIONS, *HEADS), causes=("qkv-transposed",),
        edits={"attention.projected": "torch.cat([{x} @ w + b for w, b in "
               "zip({qkv_weight}.chunk(3), {qkv_bias}.chunk(3))], dim=-1)"}),
    Bug(id="key-is-query", edits={"attention.before": "{k} = {q}\n"}, place=HEADS, causes=("key-shares-query",)),
    Bug(id="key-projection-missing", hosts=("separate",), place=(*PROJECTIONS, *HEADS), changes_parameters=True,
        edits={"block.built": "{attn}.w_k = {attn}.w_q"}, causes=("key-shares-query",)),
    Bug(id="twice-the-heads", edits={"block.heads": "{heads} * 2"}, place=HEADS, causes=("head-count",), says="8"),
    Bug(id="half-the-heads", edits={"block.heads": "{heads} // 2"}, place=HEADS, causes=("head-count",), says="2"),
    Bug(id="one-head", edits={"block.heads": "1"}, place=HEADS, causes=("head-count",), says="1"),
    Bug(id="heads-split-by-view", edits={"attention.split": "{t}.reshape({B}, {H}, {N}, -1)"}, place=HEADS,
        causes=("head-split",)),
    Bug(id="heads-merged-without-transpose", edits={"attention.merge": "{mixed}.reshape({B}, {N}, {D})"}, place=HEADS,
        causes=("head-merge",)),
    Bug(id="heads-merged-feature-first", place=HEADS, causes=("head-merge",),
        edits={"attention.merge": "{mixed}.permute(0, 2, 3, 1).reshape({B}, {N}, {D})"}),
    Bug(id="attention-over-the-batch", place=(*PROJECTIONS, *HEADS), causes=("batch-first",),
        edits={"block.forward": "x = x + attention(norm_1(x).transpose(0, 1)).transpose(0, 1)\n"
               "return x + mlp(norm_2(x))"}),
    *(
        Bug(id=f"scale-{name}", edits={"attention.scores": f"{_RAW}{factor}"}, place=HEADS,
            causes=("attention-scale",))
        for name, factor in (
            ("by-width", " * {D} ** -0.5"),
            ("by-number-of-heads", " * {H} ** -0.5"),
            ("by-number-of-tokens", " * {N} ** -0.5"),
            ("missing", ""),
            ("upside-down", " * {d} ** 0.5"),
            ("applied-twice", " / {d}"),
            ("hard-wired", " / 8"),
        )
    ),
    Bug(id="scale-after-softmax", edits={"attention.scores": _RAW, "attention.softmax": f"{_SOFTMAX} * {{d}} ** -0.5"},
        place=HEADS, causes=("scale-after-softmax",)),
    Bug(id="softmax-over-queries", edits={"attention.softmax": "{scores}.softmax(-2)"}, place=HEADS,
        causes=("softmax-axis",)),
    Bug(id="softmax-over-heads", edits={"attention.softmax": "{scores}.softmax(1)"}, place=HEADS,
        causes=("softmax-axis",)),
    Bug(id="softmax-over-the-batch", edits={"attention.softmax": "{scores}.softmax(0)"}, place=HEADS,
        causes=("softmax-axis",)),
    Bug(id="softmax-missing", edits={"attention.softmax": "{scores}"}, place=HEADS, causes=("softmax-missing",)),
    Bug(id="causal-mask", place=HEADS, causes=("attention-mask",), says="causal",
        edits={"attention.scores": f"({_RAW} * {{d}} ** -0.5)"
               ".masked_fill(torch.ones({N}, {N}, dtype=torch.bool).triu(1), float('-inf'))"}),
    Bug(id="diagonal-masked", place=HEADS, causes=("attention-mask",), says="diagonal",
        edits={"attention.scores": f"({_RAW} * {{d}} ** -0.5)"
               ".masked_fill(torch.eye({N}, dtype=torch.bool), float('-inf'))"}),
    Bug(id="attention-transposed", edits={"attention.mix": "({weights}.transpose(-2, -1) @ {v})"}, place=HEADS,
        causes=("attention-transposed",)),
    Bug(id="softmax-plus-one", place=HEADS, causes=("extra-key",),
        edits={"attention.softmax": "nn.functional.pad({scores}, (0, 1)).softmax(-1)[..., :-1]"}),
    *(
        Bug(id=f"softmax-in-{dtype}", place=HEADS, causes=("attention-dtype",), says=dtype,
            edits={"attention.softmax": f"{{scores}}.to(torch.{dtype}).softmax(-1).to({{v}})"})
        for dtype in ("bfloat16", "float32")
    ),
    Bug(id="dropout-of-attention-in-eval", edits={"attention.weights": "nn.functional.dropout({softmax}, {rate})"},
        place=HEADS, causes=("dropout-in-eval",)),
    Bug(id="output-projection-not-applied", edits={"attention.out": "{merged}"}, place=(*HEADS, f"{LAYER}.dropout"),
        causes=("out-proj-missing",)),
    Bug(id="output-projection-missing", edits={"attention.out": "{merged}", "block.built": "{out} = None"},
        place=(*HEADS, f"{LAYER}.dropout"), causes=("out-proj-missing",), changes_parameters=True),
    Bug(id="output-bias-missing", **_unbiased("{out}.bias = None"), place=HEADS, causes=("out-proj-bias",),
        changes_parameters=True, zero_in_torchvision_init=True),
    Bug(id="output-bias-not-applied", edits={"attention.out": "nn.functional.linear({merged}, {out_weight})"},
        place=(*HEADS, f"{LAYER}.dropout"), causes=("out-proj-bias",), zero_in_torchvision_init=True),
]  # fmt: skip


# residuals and MLP

_RESIDUALS = [
    Bug(id="attention-residual-from-the-normed-input", **SUM_1, causes=("residual-source",),
        edits={"block.forward": "y = norm_1(x)\nx = y + attention(y)\nreturn x + mlp(norm_2(x))"}),
    Bug(id="mlp-residual-from-the-normed-input", place=RESIDUAL_2, causes=("residual-source",),
        edits={"block.forward": "x = norm_2(x + attention(norm_1(x)))\nreturn x + mlp(x)"}),
    Bug(id="mlp-residual-from-the-blocks-input", place=RESIDUAL_2, causes=("residual-source",),
        edits={"block.forward": "return x + mlp(norm_2(x + attention(norm_1(x))))"}),
    Bug(id="attention-residual-missing", edits={"block.residual_1": "{branch}"}, **SUM_1,
        causes=("residual-missing",)),
    Bug(id="mlp-residual-missing", edits={"block.residual_2": "{branch}"}, place=RESIDUAL_2,
        causes=("residual-missing",)),
    Bug(id="both-residuals-missing", edits={"block.residual_1": "{branch}", "block.residual_2": "{branch}"},
        place=(*RESIDUAL_1, *RESIDUAL_2), causes=("residual-missing",)),
    Bug(id="attention-residual-multiplied", edits={"block.residual_1": "{x} * {branch}"}, **SUM_1,
        causes=("residual-operator",)),
    Bug(id="mlp-residual-multiplied", edits={"block.residual_2": "{x} * {branch}"}, place=RESIDUAL_2,
        causes=("residual-operator",)),
    Bug(id="attention-branch-halved", edits={"block.residual_1": "{x} + 0.5 * {branch}"}, **SUM_1,
        causes=("residual-scale",), says="0.5"),
    Bug(id="attention-branch-doubled", edits={"block.residual_1": "{x} + 2 * {branch}"}, **SUM_1,
        causes=("residual-scale",), says="2"),
    Bug(id="mlp-branch-subtracted", edits={"block.residual_2": "{x} - {branch}"}, place=RESIDUAL_2,
        causes=("residual-scale|residual-operator",)),
    Bug(id="mlp-branch-scaled", edits={"block.residual_2": "{x} + 0.1 * {branch}"}, place=RESIDUAL_2,
        causes=("residual-scale",), says="0.1"),
    Bug(id="layer-scale", edits={"block.built": "self.gamma = nn.Parameter(torch.full(({D},), 0.1))",
                                 "block.residual_1": "{x} + self.gamma * {branch}"},
        **SUM_1, causes=("extra-scale",), changes_parameters=True),
    Bug(id="branches-in-parallel", place=(*NORM_2, *RESIDUAL_2), causes=("parallel-branches",),
        edits={"block.forward": "return x + attention(norm_1(x)) + mlp(norm_2(x))"}),
    Bug(id="block-in-bfloat16-at-its-end", edits={"block.residual_2": "({x} + {branch}).bfloat16().to({x})"},
        place=RESIDUAL_2, causes=("hidden-cast",), says="bfloat16"),
]  # fmt: skip


_MLP_BUGS = [
    activation("tanh-gelu", 'nn.GELU(approximate="tanh")', '(lambda x: F.gelu(x, approximate="tanh"))', "tanh"),
    own_activation("quick-gelu", "QuickGELU", "x * torch.sigmoid(1.702 * x)", "quick"),
    own_activation("none", "NoActivation", "x", ""),
    own_activation("squared-relu", "SquaredReLU", "x.relu().square()", ""),
    activation("relu", "nn.ReLU()", "F.relu", "ReLU"),
    activation("silu", "nn.SiLU()", "F.silu", "SiLU"),
    activation("leaky-relu", "nn.LeakyReLU()", "F.leaky_relu", ""),
    activation("elu", "nn.ELU()", "F.elu", "ELU"),
    activation("tanh", "nn.Tanh()", "torch.tanh", "anh"),
    activation("sigmoid", "nn.Sigmoid()", "torch.sigmoid", "igmoid"),
    Bug(id="activation-after-mlp", edits={"mlp.output": "nn.functional.gelu({y})"}, place=MLP_OUTPUT,
        causes=("extra-activation",), says="GELU"),
    Bug(id="relu-after-mlp", edits={"mlp.output": "nn.functional.relu({y})"}, place=MLP_OUTPUT,
        causes=("extra-activation",), says="ReLU"),
    Bug(id="mlp-biases-missing", edits={"block.built": "{fc1}.bias = {fc2}.bias = None"}, causes=("mlp-bias",),
        place=(f"{LAYER}.mlp.0", f"{LAYER}.mlp.3", *MLP_OUTPUT), changes_parameters=True),
    Bug(id="first-mlp-bias-missing", edits={"block.built": "{fc1}.bias = None"}, causes=("mlp-bias",),
        place=(f"{LAYER}.mlp.0",), changes_parameters=True),
    Bug(id="second-mlp-bias-missing", edits={"block.built": "{fc2}.bias = None"}, causes=("mlp-bias",),
        place=(f"{LAYER}.mlp.3", *MLP_OUTPUT), changes_parameters=True),
    Bug(id="mlp-as-wide-as-the-model", edits={"block.begin": "{M} = {D}\n"}, causes=("mlp-width",),
        place=(f"{LAYER}.mlp.0", *ACTIVATION, *MLP_OUTPUT), changes_parameters=True),
    Bug(id="mlp-not-applied", edits={"block.forward": "return x + attention(norm_1(x))"},
        causes=("mlp-missing|branch-missing",), place=(*NORM_2, *MLP_OUTPUT)),
    Bug(id="dropout-of-mlp-in-eval", edits={"mlp.output": "nn.functional.dropout({y}, {rate})"}, place=MLP_OUTPUT,
        causes=("dropout-in-eval",)),
    Bug(id="mlp-under-autocast", place=(f"{LAYER}.mlp.0", f"{LAYER}.mlp"), causes=("hidden-cast",), says="bfloat16",
        dtype="float32",
        edits={"block.forward": "x = x + attention(norm_1(x))\n"
               "with torch.autocast('cpu', dtype=torch.bfloat16):\n    y = mlp(norm_2(x))\nreturn x + y"}),
]  # fmt: skip


# parts of other models

_OTHERS = [
    Bug(id="stream-dropped-after-attention", place=RESIDUAL_2, causes=("residual-source",),
        edits={"block.forward": "y = attention(norm_1(x))\nreturn y + mlp(norm_2(x + y))"}),
    Bug(id="mlp-of-attentions-output", place=NORM_2, causes=("branch-input",),
        edits={"block.forward": "y = attention(norm_1(x))\nreturn x + y + mlp(norm_2(y))"}),
    Bug(id="residual-around-the-block-as-well", place=RESIDUAL_2, causes=("residual-doubled",), says="whole block",
        edits={"block.forward": "y = x + attention(norm_1(x))\nreturn x + y + mlp(norm_2(y))"}),
    Bug(id="norms-at-the-ends-of-the-branches", causes=("post-norm",), says="ends of the branches",
        place=(*PROJECTIONS, *NORMS, *MLP, LAYER),
        edits={"block.forward": "x = x + norm_1(attention(x))\nreturn x + norm_2(mlp(x))"}),
    Bug(id="norms-that-leave-the-mean", place=NORMS, causes=("norm-kind",), says="leaves the mean", in_one_block=True,
        edits=own_norm("MeanNorm", "x / (x.var(-1, correction=0, keepdim=True) + self.eps).sqrt()"
                        " * self.weight + self.bias")),
    own_activation("tanh-gelu-of-rounded-constants", "RoundedGELU",
                    "0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3)))", "0.79788456"),
    own_activation("swish-of-1.5", "Swish", "x * torch.sigmoid(1.5 * x)", "1.5"),
    activation("hard-swish", "nn.Hardswish()", "F.hardswish", "hard swish"),
]  # fmt: skip


# the end, and the blocks as a whole

_END = [
    *(
        Bug(id=f"pool-{name}", edits={"model.pool": f"{{normed}}{how}"}, place=HEAD, causes=("pooling",), says=says)
        for name, how, says in (
            ("mean", ".mean(1)", "mean"),
            ("mean-of-patches", "[:, 1:].mean(1)", "mean"),
            ("last", "[:, -1]", ""),
            ("first-patch", "[:, 1]", ""),
            ("max", ".amax(1)", "max"),
            ("sum", ".sum(1)", ""),
        )
    ),
    Bug(id="head-bias-missing", edits={"model.built": "{head}.bias = None"}, place=HEAD, causes=("head-bias",),
        changes_parameters=True, zero_in_torchvision_init=True),
    Bug(id="head-bias-not-applied", edits={"model.logits": "{pooled} @ {head}.weight.T"}, place=(*HEAD, *LOGITS),
        causes=("head-bias",), zero_in_torchvision_init=True),
    Bug(id="projection-before-head", changes_parameters=True, place=HEAD, causes=("extra-projection",),
        edits={"model.built": "self.extra = nn.Linear({D}, {D})", "model.pooled": "self.extra({pooled})"}),
    Bug(id="projection-and-tanh-before-head", changes_parameters=True, place=HEAD, causes=("extra-projection",),
        edits={"model.built": "self.extra = nn.Linear({D}, {D})", "model.pooled": "torch.tanh(self.extra({pooled}))"},
        says="tanh"),
    Bug(id="tanh-before-head", edits={"model.pooled": "torch.tanh({pooled})"}, place=HEAD,
        causes=("extra-activation",), says="tanh"),
    *(
        Bug(id=f"logits-{name}", edits={"model.logits": new}, place=LOGITS, causes=("output-activation",), says=says)
        for name, new, says in (
            ("softmax", "{logits}.softmax(-1)", "softmax"),
            ("log-softmax", "{logits}.log_softmax(-1)", "softmax"),
            ("sigmoid", "{logits}.sigmoid()", "sigmoid"),
            ("tanh", "{logits}.tanh()", "tanh"),
            ("relu", "{logits}.relu()", "ReLU"),
        )
    ),
    Bug(id="logits-in-half-precision", edits={"model.logits": "{logits}.half().to(x)"}, place=LOGITS,
        causes=("hidden-cast",), says="float16"),
    Bug(id="pre-logits-tanh-missing", hosts=("ours",), settings={"representation_size": 20}, place=HEAD,
        edits={"model.pre_logits": "self.pre_logits(x)"}, causes=("pre-logits",)),
    Bug(id="pre-logits-gelu", hosts=("ours",), settings={"representation_size": 20}, place=HEAD,
        edits={"model.pre_logits": "nn.functional.gelu(self.pre_logits(x))"}, causes=("pre-logits",)),
]  # fmt: skip

_EACH_LAYER = tuple(f"encoder.layers.encoder_layer_{block}" for block in range(3))

_BLOCKS = [
    Bug(id="blocks-reversed", edits={"model.blocks": "for block in reversed({layers}):\n    x = block(x)"},
        place=(*_EACH_LAYER, *FINAL_NORM), causes=("block-order",)),
    Bug(id="first-blocks-swapped", place=(*_EACH_LAYER, *FINAL_NORM), causes=("block-order",),
        edits={"model.blocks": "for n in (1, 0, *range(2, len({layers}))):\n    x = {layers}[n](x)"}),
    Bug(id="last-blocks-swapped", place=(*_EACH_LAYER, *FINAL_NORM), causes=("block-order",),
        edits={"model.blocks": "for n in (*range(len({layers}) - 2), -1, -2):\n    x = {layers}[n](x)"}),
    Bug(id="first-block-every-time", place=(*_EACH_LAYER, *FINAL_NORM), causes=("block-sharing",),
        edits={"model.blocks": "for _ in {layers}:\n    x = {layers}[0](x)"}),
    Bug(id="one-block-for-all", changes_parameters=True, causes=("block-sharing",),
        place=("encoder.layers", *_EACH_LAYER, *FINAL_NORM), edits={"model.layers": "*[{block}] * {L}"},
        per_host={"separate": {"model.layers": "[{block}] * {L}"}}),
    Bug(id="last-block-left-out", edits={"model.blocks": "for block in {layers}[:-1]:\n    x = block(x)"},
        place=(*_EACH_LAYER, *FINAL_NORM), causes=("block-missing",)),
    Bug(id="first-block-left-out", edits={"model.blocks": "for block in {layers}[1:]:\n    x = block(x)"},
        place=(*_EACH_LAYER, *FINAL_NORM), causes=("block-missing",)),
    Bug(id="one-block-less", edits={"model.built": "{layers} = {layers}[:-1]"}, changes_parameters=True,
        place=(*_EACH_LAYER, *FINAL_NORM, *NORM_1, *NORM_2), causes=("block-missing",)),
]  # fmt: skip


# what only train mode shows

_TRAINING = [dataclasses.replace(bug, mode="train", spreads=True) for bug in (
    Bug(id="dropout-after-attention-missing", edits={"block.dropout": "nn.Identity()"},
        per_host={"ours": {"block.residual_1": "{x} + y"}}, hosts=("ours", "fused"),
        place=(f"{LAYER}.dropout", *RESIDUAL_1, *ATTENTION), causes=("dropout-missing",)),
    Bug(id="dropout-after-tokens-missing", edits={"model.dropped": "{embedded}"},
        place=("encoder.dropout", "encoder.layers", "encoder.layers.encoder_layer_0", *NORM_1),
        causes=("dropout-missing",)),
    Bug(id="dropout-in-mlp-missing", edits={"mlp.hidden_dropout": "nn.Identity()"}, hosts=("ours", "fused"),
        place=(f"{LAYER}.mlp.2", f"{LAYER}.mlp.3"), causes=("dropout-missing",)),
    Bug(id="dropout-rate-hard-wired", edits={"block.dropout": "nn.Dropout(0.1)"}, hosts=("ours", "fused"),
        place=(f"{LAYER}.dropout", *ATTENTION, *RESIDUAL_1), causes=("dropout-rate",)),
    Bug(id="attention-dropout-takes-the-other-rate", edits={"block.attention_rate": "{other_rate}"},
        place=HEADS, causes=("dropout-rate",)),
    Bug(id="attention-dropout-missing", edits={"block.attention_rate": "0.0"}, place=HEADS,
        causes=("dropout-missing",)),
)]  # fmt: skip

_BY_CATEGORY = {
    "patches and images": _PATCHES,
    "class token": _CLASS_TOKEN,
    "positions and tokens": _POSITIONS,
    "norms": _NORM_BUGS,
    "attention": _ATTENTION_BUGS,
    "residuals": _RESIDUALS,
    "MLP": _MLP_BUGS,
    "pooling, head, logits": _END,
    "blocks": _BLOCKS,
    "dropout in train mode": _TRAINING,
    "scores of attention": _SCORES,
    "wiring, norms and activations of other models": _OTHERS,
    TRAIT: TRAITS,
}

BUGS = tuple(
    dataclasses.replace(bug, category=category)
    for category, bugs in _BY_CATEGORY.items()
    for bug in (*bugs, *SLIPS.get(category, ()))
)
