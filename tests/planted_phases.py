"""Bugs that the forward pass of eval mode doesn't show, planted in copies of our own ViT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import vit.model

if TYPE_CHECKING:
    from parity.training.resizing import Rule

_SOURCE = Path(vit.model.__file__).read_text(encoding="utf-8")

# where a statement can be planted that changes a built model
_BUILT = "        self._initialise()\n\n    def _initialise"


class Change:
    """A change to the source of `vit/model.py`.

    Args:
        edits: pairs of a text that stands in the source once and what stands there instead.
    """

    def __init__(self, *edits: tuple[str, str]) -> None:
        self.edits = edits

    def write(self, folder: Path) -> str:
        """Writes the changed model to `folder` and returns it as a candidate's name."""
        source = _SOURCE
        for old, new in self.edits:
            assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in vit/model.py"
            source = source.replace(old, new)
        file = folder / "changed_vit.py"
        file.write_text(source, encoding="utf-8")
        return f"{file}:ViT"


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


_BLOCKS = (
    "            *(AttentionBlock(embed_dim, hidden_dim, num_heads, dropout, attention_dropout)"
    " for _ in range(num_layers))\n"
)
_ALWAYS = """class Always(nn.Dropout):
    def train(self, mode=True):
        return super().train(True)


"""
_MLP_DROPOUT = "nn.GELU(), nn.Dropout(dropout), narrow"

TRAINING = {
    "dropout rate halved": Planted(
        Change(
            (
                "self.dropout = nn.Dropout(dropout)\n\n        self.norm",
                "self.dropout = nn.Dropout(dropout / 2)\n\n        self.norm",
            )
        ),
        "dropout-rate",
        f"{_BLOCK}.dropout",
    ),
    "dropout after attention missing": Planted(
        Change(("        x = x + self.dropout(y)\n", "        x = x + y\n")), "dropout-missing", f"{_BLOCK}.dropout"
    ),
    "dropout in the MLP missing": Planted(
        Change((_MLP_DROPOUT, "nn.GELU(), nn.Identity(), narrow")), "dropout-missing", f"{_BLOCK}.mlp.2"
    ),
    "dropout before the activation": Planted(
        Change((_MLP_DROPOUT, "nn.Dropout(dropout), nn.GELU(), narrow")), "dropout-order", f"{_BLOCK}.mlp.1"
    ),
    "rates of attention and MLP swapped": Planted(
        Change(("embed_dim, num_heads, dropout=attention_dropout", "embed_dim, num_heads, dropout=dropout")),
        "dropout-rate",
        f"{_BLOCK}.self_attention",
    ),
    "stochastic depth per token": Planted(
        Change(
            (
                "        return x + y\n",
                """        if self.training:
            keep = 0.9
            y = y / keep * torch.empty(*y.shape[:2], 1, dtype=y.dtype, device=y.device).bernoulli_(keep)
        return x + y
""",
            )
        ),
        "stochastic-depth",
        _BLOCK,
    ),
    "submodule left in train mode": Planted(
        Change(
            (
                "self.dropout = nn.Dropout(dropout)\n        self.attn",
                "self.dropout = Always(dropout)\n        self.attn",
            ),
            (
                "class AttentionBlock(",
                f"{_ALWAYS}class AttentionBlock(",
            ),
        ),
        "submodule-mode",
        "encoder.dropout",
    ),
    "functional dropout that never stops": Planted(
        Change(("        x = x + self.dropout(y)\n", "        x = x + nn.functional.dropout(y, self.dropout.p)\n")),
        "dropout-in-eval",
        f"{_BLOCK}",
    ),
    "in-place add into the input": Planted(
        Change(
            (
                "        self._check_images(images)\n",
                "        self._check_images(images)\n        images += 0.1\n        images -= 0.1\n",
            )
        ),
        "input-in-place",
        "the input",
    ),
    "checkpointing in train mode that loses gradients": Planted(
        Change(
            (
                _LAYERS,
                """        for block in self.attn_layers:
            x = Checkpoint.apply(block, x) if self.training else block(x)
""",
            ),
            ("class AttentionBlock(", f"{_CHECKPOINT}class AttentionBlock("),
            ("        y, _ = self.attention", "        torch.manual_seed(0)\n        y, _ = self.attention"),
        ),
        "gradient-checkpointing",
        f"{_BLOCK}.ln_1.weight",
    ),
    "checkpointing that draws other masks": Planted(
        Change(
            (
                _LAYERS,
                """        for block in self.attn_layers:
            keep = {"use_reentrant": False, "preserve_rng_state": False}
            x = torch.utils.checkpoint.checkpoint(block, x, **keep) if self.training else block(x)
""",
            ),
            (_IMPORTS, f"import torch.utils.checkpoint\n{_IMPORTS}"),
        ),
        "gradient-checkpointing",
        f"{_BLOCK}.ln_1.weight",
    ),
    "state dict loaded in part": Planted(
        Change(
            (
                _BUILT,
                """        self._initialise()

    def load_state_dict(self, state, strict=True, assign=False):
        return super().load_state_dict({k: v for k, v in state.items() if k != "pos_embedding"}, strict=False)

    def _initialise""",
            ),
        ),
        "resume",
        "encoder.pos_embedding",
    ),
}

# the models are the same function, and would not be trained alike
RECIPES = {
    "blocks initialised alike, by deepcopy": Planted(
        Change(
            ("import math\n", "import copy\nimport math\n"),
            (
                _BLOCKS,
                """            *map(
                copy.deepcopy,
                [AttentionBlock(embed_dim, hidden_dim, num_heads, dropout, attention_dropout)] * num_layers,
            )
""",
            ),
        ),
        "block-initialised-alike",
        "encoder.layers.encoder_layer_2.mlp.0.weight",
    ),
    "initial weights of another width": Planted(
        Change(("nn.init.xavier_uniform_(linear.weight)", "nn.init.normal_(linear.weight, std=0.02)")),
        "initialisation",
        f"{_BLOCK}.mlp.0.weight",
    ),
    "weight decay key that never matches": Planted(
        Change(
            (
                _BUILT,
                """        self._initialise()

    def no_weight_decay(self) -> set[str]:
        return {"cls_token", "position_embedding"}

    def _initialise""",
            ),
        ),
        "weight-decay-key",
        "encoder.pos_embedding",
    ),
    "last layer not in the optimizer": Planted(
        Change(
            (
                _BUILT,
                """        self._initialise()

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        named = [(n, p) for n, p in self.named_parameters() if not n.startswith("ln.")]
        return [
            {"params": [p for n, p in named if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for n, p in named if p.ndim < 2], "weight_decay": 0.0},
        ]

    def _initialise""",
            ),
        ),
        "optimizer-parameter-missing",
        "ln.weight",
    ),
}

# the text that a rule puts its resizing in place of, and the call of it
_ADDED = "        x = self.dropout(x + self.pos_embedding)\n"
POSITIONS_OF = "RULE.apply(table, side)"


def resizing(rule: Rule | None) -> Change:
    """Returns a change that takes images of any size: positions are resized by `rule`, or cut off if it is None."""
    apply = f"{POSITIONS_OF} if side * side != table.shape[1] - 1 else table" if rule else "table[:, :1 + side * side]"
    return Change(
        (_CHECKED, ""),
        (
            _ADDED,
            f"""        table, side = self.pos_embedding, round((x.shape[1] - 1) ** 0.5)
        x = self.dropout(x + ({apply}).to(x.dtype))
""",
        ),
        (_IMPORTS, f"from parity.training.resizing import Rule\n\nRULE = {rule!r}\n\n{_IMPORTS}"),
    )


_CHECKED = "        self._check_images(images)\n"
_SAME_DTYPE = "        if y.dtype != x.dtype:\n            raise TypeError('expected one dtype')\n"

# each with the causes that it has, and what the first of them says
CONDITIONS = {
    "view of the images as they lie in memory": Planted(
        Change((_CHECKED, f"{_CHECKED}        images = images.view(len(images), -1).view(images.shape)\n")),
        "channels-last transposed-input",
        "on images in channels_last layout the candidate fails, and the reference does not: ",
    ),
    "images read in the order of memory": Planted(
        Change(
            (
                _CHECKED,
                f"""{_CHECKED}        if images.is_contiguous(memory_format=torch.channels_last):
            images = images.flip(2)
""",
            )
        ),
        "channels-last",
        "on images in channels_last layout the candidate computes another function, off by ",
    ),
    "version counter of a tensor that has none": Planted(
        Change((_LAYERS, f"        self.version = x._version\n{_LAYERS}")),
        "inference-mode",
        "in torch.inference_mode the candidate fails, and the reference does not: ",
    ),
    "constant in float32": Planted(
        Change(
            (_LAYERS, f"        x = x * torch.ones(1, dtype=torch.promote_types(x.dtype, torch.float32))\n{_LAYERS}")
        ),
        "bfloat16 float16",
        "in bfloat16 the candidate fails, and the reference does not: ",
    ),
    "tokens rounded to three bits in half precision": Planted(
        Change(
            (
                _LAYERS,
                f"""        if x.dtype == torch.float16:
            x = (x * 8).round() / 8
{_LAYERS}""",
            )
        ),
        "float16",
        "times less accurate than the reference",
    ),
    "one dtype expected where autocast makes two": Planted(
        Change((_ATTENTION, f"{_ATTENTION}{_SAME_DTYPE}")),
        "autocast",
        "under autocast with bfloat16 the candidate fails, and the reference does not: ",
    ),
}
