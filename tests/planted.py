"""Copies of our own ViT with a change planted in their source: one bug, or another way to the same function.

A change is a pair of texts, old and new; the old one must stand in the source exactly once, so that no change is
silently lost when the model is edited.
"""

from __future__ import annotations

from pathlib import Path

import vit.model

SOURCE = Path(vit.model.__file__).read_text(encoding="utf-8")

# where a statement can be planted that changes a built model
_BUILT = "        self._initialise()\n\n    def _initialise"


class Change:
    """A change to the source of `vit/model.py`.

    Args:
        edits: pairs of a text that stands in the source once and what stands there instead.
        origin: part of the report's description of the place where it begins; empty if the function is the same.
    """

    def __init__(self, *edits: tuple[str, str], origin: str = "") -> None:
        self.edits = edits
        self.origin = origin

    def write(self, folder: Path) -> str:
        """Writes the changed model to `folder` and returns it as a candidate's name."""
        source = SOURCE
        for old, new in self.edits:
            assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in vit/model.py"
            source = source.replace(old, new)
        file = folder / "changed_vit.py"
        file.write_text(source, encoding="utf-8")
        return f"{file}:ViT"


def _built(statement: str, origin: str) -> Change:
    return Change((_BUILT, f"        {statement}\n{_BUILT}"), origin=origin)


def _attention(statement: str, origin: str = "in encoder.layers.encoder_layer_0.self_attention") -> Change:
    """Replaces every block's attention by one whose `statement` makes y of q, k and v: (B, heads, N+1, D / heads)."""
    return Change(
        ("self.attention = nn.MultiheadAttention(", "self.attention = Attention("),
        (
            "class AttentionBlock(",
            f"""class Attention(nn.MultiheadAttention):
    def forward(self, x, *_, **__):
        (batch, tokens, width), heads = x.shape, self.num_heads
        q, k, v = (
            part.view(batch, tokens, heads, width // heads).transpose(1, 2)
            for part in nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        )
        scale = (width // heads) ** -0.5
        rate = self.dropout if self.training else 0.0
        {statement}
        y = y.transpose(1, 2).reshape(batch, tokens, width)
        return nn.functional.linear(y, self.out_proj.weight, self.out_proj.bias), None


class AttentionBlock(""",
        ),
        origin=origin,
    )


_SDPA = "y = nn.functional.scaled_dot_product_attention({}, dropout_p=rate)"
_TOKENS = "between the output of conv_proj and the input of encoder.dropout"
_BLOCK = "encoder.layers.encoder_layer_0"

BUGS = {
    "LayerNorm eps 1e-5 in one block": _built(
        "self.attn_layers[1].norm.eps = 1e-5", "in encoder.layers.encoder_layer_1.ln_2"
    ),
    "LayerNorm eps 1.1e-6 in one block": _built(
        "self.attn_layers[2].pre_norm.eps = 1.1e-6", "in encoder.layers.encoder_layer_2.ln_1"
    ),
    "final LayerNorm eps 1e-5": _built("self.ln.eps = 1e-5", "in encoder.ln"),
    "tanh GELU in one block": _built(
        "self.attn_layers[1].MLP[1].approximate = 'tanh'", "in encoder.layers.encoder_layer_1.mlp.1"
    ),
    "attention scale D**-.5": _attention("y = (q @ k.transpose(-2, -1) * width**-0.5).softmax(-1) @ v"),
    "Q and K swapped": _attention(_SDPA.format("k, q, v")),
    "Q and K swapped, without an attention module": Change(
        (
            "        y, _ = self.attention(y, y, y, need_weights=False)\n",
            """        a = self.attention
        heads, width = a.num_heads, y.shape[-1]
        q, k, v = (
            part.unflatten(-1, (heads, width // heads)).transpose(1, 2)
            for part in nn.functional.linear(y, a.in_proj_weight, a.in_proj_bias).chunk(3, -1)
        )
        y = nn.functional.scaled_dot_product_attention(k, q, v).transpose(1, 2).flatten(2)
        y = nn.functional.linear(y, a.out_proj.weight, a.out_proj.bias)
""",
        ),
        origin=f"between the output of {_BLOCK}.ln_1 and the input of {_BLOCK}.ln_2",
    ),
    "softmax over queries": _attention("y = (q @ k.transpose(-2, -1) * scale).softmax(-2) @ v"),
    "softmax rounded to bfloat16": _attention(
        "y = (q @ k.transpose(-2, -1) * scale).bfloat16().softmax(-1).to(v.dtype) @ v"
    ),
    "class token appended at the end": Change(("torch.cat([cls_token, x]", "torch.cat([x, cls_token]"), origin=_TOKENS),
    "position embedding off by one": Change(
        ("x + self.pos_embedding", "x + self.pos_embedding.roll(1, dims=1)"), origin=_TOKENS
    ),
    "position embedding omitted": Change(("self.dropout(x + self.pos_embedding)", "self.dropout(x)"), origin=_TOKENS),
    "reshape for transpose of the patches": Change(
        (
            "features.flatten(2).transpose(1, 2)",
            "features.flatten(2).reshape(len(features), -1, features.shape[1])",
        ),
        origin=_TOKENS,
    ),
    "MLP residual from the normed input": Change(
        ("        y = self.MLP(self.norm(x))\n", "        x = self.norm(x)\n        y = self.MLP(x)\n"),
        origin=f"between the output of {_BLOCK}.mlp and the output of {_BLOCK}",
    ),
    "attention residual missing": Change(
        ("        x = x + self.dropout(y)\n", "        x = self.dropout(y)\n"),
        origin=f"between the output of {_BLOCK}.dropout and the input of {_BLOCK}.ln_2",
    ),
    "mean pool": Change(
        ("        x = x[:, 0]", "        x = x.mean(1)"),
        origin="between the output of encoder.ln and the input of heads.head",
    ),
    "final norm omitted": Change(
        ("        x = self.ln(x)\n", ""), origin="between the output of encoder.layers and the input of heads.head"
    ),
    "softmax on the logits": Change(
        ("        return logits", "        return logits.softmax(-1)"),
        origin="between the output of heads.head and the logits",
    ),
    "dropout missing after attention, which train mode shows": Change(
        ("        x = x + self.dropout(y)\n", "        x = x + y\n"), origin="(forward/train/float64)"
    ),
    "dropout rate hard-wired": Change(
        (
            "self.dropout = nn.Dropout(dropout)\n\n        self.norm",
            "self.dropout = nn.Dropout(0.1)\n\n        self.norm",
        ),
        origin=f"in {_BLOCK}.dropout",
    ),
    "attention dropout takes the other rate": Change(
        ("embed_dim, num_heads, dropout=attention_dropout", "embed_dim, num_heads, dropout=dropout"),
        origin=f"in {_BLOCK}.self_attention",
    ),
    "blocks in reverse order": Change(
        (
            "        x = self.attn_layers(x)\n",
            "        for block in reversed(self.attn_layers):\n            x = block(x)\n",
        ),
        origin="between ",
    ),
    "norms of a block swapped": Change(
        ("y: torch.Tensor = self.pre_norm(x)", "y: torch.Tensor = self.norm(x)"),
        ("self.MLP(self.norm(x))", "self.MLP(self.pre_norm(x))"),
        origin="",
    ),
    "autocast around the MLP": Change(
        (
            "        y = self.MLP(self.norm(x))\n",
            "        with torch.autocast('cpu', dtype=torch.bfloat16):\n            y = self.MLP(self.norm(x))\n",
        ),
        origin=f"in {_BLOCK}.mlp.0",
    ),
    "images scaled in place": Change(
        ("        self._check_images(images)\n", "        self._check_images(images)\n        images.mul_(2)\n"),
        origin="between the input and the input of conv_proj",
    ),
}

# no tensor of the checks shows these; the reason does
FAULTS = {
    "position embedding zeroed in place": (
        Change(("        self._check_images(images)\n", "        self.pos_embedding.data.zero_()\n")),
        "writes to its own weights as it runs: pos_embedding",
    ),
    "images zeroed after use": (
        Change(("        x = self.ln(x)\n", "        images.zero_()\n        x = self.ln(x)\n")),
        "writes to the images it is given",
    ),
    "batch axis lost at batch 1": (
        Change(("        return logits", "        return logits.squeeze()")),
        r"in a batch of 1: logits with shape (10,), the reference has (1, 10)",
    ),
    "doubled in batches of two": (
        Change(("        return logits", "        return logits * (1 + (len(images) == 2))")),
        "in a batch of 2: logits with relative error 1",
    ),
    "remembers the tokens of the first batch of a shape": (
        Change(
            (
                "x = self.patches(images)",
                "x = self.cache.setdefault((*images.shape, images.dtype), self.patches(images))",
            ),
            (_BUILT, f"        self.cache = {{}}\n{_BUILT}"),
        ),
        "not the same function on other images in a batch of 3",
    ),
    "batch hard-wired": (
        Change(("        x = x[:, 0]", "        x = x.view(3, -1, x.shape[-1])[:, 0]")),
        "a batch of 1 is not possible: the candidate failed",
    ),
}

SAME_FUNCTION = {
    "attention weights asked for": Change((", need_weights=False)", ")")),
    "scaled_dot_product_attention": _attention(_SDPA.format("q, k, v"), origin=""),
    "attention written out": _attention(
        "y = nn.functional.dropout((q @ k.transpose(-2, -1) * scale).softmax(-1), rate) @ v", origin=""
    ),
    "class token repeated, not expanded": Change(
        ("self.cls_token.expand(len(x), -1, -1)", "self.cls_token.repeat(len(x), 1, 1)")
    ),
    "positions added before the class token is put in front": Change(
        (
            "torch.cat([cls_token, x]",
            "torch.cat([cls_token + self.pos_embedding[:, :1], x + self.pos_embedding[:, 1:]]",
        ),
        ("self.dropout(x + self.pos_embedding)", "self.dropout(x)"),
    ),
    "(N, B, D) throughout": Change(
        (
            "        x = self.attn_layers(x)\n        x = self.ln(x)\n        x = x[:, 0]",
            "        x = self.attn_layers(x.transpose(0, 1))\n        x = self.ln(x)\n        x = x[0]",
        ),
        ("batch_first=True", "batch_first=False"),
    ),
    "final norm of the class token only": Change(
        ("        x = self.ln(x)\n        x = x[:, 0]", "        x = self.ln(x[:, 0])"),
    ),
    "head of twice its input, halved": Change(("self.head(x)", "(self.head(x * 2) + self.head.bias) / 2")),
    "functional convolution": Change(
        ("self.patch(images)", "nn.functional.conv2d(images, self.patch.weight, self.patch.bias, self.patch.stride)"),
    ),
    "attention mask of zeros": Change(
        ("need_weights=False", "need_weights=False, attn_mask=y.new_zeros(y.shape[1], y.shape[1])"),
    ),
    "head per sample": Change(("self.head(x)", "torch.cat([self.head(row[None]) for row in x])")),
    "blocks called by their forward": Change(
        (
            "        x = self.attn_layers(x)\n",
            "        for block in self.attn_layers:\n            x = block.forward(x)\n",
        ),
    ),
    "constant in a closure": Change(
        (_BUILT, f"        one = torch.ones(1)\n        self.post = lambda x: x * one\n{_BUILT}"),
        ("        return logits", "        return self.post(logits)"),
    ),
    "dropout of the MLP outside it": Change(
        ("narrow, nn.Dropout(dropout))", "narrow)"),
        ("        return x + y\n", "        return x + nn.functional.dropout(y, self.dropout.p, self.training)\n"),
    ),
    "in-place residual": Change(("        return x + y\n", "        return x.add_(y)\n")),
}
