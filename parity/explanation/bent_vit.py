"""torchvision's Vision Transformer as named operations, in reading order, so that each of them can be changed.

Without changes it computes what `torchvision/models/vision_transformer.py` does in eval mode. Places are torchvision's
module names.

Shape letters:
    B  images    C  channels    P  side of a patch in pixels    N  tokens    D  width    H  heads    d  D / H
"""

from __future__ import annotations

import functools
import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from parity.explanation.bending import Bend, Change

    Function = Callable[[torch.Tensor], torch.Tensor]

TOKENS, HEAD = "conv_proj", "heads"
EPS = 1e-6
BLOCK = "encoder.layers.encoder_layer_{}"


class BentViT:
    """A `VisionTransformer` that can be bent.

    Args:
        config: torchvision's arguments.
        weights: its state dict, in the dtype to compute in.
        order: which block's weights are used at each place; by default each block's own.
        traits: what the model does otherwise than torchvision's.
        shared: names of tensors, and of the one of another block that is used for each.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Mapping[str, torch.Tensor],
        order: Sequence[int] | None = None,
        traits: Sequence[Change] = (),
        shared: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.config = config
        self.weights = weights
        self.shared = shared
        self.traits = tuple(traits)
        self.order = tuple(order if order is not None else range(config["num_layers"]))
        self.stages = (TOKENS, *(f"{BLOCK.format(n)}#{k}" for k, n in enumerate(self.order)), HEAD)

    def run(self, stage: str, tensor: torch.Tensor, bend: Bend) -> torch.Tensor:
        """Runs a stage: images (B, C, H, W) to tokens, tokens (B, N, D) through a block, tokens to logits."""
        if stage == TOKENS:
            return self._tokens(tensor, bend)
        if stage == HEAD:
            return self._head(tensor, bend)
        return self._block(stage.partition("#")[0], tensor, bend)

    def _tensor(self, name: str, bend: Bend) -> torch.Tensor | None:
        result: torch.Tensor | None = bend.do(name, "tensor", lambda: self.weights.get(self.shared.get(name, name)))
        return result

    def _tokens(self, images: torch.Tensor, bend: Bend) -> torch.Tensor:
        images = bend.at("conv_proj", "enter", bend.do("", "images", _same, images))
        kernel = bend.do("conv_proj", "kernel", _same, self._tensor("conv_proj.weight", bend))
        pixels = bend.do("conv_proj", "patches", cut_patches, images, self.config["patch_size"])
        pixels = bend.do("conv_proj", "pixels", _same, pixels, self.config["patch_size"])
        x = bend.do("conv_proj", "projection", linear, pixels, kernel, self._tensor("conv_proj.bias", bend))
        grid = self.config["image_size"] // self.config["patch_size"]
        x = bend.do("conv_proj", "as_map", as_map, x, grid)
        x = bend.at("conv_proj", "leave", x)
        x = bend.do("conv_proj", "flatten", flatten, x)
        x = bend.do("conv_proj", "output", _same, x)
        token = bend.do("class_token", "token", _same, self._tensor("class_token", bend))
        x = bend.do("class_token", "place", with_class_token, x, token)
        x = bend.at("encoder", "enter", x)
        positions = bend.do("encoder.pos_embedding", "table", _same, self._tensor("encoder.pos_embedding", bend), grid)
        x = bend.do("encoder.pos_embedding", "add", add_positions, x, positions)
        x = bend.do("encoder.pos_embedding", "output", _same, x)
        x = self._dropout("encoder.dropout", x, bend)
        return bend.at("encoder.layers", "enter", x)

    def _block(self, name: str, x: torch.Tensor, bend: Bend) -> torch.Tensor:
        x = bend.at(name, "enter", x)

        def residual(operation: str) -> Callable[..., torch.Tensor]:
            return lambda *arguments: bend.do(name, operation, add_branch, *arguments)

        def attention(y: torch.Tensor) -> torch.Tensor:
            y = self._attention(f"{name}.self_attention", y, bend)
            return self._dropout(f"{name}.dropout", y, bend)

        x = bend.around(
            name,
            "wiring",
            pre_norm,
            x,
            lambda y: self._norm(f"{name}.ln_1", y, bend),
            attention,
            residual("residual_1"),
            lambda y: self._norm(f"{name}.ln_2", y, bend),
            lambda y: self._mlp(f"{name}.mlp", y, bend),
            residual("residual_2"),
        )

        def final_norm(y: torch.Tensor) -> torch.Tensor:
            return self._norm("encoder.ln", y, bend)

        x = bend.at(name, "leave", bend.around(name, "output", _same, x, final_norm))
        result: torch.Tensor = bend.around(name, "handed_on", _same, x, final_norm)
        return result

    def _norm(self, name: str, x: torch.Tensor, bend: Bend) -> torch.Tensor:
        x = bend.at(name, "enter", x)
        weight, bias = (self._tensor(f"{name}.{part}", bend) for part in ("weight", "bias"))

        def norm(x: torch.Tensor, *_: torch.Tensor | None) -> torch.Tensor:
            eps = bend.do(name, "eps", lambda: EPS)
            x = bend.do(name, "statistics", standardised, x, eps)
            result: torch.Tensor = bend.do(name, "affine", scaled_and_shifted, x, weight, bias)
            return result

        x = bend.around(name, "norm", norm, x, weight, bias)
        return bend.at(name, "leave", bend.do(name, "output", _same, x))

    def _attention(self, name: str, x: torch.Tensor, bend: Bend) -> torch.Tensor:
        x = bend.at(name, "enter", x)
        x = bend.around(name, "attention", lambda y: self._attended(name, y, bend), x)
        x = bend.do(name, "output", _same, x)
        return bend.at(name, "leave", x)

    def _attended(self, name: str, x: torch.Tensor, bend: Bend) -> torch.Tensor:
        weight = bend.do(name, "in_proj_weight", _same, self._tensor(f"{name}.in_proj_weight", bend))
        bias = bend.do(name, "in_proj_bias", _same, self._tensor(f"{name}.in_proj_bias", bend))
        packed = bend.at(f"{name}.in_proj", "leave", bend.do(name, "in_proj", linear, x, weight, bias))
        parts = bend.do(name, "unpack", unpacked, packed, self.config["num_heads"])
        parts = [
            bend.at(f"{name}.{part}", "leave", tensor)
            for part, tensor in zip(("query", "key", "value"), parts, strict=True)
        ]
        query, key, value = bend.do(name, "roles", _in_order, *parts)
        heads = bend.do(name, "heads", lambda: self.config["num_heads"])
        query, key, value = (bend.do(name, "split", split_heads, part, heads) for part in (query, key, value))
        query, key = bend.do(name, "queries_and_keys", _in_order, query, key)
        query, key = (bend.do(name, "query_key", _same, part) for part in (query, key))
        scale = bend.do(name, "scale", default_scale, query)
        scores = bend.do(name, "scores", multiplied, query, key, scale)
        scores = bend.do(name, "mask", _same, scores)
        weights = bend.do(name, "softmax", softmax, scores)
        weights = bend.do(name, "weights", _same, weights)
        x = bend.do(name, "mix", torch.matmul, weights, value)
        x = bend.do(name, "merge", merge_heads, x)
        return self._linear(f"{name}.out_proj", x, bend)

    def _mlp(self, name: str, x: torch.Tensor, bend: Bend) -> torch.Tensor:
        x = bend.at(name, "enter", x)

        def layer(number: int) -> tuple[torch.Tensor | None, ...]:
            return tuple(self._tensor(f"{name}.{number}.{part}", bend) for part in ("weight", "bias"))

        x = bend.around(name, "mlp", lambda y, _: self._hidden(name, y, bend), x, layer)
        x = bend.do(name, "output", _same, x)
        return bend.at(name, "leave", x)

    def _hidden(self, name: str, x: torch.Tensor, bend: Bend) -> torch.Tensor:
        x = self._linear(f"{name}.0", x, bend)
        x = bend.at(f"{name}.1", "enter", x)
        x = bend.at(f"{name}.1", "leave", bend.do(f"{name}.1", "activation", F.gelu, x))
        x = bend.do(f"{name}.1", "output", _same, x)
        x = self._dropout(f"{name}.2", x, bend)
        x = self._linear(f"{name}.3", x, bend)
        return self._dropout(f"{name}.4", x, bend)

    def _head(self, x: torch.Tensor, bend: Bend) -> torch.Tensor:
        x = bend.at("encoder.layers", "leave", x)
        x = bend.do("encoder.layers", "output", _same, x)

        def norm(y: torch.Tensor) -> torch.Tensor:
            return bend.at("encoder", "leave", self._norm("encoder.ln", y, bend))

        tokens = x

        def pool(y: torch.Tensor) -> torch.Tensor:
            nonlocal tokens
            tokens = y
            result: torch.Tensor = bend.do("encoder", "pooling", class_token_of, y)
            return result

        x = bend.around("encoder", "end", norm_then_pool, x, norm, pool)
        x = bend.at("heads", "enter", bend.do("heads", "input", _same, x))
        if self.config.get("representation_size"):
            x = self._linear("heads.pre_logits", x, bend)
            x = bend.at("heads.act", "enter", x)
            x = bend.at("heads.act", "leave", bend.do("heads.act", "tanh", torch.tanh, x))
        x = self._linear("heads.head", x, bend)
        x = bend.do("heads", "join", _same, x, tokens)
        x = bend.at("heads", "leave", bend.do("heads", "output", _same, x))
        return bend.at("", "leave", bend.do("", "output", _same, x))

    def _linear(self, name: str, x: torch.Tensor, bend: Bend) -> torch.Tensor:
        x = bend.at(name, "enter", x)
        weight, bias = (self._tensor(f"{name}.{part}", bend) for part in ("weight", "bias"))
        return bend.at(name, "leave", bend.do(name, "linear", linear, x, weight, bias))

    def _dropout(self, name: str, x: torch.Tensor, bend: Bend) -> torch.Tensor:
        x = bend.at(name, "enter", x)
        return bend.at(name, "leave", bend.do(name, "dropout", _same, x))


def _same(x: Any, *_: Any) -> Any:
    return x


def _in_order(*parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return parts


def cut_patches(images: torch.Tensor, size: int) -> torch.Tensor:
    """(B, C, h P, w P) to (B, h w, C P P), row by row from the top left."""
    return F.unfold(images, size, stride=size).transpose(1, 2)


def as_map(x: torch.Tensor, grid: int) -> torch.Tensor:
    """Tokens (B, h w, D) as a feature map (B, D, h, w), as a convolution gives it."""
    return rearrange(x, "b (h w) d -> b d h w", h=grid)


def flatten(x: torch.Tensor) -> torch.Tensor:
    """A feature map (B, D, h, w) as tokens (B, h w, D)."""
    return rearrange(x, "b d h w -> b (h w) d")


def with_class_token(x: torch.Tensor, token: torch.Tensor | None) -> torch.Tensor:
    """(B, N - 1, D) to (B, N, D), the class token first."""
    return x if token is None else torch.cat([token.expand(len(x), -1, -1), x], 1)


def add_positions(x: torch.Tensor, table: torch.Tensor | None) -> torch.Tensor:
    """Adds the table (1, N, D) to the tokens (B, N, D)."""
    return x if table is None else x + table


def pre_norm(
    x: torch.Tensor,
    norm_1: Function,
    attention: Function,
    residual_1: Callable[..., torch.Tensor],
    norm_2: Function,
    mlp: Function,
    residual_2: Callable[..., torch.Tensor],
) -> torch.Tensor:
    """A block: what enters is added to each branch, and only the branches are normalised."""
    y = norm_1(x)
    middle = residual_1(x, y, attention(y), x)
    y = norm_2(middle)
    return residual_2(middle, y, mlp(y), x)


def add_branch(
    stream: torch.Tensor,
    normed: torch.Tensor,  # noqa: ARG001  (what variants take instead)
    branch: torch.Tensor,
    entered: torch.Tensor,  # noqa: ARG001
) -> torch.Tensor:
    """Adds a branch to the residual stream; the others are the branch's input and what entered the block."""
    return stream + branch


def standardised(x: torch.Tensor, eps: float, axes: tuple[int, ...] = (-1,), correction: int = 0) -> torch.Tensor:
    """Mean 0 and variance 1 along `axes`.

    Raises:
        ValueError: too few values lie there.
    """
    require_freedom(x, axes, correction)
    variance, mean = torch.var_mean(x, axes, correction=correction, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps)


def require_freedom(x: torch.Tensor, axes: tuple[int, ...], correction: int) -> None:
    """Raises a ValueError if a variance along `axes` would be one of nothing, such as over a batch of one image."""
    count = math.prod(x.shape[axis] for axis in axes)
    if count <= correction:
        raise ValueError(f"there are {count} values, of which {correction} do not count")


def scaled_and_shifted(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    """Multiplies each feature and adds to it."""
    if weight is not None:
        x = x * weight
    return x if bias is None else x + bias


def linear(x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    """A projection; without a matrix, what enters."""
    if weight is not None:
        return F.linear(x, weight.flatten(1), bias)
    return x if bias is None else x + bias


def unpacked(packed: torch.Tensor, heads: int) -> tuple[torch.Tensor, ...]:  # noqa: ARG001  (what variants need)
    """(B, N, 3 D) to query, key and value (B, N, D)."""
    return packed.chunk(3, -1)


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, D) to (B, H, N, d)."""
    return rearrange(x, "b n (h d) -> b h n d", h=heads)


def merge_heads(x: torch.Tensor) -> torch.Tensor:
    """(B, H, N, d) to (B, N, D)."""
    return rearrange(x, "b h n d -> b n (h d)")


def default_scale(query: torch.Tensor) -> float:
    """1 / sqrt(d)."""
    return 1 / math.sqrt(query.shape[-1])


def multiplied(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    """Scores (B, H, queries, keys)."""
    return query @ key.transpose(-2, -1) * scale


softmax = functools.partial(torch.softmax, dim=-1)


def class_token_of(x: torch.Tensor) -> torch.Tensor:
    """(B, N, D) to (B, D)."""
    return x[:, 0]


def norm_then_pool(x: torch.Tensor, norm: Function, pool: Function) -> torch.Tensor:
    """What stands between the last block and the head."""
    return pool(norm(x))
