"""Traits: bugs in which a model is of another family than torchvision's ViT, each in one host."""

from __future__ import annotations

import dataclasses

from tests.corpus.bug import (
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
    PROJECTIONS,
    TOKENS,
    Bug,
)

TRAIT = "traits of other families"  # the category of the kill matrix

_COUNT, _CLASSES = 26, 11  # tokens and classes of the corpus's sizes
_LOW = "nn.Linear({D}, 4, bias=False), nn.Linear(4, {rows}, bias=False)"
_ANY_MLP = (f"{LAYER}.mlp.0", f"{LAYER}.mlp.1", f"{LAYER}.mlp.3", *MLP, *MLP_OUTPUT)
_ALL_TOKENS = (*CONV, *TOKENS)

_ROTARY_ON_A_GRID = '''def turned(x, base=100.0):
    """Turns features of (B, H, N, d), the first half by row, the second by column; the class token is left as it is."""
    first, rest = x[:, :, :1], x[:, :, 1:]
    side, half = round(rest.shape[2] ** 0.5), x.shape[-1] // 2 // 2 * 2
    rates = base ** (-torch.arange(0, half, 2).to(x) / half)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    parts = []
    for n, place in enumerate((rows, columns)):
        part = rest[..., n * half : (n + 1) * half]
        angles = torch.outer(place.flatten().to(x), rates)
        cos, sin = angles.cos(), angles.sin()
        one, other = part[..., ::2], part[..., 1::2]
        parts.append(torch.stack([one * cos - other * sin, other * cos + one * sin], dim=-1).flatten(-2))
    return torch.cat([first, torch.cat([*parts, rest[..., 2 * half :]], dim=-1)], dim=2)'''

_GRID_DISTANCES = '''def distances(scores):
    """How far two patches are apart on their grid, (H, N, N), times 2 ** -head; 0 for the class token."""
    count = scores.shape[-1]
    side, place = round((count - 1) ** 0.5), torch.arange(count - 1)
    grid = torch.stack([place // side, place % side], dim=-1).to(scores)
    apart = nn.functional.pad(torch.cdist(grid, grid), (1, 0, 1, 0))
    return apart * (0.5 ** torch.arange(1, scores.shape[1] + 1).to(scores))[:, None, None]'''

_PATCH_TRAITS = [
    Bug(id="norm-before-patch-projection", hosts=("separate",), place=_ALL_TOKENS, causes=("extra-norm",),
        changes_parameters=True,
        edits={"model.built": "self.before = nn.LayerNorm({conv}.weight[0].numel())",
               "patches.features": "nn.functional.linear(self.before({images}.unfold(2, 6, 6).unfold(3, 6, 6)"
               ".permute(0, 2, 3, 1, 4, 5).flatten(3)), {conv}.weight.flatten(1), {conv}.bias).permute(0, 3, 1, 2)"}),
    Bug(id="norm-after-patch-projection", hosts=("separate",), place=_ALL_TOKENS, causes=("extra-norm",),
        changes_parameters=True,
        edits={"model.built": "self.after = nn.LayerNorm({D})",
               "patches.tokens": "return self.after({f}.flatten(2).transpose(1, 2))"}),
    Bug(id="norms-around-patch-projection", hosts=("separate",), place=_ALL_TOKENS,
        causes=("extra-norm",), changes_parameters=True,
        edits={"model.built": "self.before = nn.LayerNorm({conv}.weight[0].numel())\nself.after = nn.LayerNorm({D})",
               "patches.features": "nn.functional.linear(self.before({images}.unfold(2, 6, 6).unfold(3, 6, 6)"
               ".permute(0, 2, 3, 1, 4, 5).flatten(3)), {conv}.weight.flatten(1), {conv}.bias).permute(0, 3, 1, 2)",
               "patches.tokens": "return self.after({f}.flatten(2).transpose(1, 2))"}),
    Bug(id="patches-in-two-steps", hosts=("fused",), place=_ALL_TOKENS, changes_parameters=True,
        causes=(FORMULA,), says="gelu(bias + x @ weight)",
        edits={"model.built": "{conv} = nn.Sequential(nn.Conv2d(3, 16, 3, 3), nn.GELU(), nn.Conv2d(16, {D}, 2, 2))"}),
    Bug(id="patches-that-overlap", hosts=("fused",), place=_ALL_TOKENS, changes_parameters=True,
        causes=(FORMULA,), says="convolution(x, patch_embed.proj.weight",
               edits={"model.built": "{conv} = nn.Conv2d(3, {D}, 8, 6, 1)"}),
    Bug(id="pointwise-projection-after-patches", hosts=("separate",), place=_ALL_TOKENS, changes_parameters=True,
        causes=("extra-projection",),
        edits={"model.built": "self.after = nn.Linear({D}, {D})",
               "patches.tokens": "return self.after({f}.flatten(2).transpose(1, 2))"}),
]  # fmt: skip

_TOKEN_TRAITS = [
    Bug(id="registers", hosts=("fused",), place=(*TOKENS, *PROJECTIONS), spreads=True, changes_parameters=True,
        causes=("extra-tokens",),
        edits={"model.built": "self.registers = nn.Parameter(torch.randn(1, 4, {D}) * 0.02)",
               "model.positions": "torch.cat([({tokens} + {positions})[:, :1], self.registers.expand(x.shape[0], -1, "
               "-1), ({tokens} + {positions})[:, 1:]], dim=1)"}),
    Bug(id="prompts-at-the-end", hosts=("separate",), place=(*TOKENS, *PROJECTIONS), spreads=True,
        changes_parameters=True, causes=("extra-tokens",),
        edits={"model.built": "self.prompts = nn.Parameter(torch.randn(1, 3, {D}) * 0.02)",
               "model.positions": "torch.cat([{tokens} + {positions}, self.prompts.expand(x.shape[0], -1, -1)], "
               "dim=1)"}),
    Bug(id="distillation-token-and-two-heads", hosts=("fused",), place=(*TOKENS, *PROJECTIONS), spreads=True,
        changes_parameters=True, causes=("extra-tokens", "two-heads"),
        edits={"model.built": f"self.dist_token = nn.Parameter(torch.randn(1, 1, {{D}}) * 0.02)\n"
               f"self.head_dist = nn.Linear({{D}}, {_CLASSES})\n"
               f"{{positions}} = nn.Parameter(torch.randn(1, {_COUNT + 1}, {{D}}) * 0.02)",
               "model.cat": "torch.cat([{class_token}, self.dist_token.expand(x.shape[0], -1, -1), x], dim=1)",
               "model.logits": "({head}({normed}[:, 0]) + self.head_dist({normed}[:, 1])) / 2"}),
    Bug(id="no-class-token-and-fixed-positions", hosts=("separate",), place=(*TOKENS, *PROJECTIONS), spreads=True,
        changes_parameters=True, causes=("class-token-missing", "position-fixed", "pooling"),
        edits={"model.built": "del {cls}\n"
               "table = torch.arange(25)[:, None] / 10000 ** (torch.arange(0, {D}, 2) / {D})\n"
               "table = torch.cat([table.sin(), table.cos()], dim=-1)[None]\ndel {positions}\n"
               "self.register_buffer('{positions_name}', table, persistent=False)",
               "model.class_token": "None", "model.positions": "x + {positions}", "model.pool": "{normed}.mean(1)"}),
    Bug(id="no-class-token", hosts=("separate",), place=(*TOKENS, *PROJECTIONS), spreads=True,
        changes_parameters=True, causes=("class-token-missing", "pooling"),
        edits={"model.built": "del {cls}\n{positions} = nn.Parameter(torch.randn(1, 25, {D}) * 0.02)",
               "model.class_token": "None", "model.positions": "x + {positions}", "model.pool": "{normed}.mean(1)"}),
    Bug(id="second-table-of-positions", hosts=("fused",), place=TOKENS, changes_parameters=True,
        causes=(FORMULA,), says="more + encoder.pos_embedding",
        edits={"model.built": f"self.more = nn.Parameter(torch.randn(1, {_COUNT}, {{D}}) * 0.02)",
               "model.positions": "{tokens} + {positions} + self.more"}),
]  # fmt: skip

_ATTENTION_TRAITS = [
    Bug(id="sinks", hosts=("fused",), place=HEADS, causes=(FORMULA,), says="attn.sinks", changes_parameters=True,
        edits={"block.built": "{attn}.sinks = nn.Parameter(torch.zeros({heads}))",
               "attention.softmax": "torch.cat([{scores}, self.sinks.view(1, -1, 1, 1).expand({B}, -1, {N}, 1)], -1)"
               ".softmax(-1)[..., :-1]"}),
    Bug(id="learned-key-and-value", hosts=("fused",), place=HEADS, causes=(FORMULA,), says="attn.one",
        changes_parameters=True,
        edits={"block.built": "{attn}.one = nn.Parameter(torch.randn(2, 1, {heads}, 1, {D} // {heads}) * 0.02)",
               "attention.before": "{k}, {v} = (torch.cat([t, one.expand({B}, -1, -1, -1)], 2) for t, one in "
               "zip(({k}, {v}), self.one))\n"}),
    Bug(id="relative-bias", hosts=("fused",), place=HEADS, causes=(FORMULA,), says="attn.bias + q @ k^T",
        changes_parameters=True,
        edits={"block.built": f"{{attn}}.bias = nn.Parameter(torch.randn({{heads}}, {_COUNT}, {_COUNT}) * 0.02)",
               "attention.softmax": "({scores} + self.bias).softmax(-1)"}),
    Bug(id="distance-bias-on-the-grid", hosts=("separate",), place=HEADS, causes=("distance-bias",), says="grid",
        edits={"top": _GRID_DISTANCES, "attention.softmax": "({scores} - distances({scores})).softmax(-1)"}),
    Bug(id="rotary-positions-on-a-grid", hosts=("ours",), place=HEADS, causes=("rotary-positions",),
        says="row and column",
        edits={"top": _ROTARY_ON_A_GRID, "attention.before": "{q}, {k} = turned({q}), turned({k})\n"}),
    Bug(id="norms-of-queries-and-keys-with-parameters", hosts=("fused",), place=HEADS, causes=("extra-norm",),
        changes_parameters=True,
        edits={"block.built": "{attn}.q_norm, {attn}.k_norm = (nn.LayerNorm({D} // {heads}) for _ in range(2))",
               "attention.before": "{q}, {k} = self.q_norm({q}), self.k_norm({k})\n"}),
    Bug(id="root-mean-square-of-queries-and-keys", hosts=("separate",), place=HEADS, causes=(FORMULA,),
        says="mean(q^2)",
        edits={"attention.before": "{q}, {k} = (t * (t.square().mean(-1, keepdim=True) + 1e-6).rsqrt() "
               "for t in ({q}, {k}))\n"}),
    Bug(id="cosine-attention-with-temperatures", hosts=("fused",), place=HEADS, causes=("cosine-attention",),
        changes_parameters=True,
        edits={"block.built": "{attn}.temperature = nn.Parameter(torch.full(({heads}, 1, 1), 10.0))",
               "attention.before": "{q}, {k} = (nn.functional.normalize(t, dim=-1) for t in ({q}, {k}))\n",
               "attention.scores": "{q} @ {k}.transpose(-2, -1) * self.temperature"}),
    Bug(id="scores-capped-above", hosts=("ours",), place=HEADS, causes=("score-cap",),
        edits={"attention.scores": "({q} @ {k}.transpose(-2, -1) * {d} ** -0.5).clamp(max=0.25)"}),
    Bug(id="one-key-and-value-for-all-heads", hosts=("separate",), place=(*PROJECTIONS, *HEADS),
        causes=("shared-heads|head-count",), changes_parameters=True,
        edits={"block.built": "{attn}.w_k, {attn}.w_v = (nn.Linear({D}, {D} // {heads}) for _ in range(2))",
               "attention.split": "{t}.view({B}, {N}, -1, {d}).transpose(1, 2).expand(-1, {H}, -1, -1)"}),
    Bug(id="attention-gated", hosts=("fused",), place=HEADS, causes=(FORMULA,), says="sigmoid(attn.gate",
        changes_parameters=True,
        edits={"block.built": "{attn}.gate = nn.Linear({D}, {D})",
               "attention.before": "given = {x}\n",
               "attention.out": "self.proj({merged} * self.gate(given).sigmoid())"}),
    Bug(id="heads-that-talk", hosts=("fused",), place=HEADS, causes=(FORMULA,), says="attn.talk @ softmax",
        changes_parameters=True,
        edits={"block.built": "{attn}.talk = nn.Parameter(torch.eye({heads}))",
               "attention.softmax": "torch.einsum('hg,bgij->bhij', self.talk, {scores}.softmax(-1))"}),
    Bug(id="low-rank-beside-the-fused-projection", hosts=("fused",), place=(*PROJECTIONS, *HEADS),
        causes=("low-rank-branch",), says="rank 4", changes_parameters=True,
        edits={"block.built": f"{{attn}}.low, {{attn}}.up = {_LOW.replace('{rows}', '3 * {D}')}",
               "attention.projected": "({projected} + 2 * self.up(self.low({x})))"}),
]  # fmt: skip

_BLOCK_TRAITS = [
    Bug(id="norms-before-and-after-the-branches", hosts=("fused",), place=(*NORM_2, LAYER), causes=("extra-norm",),
        changes_parameters=True,
        edits={"block.built": "self.after_1, self.after_2 = nn.LayerNorm({D}), nn.LayerNorm({D})",
               "block.forward": "x = x + self.after_1(attention(norm_1(x)))\nreturn x + self.after_2(mlp(norm_2(x)))"}),
    Bug(id="norm-inside-the-mlp", hosts=("fused",), place=_ANY_MLP, causes=("extra-norm",), changes_parameters=True,
        edits={"block.built": "{fc2} = nn.Sequential(nn.LayerNorm({M}), {fc2})"}),
    Bug(id="branches-from-zero", hosts=("separate",), place=(*NORM_2, LAYER), causes=("extra-scale",),
        changes_parameters=True,
        edits={"block.built": "self.alpha = nn.Parameter(torch.zeros(1))",
               "block.residual_1": "{x} + self.alpha * {branch}"}),
    Bug(id="adapter", hosts=("fused",), place=(LAYER,), causes=("adapter",), says="GELU", changes_parameters=True,
        edits={"block.built": f"self.low, self.up = {_LOW.replace('{rows}', '{D}')}",
               "block.forward": "x = x + attention(norm_1(x))\nx = x + mlp(norm_2(x))\n"
               "return x + self.up(nn.functional.gelu(self.low(x)))"}),
    Bug(id="mlp-gated", hosts=("fused",), place=_ANY_MLP, causes=("mlp-gated",), says="SiLU", changes_parameters=True,
        edits={"block.built": "self.gate = nn.Linear({D}, {M})",
               "block.forward": "x = x + attention(norm_1(x))\ny = norm_2(x)\n"
               "return x + self.mlp.fc2(nn.functional.silu(self.gate(y)) * self.mlp.fc1(y))"}),
    Bug(id="mlp-gated-by-half-a-projection", hosts=("fused",), place=_ANY_MLP, causes=("mlp-gated",),
        says="GELU of the second", changes_parameters=True,
        edits={"block.built": "{fc1} = nn.Linear({D}, 2 * {M})",
               "block.forward": "x = x + attention(norm_1(x))\none, other = self.mlp.fc1(norm_2(x)).chunk(2, -1)\n"
               "return x + self.mlp.fc2(one * nn.functional.gelu(other))"}),
    Bug(id="batch-norm-over-features", hosts=("fused",), place=NORM_2, causes=("batch-norm",),
        says="running statistics", changes_buffers=True,
        edits={"top": "class Norm(nn.BatchNorm1d):\n    def forward(self, x):\n"
               "        return super().forward(x.mT).mT", "block.norm_2": "Norm({D})"}),
    Bug(id="norm-over-tokens-and-features", hosts=("fused",), place=(*NORM_1, *PROJECTIONS),
        causes=("layer-norm-axes",), says="tokens and features together", changes_parameters=True,
        edits={"block.norm_1": f"nn.LayerNorm(({_COUNT}, {{D}}))"}),
]  # fmt: skip

_HEAD_TRAITS = [
    Bug(id="head-over-all-tokens", hosts=("fused",), place=(*HEAD, *LOGITS), causes=("head-shape",),
        changes_parameters=True,
        says="all tokens laid end to end",
        edits={"model.built": f"{{head}} = nn.Linear({_COUNT} * {{D}}, {_CLASSES})",
               "model.pool": "{normed}.flatten(1)"}),
    Bug(id="head-over-class-token-and-mean", hosts=("fused",), place=(*HEAD, *LOGITS), causes=("head-shape",),
        says="the class token and the mean of the patches' tokens", changes_parameters=True,
        edits={"model.built": f"{{head}} = nn.Linear(2 * {{D}}, {_CLASSES})",
               "model.pool": "torch.cat([{normed}[:, 0], {normed}[:, 1:].mean(1)], -1)"}),
    Bug(id="hidden-layer-in-the-head", hosts=("fused",), place=(*HEAD, *LOGITS), causes=("head-shape",), says="ReLU",
        changes_parameters=True,
        edits={"model.built": f"{{head}} = nn.Sequential(nn.Linear({{D}}, 30), nn.ReLU(), nn.Linear(30, {_CLASSES}))"}),
    Bug(id="hidden-layer-in-a-head-that-chooses-a-token", hosts=("fused",), place=(*HEAD, *LOGITS),
        causes=("extra-projection",),
        says="tanh", changes_parameters=True,
        edits={"top": "class Head(nn.Module):\n    def __init__(self, width, classes):\n        super().__init__()\n"
               "        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, classes)\n\n"
               "    def forward(self, x):\n        return self.out(torch.tanh(self.hidden(x[:, 0])))",
               "model.built": f"{{head}} = Head({{D}}, {_CLASSES})", "model.pool": "{normed}"}),
    Bug(id="batch-norm-before-the-head", hosts=("fused",), place=HEAD, causes=("extra-norm",), says="BatchNorm",
        changes_buffers=True,
        edits={"model.built": "self.before = nn.BatchNorm1d({D}, affine=False)",
               "model.pooled": "self.before({pooled})"}),
    Bug(id="second-norm-before-the-head", hosts=("separate",), place=(*FINAL_NORM, *HEAD), causes=("extra-norm",),
        changes_parameters=True,
        edits={"model.built": "self.before = nn.LayerNorm({D}, eps=1e-6)", "model.pooled": "self.before({pooled})"}),
    Bug(id="heads-on-halves", hosts=("separate",), place=(*HEAD, *LOGITS), causes=("heads-on-slices",),
        changes_parameters=True,
        edits={"model.built": "{head} = nn.Linear({D} // 2, 5)\n"
               f"self.other = nn.Linear({{D}} // 2, {_CLASSES - 5})",
               "model.logits": "torch.cat([f(t) for f, t in zip(({head}, self.other), {pooled}.chunk(2, -1))], -1)"}),
    Bug(id="two-heads-of-the-class-token", hosts=("separate",), place=(*HEAD, *LOGITS), causes=("two-heads",),
        says="mean", changes_parameters=True,
        edits={"model.built": f"self.other = nn.Linear({{D}}, {_CLASSES})",
               "model.logits": "({logits} + self.other({pooled})) / 2"}),
]  # fmt: skip

TRAITS = tuple(
    dataclasses.replace(bug, in_one_block=False)
    for bugs in (_PATCH_TRAITS, _TOKEN_TRAITS, _ATTENTION_TRAITS, _BLOCK_TRAITS, _HEAD_TRAITS)
    for bug in bugs
)
