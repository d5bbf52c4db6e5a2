"""Three right implementations that bugs are planted in, and their parts: where in the source what is done.

A part is a piece of source text that stands there once. All hosts have parts of the same names, and words for what can
be used there, so that a bug is written once and planted three times.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import vit.model

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_CANDIDATES = Path(__file__).parents[1] / "candidates"
_MAPS = Path(__file__).parent / "maps"

# In which order a part's owner stands in a model: what is planted in these can be planted in one block alone.
IN_BLOCK = ("block", "attention", "mlp")


@dataclass(frozen=True)
class Part:
    """A place in a source.

    Attributes:
        text: stands in the source once; what is between « and » is replaced.
        words: what a new text can use there, by name.
        wrap: what stands around a new text; `{}` is the text itself.
    """

    text: str
    words: Mapping[str, str]
    wrap: str = "{}"

    def stands_in(self, source: str) -> bool:
        """Returns whether `source` has this part."""
        return self._plain in source

    def edit(self, source: str, new: str) -> tuple[int, int, str]:
        """Returns where in `source` the replaced text begins and ends, and what stands there instead.

        Args:
            source: has the part exactly once.
            new: format string over the part's words; further lines are indented like the first one.
        """
        assert source.count(self._plain) == 1, f"{self._plain!r} stands {source.count(self._plain)} times"
        before, _, rest = self.text.partition("«")
        start = source.index(self._plain) + len(before)
        line = source[source.rfind("\n", 0, start) + 1 : start]
        opening, closing = self.wrap.replace("\n", f"\n{_indent(line)}").split("{}")
        last = (line + opening).rpartition("\n")[2]
        text = new.format_map(self.words).replace("\n", f"\n{_indent(last)}")
        return start, start + len(rest.partition("»")[0]), opening + text + closing

    @property
    def _plain(self) -> str:
        return self.text.replace("«", "").replace("»", "")


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


@dataclass(frozen=True)
class Host:
    """A right implementation.

    Attributes:
        name: a word for it.
        sources: its source; if there is a second one, it is the same model with the attention written out, for what
            cannot be planted in the first.
        model: name of its class.
        blocks: the attribute that holds its blocks.
        parts: by name: `model.x`, `block.x`, `attention.x`, `mlp.x` or `top`, a place for other classes.
        mapping: its written weight map, for the corpus's sizes; None if one is shipped.
    """

    name: str
    sources: tuple[str, ...]
    model: str
    blocks: str
    parts: Mapping[str, Part]
    mapping: Path | None = None

    def source(self, edits: Collection[str]) -> str:
        """Returns the first source that has all parts to be edited."""
        return next(source for source in self.sources if all(self.parts[name].stands_in(source) for name in edits))


def _parts(scope: str, words: dict[str, str], texts: dict[str, str | tuple[str, str]]) -> dict[str, Part]:
    """Makes the parts of one scope, which share their words; a text may come with what is wrapped around new ones."""
    pairs = {name: (text, "{}") if isinstance(text, str) else text for name, text in texts.items()}
    return {f"{scope}.{name}": Part(text, words, wrap) for name, (text, wrap) in pairs.items()}


# our own ViT; its nn.MultiheadAttention can be written out

_OURS = Path(vit.model.__file__).read_text(encoding="utf-8")

_WRITTEN_OUT = '''class Attention(nn.MultiheadAttention):
    """Multi-head attention of tokens to each other, written out: (B, N, D) -> (B, N, D), and no weights."""

    def forward(self, x, *_, **__):
        B, N, D = x.shape
        H, d = self.num_heads, D // self.num_heads
        q, k, v = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (t.view(B, N, H, d).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(-2, -1) * d**-0.5
        weights = nn.functional.dropout(scores.softmax(-1), self.dropout, self.training)
        y = (weights @ v).transpose(1, 2).reshape(B, N, D)
        y = nn.functional.linear(y, self.out_proj.weight, self.out_proj.bias)
        return y, None


class AttentionBlock('''

OURS = Host(
    name="ours",
    sources=(
        _OURS,
        _OURS.replace("= nn.MultiheadAttention(", "= Attention(").replace("class AttentionBlock(", _WRITTEN_OUT),
    ),
    model="ViT",
    blocks="attn_layers",
    parts={
        "top": Part("«»class CreatePatches(nn.Module):", {}, "{}\n\n\n"),
        **_parts(
            "patches",
            {"images": "images", "conv": "self.patch", "f": "features"},
            {
                "features": "features: torch.Tensor = «self.patch(images)»",
                "tokens": "        «return features.flatten(2).transpose(1, 2)»",
            },
        ),
        **_parts(
            "model",
            {
                "images": "images", "x": "x", "cls": "self.cls_token", "class_token": "cls_token", "tokens": "x",
                "positions": "self.pos_embedding", "layers": "self.attn_layers", "final_norm": "self.ln",
                "head": "self.head", "conv": "self.patches.patch", "D": "embed_dim", "L": "num_layers",
                "encoded": "x", "normed": "x", "pooled": "x", "logits": "self.head(x)",
                "block": "AttentionBlock(embed_dim, hidden_dim, num_heads, dropout, attention_dropout)",
                "embedded": "x + self.pos_embedding", "rate": "self.dropout.p", "dropout": "self.dropout",
                "cls_name": "cls_token", "positions_name": "pos_embedding",
            },
            {
                "images": "x = self.patches(«images»)",
                "class_token": "cls_token = «self.cls_token.expand(len(x), -1, -1)»",
                "cat": "x = «torch.cat([cls_token, x], dim=1)»",
                "positions": "self.dropout(«x + self.pos_embedding»)",
                "dropped": "x = «self.dropout(x + self.pos_embedding)»",
                "blocks": "        «x = self.attn_layers(x)»",
                "norm": "x = «self.ln(x)»",
                "pool": "x = «x[:, 0]»",
                "pooled": "logits: torch.Tensor = self.head(«x»)",
                "pre_logits": "x = «torch.tanh(self.pre_logits(x))»",
                "logits": "logits: torch.Tensor = «self.head(x)»",
                "final_norm": "self.ln = «nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)»",
                "layers": "nn.Sequential(\n            «*(AttentionBlock(embed_dim, hidden_dim, num_heads, dropout, "
                "attention_dropout) for _ in range(num_layers))»",
                "built": ("        self._initialise()«»", "\n{}"),
            },
        ),
        **_parts(
            "block",
            {
                "D": "embed_dim", "M": "hidden_dim", "heads": "num_heads", "norm_1": "self.pre_norm",
                "norm_2": "self.norm", "fc1": "self.MLP[0]", "fc2": "self.MLP[3]", "attn": "self.attention",
                "no_qkv_bias": "self.attention.in_proj_bias = None", "out": "self.attention.out_proj",
                "normed_1": "self.pre_norm(x)", "normed_2": "self.norm(x)", "x": "x", "rate": "attention_dropout",
                "other_rate": "dropout",
            },
            {
                "begin": "        «»self.pre_norm = nn.LayerNorm",
                "norm_1": "self.pre_norm = «nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)»",
                "norm_2": "self.norm = «nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)»",
                "heads": "(embed_dim, «num_heads», dropout=attention_dropout, batch_first=True)",
                "attention_rate": "(embed_dim, num_heads, dropout=«attention_dropout», batch_first=True)",
                "built": (
                    '«»    def forward(self, x: torch.Tensor) -> torch.Tensor:\n        """Adds',
                    "        {}\n\n",
                ),
                "batch_first": "(embed_dim, num_heads, dropout=attention_dropout, batch_first=«True»)",
                "need_weights": "self.attention(y, y, y, «need_weights=False»)",
                "normed_1": "y: torch.Tensor = «self.pre_norm(x)»",
                "normed_2": "y = self.MLP(«self.norm(x)»)",
                "forward": (
                    """        «y: torch.Tensor = self.pre_norm(x)
        # need_weights=True, the default, takes a slower path with other bits
        y, _ = self.attention(y, y, y, need_weights=False)
        x = x + self.dropout(y)
        y = self.MLP(self.norm(x))
        return x + y»""",
                    """attention = lambda y: self.dropout(self.attention(y, y, y, need_weights=False)[0])
mlp, norm_1, norm_2 = self.MLP, self.pre_norm, self.norm
{}""",
                ),
            },
        ),
        **{
            f"block.{name}": Part(f"«x + {branch}»", {"x": "x", "branch": branch})
            for name, branch in (("residual_1", "self.dropout(y)"), ("residual_2", "y"))
        },
        **_parts(
            "attention",
            {
                "B": "B", "N": "N", "D": "D", "H": "H", "d": "d", "x": "x", "t": "t", "q": "q", "k": "k", "v": "v",
                "scores": "scores", "weights": "weights", "softmax": "scores.softmax(-1)", "rate": "self.dropout",
                "projected": "nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)",
                "qkv_weight": "self.in_proj_weight", "qkv_bias": "self.in_proj_bias", "merged": "y",
                "mixed": "(weights @ v)", "out": "nn.functional.linear(y, self.out_proj.weight, self.out_proj.bias)",
                "out_weight": "self.out_proj.weight",
            },
            {
                "parts": "«q, k, v» = nn.functional.linear(x",
                "projected": (
                    "q, k, v = «nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)»",
                    "({}).chunk(3, dim=-1)",
                ),
                "split": "q, k, v = («t.view(B, N, H, d).transpose(1, 2)» for t in (q, k, v))",
                "before": "        «»scores = q @",
                "scores": "scores = «q @ k.transpose(-2, -1) * d**-0.5»",
                "softmax": "nn.functional.dropout(«scores.softmax(-1)», self.dropout",
                "weights": "weights = «nn.functional.dropout(scores.softmax(-1), self.dropout, self.training)»",
                "mix": "y = «(weights @ v)».transpose",
                "merge": "y = «(weights @ v).transpose(1, 2).reshape(B, N, D)»",
                "out": "y = «nn.functional.linear(y, self.out_proj.weight, self.out_proj.bias)»",
            },
        ),
        **_parts(
            "mlp",
            {
                "D": "embed_dim", "M": "hidden_dim", "rate": "self.dropout.p", "y": "self.MLP(self.norm(x))",
                "dropout": "dropout",
            },
            {
                "activation": "nn.Sequential(widen, «nn.GELU()», nn.Dropout",
                "output": "        y = «self.MLP(self.norm(x))»\n        return",
                "hidden_dropout": "nn.GELU(), «nn.Dropout(dropout)», narrow",
                "last_dropout": "narrow, «nn.Dropout(dropout)»)",
            },
        ),
        "block.dropout": Part("self.dropout = «nn.Dropout(dropout)»\n\n        self.norm", {}),
        "model.dropout": Part("self.dropout = «nn.Dropout(dropout)»\n        self.attn_layers", {}),
    },
)  # fmt: skip


# one fused Linear to query, key and value, in timm's manner

FUSED = Host(
    name="fused",
    sources=((_CANDIDATES / "fused_qkv.py").read_text(encoding="utf-8"),),
    model="VisionTransformer",
    blocks="blocks",
    mapping=_MAPS / "fused.toml",
    parts={
        "top": Part("«»class PatchEmbed(nn.Module):", {}, "{}\n\n\n"),
        **_parts(
            "patches",
            {"images": "x", "conv": "self.proj", "f": "features"},
            {
                "features": "return «self.proj(x)».flatten(2)",
                "tokens": ("        «return self.proj(x).flatten(2).transpose(1, 2)»", "features = self.proj(x)\n{}"),
            },
        ),
        **_parts(
            "model",
            {
                "images": "x", "x": "x", "cls": "self.cls_token", "tokens": "x",
                "class_token": "self.cls_token.expand(x.shape[0], -1, -1)", "positions": "self.pos_embed",
                "layers": "self.blocks", "final_norm": "self.norm", "head": "self.head",
                "conv": "self.patch_embed.proj", "D": "embed_dim", "L": "depth",
                "encoded": "self.blocks(self.pos_drop(x + self.pos_embed))", "normed": "x", "pooled": "x[:, 0]",
                "logits": "self.head(x[:, 0])", "embedded": "x + self.pos_embed", "rate": "self.pos_drop.p",
                "block": "Block(embed_dim, num_heads, mlp_hidden, drop_rate, attn_drop_rate)",
                "dropout": "self.pos_drop", "cls_name": "cls_token", "positions_name": "pos_embed",
            },
            {
                "images": "x = self.patch_embed(«x»)",
                "class_token": "(«self.cls_token.expand(x.shape[0], -1, -1)», x)",
                "cat": "x = «torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)»",
                "positions": "self.pos_drop(«x + self.pos_embed»)",
                "dropped": "self.blocks(«self.pos_drop(x + self.pos_embed)»)",
                "blocks": (
                    "        «x = self.norm(self.blocks(self.pos_drop(x + self.pos_embed)))»",
                    "x = self.pos_drop(x + self.pos_embed)\n{}\nx = self.norm(x)",
                ),
                "norm": "x = «self.norm(self.blocks(self.pos_drop(x + self.pos_embed)))»",
                "pool": "self.head(«x[:, 0]»)",
                "pooled": "self.head(«x[:, 0]»)",
                "logits": "return «self.head(x[:, 0])»",
                "final_norm": "self.norm = «nn.LayerNorm(embed_dim, eps=1e-6)»",
                "layers": "nn.Sequential(\n            «*[Block(embed_dim, num_heads, mlp_hidden, drop_rate, "
                "attn_drop_rate) for _ in range(depth)]»",
                "built": ("        nn.init.trunc_normal_(self.cls_token, std=0.02)«»", "\n{}"),
            },
        ),
        **_parts(
            "block",
            {
                "D": "dim", "M": "mlp_hidden", "heads": "num_heads", "norm_1": "self.norm1", "norm_2": "self.norm2",
                "fc1": "self.mlp.fc1", "fc2": "self.mlp.fc2", "attn": "self.attn", "out": "self.attn.proj",
                "no_qkv_bias": "self.attn.qkv.bias = None", "normed_1": "self.norm1(x)", "normed_2": "self.norm2(x)",
                "x": "x", "rate": "attn_drop", "other_rate": "drop",
            },
            {
                "begin": "        «»self.norm1 = nn.LayerNorm",
                "norm_1": "self.norm1 = «nn.LayerNorm(dim, eps=1e-6)»",
                "norm_2": "self.norm2 = «nn.LayerNorm(dim, eps=1e-6)»",
                "heads": "self.attn = Attention(dim, «num_heads», attn_drop, drop)",
                "attention_rate": "self.attn = Attention(dim, num_heads, «attn_drop», drop)",
                "built": ("        self.mlp = Mlp(dim, mlp_hidden, drop)«»", "\n{}"),
                "normed_1": "self.attn(«self.norm1(x)»)",
                "normed_2": "self.mlp(«self.norm2(x)»)",
                "forward": (
                    "        «x = x + self.attn(self.norm1(x))\n        return x + self.mlp(self.norm2(x))»",
                    "attention, mlp, norm_1, norm_2 = self.attn, self.mlp, self.norm1, self.norm2\n{}",
                ),
            },
        ),
        **{
            f"block.{name}": Part(f"«x + {branch}»", {"x": "x", "branch": branch})
            for name, branch in (("residual_1", "self.attn(self.norm1(x))"), ("residual_2", "self.mlp(self.norm2(x))"))
        },
        **_parts(
            "attention",
            {
                "B": "B", "N": "N", "D": "C", "H": "self.num_heads", "d": "(C // self.num_heads)", "x": "x", "t": "t",
                "q": "q", "k": "k", "v": "v", "scores": "attn", "weights": "attn", "softmax": "attn.softmax(dim=-1)",
                "rate": "self.attn_drop.p", "projected": "self.qkv(x)", "qkv_weight": "self.qkv.weight",
                "qkv_bias": "self.qkv.bias", "merged": "x", "mixed": "(attn @ v)", "out": "self.proj(x)",
                "out_weight": "self.proj.weight",
            },
            {
                "parts": "«q, k, v» = qkv[0], qkv[1], qkv[2]",
                "projected": "qkv = «self.qkv(x)».reshape(B, N, 3,",
                "split": (
                    "qkv = «self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)»",
                    "torch.stack([{} for t in self.qkv(x).chunk(3, dim=-1)])",
                ),
                "before": "        «»attn = (q * self.scale)",
                "scores": "attn = «(q * self.scale) @ k.transpose(-2, -1)»",
                "softmax": "self.attn_drop(«attn.softmax(dim=-1)»)",
                "weights": "attn = «self.attn_drop(attn.softmax(dim=-1))»",
                "mix": "x = «(attn @ v)».transpose(1, 2)",
                "merge": "x = «(attn @ v).transpose(1, 2).reshape(B, N, C)»",
                "out": "self.proj_drop(«self.proj(x)»)",
            },
        ),
        **_parts(
            "mlp",
            {"D": "in_features", "M": "hidden_features", "rate": "self.drop2.p", "y": "self.fc2(x)", "dropout": "drop"},
            {
                "activation": "self.act = «nn.GELU()»",
                "output": "self.drop2(«self.fc2(x)»)",
                "hidden_dropout": "self.drop1 = «nn.Dropout(drop)»",
                "last_dropout": "self.drop2 = «nn.Dropout(drop)»",
            },
        ),
        "block.dropout": Part("self.proj_drop = «nn.Dropout(proj_drop)»", {}),
        "model.dropout": Part("self.pos_drop = «nn.Dropout(drop_rate)»", {}),
    },
)  # fmt: skip


# three Linears to query, key and value, one dropout for all sites, functions for what has no weights

SEPARATE = Host(
    name="separate",
    sources=((_CANDIDATES / "separate_qkv.py").read_text(encoding="utf-8"),),
    model="ViTClassifier",
    blocks="layers",
    mapping=_MAPS / "separate.toml",
    parts={
        "top": Part("«»class MultiHeadSelfAttention(nn.Module):", {}, "{}\n\n\n"),
        **_parts(
            "patches",
            {"images": "images", "conv": "self.to_patches", "f": "x"},
            {
                "features": "x = «self.to_patches(images)»",
                "tokens": (
                    "        «x = x.flatten(start_dim=2).permute(0, 2, 1)»",
                    "def tokens_of(x):\n    {}\n\nx = tokens_of(x)",
                ),
            },
        ),
        **_parts(
            "model",
            {
                "images": "images", "x": "x", "cls": "self.cls", "class_token": "cls",
                "tokens": "torch.cat([cls, x], dim=1)", "positions": "self.positions", "layers": "self.layers",
                "final_norm": "self.ln_final", "head": "self.classifier", "conv": "self.to_patches", "D": "d_model",
                "L": "n_layers", "encoded": "x", "normed": "self.ln_final(x)", "pooled": "self.ln_final(x)[:, 0, :]",
                "logits": "self.classifier(self.ln_final(x)[:, 0, :])",
                "embedded": "torch.cat([cls, x], dim=1) + self.positions", "rate": "self.drop.p",
                "block": "EncoderLayer(d_model, n_heads, d_ff, dropout, attn_dropout)", "dropout": "self.drop",
                "cls_name": "cls", "positions_name": "positions",
            },
            {
                "images": "x = self.to_patches(«images»)",
                "class_token": "cls = «self.cls.repeat(images.size(0), 1, 1)»",
                "cat": "self.drop(«torch.cat([cls, x], dim=1)» + self.positions)",
                "positions": "self.drop(«torch.cat([cls, x], dim=1) + self.positions»)",
                "dropped": "x = «self.drop(torch.cat([cls, x], dim=1) + self.positions)»",
                "blocks": "        «for layer in self.layers:\n            x = layer(x)»",
                "norm": "self.classifier(«self.ln_final(x)»[:, 0, :])",
                "pool": "self.classifier(«self.ln_final(x)[:, 0, :]»)",
                "pooled": "self.classifier(«self.ln_final(x)[:, 0, :]»)",
                "logits": "return «self.classifier(self.ln_final(x)[:, 0, :])»",
                "final_norm": "self.ln_final = «nn.LayerNorm(d_model, eps=1e-6)»",
                "layers": "nn.ModuleList(\n            «[EncoderLayer(d_model, n_heads, d_ff, dropout, attn_dropout) "
                "for _ in range(n_layers)]»",
                "built": ("        self.classifier = nn.Linear(d_model, n_classes)«»", "\n{}"),
            },
        ),
        **_parts(
            "block",
            {
                "D": "d_model", "M": "d_ff", "heads": "n_heads", "norm_1": "self.ln_attn", "norm_2": "self.ln_ff",
                "fc1": "self.ff_in", "fc2": "self.ff_out", "attn": "self.mha", "out": "self.mha.w_o",
                "no_qkv_bias": "self.mha.w_q.bias = self.mha.w_k.bias = self.mha.w_v.bias = None",
                "normed_1": "self.ln_attn(x)", "normed_2": "self.ln_ff(x)", "x": "x", "rate": "attn_dropout",
                "other_rate": "dropout",
            },
            {
                "begin": "        «»self.ln_attn = nn.LayerNorm",
                "norm_1": "self.ln_attn = «nn.LayerNorm(d_model, eps=1e-6)»",
                "norm_2": "self.ln_ff = «nn.LayerNorm(d_model, eps=1e-6)»",
                "heads": "self.mha = MultiHeadSelfAttention(d_model, «n_heads», attn_dropout)",
                "attention_rate": "self.mha = MultiHeadSelfAttention(d_model, n_heads, «attn_dropout»)",
                "built": ("        self.drop = nn.Dropout(dropout)«»\n\n    def forward(self, x):", "\n{}"),
                "normed_1": "self.mha(«self.ln_attn(x)»)",
                "normed_2": "self.ff_in(«self.ln_ff(x)»)",
                "forward": (
                    """        «x = x + self.drop(self.mha(self.ln_attn(x)))
        hidden = self.drop(F.gelu(self.ff_in(self.ln_ff(x))))
        return x + self.drop(self.ff_out(hidden))»""",
                    """attention = lambda y: self.drop(self.mha(y))
mlp = lambda y: self.drop(self.ff_out(self.drop(F.gelu(self.ff_in(y)))))
norm_1, norm_2 = self.ln_attn, self.ln_ff
{}""",
                ),
            },
        ),
        **{
            f"block.{name}": Part(f"«x + {branch}»", {"x": "x", "branch": branch})
            for name, branch in (
                ("residual_1", "self.drop(self.mha(self.ln_attn(x)))"),
                ("residual_2", "self.drop(self.ff_out(hidden))"),
            )
        },
        **_parts(
            "attention",
            {
                "B": "batch", "N": "seq", "D": "d_model", "H": "self.n_heads", "d": "self.d_head", "x": "x", "t": "t",
                "q": "queries", "k": "keys", "v": "values", "scores": "scores", "weights": "weights",
                "softmax": "F.softmax(scores, dim=-1)", "rate": "self.dropout.p", "merged": "context",
                "projected": "torch.cat([self.w_q(x), self.w_k(x), self.w_v(x)], dim=-1)",
                "qkv_weight": "torch.cat([self.w_q.weight, self.w_k.weight, self.w_v.weight])",
                "qkv_bias": "torch.cat([self.w_q.bias, self.w_k.bias, self.w_v.bias])",
                "mixed": "torch.matmul(weights, values)", "out": "self.w_o(context)", "out_weight": "self.w_o.weight",
            },
            {
                "parts": "«queries, keys, values» = self.split(",
                "projected": (
                    "keys, values = «self.split(self.w_q(x)), self.split(self.w_k(x)), self.split(self.w_v(x))»",
                    "map(self.split, ({}).chunk(3, dim=-1))",
                ),
                "split": (
                    "        batch, seq, _ = t.size()\n"
                    "        return «t.view(batch, seq, self.n_heads, self.d_head).transpose(1, 2)»"
                ),
                "before": "        «»scores = torch.matmul(",
                "scores": "scores = «torch.matmul(queries, keys.transpose(-1, -2)) / math.sqrt(self.d_head)»",
                "softmax": "self.dropout(«F.softmax(scores, dim=-1)»)",
                "weights": "weights = «self.dropout(F.softmax(scores, dim=-1))»",
                "mix": "context = «torch.matmul(weights, values)».transpose(1, 2)",
                "merge": "context = «torch.matmul(weights, values).transpose(1, 2).contiguous()"
                ".view(batch, seq, d_model)»",
                "out": "return «self.w_o(context)»",
            },
        ),
        **_parts(
            "mlp",
            {"D": "d_model", "M": "d_ff", "rate": "self.drop.p", "y": "self.ff_out(hidden)", "dropout": "dropout"},
            {
                "activation": "self.drop(«F.gelu»(self.ff_in",
                "output": "return x + self.drop(«self.ff_out(hidden)»)",
            },
        ),
    },
)  # fmt: skip

HOSTS = {host.name: host for host in (OURS, FUSED, SEPARATE)}
