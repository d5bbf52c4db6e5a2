"""Three ports of torchvision's ViT, and what moves its weights to each: written by hand, from its state dict.

They hold their weights in three ways, and have names of their own for them. `ROLES` says which tensor of a port holds
what, so that a fault of conversion is described once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.candidates.fused_qkv import VisionTransformer as FusedViT
from tests.corpus.cases import SIZES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    State = dict[str, torch.Tensor]

_MAPS = Path(__file__).parent / "maps"

GRID = SIZES["image_size"] // SIZES["patch_size"]
D, M, H, L = SIZES["hidden_dim"], SIZES["mlp_dim"], SIZES["num_heads"], SIZES["num_layers"]
d = D // H
PATCH, CLASSES = SIZES["patch_size"], SIZES["num_classes"]


# the original's tensors, in parts that no port cuts any further

_PARTS_OF_A_BLOCK = {
    "norm_1.weight": "ln_1.weight", "norm_1.bias": "ln_1.bias", "out.weight": "self_attention.out_proj.weight",
    "out.bias": "self_attention.out_proj.bias", "norm_2.weight": "ln_2.weight", "norm_2.bias": "ln_2.bias",
    "fc1.weight": "mlp.0.weight", "fc1.bias": "mlp.0.bias", "fc2.weight": "mlp.3.weight", "fc2.bias": "mlp.3.bias",
}  # fmt: skip
_PARTS_BESIDE = {
    "patches.weight": "conv_proj.weight", "patches.bias": "conv_proj.bias", "class_token": "class_token",
    "norm.weight": "encoder.ln.weight", "norm.bias": "encoder.ln.bias", "head.weight": "heads.head.weight",
    "head.bias": "heads.head.bias",
}  # fmt: skip
_WHOLE = {
    **_PARTS_BESIDE,
    **{
        f"blocks.{i}.{part}": f"encoder.layers.encoder_layer_{i}.{name}"
        for i in range(L)
        for part, name in _PARTS_OF_A_BLOCK.items()
    },
}
_IN_PROJ = {
    f"blocks.{i}.{{}}.{kind}": f"encoder.layers.encoder_layer_{i}.self_attention.in_proj_{kind}"
    for i in range(L)
    for kind in ("weight", "bias")
}
_POSITIONS = "encoder.pos_embedding"


def taken_apart(state: State) -> State:
    """Returns copies of the parts of torchvision's state dict; those of the positions are (1, D) and (N - 1, D)."""
    parts = {part: state[name] for part, name in _WHOLE.items()}
    for part, name in _IN_PROJ.items():
        parts |= zip(map(part.format, "qkv"), state[name].chunk(3), strict=True)
    parts |= {"class_position": state[_POSITIONS][0, :1], "positions": state[_POSITIONS][0, 1:]}
    return {part: tensor.clone() for part, tensor in parts.items()}


def put_together(parts: State) -> State:
    """Returns the state dict that has these parts."""
    return {
        **{name: parts[part] for part, name in _WHOLE.items()},
        **{name: torch.cat([parts[part.format(third)] for third in "qkv"]) for part, name in _IN_PROJ.items()},
        _POSITIONS: torch.cat([parts["class_position"], parts["positions"]])[None],
    }


# Linears to query, key and value apart, a Linear to patches whose pixels are ordered (row, column, channel)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.key, self.query, self.value, self.unify = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layers = self.query, self.key, self.value
        q, k, v = (layer(x).view(len(x), -1, H, d).transpose(1, 2) for layer in layers)
        y: torch.Tensor = self.unify(((q @ k.mT / d**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2))
        return y


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(D, eps=1e-6), _Attention()
        self.ff_norm, self.ff = nn.LayerNorm(D, eps=1e-6), nn.Sequential(nn.Linear(D, M), nn.GELU(), nn.Linear(M, D))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x))
        y: torch.Tensor = self.ff(self.ff_norm(x))
        return x + y


class SeparateViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_tokens = nn.Linear(PATCH * PATCH * 3, D)
        self.summary = nn.Parameter(torch.randn(D))
        self.table = nn.Embedding(GRID * GRID + 1, D)
        self.layers = nn.ModuleList(_Layer() for _ in range(L))
        self.last_norm = nn.LayerNorm(D, eps=1e-6)
        self.classifier = nn.Linear(D, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = images.view(-1, 3, GRID, PATCH, GRID, PATCH).permute(0, 2, 4, 3, 5, 1)
        x = self.to_tokens(patches.reshape(len(images), GRID * GRID, -1))
        x = torch.cat([self.summary.expand(len(x), 1, D), x], dim=1) + self.table.weight
        for layer in self.layers:
            x = layer(x)
        logits: torch.Tensor = self.classifier(self.last_norm(x[:, 0]))
        return logits


# raw parameters, (in, out), query, key and value interleaved head by head, the class token's position apart


class InterleavedViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_kernel = _normal(3 * PATCH * PATCH, D)
        self.patch_shift = _constant(0, D)
        self.cls = _constant(0, 1, 1, D)
        self.cls_position = _normal(1, 1, D)
        self.grid = _normal(GRID * GRID, D)
        self.blocks = nn.ModuleList(nn.ParameterDict(_block()) for _ in range(L))
        self.scale, self.shift = _constant(1, D), _constant(0, D)
        self.out_kernel, self.out_shift = _normal(D, CLASSES), _constant(0, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = F.unfold(images, PATCH, stride=PATCH).mT
        x = patches @ self.patch_kernel + self.patch_shift + self.grid
        x = torch.cat([(self.cls + self.cls_position).expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = _through(block, x)
        return F.layer_norm(x[:, 0], (D,), self.scale, self.shift, 1e-6) @ self.out_kernel + self.out_shift


def _normal(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * 0.02)


def _constant(value: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.full(shape, float(value)))


def _block() -> dict[str, nn.Parameter]:
    norms = {f"{kind}{n}": _constant(kind == "scale", D) for n in (1, 2) for kind in ("scale", "shift")}
    sizes = {"qkv": (D, 3 * D), "o": (D, D), "up": (D, M), "down": (M, D)}
    kernels = {f"w_{name}": _normal(*shape) for name, shape in sizes.items()}
    return norms | kernels | {f"b_{name}": _constant(0, out) for name, (_, out) in sizes.items()}


def _through(block: Any, x: torch.Tensor) -> torch.Tensor:
    y = F.layer_norm(x, (D,), block["scale1"], block["shift1"], 1e-6)
    q, k, v = (y @ block["w_qkv"] + block["b_qkv"]).view(len(x), -1, H, 3, d).permute(3, 0, 2, 1, 4)
    weights = (torch.einsum("bhid,bhjd->bhij", q, k) * d**-0.5).softmax(-1)
    x = x + (torch.einsum("bhij,bhjd->bihd", weights, v).flatten(2) @ block["w_o"] + block["b_o"])
    y = F.layer_norm(x, (D,), block["scale2"], block["shift2"], 1e-6)
    result: torch.Tensor = x + (F.gelu(y @ block["w_up"] + block["b_up"]) @ block["w_down"] + block["b_down"])
    return result


# the right conversions


def _to_fused(state: State) -> State:
    names = {
        "conv_proj": "patch_embed.proj", "class_token": "cls_token", "encoder.pos_embedding": "pos_embed",
        "encoder.layers.encoder_layer_": "blocks.", "ln_1": "norm1", "ln_2": "norm2", "self_attention": "attn",
        "in_proj_": "qkv.", "out_proj": "proj", "mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2", "encoder.ln": "norm",
        "heads.head": "head",
    }  # fmt: skip
    return {re.sub("|".join(map(re.escape, names)), lambda m: names[m[0]], name): t for name, t in state.items()}


def _to_separate(state: State) -> State:
    moved = {
        "to_tokens.weight": state["conv_proj.weight"].permute(0, 2, 3, 1).flatten(1),
        "to_tokens.bias": state["conv_proj.bias"],
        "summary": state["class_token"].flatten(),
        "table.weight": state["encoder.pos_embedding"][0],
    }
    for kind in ("weight", "bias"):
        moved[f"last_norm.{kind}"] = state[f"encoder.ln.{kind}"]
        moved[f"classifier.{kind}"] = state[f"heads.head.{kind}"]
        for i in range(L):
            theirs, ours = f"encoder.layers.encoder_layer_{i}", f"layers.{i}"
            q, k, v = state[f"{theirs}.self_attention.in_proj_{kind}"].chunk(3)
            moved[f"{ours}.attention.query.{kind}"] = q
            moved[f"{ours}.attention.key.{kind}"] = k
            moved[f"{ours}.attention.value.{kind}"] = v
            moved[f"{ours}.attention.unify.{kind}"] = state[f"{theirs}.self_attention.out_proj.{kind}"]
            moved[f"{ours}.attention_norm.{kind}"] = state[f"{theirs}.ln_1.{kind}"]
            moved[f"{ours}.ff_norm.{kind}"] = state[f"{theirs}.ln_2.{kind}"]
            moved[f"{ours}.ff.0.{kind}"] = state[f"{theirs}.mlp.0.{kind}"]
            moved[f"{ours}.ff.2.{kind}"] = state[f"{theirs}.mlp.3.{kind}"]
    return moved


def _to_interleaved(state: State) -> State:
    positions = state["encoder.pos_embedding"]
    moved = {
        "patch_kernel": state["conv_proj.weight"].flatten(1).T,
        "patch_shift": state["conv_proj.bias"],
        "cls": state["class_token"],
        "cls_position": positions[:, :1],
        "grid": positions[0, 1:],
        "scale": state["encoder.ln.weight"],
        "shift": state["encoder.ln.bias"],
        "out_kernel": state["heads.head.weight"].T,
        "out_shift": state["heads.head.bias"],
    }
    for i in range(L):
        block = f"encoder.layers.encoder_layer_{i}."
        qkv = state[f"{block}self_attention.in_proj_weight"].view(3, H, d, D)
        moved |= {
            f"blocks.{i}.w_qkv": qkv.permute(3, 1, 0, 2).reshape(D, 3 * D),
            f"blocks.{i}.b_qkv": state[f"{block}self_attention.in_proj_bias"].view(3, H, d).transpose(0, 1).flatten(),
            f"blocks.{i}.w_o": state[f"{block}self_attention.out_proj.weight"].T,
            f"blocks.{i}.b_o": state[f"{block}self_attention.out_proj.bias"],
            f"blocks.{i}.w_up": state[f"{block}mlp.0.weight"].T,
            f"blocks.{i}.b_up": state[f"{block}mlp.0.bias"],
            f"blocks.{i}.w_down": state[f"{block}mlp.3.weight"].T,
            f"blocks.{i}.b_down": state[f"{block}mlp.3.bias"],
        }
        for n in (1, 2):
            moved[f"blocks.{i}.scale{n}"] = state[f"{block}ln_{n}.weight"]
            moved[f"blocks.{i}.shift{n}"] = state[f"{block}ln_{n}.bias"]
    return moved


@dataclass(frozen=True)
class Port:
    """A port.

    Attributes:
        name: a word for it.
        build: builds it, with its initial values.
        convert: moves torchvision's state dict to it.
        mapping: its written weight map.
        names: the tensor that holds a part, by the part; `{i}` is the number of a block.
    """

    name: str
    build: Callable[[], nn.Module]
    convert: Callable[[State], State]
    mapping: Path
    names: Mapping[str, str]

    def tensors(self, pattern: str) -> set[str]:
        """Returns the names of the tensors that hold the parts that fit any of the words of `pattern`."""
        found = set()
        for part, name in self.names.items():
            for i in range(L if "{i}" in name else 1):
                if any(fnmatchcase(part.replace("{i}", str(i)), word) for word in pattern.split()):
                    found.add(name.replace("{i}", str(i)))
        assert found, pattern
        return found


def _fused() -> nn.Module:
    build: Callable[..., nn.Module] = FusedViT
    return build(SIZES["image_size"], PATCH, num_classes=CLASSES, embed_dim=D, depth=L, num_heads=H, mlp_hidden=M)


def _named(*, in_block: str, block: dict[str, str], beside: dict[str, str]) -> dict[str, str]:
    """Writes out `weight` and `bias` of what ends with a dot."""
    both = {f"blocks.{{i}}.{part}": f"{in_block}{name}" for part, name in block.items()} | beside
    return {
        f"{part}{kind}": f"{name}{kind}"
        for part, name in both.items()
        for kind in (("weight", "bias") if part.endswith(".") else ("",))
    }


PORTS = {
    port.name: port
    for port in (
        Port(
            "fused",
            _fused,
            _to_fused,
            _MAPS / "fused.toml",
            _named(
                in_block="blocks.{i}.",
                block={"norm_1.": "norm1.", "q.": "attn.qkv.", "k.": "attn.qkv.", "v.": "attn.qkv.",
                       "out.": "attn.proj.", "norm_2.": "norm2.", "fc1.": "mlp.fc1.", "fc2.": "mlp.fc2."},
                beside={"patches.": "patch_embed.proj.", "class_token": "cls_token", "class_position": "pos_embed",
                        "positions": "pos_embed", "norm.": "norm.", "head.": "head."},
            ),
        ),
        Port(
            "separate",
            SeparateViT,
            _to_separate,
            _MAPS / "separate_port.toml",
            _named(
                in_block="layers.{i}.",
                block={"norm_1.": "attention_norm.", "q.": "attention.query.", "k.": "attention.key.",
                       "v.": "attention.value.", "out.": "attention.unify.", "norm_2.": "ff_norm.", "fc1.": "ff.0.",
                       "fc2.": "ff.2."},
                beside={"patches.": "to_tokens.", "class_token": "summary", "class_position": "table.weight",
                        "positions": "table.weight", "norm.": "last_norm.", "head.": "classifier."},
            ),
        ),
        Port(
            "interleaved",
            InterleavedViT,
            _to_interleaved,
            _MAPS / "interleaved_port.toml",
            _named(
                in_block="blocks.{i}.",
                block={f"{part}.{kind}": name + end
                       for kind, one, other in (("weight", "w_", "scale"), ("bias", "b_", "shift"))
                       for part, name, end in (
                           ("norm_1", other, "1"), ("q", one, "qkv"), ("k", one, "qkv"), ("v", one, "qkv"),
                           ("out", one, "o"), ("norm_2", other, "2"), ("fc1", one, "up"), ("fc2", one, "down"))},
                beside={"patches.weight": "patch_kernel", "patches.bias": "patch_shift", "class_token": "cls",
                        "class_position": "cls_position", "positions": "grid", "norm.weight": "scale",
                        "norm.bias": "shift", "head.weight": "out_kernel", "head.bias": "out_shift"},
            ),
        ),
    )
}  # fmt: skip
