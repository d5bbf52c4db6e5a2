"""Slips: bugs of a line or two in a ViT that is meant to be torchvision's, each in one host."""

from __future__ import annotations

import dataclasses

from tests.corpus.bug import (
    ATTENTION,
    CONV,
    FINAL_NORM,
    FORMULA,
    HEAD,
    HEADS,
    LAYER,
    LOGITS,
    MLP,
    MLP_OUTPUT,
    NORM_1,
    NORM_2,
    NORMS,
    PROJECTIONS,
    RESIDUAL_1,
    RESIDUAL_2,
    SUM_1,
    TOKENS,
    Bug,
    activation,
    own_activation,
    own_norm,
)

_RAW = "{q} @ {k}.transpose(-2, -1)"
_SCALED = f"({_RAW} * {{d}} ** -0.5)"
_PROJECTED_IN_A_GRID = "{conv}.weight.flatten(1), {conv}.bias).permute(0, 3, 1, 2)"

_SECOND = "encoder.layers.encoder_layer_1"
_OF_SECOND_BLOCK = tuple(f"{_SECOND}{part}" for part in (
    "", ".ln_1", ".ln_2", ".self_attention", ".self_attention.in_proj", ".mlp", ".mlp.0"))  # fmt: skip

_IMAGES = [
    Bug(id="image-transposed", hosts=("ours",), edits={"model.images": "{images}.mT"}, place=CONV,
        causes=("image-transposed",)),
    Bug(id="image-mirrored", hosts=("fused",), edits={"model.images": "{images}.flip(-1)"}, place=CONV,
        causes=("image-mirrored",)),
    Bug(id="images-normalised-inside", hosts=("separate",), place=CONV, causes=("image-scale",),
        edits={"model.images": "({images} - torch.tensor([0.485, 0.456, 0.406]).to({images}).view(-1, 1, 1))"
               " / torch.tensor([0.229, 0.224, 0.225]).to({images}).view(-1, 1, 1)"}),
    Bug(id="images-divided-by-the-deviation-alone", hosts=("ours",), place=CONV, causes=("image-scale|feature-scale",),
        edits={"model.images": "{images} / torch.tensor([0.229, 0.224, 0.225]).to({images}).view(-1, 1, 1)"}),
    Bug(id="images-by-their-own-mean-and-deviation", hosts=("fused",), place=CONV, causes=(FORMULA,),
        says="mean(x, axes -3, -2, -1)",
        edits={"model.images": "({images} - {images}.mean((1, 2, 3), keepdim=True))"
               " / {images}.std((1, 2, 3), keepdim=True)"}),
    Bug(id="patch-kernel-mirrored", hosts=("separate",), place=CONV, also=TOKENS, causes=("patch-pixel-order",),
        edits={"patches.features": "{conv}({images}.flip(-1)).flip(-1)"}),
    Bug(id="patches-from-a-reshaped-image", hosts=("fused",), place=(*CONV, *TOKENS), causes=("patch-reshape",),
        edits={"patches.features": "nn.functional.linear({images}.reshape({images}.shape[0], "
               "*[{images}.shape[-1] // {conv}.stride[0]] * 2, -1), " + _PROJECTED_IN_A_GRID}),
    Bug(id="patch-columns-of-unfold-reshaped", hosts=("ours",), place=(*CONV, *TOKENS), causes=("patch-reshape",),
        edits={"patches.features": "nn.functional.linear(nn.functional.unfold({images}, {conv}.stride, "
               "stride={conv}.stride).reshape({images}.shape[0], *[{images}.shape[-1] // {conv}.stride[0]] * 2, -1), "
               + _PROJECTED_IN_A_GRID}),
    Bug(id="patches-bottom-row-first", hosts=("separate",), place=TOKENS, causes=("patch-order",),
        edits={"patches.tokens": "return {f}.flip(2).flatten(2).transpose(1, 2)"}),
    Bug(id="patches-back-and-forth", hosts=("fused",), place=TOKENS, causes=("patch-order",),
        edits={"patches.tokens": "rows = {f}.clone()\nrows[:, :, 1::2] = {f}[:, :, 1::2].flip(-1)\n"
               "return rows.flatten(2).transpose(1, 2)"}),
    Bug(id="patch-bias-twice", hosts=("separate",), place=(*CONV, *TOKENS), zero_in_torchvision_init=True,
        causes=(FORMULA,), says="x + conv_proj.bias",
               edits={"patches.features": "{conv}({images}) + {conv}.bias.view(-1, 1, 1)"}),
]  # fmt: skip

_TOKENS_AND_POSITIONS = [
    Bug(id="positions-multiplied", hosts=("fused",), edits={"model.positions": "{tokens} * {positions}"}, place=TOKENS,
        causes=("position-operator",)),
    Bug(id="positions-of-length-1", hosts=("ours",), place=TOKENS, causes=("position-normalised",),
        edits={"model.positions": "{tokens} + nn.functional.normalize({positions}, dim=-1)"}),
    Bug(id="positions-normalised", hosts=("separate",), place=TOKENS, causes=("position-normalised",),
        edits={"model.positions": "{tokens} + nn.functional.layer_norm({positions}, {positions}.shape[-1:])"}),
    Bug(id="positions-scaled", hosts=("separate",), edits={"model.positions": "{tokens} + 0.02 * {positions}"},
        place=TOKENS, causes=("position-scale",), says="0.02"),
    Bug(id="positions-back-to-front", hosts=("ours",), edits={"model.positions": "{tokens} + {positions}.flip(1)"},
        place=TOKENS, causes=("position-order",)),
    Bug(id="positions-of-mirrored-grid", hosts=("fused",), place=TOKENS, causes=("position-order",),
        edits={"model.positions": "{tokens} + torch.cat([{positions}[:, :1], {positions}[:, 1:]"
               ".unflatten(1, (5, 5)).flip(2).flatten(1, 2)], dim=1)"}),
    Bug(id="positions-resampled-by-a-factor", hosts=("separate",), place=TOKENS, causes=("position-resampled",),
        edits={"model.positions": "{tokens} + torch.cat([{positions}[:, :1], nn.functional.interpolate("
               "{positions}[:, 1:].unflatten(1, (5, 5)).permute(0, 3, 1, 2), scale_factor=5.1 / 5, mode='bicubic')"
               ".flatten(2).mT], dim=1)"}),
    Bug(id="positions-in-every-block", hosts=("fused",), place=(LAYER, *NORM_1, *RESIDUAL_1, *RESIDUAL_2),
        also=FINAL_NORM, causes=(FORMULA,), says="x + encoder.pos_embedding",
        edits={"model.blocks": "for block in {layers}:\n    x = block(x + {positions})"}),
    Bug(id="class-token-twice", hosts=("ours",), place=TOKENS,
        causes=("class-token-scale",), zero_in_torchvision_init=True,
        edits={"model.class_token": "2 * {cls}.expand(x.shape[0], -1, -1)"}),
    Bug(id="class-token-drawn-in-forward", hosts=("separate",), place=TOKENS, causes=("random-numbers",), spreads=True,
        edits={"model.class_token": "torch.randn_like({cls}).expand(x.shape[0], -1, -1)"}),
    Bug(id="tokens-shuffled", hosts=("ours",), place=TOKENS, causes=("random-numbers",), spreads=True,
        edits={"model.dropped": "{dropout}({embedded})[:, torch.randperm({positions}.shape[1])]"}),
    Bug(id="noise-on-tokens", hosts=("fused",), place=TOKENS, causes=("random-numbers",), spreads=True,
        edits={"model.dropped": "{dropout}({embedded} + 0.01 * torch.randn_like({embedded}))"}),
    Bug(id="tokens-masked-at-random", hosts=("separate",), place=TOKENS, causes=("random-numbers|dropout-in-eval",),
        spreads=True,
        edits={"model.dropped": "{dropout}({embedded} * (torch.rand(x.shape[0], {positions}.shape[1], 1) > 0.25))"}),
    Bug(id="positions-in-bfloat16", hosts=("ours",), place=TOKENS, causes=("hidden-cast",),
        edits={"model.positions": "{tokens} + {positions}.bfloat16().to({positions})"}),
]  # fmt: skip


def _norm(name: str, kind: str, result: str, causes: str, **more: str | bool) -> Bug:
    return Bug(id=name, hosts=("fused",), place=NORMS, causes=(causes,), edits=own_norm(kind, result), **more)  # type: ignore[arg-type]


_VARIANCE = "(x.var(-1, correction=0, keepdim=True) + self.eps)"

_NORM_SLIPS = [
    _norm("norms-that-shift-before-they-scale", "ShiftFirst",
          f"((x - mean) / {_VARIANCE}.sqrt() + self.bias) * self.weight", "layer-norm-order",
          zero_in_torchvision_init=True),
    _norm("norms-that-scale-by-1-and-more", "OneMore",
          f"(x - mean) / {_VARIANCE}.sqrt() * (1 + self.weight) + self.bias", "layer-norm-scale", says="1 + weight"),
    _norm("norms-by-the-variance", "NoRoot", f"(x - mean) / {_VARIANCE} * self.weight + self.bias", "norm-kind",
          says="variance"),
    _norm("norms-to-length-1", "Length", "nn.functional.normalize(x, dim=-1) * self.weight + self.bias", "norm-kind",
          says="length 1"),
    _norm("norms-that-only-centre", "Centred", "(x - mean) * self.weight + self.bias", "norm-kind",
          says="divides by nothing"),
    _norm("norms-by-the-absolute-deviation", "Absolute",
          "(x - mean) / ((x - mean).abs().mean(-1, keepdim=True) + self.eps) * self.weight + self.bias", "norm-kind"),
    _norm("norms-with-no-eps", "NoEps",
          "(x - mean) / x.var(-1, correction=0, keepdim=True).sqrt() * self.weight + self.bias", "layer-norm-eps"),
    _norm("norms-over-the-batch", "BatchAxis",
          "nn.functional.layer_norm(x.transpose(0, -1), x.shape[:1], eps=self.eps).transpose(0, -1)"
          " * self.weight + self.bias", "layer-norm-axes"),
    Bug(id="norms-in-half-precision", hosts=("separate",), place=NORMS, causes=("norm-dtype",), says="float16",
        edits=own_norm("HalfNorm", "nn.functional.layer_norm(x.half(), x.shape[-1:], self.weight.half(), "
                       "self.bias.half(), self.eps).to(x)")),
    Bug(id="first-norm-twice", hosts=("ours",), edits={"block.normed_1": "{norm_1}({norm_1}(x))"},
        place=(*PROJECTIONS, *NORM_1), causes=(FORMULA,), says="ln_1.weight * (x - mean(x))"),
    Bug(id="norms-of-all-blocks-are-one", hosts=("fused",), place=_OF_SECOND_BLOCK,
        also=(*PROJECTIONS, *NORM_1, *NORM_2, *MLP),
        causes=("norm-shared|block-sharing",), changes_parameters=True, zero_in_torchvision_init=True,
        edits={"model.built": "for block in {layers}[1:]:\n    block.norm1, block.norm2 = {layers}[0].norm1, "
               "{layers}[0].norm2"}),
    Bug(id="scale-of-norms-squared", hosts=("separate",), place=NORMS, zero_in_torchvision_init=True,
        causes=(FORMULA,), says="weight**2",
        edits=own_norm("Squared", f"(x - mean) / {_VARIANCE}.sqrt() * self.weight**2 + self.bias")),
]  # fmt: skip

_ATTENTION_SLIPS = [
    *(
        Bug(id=name, hosts=(host,), edits={"attention.before": f"{statement}\n"}, place=HEADS,
            causes=("projection-shared|key-shares-query",))
        for name, host, statement in (
            ("value-is-key", "fused", "{v} = {k}"),
            ("key-is-value", "ours", "{k} = {v}"),
            ("query-is-value", "separate", "{q} = {v}"),
        )
    ),
    Bug(id="output-projection-transposed", hosts=("fused",), place=(*HEADS, f"{LAYER}.dropout"),
        edits={"attention.out": "{merged} @ {out_weight} + self.proj.bias"}, causes=("out-proj-transposed",)),
    Bug(id="output-projection-twice", hosts=("fused",), place=(*HEADS, f"{LAYER}.dropout"),
        edits={"attention.out": "self.proj({out})"}, causes=(FORMULA,), says="self.proj(self.proj(x))"),
    Bug(id="softmax-twice", hosts=("ours",), edits={"attention.softmax": "{scores}.softmax(-1).softmax(-1)"},
        place=HEADS, causes=("softmax-doubled",)),
    Bug(id="softmax-over-queries-and-keys", hosts=("separate",), place=HEADS, causes=("softmax-axis",),
        edits={"attention.softmax": "{scores}.flatten(-2).softmax(-1).unflatten(-1, ({N}, -1))"}),
    Bug(id="sigmoid-for-softmax", hosts=("fused",), edits={"attention.softmax": "{scores}.sigmoid()"}, place=HEADS,
        causes=("softmax-missing",), says="sigmoid"),
    Bug(id="relu-for-softmax", hosts=("separate",), edits={"attention.softmax": "{scores}.relu() / {N}"}, place=HEADS,
        causes=("softmax-missing",), says="ReLU"),
    Bug(id="same-weights-for-all-keys", hosts=("ours",), place=HEADS, causes=("softmax-missing",),
        edits={"attention.softmax": "torch.ones_like({scores}) / {N}"}),
    Bug(id="softmax-of-query-and-of-key", hosts=("fused",), place=HEADS, causes=("softmax-missing|softmax-axis",),
        edits={"attention.before": "{q}, {k} = {q}.softmax(-1), {k}.softmax(-2)\n",
               "attention.scores": _RAW, "attention.softmax": "{scores}"}),
    Bug(id="weights-scaled-after-softmax-as-well", hosts=("ours",), place=HEADS, causes=("scale-after-softmax",),
        edits={"attention.softmax": "{scores}.softmax(-1) * {d} ** -0.5"}),
    Bug(id="scale-of-query-alone-and-again", hosts=("separate",), place=HEADS, causes=("attention-scale",),
        edits={"attention.scores": f"{_SCALED} / {{D}} ** 0.5"}),
    Bug(id="attention-of-the-heads-mean", hosts=("fused",), place=HEADS, causes=(FORMULA,), says="mean(softmax",
        edits={"attention.softmax": "{scores}.softmax(-1).mean(1, keepdim=True).expand_as({scores})"}),
    Bug(id="value-added-to-attentions-output", hosts=("ours",), place=HEADS, causes=(FORMULA,), says="v + softmax(",
        edits={"attention.mix": "({weights} @ {v} + {v})"}),
    Bug(id="attention-half-itself", hosts=("separate",), place=HEADS, causes=(FORMULA,), says="eye(26) / 2",
        edits={"attention.softmax": "(0.5 * {scores}.softmax(-1) + 0.5 * torch.eye({N}).to({scores}))"}),
    Bug(id="anticausal-mask", hosts=("fused",), place=HEADS, causes=("attention-mask",),
        edits={"attention.scores": f"{_SCALED}.masked_fill(torch.ones({{N}}, {{N}}, dtype=torch.bool).tril(-1), "
               "float('-inf'))"}),
    Bug(id="window-mask", hosts=("ours",), place=HEADS, causes=("attention-mask",),
        edits={"attention.before": "place = torch.arange({N})\n",
               "attention.scores": f"{_SCALED}.masked_fill((place[:, None] - place).abs() > 3, float('-inf'))"}),
    Bug(id="first-patches-masked", hosts=("separate",), place=HEADS, causes=(FORMULA,), says="masked_fill",
        edits={"attention.scores": f"{_SCALED}.masked_fill((torch.arange({{N}}) - 3).abs() < 3, float('-inf'))"}),
    Bug(id="class-token-sees-itself-alone", hosts=("fused",), place=HEADS, causes=("attention-mask",),
        edits={"attention.before": "hidden = torch.zeros({N}, {N}, dtype=torch.bool)\nhidden[0, 1:] = True\n",
               "attention.scores": f"{_SCALED}.masked_fill(hidden, float('-inf'))"}),
    Bug(id="heads-split-features-first", hosts=("ours",), place=HEADS, causes=("head-split",),
        edits={"attention.split": "{t}.reshape({B}, {H}, -1, {N}).mT"}),
    Bug(id="heads-split-before-images", hosts=("separate",), place=HEADS, causes=("head-split",),
        edits={"attention.split": "{t}.reshape({H}, {B}, {N}, -1).transpose(0, 1)"}),
    Bug(id="heads-stacked-and-viewed-as-images", hosts=("fused",), place=HEADS, causes=("head-split",),
        edits={"attention.split": "torch.cat({t}.chunk({H}, dim=-1)).view({B}, {H}, {N}, -1)"}),
    Bug(id="heads-merged-from-the-batch", hosts=("fused",), place=HEADS, causes=("head-merge",),
        edits={"attention.merge": "torch.cat({mixed}.reshape({H}, {B}, {N}, -1).unbind(0), dim=-1)"}),
    Bug(id="thirds-before-tokens", hosts=("ours",), place=HEADS, causes=("qkv-layout",),
        edits={"attention.projected": "{projected}.reshape({B}, 3, {N}, {D}).transpose(1, 2).flatten(2)"}),
    Bug(id="thirds-before-images", hosts=("fused",), place=HEADS, causes=("qkv-layout",),
        edits={"attention.projected": "{projected}.reshape(3, {B}, {N}, {D}).permute(1, 2, 0, 3).flatten(2)"}),
    Bug(id="scores-in-half-precision", hosts=("separate",), place=HEADS, causes=("attention-dtype",), says="float16",
        edits={"attention.scores": f"{_SCALED}.half().to({{v}})"}),
    Bug(id="values-in-bfloat16", hosts=("fused",), place=HEADS, causes=(FORMULA,), says="bfloat16(v)",
        edits={"attention.mix": "({weights} @ {v}.bfloat16().to({v}))"}),
]  # fmt: skip

_WIRING_SLIPS = [
    Bug(id="mlp-before-attention", hosts=("ours",), causes=("branch-order",),
        place=(*PROJECTIONS, *NORMS, *MLP, *MLP_OUTPUT, *HEADS, f"{LAYER}.dropout"),
        edits={"block.forward": "x = x + mlp(norm_2(x))\nreturn x + attention(norm_1(x))"}),
    Bug(id="branches-side-by-side-after-one-norm", hosts=("fused",), causes=("parallel-branches",), says="one norm",
        place=(*NORM_2, *MLP, *RESIDUAL_2), edits={"block.forward": "y = norm_1(x)\nreturn x + attention(y) + mlp(y)"}),
    Bug(id="branches-side-by-side-without-the-stream", hosts=("separate",), place=(*NORM_2, *RESIDUAL_2),
        causes=("parallel-branches|branch-missing", "residual-missing|residual-source"),
        edits={"block.forward": "return attention(norm_1(x)) + mlp(norm_2(x))"}),
    Bug(id="stream-twice-beside-attention", hosts=("separate",), edits={"block.residual_1": "{x} + {x} + {branch}"},
        **SUM_1, causes=("residual-doubled|residual-scale",)),
    Bug(id="attention-not-used", hosts=("fused",), place=(*NORM_2, *ATTENTION),
        also=(*NORM_1, LAYER, f"{LAYER}.dropout", *PROJECTIONS, *HEADS),
        causes=("branch-missing",), edits={"block.forward": "return x + mlp(norm_2(x))"}),
    Bug(id="sum-halved", hosts=("ours",), edits={"block.residual_2": "0.5 * ({x} + {branch})"}, place=RESIDUAL_2,
        causes=("residual-scale",), says="0.5"),
    Bug(id="stream-weighted-as-in-deepnorm", hosts=("fused",), edits={"block.residual_1": "1.86 * {x} + {branch}"},
        **SUM_1, causes=("residual-scale",), says="1.86"),
    Bug(id="norm-after-attentions-sum-alone", hosts=("separate",), causes=("post-norm",), says="first norm",
        place=(*PROJECTIONS, *NORM_1, *NORM_2), also=(LAYER,),
        edits={"block.forward": "x = norm_1(x + attention(x))\nreturn x + mlp(norm_2(x))"}),
    Bug(id="post-norm-and-mlp-before-attention", hosts=("ours",), causes=("branch-order|post-norm",),
        place=(*PROJECTIONS, *NORMS, *MLP, *MLP_OUTPUT, *HEADS, f"{LAYER}.dropout"),
        edits={"block.forward": "x = norm_1(x + mlp(x))\nreturn norm_2(x + attention(x))"}),
    Bug(id="input-of-blocks-added-to-their-output", hosts=("fused",), place=(*FINAL_NORM, "encoder.layers"),
        causes=(FORMULA,), says="x + y",
        edits={"model.blocks": "first = x\nfor block in {layers}:\n    x = block(x)\nx = x + first"}),
    Bug(id="mlp-of-the-patches-alone", hosts=("separate",), place=RESIDUAL_2,
        causes=(FORMULA,), says="cat(",
        edits={"block.residual_2": "{x} + torch.cat([0 * {branch}[:, :1], {branch}[:, 1:]], dim=1)"}),
    Bug(id="every-block-twice", hosts=("ours",), place=(LAYER, *NORM_1, *FINAL_NORM), spreads=True,
        causes=("block-order|block-sharing",),
               edits={"model.blocks": "for block in {layers}:\n    x = block(block(x))"}),
    Bug(id="first-two-blocks-are-one", hosts=("separate",), spreads=True, causes=("block-sharing",),
        place=(LAYER, *NORM_1, "encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_1.ln_1",
               "encoder.layers.encoder_layer_2"),
        edits={"model.blocks": "for n in (0, 0, 2):\n    x = {layers}[n](x)"}),
    Bug(id="block-under-autocast", hosts=("fused",), causes=("hidden-cast|attention-dtype",), dtype="float32",
        place=(*PROJECTIONS, *NORM_1, f"{LAYER}.mlp.0", LAYER), also=(*HEADS, *MLP, *MLP_OUTPUT, f"{LAYER}.mlp.3"),
        edits={"block.forward": "with torch.autocast('cpu', dtype=torch.bfloat16):\n"
               "    x = x + attention(norm_1(x))\n    return x + mlp(norm_2(x))"}),
]  # fmt: skip

_MLP_SLIPS = [
    dataclasses.replace(activation("mish", "nn.Mish()", "F.mish", "ish"), hosts=("fused",)),
    dataclasses.replace(activation("softplus", "nn.Softplus()", "F.softplus", "oftplus"), hosts=("ours",)),
    dataclasses.replace(own_activation("gelu-by-a-sigmoid-of-1.7", "RoundedQuickGELU", "x * torch.sigmoid(1.7 * x)",
                                       "1.7"), hosts=("fused",)),
    dataclasses.replace(own_activation("gelu-and-its-input", "InputAndGELU", "x + nn.functional.gelu(x)", "gelu"),
                        hosts=("ours",), causes=(FORMULA,)),
    Bug(id="activation-before-mlp", hosts=("separate",), place=(*MLP, *NORM_2), causes=("extra-activation",),
        says="GELU", edits={"block.normed_2": "F.gelu(self.ln_ff(x))"}),
    Bug(id="mlp-twice-as-wide", hosts=("fused",), edits={"block.begin": "{M} = 2 * {M}\n"}, causes=("mlp-width",),
        place=(f"{LAYER}.mlp.0", f"{LAYER}.mlp.1", f"{LAYER}.mlp.3", *MLP_OUTPUT), changes_parameters=True),
    Bug(id="one-linear-for-the-mlp", hosts=("fused",), changes_parameters=True, causes=("mlp-width",),
        place=(f"{LAYER}.mlp.0", f"{LAYER}.mlp.1", f"{LAYER}.mlp.3", *MLP_OUTPUT, *MLP),
        edits={"block.built": "self.mlp = nn.Linear({D}, {D})"}),
    Bug(id="mlp-of-three-layers", hosts=("fused",), changes_parameters=True, causes=("mlp-width|extra-projection",),
        place=(f"{LAYER}.mlp.0", f"{LAYER}.mlp.1", f"{LAYER}.mlp.3", *MLP_OUTPUT, *MLP),
        edits={"block.built": "self.mlp.fc2 = nn.Sequential(nn.Linear({M}, {M}), nn.GELU(), nn.Linear({M}, {D}))"}),
]  # fmt: skip

_HEAD_SLIPS = [
    Bug(id="pool-mean-before-the-norm", hosts=("fused",), place=(*FINAL_NORM, *HEAD), causes=("pooling",),
        says="final norm", edits={"model.norm": "self.norm({encoded}.mean(1, keepdim=True))"}),
    Bug(id="pool-class-token-and-mean", hosts=("separate",), place=HEAD, causes=("pooling",),
        edits={"model.pool": "(({normed}[:, 0] + {normed}[:, 1:].mean(1)) / 2)"}),
    Bug(id="pool-weighted-by-softmax", hosts=("ours",), place=HEAD, causes=(FORMULA,), says="softmax",
        edits={"model.pool": "({normed}.mean(-1, keepdim=True).softmax(1) * {normed}).sum(1)"}),
    Bug(id="logits-scaled", hosts=("ours",), edits={"model.logits": "{logits} / 0.07"}, place=LOGITS,
        causes=("output-scale",)),
    Bug(id="logits-centred", hosts=("fused",), place=(*HEAD, *LOGITS), causes=(FORMULA,), says="mean(",
        edits={"model.logits": "{logits} - {logits}.mean(-1, keepdim=True)"}),
    Bug(id="logits-of-length-1", hosts=("separate",), place=LOGITS, causes=(FORMULA,), says="norm",
        edits={"model.logits": "nn.functional.normalize({logits}, dim=-1)"}),
    Bug(id="classes-back-to-front", hosts=("fused",), edits={"model.logits": "{logits}.flip(-1)"}, place=LOGITS,
        causes=("class-order",)),
    Bug(id="classes-from-one", hosts=("separate",), edits={"model.logits": "{logits}.roll(1, -1)"}, place=LOGITS,
        causes=("class-order",)),
    Bug(id="softmax-over-the-batch-of-logits", hosts=("ours",), edits={"model.logits": "{logits}.softmax(0)"},
        place=LOGITS, causes=("output-activation",), says="batch"),
    Bug(id="head-of-normalised-rows", hosts=("fused",), place=(*HEAD, *LOGITS),
        causes=(FORMULA,), says="weight",
        edits={"model.logits": "nn.functional.linear({pooled}, nn.functional.normalize({head}.weight, dim=1), "
               "{head}.bias)"}),
    Bug(id="head-by-its-spectral-norm", hosts=("ours",), place=(*HEAD, *LOGITS),
        causes=(FORMULA,), says="weight",
        edits={"model.logits": "nn.functional.linear({pooled}, {head}.weight / "
               "torch.linalg.matrix_norm({head}.weight, 2), {head}.bias)"}),
    Bug(id="one-class-more", hosts=("fused",), place=(*HEAD, *LOGITS), causes=("class-count",),
        changes_parameters=True, edits={"model.built": "{head} = nn.Linear({D}, 12)",
                                        "model.logits": "{logits}[:, 1:]"}),
    Bug(id="dropout-before-head-in-eval", hosts=("separate",), place=(*HEAD, *LOGITS), causes=("dropout-in-eval",),
        edits={"model.pooled": "nn.functional.dropout({pooled}, 0.1)"}),
    Bug(id="head-in-bfloat16", hosts=("fused",), place=(*HEAD, *LOGITS), causes=("hidden-cast",), says="bfloat16",
        edits={"model.pooled": "{pooled}.bfloat16().to({pooled})"}),
]  # fmt: skip

# by the categories of the kill matrix; one host is enough for each
SLIPS = {
    category: tuple(dataclasses.replace(bug, in_one_block=False) for bug in bugs)
    for category, bugs in {
        "patches and images": _IMAGES,
        "positions and tokens": _TOKENS_AND_POSITIONS,
        "norms": _NORM_SLIPS,
        "attention": _ATTENTION_SLIPS,
        "residuals": _WIRING_SLIPS,
        "MLP": _MLP_SLIPS,
        "pooling, head, logits": _HEAD_SLIPS,
    }.items()
}


def _train(id: str, host: str, edits: dict[str, str], place: tuple[str, ...], cause: str, says: str = "") -> Bug:  # noqa: A002
    return Bug(id=id, hosts=(host,), edits=edits, place=place, causes=(cause,), says=says, mode="train", spreads=True,
               in_one_block=False)  # fmt: skip


_AFTER_ATTENTION = (f"{LAYER}.dropout", *RESIDUAL_1, *HEADS)
_DEPTH = "{x} + {branch} * (torch.rand({x}.shape[0], 1, 1).to({x}) > 0.1) / 0.9 if self.training else {x} + {branch}"

SLIPS["dropout in train mode"] = (
    _train("dropout-after-mlp-missing", "fused", {"mlp.last_dropout": "nn.Identity()"},
           (f"{LAYER}.mlp.4", *MLP_OUTPUT), "dropout-missing"),
    _train("dropout-of-tokens-hard-wired", "ours", {"model.dropout": "nn.Dropout(0.35)"}, TOKENS, "dropout-rate"),
    _train("dropout-in-mlp-doubled", "fused", {"mlp.hidden_dropout": "nn.Dropout(2 * {dropout})"},
           (f"{LAYER}.mlp.2", f"{LAYER}.mlp.3"), "dropout-rate"),
    _train("dropout-before-head", "separate", {"model.pooled": "F.dropout({pooled}, 0.1, self.training)"},
           (*HEAD, *LOGITS), "dropout-extra"),
    _train("dropout-before-positions", "fused",
           {"model.positions": "nn.functional.dropout({tokens}, 0.1, self.training) + {positions}"}, TOKENS,
           "dropout-extra|dropout-elsewhere"),
    _train("dropout-of-images", "ours", {"model.images": "nn.functional.dropout({images}, 0.1, self.training)"}, CONV,
           "dropout-extra"),
    _train("stochastic-depth-in-training", "fused", {"block.residual_2": f"({_DEPTH})"}, RESIDUAL_2,
           "stochastic-depth|random-numbers"),
    _train("noise-on-tokens-in-training", "separate",
           {"model.dropped": "{dropout}({embedded} + 0.01 * torch.randn_like({embedded}) * self.training)"}, TOKENS,
           "train-mode-alone"),
    _train("dropout-of-whole-tokens", "ours", {"model.dropout": "nn.Dropout1d(dropout)"}, TOKENS, "dropout-shape"),
    _train("dropout-of-heads-output", "fused",
           {"attention.out": "self.proj(nn.functional.dropout({merged}, 0.1, self.training))"}, HEADS,
           "dropout-extra|dropout-elsewhere"),
    _train("norm-by-the-batch-in-training", "ours",
           {"model.pooled": "({pooled} - {pooled}.mean(0) * self.training)"}, (*HEAD, *LOGITS),
           "train-mode-alone"),
    _train("attention-unmasked-in-training-alone", "separate",
           {"attention.softmax": "({scores} * (0.5 if self.training else 1.0)).softmax(-1)"}, HEADS,
           "train-mode-alone"),
)  # fmt: skip
