"""Bugs that the forward pass of eval mode doesn't show, planted in copies of our own ViT."""

from __future__ import annotations

from typing import NamedTuple

from tests.planted import _BUILT, Change


class Planted(NamedTuple):
    """A change, the cause that is to be named, and a part of the place where it is."""

    change: Change
    cause: str
    where: str


_IMPORTS = "LAYER_NORM_EPS = 1e-6  #"
_ATTENTION = "        y, _ = self.attention(y, y, y, need_weights=False)\n"
_LAYERS = "        x = self.attn_layers(x)\n"
_FORWARD = '''    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Classifies a batch'''
_BLOCK = "encoder.layers.encoder_layer_0"


def _built(statement: str) -> Change:
    return Change((_BUILT, f"        {statement}\n{_BUILT}"))


# recomputes a block in the backward pass, and forgets that it has parameters
_CHECKPOINT = """class Checkpoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, block, x):
        ctx.block = block
        ctx.save_for_backward(x)
        return block(x)

    @staticmethod
    def backward(ctx, gradient):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.block(x)
        return None, torch.autograd.grad(y, x, gradient)[0]


"""

BACKWARD = {
    "attention branch detached in one block": Planted(
        _built("self.attn_layers[2].attention.register_forward_hook(lambda m, a, y: (y[0].detach(), None))"),
        "detached",
        "encoder.layers.encoder_layer_2.self_attention",
    ),
    "attention branch detached in every block": Planted(
        Change((_ATTENTION, f"{_ATTENTION}        y = y.detach()\n")), "detached", f"{_BLOCK}.self_attention"
    ),
    "input of the attention detached": Planted(
        Change((_ATTENTION, f"        y = y.detach()\n{_ATTENTION}")), "detached", f"{_BLOCK}.ln_1"
    ),
    "MLP without autograd": Planted(
        Change(
            (
                "        y = self.MLP(self.norm(x))\n",
                "        with torch.no_grad():\n            y = self.MLP(self.norm(x))\n",
            )
        ),
        "detached",
        f"{_BLOCK}.mlp",
    ),
    "tokens detached before the blocks": Planted(
        Change((_LAYERS, f"        x = x.detach()\n{_LAYERS}")), "detached", "conv_proj"
    ),
    "all without autograd": Planted(
        Change((_FORWARD, f"    @torch.no_grad()\n{_FORWARD}")), "detached", "encoder.layers"
    ),
    "position embedding used by its data": Planted(
        Change(("self.dropout(x + self.pos_embedding)", "self.dropout(x + self.pos_embedding.data)")),
        "gradient-missing",
        "encoder.pos_embedding",
    ),
    "position embedding frozen": Planted(
        _built("self.pos_embedding.requires_grad = False"), "frozen-parameter", "encoder.pos_embedding"
    ),
    "class token frozen": Planted(_built("self.cls_token.requires_grad_(False)"), "frozen-parameter", "class_token"),
    "class token registered as a buffer": Planted(
        Change(
            (
                "self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))",
                "self.register_buffer('cls_token', torch.zeros(1, 1, embed_dim))",
            )
        ),
        "parameter-as-buffer",
        "class_token",
    ),
    "gradient halved on the way back": Planted(
        Change((_LAYERS, f"        x = (x + x.detach()) / 2\n{_LAYERS}")), "gradient", "encoder.dropout"
    ),
    "gradient of one scale halved": Planted(
        Change(
            ("self.ln = nn.LayerNorm(", "self.ln = Halved("),
            (
                "class ViT(nn.Module):",
                """class Halved(nn.LayerNorm):
    def forward(self, x):
        weight = (self.weight + self.weight.detach()) / 2
        return nn.functional.layer_norm(x, self.normalized_shape, weight, self.bias, self.eps)


class ViT(nn.Module):""",
            ),
        ),
        "gradient",
        "encoder.ln.weight",
    ),
    "checkpointing that loses gradients": Planted(
        Change(
            (_LAYERS, "        for block in self.attn_layers:\n            x = Checkpoint.apply(block, x)\n"),
            ("class AttentionBlock(", f"{_CHECKPOINT}class AttentionBlock("),
        ),
        "gradient-checkpointing",
        f"{_BLOCK}.ln_1.weight",
    ),
    "residual added in place, which the norm still needs": Planted(
        Change(("        return x + y\n", "        return x.add_(y)\n")), "backward-fails", ""
    ),
}
