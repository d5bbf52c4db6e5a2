"""Other ways to the same function, which nobody may flag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.corpus.bug import own_norm, own_patches
from tests.corpus.hosts import HOSTS
from tests.corpus.planting import Change, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.corpus.hosts import Host

_EINOPS = "from einops import rearrange"
_GELU = "0.5 * x * (1 + torch.erf(x / 2**0.5))"


@dataclass(frozen=True, kw_only=True)
class Way(Change):
    """A change to the source that leaves the function alone.

    Attributes:
        changes_parameters: the model has other parameters, so that the written map doesn't fit.
    """

    changes_parameters: bool = False


_EVERYWHERE = (
    # images to tokens
    Way(id="functional-convolution",
        edits={"patches.features": "nn.functional.conv2d({images}, {conv}.weight, {conv}.bias, {conv}.stride)"}),
    Way(id="linear-on-patches", edits=own_patches("0, 2, 3, 1, 4, 5")),
    Way(id="patches-reshaped-and-permuted",
        edits={"patches.tokens": "return {f}.reshape(*{f}.shape[:2], -1).permute(0, 2, 1)"}),
    Way(id="patches-rearranged-by-einops",
        edits={"top": _EINOPS, "patches.tokens": "return rearrange({f}, 'b d h w -> b (h w) d')"}),
    Way(id="images-channels-last",
        edits={"model.images": "{images}.contiguous(memory_format=torch.channels_last)"}),
    Way(id="class-token-repeated", edits={"model.class_token": "{cls}.repeat(x.shape[0], 1, 1)"}),
    Way(id="class-token-expanded", edits={"model.class_token": "{cls}.expand(x.shape[0], -1, -1)"}),
    Way(id="positions-before-the-class-token-is-put-in-front", hosts=("ours", "fused"),
        edits={"model.cat": "torch.cat([{class_token} + {positions}[:, :1], x + {positions}[:, 1:]], dim=1)",
               "model.positions": "{tokens}"}),
    Way(id="positions-of-class-token-and-patches-apart",
        edits={"model.positions": "torch.cat([{tokens}[:, :1] + {positions}[:, :1], "
               "{tokens}[:, 1:] + {positions}[:, 1:]], dim=1)"}),
    Way(id="positions-expanded", edits={"model.positions": "{tokens} + {positions}.expand(x.shape[0], -1, -1)"}),
    Way(id="positions-added-in-place", edits={"model.positions": "{tokens}.add_({positions})"}),
    Way(id="nothing-after-positions", edits={"model.built": "self.nothing = nn.Identity()",
                                             "model.dropped": "self.nothing({dropout}({embedded}))"}),
    # norms
    Way(id="norms-written-out",
        edits=own_norm("WrittenNorm", "(x - mean) / (x.var(-1, correction=0, keepdim=True) + self.eps).sqrt()"
                       " * self.weight + self.bias")),
    Way(id="norms-functional",
        edits=own_norm("FunctionalNorm",
                       "nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)")),
    Way(id="final-norm-of-the-class-token-only",
        edits={"model.norm": "{encoded}", "model.pool": "{final_norm}({normed}[:, 0])"},
        per_host={"separate": {"model.pool": "self.ln_final(x[:, 0])"}}),
    # attention
    Way(id="attention-written-out", hosts=("ours",), edits={"attention.out": "{out}"}),
    Way(id="attention-weights-asked-for", hosts=("ours",), edits={"block.need_weights": "need_weights=True"}),
    Way(id="attention-mask-of-zeros", hosts=("ours",),
        edits={"block.need_weights": "need_weights=False, attn_mask=y.new_zeros(y.shape[1], y.shape[1])"}),
    Way(id="tokens-before-batch-throughout", hosts=("ours",),
        edits={"block.batch_first": "False", "model.blocks": "x = self.attn_layers(x.transpose(0, 1))",
               "model.pool": "x[0]"}),
    Way(id="scaled-dot-product-attention",
        edits={"attention.weights": "{rate} if self.training else 0.0",
               "attention.mix": "nn.functional.scaled_dot_product_attention({q}, {k}, {v}, dropout_p={weights})"}),
    Way(id="queries-scaled", edits={"attention.scores": "({q} * {d} ** -0.5) @ {k}.transpose(-2, -1)"}),
    Way(id="queries-and-keys-scaled",
        edits={"attention.scores": "({q} * {d} ** -0.25) @ ({k} * {d} ** -0.25).transpose(-2, -1)"}),
    Way(id="scores-by-einsum",
        edits={"attention.scores": "torch.einsum('bhid,bhjd->bhij', {q}, {k}) / {d} ** 0.5"}),
    Way(id="keys-centred", edits={"attention.before": "{k} = {k} - {k}.mean(-2, keepdim=True)\n"}),
    Way(id="nothing-masked", edits={"attention.softmax": "{scores}.masked_fill("
                                    "torch.zeros({N}, {N}, dtype=torch.bool), float('-inf')).softmax(-1)"}),
    Way(id="softmax-written-out", edits={"attention.softmax": "(lambda e: e / e.sum(-1, keepdim=True))"
                                         "(({scores} - {scores}.amax(-1, keepdim=True)).exp())"}),
    Way(id="softmax-of-transposed-scores",
        edits={"attention.softmax": "{scores}.transpose(-2, -1).softmax(-2).transpose(-2, -1)"}),
    Way(id="values-by-einsum", edits={"attention.mix": "torch.einsum('bhij,bhjd->bhid', {weights}, {v})"}),
    Way(id="values-head-by-head",
        edits={"attention.mix": "torch.stack([{weights}[:, h] @ {v}[:, h] for h in range({H})], dim=1)"}),
    Way(id="values-in-chunks-of-queries",
        edits={"attention.mix": "torch.cat([{weights}[:, :, n : n + 7] @ {v} for n in range(0, {N}, 7)], dim=2)"}),
    Way(id="heads-split-by-unflatten", edits={"attention.split": "{t}.unflatten(-1, ({H}, -1)).movedim(2, 1)"}),
    Way(id="heads-merged-by-flatten", edits={"attention.merge": "{mixed}.movedim(1, 2).flatten(2)"}),
    Way(id="heads-rearranged-by-einops",
        edits={"top": _EINOPS, "attention.split": "rearrange({t}, 'b n (h d) -> b h n d', h={H})",
               "attention.merge": "rearrange({mixed}, 'b h n d -> b n (h d)')"}),
    Way(id="projections-apart",
        edits={"attention.projected": "torch.cat([nn.functional.linear({x}, w, b) for w, b in "
               "zip({qkv_weight}.chunk(3), {qkv_bias}.chunk(3))], dim=-1)"}),
    # the rest of the block
    Way(id="sums-the-other-way-around",
        edits={"block.residual_1": "{branch} + {x}", "block.residual_2": "torch.add({branch}, {x})"}),
    Way(id="second-sum-in-place", edits={"block.residual_2": "{x}.add_({branch})"}),
    Way(id="block-rewritten", edits={"block.forward": "y = attention(norm_1(x)) + x\nreturn mlp(norm_2(y)) + y"}),
    Way(id="gelu-written-out",
        edits={"top": f"class WrittenGELU(nn.Module):\n    def forward(self, x):\n        return {_GELU}",
               "mlp.activation": "WrittenGELU()"},
        per_host={"separate": {"mlp.activation": f"(lambda x: {_GELU})"}}),
    Way(id="dropout-of-the-mlp-outside-it", hosts=("ours", "fused"),
        edits={"mlp.last_dropout": "nn.Identity()", "block.residual_2": "{x} + self.dropout({branch})"},
        per_host={"fused": {"mlp.last_dropout": "nn.Identity()",
                            "block.residual_2": "{x} + self.attn.proj_drop({branch})"}}),
    # blocks and head
    Way(id="blocks-one-by-one", edits={"model.blocks": "for block in {layers}:\n    x = block(x)"}),
    Way(id="blocks-called-by-their-forward",
        edits={"model.blocks": "for block in {layers}:\n    x = block.forward(x)"}),
    Way(id="class-token-selected", edits={"model.pool": "{normed}.select(1, 0)"}),
    Way(id="class-token-by-an-index", edits={"model.pool": "{normed}[:, [0]].squeeze(1)"}),
    Way(id="head-of-twice-its-input-halved",
        edits={"model.logits": "({head}({pooled} * 2) + {head}.bias) / 2"}),
    Way(id="head-per-sample", edits={"model.logits": "torch.cat([{head}(row[None]) for row in {pooled}])"}),
    Way(id="head-by-matmul", edits={"model.logits": "{pooled} @ {head}.weight.T + {head}.bias"}),
    Way(id="constant-in-a-closure",
        edits={"model.built": "one = torch.ones(1)\nself.post = lambda x: x * one",
               "model.logits": "self.post({logits})"}),
)  # fmt: skip

_UNFOLDED = "nn.functional.unfold({images}, {conv}.stride, stride={conv}.stride)"
_SIDE = "{images}.shape[-1] // {conv}.stride[0]"

_FLASH = '''def in_one_pass(q, k, v, scale):
    """Attention, (B, H, N, d), over blocks of keys, with a running maximum and a running sum."""
    highest = q.new_full((*q.shape[:-1], 1), float("-inf"))
    total, result = torch.zeros_like(highest), torch.zeros_like(q)
    for keys, values in zip(k.split(8, dim=2), v.split(8, dim=2)):
        scores = q @ keys.transpose(-2, -1) * scale
        higher = torch.maximum(highest, scores.amax(-1, keepdim=True))
        kept, weights = (highest - higher).exp(), (scores - higher).exp()
        total, result = total * kept + weights.sum(-1, keepdim=True), result * kept + weights @ values
        highest = higher
    return result / total'''

_VARIANCE = "x.var(-1, correction=0, keepdim=True)"
_CHECKPOINT = "from torch.utils.checkpoint import checkpoint"


def _norms(id: str, kind: str, result: str, host: str = "fused") -> Way:  # noqa: A002
    return Way(id=id, hosts=(host,), edits=own_norm(kind, result))


def _gelu(id: str, result: str) -> Way:  # noqa: A002
    return Way(id=id, hosts=("ours",), edits={
        "top": f"class OwnGELU(nn.Module):\n    def forward(self, x):\n        return {result}",
        "mlp.activation": "OwnGELU()"})  # fmt: skip


_IN_ONE_HOST = (
    # images to tokens
    Way(id="unfold-and-linear", hosts=("ours",),
        edits={"patches.features": f"nn.functional.linear({_UNFOLDED}.transpose(1, 2), {{conv}}.weight.flatten(1), "
               f"{{conv}}.bias).transpose(1, 2).unflatten(2, ({_SIDE}, -1))"}),
    Way(id="patches-by-einsum", hosts=("fused",),
        edits={"patches.features": f"(torch.einsum('bkn,dk->bdn', {_UNFOLDED}, {{conv}}.weight.flatten(1)) "
               f"+ {{conv}}.bias[:, None]).unflatten(2, ({_SIDE}, -1))"}),
    Way(id="patches-by-reshape-and-einsum", hosts=("separate",),
        edits={"patches.features": "(torch.einsum('bcipjq,dcpq->bdij', {images}.unflatten(3, (-1, 6)).unflatten("
               "2, (-1, 6)), {conv}.weight) + {conv}.bias[:, None, None])"}),
    Way(id="convolution-channel-by-channel", hosts=("ours",),
        edits={"patches.features": "sum(nn.functional.conv2d({images}[:, c : c + 1], {conv}.weight[:, c : c + 1], "
               "stride={conv}.stride) for c in range(3)) + {conv}.bias[:, None, None]"}),
    Way(id="patch-by-patch", hosts=("fused",),
        edits={"patches.features": "torch.stack([nn.functional.linear({images}[:, :, i : i + 6, j : j + 6].flatten(1), "
               "{conv}.weight.flatten(1), {conv}.bias) for i in range(0, 30, 6) for j in range(0, 30, 6)], dim=-1)"
               ".unflatten(-1, (5, 5))"}),
    Way(id="images-flipped-and-back", hosts=("separate",), edits={"model.images": "{images}.flip(-1).flip(-1)"}),
    Way(id="images-brought-to-the-weights-dtype", hosts=("fused",),
        edits={"model.images": "{images}.to({conv}.weight)"}),
    Way(id="patches-flattened-and-turned", hosts=("ours",), edits={"patches.tokens": "return {f}.flatten(-2).mT"}),
    Way(id="patches-permuted-and-flattened", hosts=("separate",),
        edits={"patches.tokens": "return {f}.permute(0, 2, 3, 1).flatten(1, 2)"}),
    Way(id="class-token-and-patches-padded-and-added", hosts=("ours",),
        edits={"model.cat": "nn.functional.pad(x, (0, 0, 1, 0)) + nn.functional.pad({class_token}, (0, 0, 0, 25))"}),
    Way(id="class-token-concatenated-by-another-name", hosts=("fused",),
        edits={"model.cat": "torch.hstack([{class_token}, x])"}),
    Way(id="positions-looked-up", hosts=("fused",),
        edits={"model.positions": "{tokens} + nn.functional.embedding(torch.arange({positions}.shape[1]), "
               "{positions}[0])"}),
    Way(id="positions-cut-to-the-sequence", hosts=("ours",),
        edits={"model.positions": "{tokens} + {positions}[:, : {tokens}.shape[1]]"}),
    Way(id="positions-resampled-to-their-own-size", hosts=("separate",),
        edits={"model.positions": "{tokens} + torch.cat([{positions}[:, :1], nn.functional.interpolate("
               "{positions}[:, 1:].unflatten(1, (5, 5)).permute(0, 3, 1, 2), size=(5, 5), mode='bicubic')"
               ".flatten(2).mT], dim=1)"}),
    Way(id="dropout-of-tokens-functional", hosts=("separate",),
        edits={"model.dropped": "F.dropout({embedded}, {rate}, self.training)"}),
    Way(id="class-token-last-throughout", hosts=("fused",),
        edits={"model.cat": "torch.cat([x, {class_token}], dim=1)",
               "model.positions": "{tokens} + {positions}.roll(-1, dims=1)", "model.pool": "{normed}[:, -1]"}),
    Way(id="patches-in-another-order-behind-their-positions", hosts=("separate",),
        edits={"model.positions": "(lambda t: torch.cat([t[:, :1], t[:, 1:].flip(1)], dim=1))"
               "({tokens} + {positions})"}),
    # norms
    _norms("norms-by-var-and-mean", "VarMean",
           "(lambda v, m: (x - m) * torch.rsqrt(v + self.eps) * self.weight + self.bias)"
           "(*torch.var_mean(x, -1, correction=0, keepdim=True))"),
    _norms("norms-fused-at-the-end", "Fused",
           f"torch.addcmul(self.bias, (x - mean) * torch.rsqrt({_VARIANCE} + self.eps), self.weight)"),
    _norms("norms-by-one-group", "OneGroup",
           "nn.functional.group_norm(x.flatten(0, 1), 1, self.weight, self.bias, self.eps).view_as(x)"),
    _norms("norms-by-the-mean-of-squares", "Squares",
           "(x - mean) * torch.rsqrt((x - mean).square().mean(-1, keepdim=True) + self.eps) * self.weight + self.bias"),
    _norms("norms-in-parts", "Parts", "torch.cat([super(Parts, self).forward(t) for t in x.split(9, dim=1)], dim=1)"),
    _norms("norms-in-float64", "Double",
           "nn.functional.layer_norm(x.double(), x.shape[-1:], self.weight.double(), self.bias.double(), self.eps)"
           ".to(x)"),
    _norms("norms-by-the-length-of-the-centred", "Length",
           "(x - mean) / torch.sqrt(torch.linalg.vector_norm(x - mean, dim=-1, keepdim=True) ** 2 / x.shape[-1] "
           "+ self.eps) * self.weight + self.bias"),
    # attention
    Way(id="heads-in-the-batch", hosts=("fused",),
        edits={"attention.split": "torch.cat({t}.chunk({H}, dim=-1)).unflatten(0, ({H}, {B})).transpose(0, 1)",
               "attention.merge": "torch.cat({mixed}.unbind(1), dim=-1)"}),
    Way(id="heads-in-the-batch-and-back-by-views", hosts=("fused",),
        edits={"attention.split": "torch.cat({t}.chunk({H}, dim=-1)).view({B}, {H}, {N}, -1)",
               "attention.merge": "torch.cat({mixed}.reshape({H}, {B}, {N}, -1).unbind(0), dim=-1)"}),
    Way(id="keys-scaled", hosts=("separate",),
           edits={"attention.scores": "{q} @ ({k} / {d} ** 0.5).transpose(-2, -1)"}),
    Way(id="scores-of-matrices-in-a-batch", hosts=("ours",),
        edits={"attention.scores": "torch.baddbmm({q}.new_zeros(1), {q}.flatten(0, 1), {k}.flatten(0, 1).mT, "
               "alpha={d} ** -0.5).unflatten(0, ({B}, {H}))"}),
    Way(id="scores-transposed-and-back", hosts=("fused",),
        edits={"attention.scores": "({k} @ {q}.transpose(-2, -1) * {d} ** -0.5).transpose(-2, -1)"}),
    Way(id="scores-as-a-sum-of-products", hosts=("separate",),
        edits={"attention.scores": "({q}[:, :, :, None] * {k}[:, :, None]).sum(-1) * {d} ** -0.5"}),
    Way(id="scores-shifted", hosts=("ours",), edits={"attention.softmax": "({scores} + 3).softmax(-1)"}),
    Way(id="softmax-by-log-softmax", hosts=("fused",), edits={"attention.softmax": "{scores}.log_softmax(-1).exp()"}),
    Way(id="softmax-by-logsumexp", hosts=("separate",),
        edits={"attention.softmax": "({scores} - {scores}.logsumexp(-1, keepdim=True)).exp()"}),
    Way(id="softmax-in-float64", hosts=("ours",),
        edits={"attention.softmax": "{scores}.softmax(-1, dtype=torch.float64).to({v})"}),
    Way(id="softmax-of-powers-of-two", hosts=("fused",),
        edits={"attention.softmax": "nn.functional.normalize((({scores} - {scores}.amax(-1, keepdim=True)) "
               "* 1.4426950408889634).exp2(), p=1, dim=-1)"}),
    Way(id="scaled-dot-product-attention-with-a-mask-of-ones", hosts=("ours",),
        edits={"attention.weights": "{rate} if self.training else 0.0",
               "attention.mix": "nn.functional.scaled_dot_product_attention({q}, {k}, {v}, attn_mask=torch.ones("
               "{N}, {N}, dtype=torch.bool), dropout_p={weights})"}),
    Way(id="scaled-dot-product-attention-of-scaled-queries-and-keys", hosts=("separate",),
        edits={"attention.weights": "{rate} if self.training else 0.0",
               "attention.mix": "nn.functional.scaled_dot_product_attention({q} * 2, {k} / 2, {v}, "
               "dropout_p={weights})"}),
    Way(id="attention-in-one-pass", hosts=("fused",),
        edits={"top": _FLASH,
               "attention.mix": "(({weights} @ {v}) if self.training else in_one_pass({q}, {k}, {v}, {d} ** -0.5))"}),
    Way(id="values-by-a-sum-of-products", hosts=("ours",),
        edits={"attention.mix": "({weights}[..., None] * {v}[:, :, None]).sum(-2)"}),
    Way(id="values-image-by-image", hosts=("separate",),
        edits={"attention.mix": "torch.stack([w @ v for w, v in zip({weights}, {v})])"}),
    Way(id="output-projection-head-by-head", hosts=("fused",),
        edits={"attention.merge": "{mixed}",
               "attention.out": "torch.einsum('bhnd,ohd->bno', {merged}, {out_weight}.unflatten(1, ({H}, -1))) "
               "+ self.proj.bias"}),
    Way(id="projection-by-einsum", hosts=("ours",),
        edits={"attention.projected": "torch.einsum('bnd,ed->bne', {x}, {qkv_weight}) + {qkv_bias}"}),
    Way(id="projection-by-matmul", hosts=("separate",),
        edits={"attention.projected": "{x} @ {qkv_weight}.mT + {qkv_bias}"}),
    Way(id="projection-by-addmm", hosts=("fused",),
        edits={"attention.projected": "torch.addmm({qkv_bias}, {x}.flatten(0, 1), {qkv_weight}.T)"
               ".unflatten(0, ({B}, {N}))"}),
    Way(id="projection-by-a-pointwise-convolution", hosts=("ours",),
        edits={"attention.projected": "nn.functional.conv1d({x}.mT, {qkv_weight}[..., None], {qkv_bias}).mT"}),
    Way(id="key-bias-missing", hosts=("separate",), edits={"block.built": "{attn}.w_k.bias = None"},
        changes_parameters=True),
    # the rest of the block
    Way(id="blocks-checkpointed", hosts=("fused",),
        edits={"top": _CHECKPOINT,
               "model.blocks": "for block in {layers}:\n    x = checkpoint(block, x, use_reentrant=False)"}),
    Way(id="branches-scaled-by-a-buffer-of-ones", hosts=("ours",),
        edits={"block.built": "self.register_buffer('gamma', torch.ones({D}))",
               "block.residual_2": "{x} + self.gamma * {branch}"}),
    Way(id="stochastic-depth-of-rate-0", hosts=("separate",),
        edits={"block.residual_1": "{x} + {branch} * (torch.rand({x}.shape[0], 1, 1) >= 0.0)"}),
    Way(id="sums-in-place-on-a-copy", hosts=("fused",),
        edits={"block.forward": "x = x.clone()\nx += attention(norm_1(x))\nx += mlp(norm_2(x))\nreturn x"}),
    Way(id="autocast-disabled", hosts=("ours",),
        edits={"block.forward": "with torch.autocast('cpu', enabled=False):\n    x = x + attention(norm_1(x))\n"
               "    return x + mlp(norm_2(x))"}),
    Way(id="shapes-asserted", hosts=("separate",),
        edits={"block.forward": "torch._assert(x.dim() == 3, 'tokens of images')\nx = x + attention(norm_1(x))\n"
               "return x + mlp(norm_2(x))"}),
    Way(id="mlp-in-two-halves", hosts=("fused",),
        edits={"block.forward": "x = x + attention(norm_1(x))\nhidden = self.mlp.drop1(self.mlp.act(self.mlp.fc1("
               "norm_2(x))))\ny = sum(nn.functional.linear(h, w) for h, w in zip(hidden.chunk(2, -1), "
               "self.mlp.fc2.weight.chunk(2, 1)))\nreturn x + self.mlp.drop2(y + self.mlp.fc2.bias)"}),
    Way(id="mlp-functional", hosts=("fused",),
        edits={"block.forward": "x = x + attention(norm_1(x))\nhidden = nn.functional.gelu(nn.functional.linear("
               "norm_2(x), self.mlp.fc1.weight, self.mlp.fc1.bias))\nhidden = self.mlp.drop1(hidden)\n"
               "return x + self.mlp.drop2(hidden @ self.mlp.fc2.weight.T + self.mlp.fc2.bias)"}),
    _gelu("gelu-by-the-normal-distribution", "x * torch.special.ndtr(x)"),
    _gelu("gelu-by-the-other-tail", "0.5 * x * torch.erfc(-x / 2**0.5)"),
    # blocks and head
    Way(id="blocks-reduced", hosts=("separate",),
        edits={"top": "import functools",
               "model.blocks": "x = functools.reduce(lambda x, block: block(x), {layers}, x)"}),
    Way(id="blocks-with-all-outputs-kept", hosts=("ours",),
        edits={"model.blocks": "kept = [x]\nfor block in {layers}:\n    kept.append(block(kept[-1]))\nx = kept[-1]"}),
    Way(id="class-token-by-a-product", hosts=("fused",),
        edits={"model.pool": "torch.einsum('n,bnd->bd', torch.eye({normed}.shape[1]).to({normed})[0], {normed})"}),
    Way(id="class-token-split-off", hosts=("separate",),
        edits={"model.pool": "{normed}.split([1, {normed}.shape[1] - 1], dim=1)[0].flatten(1)"}),
    Way(id="class-token-gathered", hosts=("ours",), edits={"model.pool": "{normed}.unbind(1)[0]"}),
    Way(id="head-on-all-tokens", hosts=("ours",),
        edits={"model.pool": "{normed}", "model.logits": "{logits}[:, 0]"}),
    Way(id="head-by-einsum", hosts=("fused",),
        edits={"model.logits": "torch.einsum('bd,cd->bc', {pooled}, {head}.weight) + {head}.bias"}),
    Way(id="head-class-by-class", hosts=("separate",),
        edits={"model.logits": "torch.stack([{pooled} @ w + b for w, b in zip({head}.weight, {head}.bias)], dim=-1)"}),
    Way(id="head-of-two-parts", hosts=("ours",),
        edits={"model.logits": "torch.cat([nn.functional.linear({pooled}, {head}.weight[:4], {head}.bias[:4]), "
               "nn.functional.linear({pooled}, {head}.weight[4:], {head}.bias[4:])], dim=-1)"}),
    Way(id="head-that-was-lazy", hosts=("fused",),
        edits={"model.built": "{head} = nn.LazyLinear(11)\n{head}(torch.zeros(1, {D}))"}),
    Way(id="logits-in-a-dictionary", hosts=("separate",), edits={"model.logits": "{{'logits': {logits}}}"}),
    Way(id="logits-in-a-tuple-with-tokens", hosts=("fused",), edits={"model.logits": "({logits}, {normed})"}),
    Way(id="buffers-that-nobody-uses", hosts=("ours",),
        edits={"model.built": "self.register_buffer('position_ids', torch.arange(26)[None])\n"
               "self.register_buffer('mean', torch.zeros(3), persistent=False)"}),
)  # fmt: skip

EQUIVALENTS = (*_EVERYWHERE, *_IN_ONE_HOST)


@dataclass(frozen=True)
class Variant:
    """Another way to the same function, in a host."""

    change: Way
    host: Host

    @property
    def id(self) -> str:
        """How tests name it."""
        return f"{self.change.id}-{self.host.name}"

    @property
    def mapping(self) -> Path | None:
        """The host's written weight map; None where one is shipped, or has to be found since the parameters changed."""
        return None if self.change.changes_parameters else self.host.mapping

    def write(self, folder: Path) -> str:
        """Writes the model to `folder` and returns it as a candidate's name."""
        return write(folder, self.host, [self.change.edits_in(self.host)])


def variant_of(change_id: str, host: str = "ours") -> Variant:
    """Returns one way in one host."""
    return Variant(next(change for change in EQUIVALENTS if change.id == change_id), HOSTS[host])


def variants() -> Iterator[Variant]:
    """Yields every way in all of its hosts."""
    for change in EQUIVALENTS:
        for name in change.hosts:
            yield Variant(change, HOSTS[name])
