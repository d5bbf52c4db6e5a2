"""Other ways to the same function, which nobody may flag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.corpus.bugs import own_norm, own_patches
from tests.corpus.hosts import HOSTS
from tests.corpus.planting import Change, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.corpus.hosts import Host

_EINOPS = "from einops import rearrange"
_GELU = "0.5 * x * (1 + torch.erf(x / 2**0.5))"

EQUIVALENTS = (
    # images to tokens
    Change(id="functional-convolution",
           edits={"patches.features": "nn.functional.conv2d({images}, {conv}.weight, {conv}.bias, {conv}.stride)"}),
    Change(id="linear-on-patches", edits=own_patches("0, 2, 3, 1, 4, 5")),
    Change(id="patches-reshaped-and-permuted",
           edits={"patches.tokens": "return {f}.reshape(*{f}.shape[:2], -1).permute(0, 2, 1)"}),
    Change(id="patches-rearranged-by-einops",
           edits={"top": _EINOPS, "patches.tokens": "return rearrange({f}, 'b d h w -> b (h w) d')"}),
    Change(id="images-channels-last",
           edits={"model.images": "{images}.contiguous(memory_format=torch.channels_last)"}),
    Change(id="class-token-repeated", edits={"model.class_token": "{cls}.repeat(x.shape[0], 1, 1)"}),
    Change(id="class-token-expanded", edits={"model.class_token": "{cls}.expand(x.shape[0], -1, -1)"}),
    Change(id="positions-before-the-class-token-is-put-in-front", hosts=("ours", "fused"),
           edits={"model.cat": "torch.cat([{class_token} + {positions}[:, :1], x + {positions}[:, 1:]], dim=1)",
                  "model.positions": "{tokens}"}),
    Change(id="positions-of-class-token-and-patches-apart",
           edits={"model.positions": "torch.cat([{tokens}[:, :1] + {positions}[:, :1], "
                  "{tokens}[:, 1:] + {positions}[:, 1:]], dim=1)"}),
    Change(id="positions-expanded", edits={"model.positions": "{tokens} + {positions}.expand(x.shape[0], -1, -1)"}),
    Change(id="positions-added-in-place", edits={"model.positions": "{tokens}.add_({positions})"}),
    Change(id="nothing-after-positions", edits={"model.built": "self.nothing = nn.Identity()",
                                                "model.dropped": "self.nothing({dropout}({embedded}))"}),
    # norms
    Change(id="norms-written-out",
           edits=own_norm("WrittenNorm", "(x - mean) / (x.var(-1, correction=0, keepdim=True) + self.eps).sqrt()"
                          " * self.weight + self.bias")),
    Change(id="norms-functional",
           edits=own_norm("FunctionalNorm",
                          "nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)")),
    Change(id="final-norm-of-the-class-token-only",
           edits={"model.norm": "{encoded}", "model.pool": "{final_norm}({normed}[:, 0])"},
           per_host={"separate": {"model.pool": "self.ln_final(x[:, 0])"}}),
    # attention
    Change(id="attention-written-out", hosts=("ours",), edits={"attention.out": "{out}"}),
    Change(id="attention-weights-asked-for", hosts=("ours",), edits={"block.need_weights": "need_weights=True"}),
    Change(id="attention-mask-of-zeros", hosts=("ours",),
           edits={"block.need_weights": "need_weights=False, attn_mask=y.new_zeros(y.shape[1], y.shape[1])"}),
    Change(id="tokens-before-batch-throughout", hosts=("ours",),
           edits={"block.batch_first": "False", "model.blocks": "x = self.attn_layers(x.transpose(0, 1))",
                  "model.pool": "x[0]"}),
    Change(id="scaled-dot-product-attention",
           edits={"attention.weights": "{rate} if self.training else 0.0",
                  "attention.mix": "nn.functional.scaled_dot_product_attention({q}, {k}, {v}, dropout_p={weights})"}),
    Change(id="queries-scaled", edits={"attention.scores": "({q} * {d} ** -0.5) @ {k}.transpose(-2, -1)"}),
    Change(id="queries-and-keys-scaled",
           edits={"attention.scores": "({q} * {d} ** -0.25) @ ({k} * {d} ** -0.25).transpose(-2, -1)"}),
    Change(id="scores-by-einsum",
           edits={"attention.scores": "torch.einsum('bhid,bhjd->bhij', {q}, {k}) / {d} ** 0.5"}),
    Change(id="keys-centred", edits={"attention.before": "{k} = {k} - {k}.mean(-2, keepdim=True)\n"}),
    Change(id="nothing-masked", edits={"attention.softmax": "{scores}.masked_fill("
                                       "torch.zeros({N}, {N}, dtype=torch.bool), float('-inf')).softmax(-1)"}),
    Change(id="softmax-written-out", edits={"attention.softmax": "(lambda e: e / e.sum(-1, keepdim=True))"
                                            "(({scores} - {scores}.amax(-1, keepdim=True)).exp())"}),
    Change(id="softmax-of-transposed-scores",
           edits={"attention.softmax": "{scores}.transpose(-2, -1).softmax(-2).transpose(-2, -1)"}),
    Change(id="values-by-einsum", edits={"attention.mix": "torch.einsum('bhij,bhjd->bhid', {weights}, {v})"}),
    Change(id="values-head-by-head",
           edits={"attention.mix": "torch.stack([{weights}[:, h] @ {v}[:, h] for h in range({H})], dim=1)"}),
    Change(id="values-in-chunks-of-queries",
           edits={"attention.mix": "torch.cat([{weights}[:, :, n : n + 7] @ {v} for n in range(0, {N}, 7)], dim=2)"}),
    Change(id="heads-split-by-unflatten", edits={"attention.split": "{t}.unflatten(-1, ({H}, -1)).movedim(2, 1)"}),
    Change(id="heads-merged-by-flatten", edits={"attention.merge": "{mixed}.movedim(1, 2).flatten(2)"}),
    Change(id="heads-rearranged-by-einops",
           edits={"top": _EINOPS, "attention.split": "rearrange({t}, 'b n (h d) -> b h n d', h={H})",
                  "attention.merge": "rearrange({mixed}, 'b h n d -> b n (h d)')"}),
    Change(id="projections-apart",
           edits={"attention.projected": "torch.cat([nn.functional.linear({x}, w, b) for w, b in "
                  "zip({qkv_weight}.chunk(3), {qkv_bias}.chunk(3))], dim=-1)"}),
    # the rest of the block
    Change(id="sums-the-other-way-around",
           edits={"block.residual_1": "{branch} + {x}", "block.residual_2": "torch.add({branch}, {x})"}),
    Change(id="second-sum-in-place", edits={"block.residual_2": "{x}.add_({branch})"}),
    Change(id="block-rewritten", edits={"block.forward": "y = attention(norm_1(x)) + x\nreturn mlp(norm_2(y)) + y"}),
    Change(id="gelu-written-out",
           edits={"top": f"class WrittenGELU(nn.Module):\n    def forward(self, x):\n        return {_GELU}",
                  "mlp.activation": "WrittenGELU()"},
           per_host={"separate": {"mlp.activation": f"(lambda x: {_GELU})"}}),
    Change(id="dropout-of-the-mlp-outside-it", hosts=("ours", "fused"),
           edits={"mlp.last_dropout": "nn.Identity()", "block.residual_2": "{x} + self.dropout({branch})"},
           per_host={"fused": {"mlp.last_dropout": "nn.Identity()",
                               "block.residual_2": "{x} + self.attn.proj_drop({branch})"}}),
    # blocks and head
    Change(id="blocks-one-by-one", edits={"model.blocks": "for block in {layers}:\n    x = block(x)"}),
    Change(id="blocks-called-by-their-forward",
           edits={"model.blocks": "for block in {layers}:\n    x = block.forward(x)"}),
    Change(id="class-token-selected", edits={"model.pool": "{normed}.select(1, 0)"}),
    Change(id="class-token-by-an-index", edits={"model.pool": "{normed}[:, [0]].squeeze(1)"}),
    Change(id="head-of-twice-its-input-halved",
           edits={"model.logits": "({head}({pooled} * 2) + {head}.bias) / 2"}),
    Change(id="head-per-sample", edits={"model.logits": "torch.cat([{head}(row[None]) for row in {pooled}])"}),
    Change(id="head-by-matmul", edits={"model.logits": "{pooled} @ {head}.weight.T + {head}.bias"}),
    Change(id="constant-in-a-closure",
           edits={"model.built": "one = torch.ones(1)\nself.post = lambda x: x * one",
                  "model.logits": "self.post({logits})"}),
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """Another way to the same function, in a host."""

    change: Change
    host: Host

    @property
    def id(self) -> str:
        """How tests name it."""
        return f"{self.change.id}-{self.host.name}"

    @property
    def mapping(self) -> Path | None:
        """The host's written weight map, or None where one is shipped."""
        return self.host.mapping

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
