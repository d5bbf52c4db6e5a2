"""The catalogue: every nameable way in which a Vision Transformer can differ from torchvision's, an entry each.

An entry wraps operations of `bent_vit`: its functions are called with the operation as it was, and with the operation's
arguments. Shape letters as there.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch.nn import functional as F

from parity.explanation.bending import Change, Kind
from parity.explanation.bent_vit import merge_heads, split_heads, standardised
from parity.models.entries import cut, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from parity.models.entries import Box

    Tensor = torch.Tensor
    Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "GELU's tanh approximation": functools.partial(F.gelu, approximate="tanh"),
    "quick GELU, x * sigmoid(1.702 x)": lambda x: x * torch.sigmoid(1.702 * x),
    "ReLU": F.relu,
    "SiLU": F.silu,
    "ReLU6": F.relu6,
    "leaky ReLU": F.leaky_relu,
    "ELU": F.elu,
    "Mish": F.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "squared ReLU": lambda x: F.relu(x).square(),
    "softplus": F.softplus,
}
ADDED = {"GELU": F.gelu, **ACTIVATIONS}
_NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_INSERTED = (
    r"(conv_proj|pos_embedding|dropout|encoder\.layers|encoder_layer_\d+|self_attention|ln(_\d)?|mlp(\.[134])?)$"
)
_ATTENTION, _BLOCK, _NORM = r"\.self_attention$", r"encoder_layer_\d+$", r"(^|\.)ln(_\d)?$"


def catalogue(config: Mapping[str, Any]) -> list[Kind]:
    """Returns all entries for a reference of torchvision's configuration `config`, the likeliest of a place first."""
    makers = (_token_kinds, _norm_kinds, _attention_kinds, _block_kinds, _mlp_kinds, _end_kinds, _rounding_kinds)
    return [kind for maker in makers for kind in maker(config)]


def _after(function: Callable[..., Any]) -> Callable[..., Any]:
    """A variant that applies `function` to what the operation returns."""
    return lambda original, *arguments: function(original(*arguments))


def _instead(function: Callable[..., Any]) -> Callable[..., Any]:
    """A variant that calls `function` instead of the operation."""
    return lambda _, *arguments: function(*arguments)


def _given(value: Any) -> Callable[..., Any]:
    """A variant that returns `value` whatever it is given."""
    return lambda *_: value


def _skipped(_: Any, x: Tensor, *__: Any) -> Tensor:
    """A variant that hands on what enters."""
    return x


def _found(_: Any, *__: Any, value: float) -> float:
    """A variant that returns the number that was solved for."""
    return value


# a table reads best with an entry's parts side by side
# fmt: off

# --- images, patches, class token, positions


def _token_kinds(config: Mapping[str, Any]) -> Iterator[Kind]:
    for order in ("p q c", "q p c", "c q p", "p c q", "q c p"):
        yield Kind("patch-pixel-order", {"pixels": functools.partial(_pixels_in_order, order=order)},
                   f"the pixels of a patch in the order ({order})", "(c p q), as in the kernel",
                   "flatten a patch as the weights were: channels, rows, columns")
    yield Kind("patch-pixel-order", {"images": _after(_rows_as_columns), "flatten": _on_columns},
               "rows and columns of the patches' kernel exchanged", "as in the kernel",
               "don't transpose the kernel as you load it", at="conv_proj", elsewhere={"images": ""})
    yield Kind("image-transposed", {"images": _after(_rows_as_columns)}, "rows and columns of the image exchanged",
               "as given", "images are (B, C, H, W)")
    yield Kind("patch-channels", {"images": _after(lambda images: images.flip(1))}, "the image's channels reversed",
               "RGB as given", "don't reverse the channels")
    yield Kind("patch-reshape", {"flatten": lambda _, x: x.reshape(len(x), -1, x.shape[1])},
               "the feature map (B, D, h, w) reshaped to (B, N, D)", "flattened and transposed",
               "x.flatten(2).transpose(1, 2)")
    yield Kind("patch-reshape",
               {"patches": lambda original, images, size: _reread(original(images, size).transpose(1, 2))},
               "unfolded patches (B, C P P, N) reshaped to (B, N, C P P)", "transposed",
               "F.unfold(...).transpose(1, 2)")
    yield Kind("patch-reshape", {"patches": lambda cut_, images, size: _unpermuted(images, size, cut_(images, size))},
               "unfolded patches (B, C, h, w, P, P) reshaped to (B, N, C P P)", "permuted first",
               "images.unfold(2, P, P).unfold(3, P, P).permute(0, 2, 3, 1, 4, 5)")
    yield Kind("patch-reshape", {"patches": lambda cut_, images, size: images.reshape(cut_(images, size).shape)},
               "the image reshaped to (B, N, C P P), which cuts no patches", "cut into patches",
               "F.unfold(images, P, stride=P).transpose(1, 2)")
    yield Kind("patch-order", {"flatten": lambda original, x: original(x.transpose(2, 3))},
               "patches column by column", "row by row", "x.flatten(2).transpose(1, 2)")
    yield Kind("patch-bias", {"projection": lambda original, x, weight, _: original(x, weight, None)},
               "no bias of the patch projection", "one", "nn.Conv2d(3, dim, P, stride=P, bias=True)")
    yield Kind("image-scale", {"images": lambda original, x: 2 * original(x) - 1}, "images taken as 2 x - 1",
               "as given", "leave that to the transforms")
    yield Kind("image-scale", {"images": _after(_normalised)}, "images normalised inside the model", "as given",
               "leave that to the transforms")
    yield Kind("image-scale", {"images": lambda original, x, value: original(x) * value}, "images times {value}",
               "as given", "leave that to the transforms", start=(2.0, 1 / 255, 255.0, 0.5))
    yield Kind("class-token-place", {"place": lambda _, x, token: torch.cat([x, token.expand(len(x), -1, -1)], 1)},
               "the class token last", "first", "torch.cat([cls_token, x], dim=1)")
    yield Kind("class-token-zero", {"token": _after(torch.zeros_like)}, "zeros for the class token", "a learned one",
               "nn.Parameter(torch.zeros(1, 1, dim)), and load its weights")
    yield Kind("class-token-missing", {"place": _skipped, "table": lambda original, *parts: original(*parts)[:, 1:]},
               "no class token", "one", "torch.cat([cls_token, x], dim=1)", at="class_token",
               elsewhere={"table": "encoder.pos_embedding"})
    yield Kind("position-missing", {"add": _skipped}, "no position embedding", "a learned one", "x + pos_embedding")
    for rows, first in (("1 to N", True), ("0 to N - 1", False)):
        yield Kind("position-of-class-token", {"table": _after(functools.partial(_patch_rows, first=first))},
                   f"no position for the class token, and rows {rows} for the patches",
                   "row 0 for it, 1 to N for them", "add positions after torch.cat([cls_token, x], dim=1)")
    yield Kind("position-missing", {"table": _after(_class_row_only)}, "no positions for the patches",
               "a learned one for each", "x + pos_embedding")
    yield Kind("position-of-class-token", {"table": _after(_without_class_row)}, "no position for the class token",
               "row 0", "x + pos_embedding, the class token's included")
    for steps in (1, -1, 2, -2):
        yield Kind("position-shift", {"table": _after(functools.partial(torch.roll, shifts=steps, dims=1))},
                   f"positions shifted by {steps}", "each in its place", "x + pos_embedding")
        yield Kind("position-shift", {"table": _after(functools.partial(_patches_rolled, steps=steps))},
                   f"positions of the patches shifted by {steps}", "each in its place", "x + pos_embedding")
    yield Kind("position-transposed", {"table": lambda _, table, grid: _grid_transposed(table, grid)},
               "rows and columns of the positions' grid exchanged", "row by row", "x + pos_embedding")
    yield Kind("position-doubled", {"add": lambda original, x, table: original(original(x, table), table)},
               "the position embedding added twice", "once", "x + pos_embedding")
    yield Kind("position-operator", {"add": lambda _, x, table: x * table}, "tokens times positions", "plus",
               "x + pos_embedding")
    yield Kind("position-fixed", {"add": lambda _, x, __, value: x + value}, "a fixed table of positions",
               "a learned one", "nn.Parameter(torch.zeros(1, N + 1, dim))",
               fit=lambda wanted, x, *_: (wanted - x).mean(0, keepdim=True))
    root = {f"sqrt({config['hidden_dim']})": config["hidden_dim"] ** 0.5}
    yield Kind("token-scale", {"add": lambda original, x, table, value: original(x * value, table)},
               "tokens times {value} before positions are added", "as they are", "x + pos_embedding",
               start=(*root.values(), 0.5), named=root)
    yield Kind("token-scale", {"output": lambda original, x, value: original(x) * value}, "tokens times {value}",
               "as they are", "take the factor away", only="pos_embedding$", start=(*root.values(), 0.5), named=root)


def _pixels_in_order(original: Callable[..., Tensor], x: Tensor, size: int, *, order: str) -> Tensor:
    return rearrange(original(x, size), f"b n (c p q) -> b n ({order})", p=size, q=size)


def _rows_as_columns(x: Tensor) -> Tensor:
    return x.transpose(-2, -1)


def _on_columns(original: Activation, x: Tensor) -> Tensor:
    return original(_rows_as_columns(x))


def _unpermuted(images: Tensor, size: int, like: Tensor) -> Tensor:
    return rearrange(images, "b c (h p) (w q) -> b (c h w p q)", p=size, q=size).reshape(like.shape)


def _reread(x: Tensor) -> Tensor:
    """(B, F, N) as (B, N, F), not transposed."""
    return x.reshape(len(x), x.shape[2], x.shape[1])


def _normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(numbers).to(images)[:, None, None] for numbers in _IMAGENET)
    return (images - mean) / std


def _patch_rows(table: Tensor, *, first: bool) -> Tensor:
    return torch.cat([torch.zeros_like(table[:, :1]), table[:, 1:] if first else table[:, :-1]], 1)


def _without_class_row(table: Tensor) -> Tensor:
    return _patch_rows(table, first=True)


def _class_row_only(table: Tensor) -> Tensor:
    return torch.cat([table[:, :1], torch.zeros_like(table[:, 1:])], 1)


def _patches_rolled(table: Tensor, steps: int) -> Tensor:
    return torch.cat([table[:, :1], table[:, 1:].roll(steps, 1)], 1)


def _grid_transposed(table: Tensor, grid: int) -> Tensor:
    return torch.cat([table[:, :1], rearrange(table[:, 1:], "b (h w) d -> b (w h) d", h=grid)], 1)


# --- norms


def _norm_kinds(_: Mapping[str, Any]) -> Iterator[Kind]:
    def kind(id: str, variants: Mapping[str, Any], phrase: str, instead: str, hint: str = "", **others: Any) -> Kind:  # noqa: A002
        return Kind(id, variants, phrase, instead, hint or "nn.LayerNorm(dim, eps=1e-6)", only=_NORM, **others)

    yield kind("layer-norm-eps", {"eps": _found}, "LayerNorm eps {value}", "1e-06", start=(1e-5, 1e-3))
    yield kind("norm-missing", {"norm": _skipped}, "no norm", "a LayerNorm")
    yield kind("layer-norm-unbiased", {"statistics": _instead(functools.partial(standardised, correction=1))},
               "LayerNorm with the unbiased variance", "the biased one", "x.var(-1, unbiased=False)")
    for correction, which in ((1, ", the std unbiased"), (0, "")):
        yield kind("layer-norm-std-eps", {"statistics": functools.partial(_std_plus_eps, correction=correction)},
                   f"LayerNorm that divides by std + eps{which}", "by sqrt(var + eps)",
                   "(x - mean) / torch.sqrt(var + eps)")
    for axes, name in (
        ((-2, -1), "tokens and width"),
        ((-2,), "the tokens"),
        ((0, -2, -1), "the batch"),
        ((0,), "images"),
    ):
        yield kind("layer-norm-axes", {"statistics": _instead(functools.partial(standardised, axes=axes))},
                   f"LayerNorm over {name}", "over the width", "nn.LayerNorm(dim), over the last axis")
    yield kind("rms-norm", {"statistics": _instead(_rms)}, "RMSNorm", "LayerNorm, which takes the mean away")
    yield kind("layer-norm-bias", {"affine": lambda original, x, weight, _: original(x, weight, None)},
               "LayerNorm without a bias", "with one")
    yield kind("layer-norm-scale", {"affine": lambda original, x, _, bias: original(x, None, bias)},
               "LayerNorm without a scale", "with one")
    yield kind("layer-norm-affine", {"affine": _skipped}, "LayerNorm without scale and bias", "with both",
               "nn.LayerNorm(dim, eps=1e-6, elementwise_affine=True)")


def _std_plus_eps(_: Any, x: Tensor, eps: float, *, correction: int) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, correction=correction, keepdim=True) + eps)


def _rms(x: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)


# --- attention


def _attention_kinds(config: Mapping[str, Any]) -> Iterator[Kind]:
    width, heads = config["hidden_dim"], config["num_heads"]
    head_width = width // heads
    names = {
        f"1 / sqrt(width {width})": width**-0.5,
        f"1 / sqrt(number of heads {heads})": heads**-0.5,
        "1 (none)": 1.0,
        f"sqrt(head width {head_width})": head_width**0.5,
        f"1 / head width {head_width}": 1 / head_width,
        f"1 / width {width}": 1 / width,
    }
    grid = tuple(math.exp(n / 2) for n in range(-14, 9))
    yield Kind("attention-scale", {"scale": _found}, "attention scale {value}", f"1 / sqrt(head width {head_width})",
               "(dim // num_heads) ** -0.5", start=grid, named=names)
    yield Kind(
        "scale-after-softmax",
        {"scale": _given(1.0), "mix": lambda original, weights, value: original(weights, value) * head_width**-0.5},
        "attention scaled after the softmax", "before it", "(q @ k.transpose(-2, -1) * scale).softmax(-1) @ v",
    )
    for axis, name in ((-2, "queries"), (1, "heads"), (0, "images")):
        yield Kind("softmax-axis", {"softmax": _instead(functools.partial(torch.softmax, dim=axis))},
                   f"softmax over the {name}", "over the keys", "scores.softmax(dim=-1)")
    yield Kind("softmax-missing", {"softmax": _skipped}, "no softmax", "one over the keys", "scores.softmax(dim=-1)")
    yield Kind("softmax-missing", {"softmax": _instead(torch.sigmoid)}, "a sigmoid for the softmax",
               "a softmax over the keys", "scores.softmax(dim=-1)")
    for name, hidden in _MASKS.items():
        yield Kind("attention-mask", {"mask": _after(functools.partial(_masked, hidden=hidden))}, f"a mask: {name}",
                   "none", "take the mask away")
    yield Kind("attention-transposed", {"weights": _after(lambda weights: weights.transpose(-2, -1))},
               "attention weights transposed", "as they are", "weights @ v")
    yield Kind("extra-key", {"softmax": _instead(_softmax_with_zero_key)}, "one more key and value, of zeros",
               "the tokens alone", "add_zero_attn=False")
    yield Kind("qkv-bias", {"in_proj": lambda original, x, weight, _: original(x, weight, None)},
               "no bias of query, key and value", "one of each", "nn.Linear(dim, 3 * dim, bias=True)")
    for part, name in ((0, "query"), (2, "value")):
        yield Kind("qkv-bias", {"in_proj_bias": _after(functools.partial(_part_zeroed, part=part))},
                   f"no bias of the {name}", "one", "nn.Linear(dim, dim, bias=True)")
    for order in itertools.permutations(range(3)):
        if order != (0, 1, 2):
            letters = "".join("qkv"[part] for part in order)
            yield Kind("qkv-order", {"roles": functools.partial(_parts, which=order)},
                       f"projections used as query, key and value in the order {letters}", "qkv",
                       "q, k, v = qkv.chunk(3, dim=-1)")
            rows = _after(functools.partial(_parts_of, which=order))
            yield Kind("qkv-order", {"in_proj_weight": rows, "in_proj_bias": rows},
                       f"the fused projection's rows in the order {letters}", "qkv", "q, k, v = qkv.chunk(3, dim=-1)")
    for which in ((0, 0, 2), (1, 1, 2), (0, 1, 1), (0, 1, 0), (0, 2, 2), (2, 1, 2)):
        letters = "".join("qkv"[part] for part in which)
        id_ = "key-shares-query" if which == (0, 0, 2) else "projection-shared"
        yield Kind(id_, {"roles": functools.partial(_parts, which=which)},
                   f"projections {letters} used as query, key and value", "one for each",
                   "a projection of its own for each")
    for axes in ("h q d", "h d q", "q d h", "d h q", "d q h"):
        yield Kind("qkv-layout", {"unpack": functools.partial(_unpacked_as, order=axes)},
                   f"the fused projection read as ({axes})", "(q h d)", "qkv.reshape(B, N, 3, heads, head_dim)")
    yield Kind("qkv-layout", {"split": lambda _, x, heads: rearrange(x, "b n (d h) -> b h n d", h=heads)},
               "features of query, key and value read as (d h)", "(h d)", "x.view(B, N, heads, head_dim)")
    yield Kind("qkv-transposed", {"in_proj_weight": _after(_transposed_parts)},
               "the matrices of query, key and value transposed", "as nn.Linear has them",
               "transpose the weights as you load them")
    yield Kind("out-proj-transposed", {"linear": lambda original, x, weight, bias: original(x, weight.T, bias)},
               "the matrix of the output projection transposed", "as nn.Linear has it",
               "transpose the weights as you load them", only=r"\.out_proj$")
    for count in (n for n in range(1, width + 1) if width % n == 0 and n != heads):
        yield Kind("head-count", {"heads": _given(count)}, f"{count} heads", f"{heads} heads", f"num_heads={heads}")
    yield Kind("head-split", {"split": lambda _, x, heads: x.reshape(len(x), heads, x.shape[1], -1)},
               "(B, N, D) viewed as (B, H, N, d), which mixes tokens and heads",
               "viewed as (B, N, H, d), then transposed", "x.view(B, N, heads, head_dim).transpose(1, 2)")
    yield Kind("head-merge", {"merge": lambda _, x: x.reshape(len(x), x.shape[2], -1)},
               "heads (B, H, N, d) merged without being transposed", "transposed first",
               "x.transpose(1, 2).reshape(B, N, dim)")
    yield Kind("head-merge", {"merge": lambda _, x: rearrange(x, "b h n d -> b n (d h)")}, "heads merged as (d h)",
               "as (h d)", "x.transpose(1, 2).reshape(B, N, dim)")
    yield Kind("batch-first", {"split": _split_over_batch, "merge": lambda _, x: merge_heads(x).transpose(0, 1)},
               "attention over the images of the batch", "over the tokens of an image", "batch_first=True")
    yield Kind("out-proj-missing", {"linear": _skipped}, "no output projection of attention", "one",
               "nn.Linear(dim, dim) after the heads are merged", only=r"\.out_proj$")
    yield _no_bias("out-proj-bias", "no bias of attention's output projection", r"\.out_proj$")
    rates = dict.fromkeys((config["attention_dropout"], config["dropout"], 0.1, 0.2, 0.5))
    for rate in filter(None, rates):
        yield Kind("dropout-in-eval", {"weights": _after(functools.partial(F.dropout, p=rate))},
                   f"dropout of attention weights at {rate:g} in eval mode", "none in eval mode",
                   "pass training=self.training", is_random=True)


_MASKS: dict[str, Callable[[int], Tensor]] = {
    "causal, no token sees later ones": lambda n: torch.ones(n, n, dtype=torch.bool).triu(1),
    "diagonal, no token sees itself": lambda n: torch.eye(n, dtype=torch.bool),
    "no token sees earlier ones": lambda n: torch.ones(n, n, dtype=torch.bool).tril(-1),
}


def _split_over_batch(_: Any, x: Tensor, heads: int) -> Tensor:
    return split_heads(x.transpose(0, 1), heads)


def _masked(scores: Tensor, *, hidden: Callable[[int], Tensor]) -> Tensor:
    return scores.masked_fill(hidden(scores.shape[-1]).to(scores.device), -math.inf)


def _softmax_with_zero_key(scores: Tensor) -> Tensor:
    return torch.cat([scores, torch.zeros_like(scores[..., :1])], -1).softmax(-1)[..., :-1]


def _part_zeroed(bias: Tensor | None, *, part: int) -> Tensor | None:
    if bias is None:
        return None
    parts = list(bias.chunk(3))
    parts[part] = torch.zeros_like(parts[part])
    return torch.cat(parts)


def _parts(original: Callable[..., tuple[Tensor, ...]], *parts: Tensor, which: tuple[int, ...]) -> tuple[Tensor, ...]:
    parts = original(*parts)
    return tuple(parts[part] for part in which)


def _parts_of(tensor: Tensor | None, *, which: tuple[int, ...]) -> Tensor | None:
    return None if tensor is None else torch.cat([tensor.chunk(3)[part] for part in which])


def _unpacked_as(_: Any, packed: Tensor, heads: int, *, order: str) -> tuple[Tensor, ...]:
    return tuple(rearrange(packed, f"b n ({order}) -> q b n (h d)", q=3, h=heads))


def _transposed_parts(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else torch.cat([part.T for part in weight.chunk(3)])


def _no_bias(id: str, phrase: str, only: str) -> Kind:  # noqa: A002
    return Kind(id, {"linear": lambda original, x, weight, _: original(x, weight, None)}, phrase, "one", "bias=True",
                only=only)


# --- how a block is wired; these take what `bent_vit.pre_norm` takes

_BRANCH = {1: "attention", 2: "the MLP"}


def _block_kinds(config: Mapping[str, Any]) -> Iterator[Kind]:
    def residual(id: str, number: int, function: Callable[..., Tensor], phrase: str, **others: Any) -> Kind:  # noqa: A002
        hint = "x = x + branch(norm(x)), which is pre-norm; x = norm(x + branch(x)) is post-norm"
        return Kind(id, {f"residual_{number}": _instead(function)}, phrase.format(_BRANCH[number], value="{value}"),
                    "the block's stream plus the branch", hint, only=_BLOCK, **others)

    for number in (1, 2):
        yield residual("residual-missing", number, lambda _, __, branch, ___: branch, "no residual around {}")
        yield residual("residual-source", number, lambda _, normed, branch, __: normed + branch,
                       "the residual around {} taken after the norm")
        yield residual("residual-operator", number, lambda stream, _, branch, __: stream * branch,
                       "the residual multiplied by {}'s output")
        yield residual("residual-operator", number, lambda stream, _, branch, __: stream - branch,
                       "{}'s output taken from the residual")
        yield residual("branch-missing", number, lambda stream, *_: stream, "the output of {} not used")
        yield residual("residual-doubled", number, lambda stream, _, branch, __: stream + stream + branch,
                       "the residual around {} added twice")
    yield residual("residual-source", 2, lambda _, __, branch, entered: entered + branch,
                   "the residual around {} taken from the block's input")
    wirings: dict[tuple[str, str, str], Callable[..., Any]] = {
        ("post-norm", "norms after the residual additions", "before attention and MLP"): _post_norm,
        ("post-norm", "norms at the ends of the branches", "before attention and MLP"): _norm_after_branch,
        ("parallel-branches", "attention and MLP side by side", "one after the other"): _parallel,
        ("parallel-branches", "attention and MLP side by side after one norm", "one after the other"): _from_one_norm,
        ("norms-swapped", "the two norms exchanged", "the first before attention"): _norms_swapped,
        ("norm-shared", "the first norm used twice", "one before each branch"): _first_norm_twice,
        ("norm-shared", "the second norm used twice", "one before each branch"): _second_norm_twice,
        ("branch-order", "the MLP before attention", "attention first"): _mlp_first,
        ("branch-missing", "no MLP branch", "attention and MLP"): _attention_only,
        ("branch-missing", "no attention branch", "attention and MLP"): _mlp_only,
    }
    for (id_, phrase, instead), wiring in wirings.items():
        yield Kind(id_, {"wiring": _instead(wiring)}, phrase, instead,
                   "x = x + attention(norm_1(x)); x = x + mlp(norm_2(x))", only=_BLOCK)
    for number in (1, 2):
        yield Kind("residual-scale",
                   {f"residual_{number}": lambda _, stream, __, branch, ___, value: stream + value * branch},
                   f"the output of {_BRANCH[number]} times {{value}}", "as it is", "x = x + branch(norm(x))",
                   only=_BLOCK, start=(0.1, 0.5, 2.0, config["num_layers"] ** -0.5))
        yield Kind("residual-scale",
                   {f"residual_{number}": lambda _, stream, __, branch, ___, value: value * stream + branch},
                   f"the residual around {_BRANCH[number]} times {{value}}", "as it is", "x = x + branch(norm(x))",
                   only=_BLOCK, start=(0.1, 0.5, 2.0))
    for operation in ("output", "handed_on"):
        yield Kind("final-norm-everywhere", {operation: lambda original, x, norm: norm(original(x, norm))},
                   "the final norm after the block as well", "after the last one only", "norm once, after all blocks",
                   only=_BLOCK)
    yield Kind("block-missing", {"wiring": _skipped}, "the block does nothing", "attention and MLP",
               "call every block", only=_BLOCK)
    rates = dict.fromkeys((config["dropout"], config["attention_dropout"], 0.1, 0.2, 0.5))
    for rate in filter(None, rates):
        for operation, only in (("dropout", ""), ("leave", _INSERTED)):
            yield Kind("dropout-in-eval", {operation: _after(functools.partial(F.dropout, p=rate))},
                       f"dropout at {rate:g} in eval mode", "none in eval mode", "pass training=self.training",
                       only=only, is_random=True)


def _post_norm(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    middle = norm_1(add_1(x, x, attention(x), x))
    return norm_2(add_2(middle, middle, mlp(middle), x))


def _norm_after_branch(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    middle = add_1(x, x, norm_1(attention(x)), x)
    return add_2(middle, middle, norm_2(mlp(middle)), x)


def _parallel(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y, z = norm_1(x), norm_2(x)
    return add_2(add_1(x, y, attention(y), x), z, mlp(z), x)


def _from_one_norm(x: Tensor, norm_1: Any, attention: Any, add_1: Any, _: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_1(x)
    return add_2(add_1(x, y, attention(y), x), y, mlp(y), x)


def _norms_swapped(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_2(x)
    middle = add_1(x, y, attention(y), x)
    y = norm_1(middle)
    return add_2(middle, y, mlp(y), x)


def _first_norm_twice(x: Tensor, norm_1: Any, attention: Any, add_1: Any, _: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_1(x)
    middle = add_1(x, y, attention(y), x)
    y = norm_1(middle)
    return add_2(middle, y, mlp(y), x)


def _second_norm_twice(x: Tensor, _: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    return _first_norm_twice(x, norm_2, attention, add_1, None, mlp, add_2)


def _mlp_first(x: Tensor, norm_1: Any, attention: Any, add_1: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_2(x)
    middle = add_2(x, y, mlp(y), x)
    y = norm_1(middle)
    return add_1(middle, y, attention(y), x)


def _attention_only(x: Tensor, norm_1: Any, attention: Any, add_1: Any, *_: Any) -> Any:
    y = norm_1(x)
    return add_1(x, y, attention(y), x)


def _mlp_only(x: Tensor, _: Any, __: Any, ___: Any, norm_2: Any, mlp: Any, add_2: Any) -> Any:
    y = norm_2(x)
    return add_2(x, y, mlp(y), x)


# --- MLP, and activations anywhere else


def _mlp_kinds(_: Mapping[str, Any]) -> Iterator[Kind]:
    for name, function in {**ACTIVATIONS, "no activation": lambda x: x}.items():
        yield Kind("activation", {"activation": _instead(function)}, f"{name} in the MLP", "exact GELU", "nn.GELU()")
    yield _no_bias("mlp-bias", "no bias of the MLP's first Linear", r"\.mlp\.0$")
    yield _no_bias("mlp-bias", "no bias of the MLP's second Linear", r"\.mlp\.3$")
    yield Kind("mlp-missing", {"mlp": _skipped}, "no MLP in its branch", "two Linears and a GELU", "call the MLP")
    for name, function in ADDED.items():
        for operation in ("output", "leave"):
            yield Kind("extra-activation", {operation: _after(function)}, f"{name} added", "none there",
                       "take the activation away", only=_INSERTED)
    for operation in ("output", "leave", "enter"):
        yield Kind("extra-norm", {operation: _normed}, "a LayerNorm without parameters added, eps {value},",
                   "none there", "take the norm away", only=_INSERTED, start=(1e-5, 1e-6))
    yield Kind("extra-norm", {"query_key": _normed}, "query and key normalised per head, eps {value},", "as they are",
               "take the norms away", start=(1e-5, 1e-6))


def _normed(original: Callable[..., Tensor], *arguments: Any, value: float) -> Tensor:
    return standardised(original(*arguments), value)


# --- from the last block to the logits

_POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "the mean of all tokens": lambda x: x.mean(1),
    "the mean of the patches' tokens": lambda x: x[:, 1:].mean(1),
    "the last token": lambda x: x[:, -1],
    "the first patch's token": lambda x: x[:, 1],
    "the maximum over all tokens": lambda x: x.amax(1),
    "the maximum over the patches' tokens": lambda x: x[:, 1:].amax(1),
    "the sum of all tokens": lambda x: x.sum(1),
    "the mean of all tokens but the last": lambda x: x[:, :-1].mean(1),
}


def _end_kinds(_: Mapping[str, Any]) -> Iterator[Kind]:
    for name, function in _POOLINGS.items():
        yield Kind("pooling", {"pooling": _instead(function)}, f"{name} goes to the head", "the class token",
                   "self.head(x[:, 0])")
        yield Kind("pooling", {"pooling": _instead(function), "end": lambda _, x, norm, pool: norm(pool(x))},
                   f"{name} goes to the final norm and the head", "the class token", "self.head(x[:, 0])")
    yield Kind("extra-norm", {"end": lambda _, x, norm, pool: pool(norm(norm(x)))}, "the final norm applied twice",
               "once", "self.head(self.norm(x)[:, 0])")
    yield _no_bias("head-bias", "no bias of the head", r"heads\.head$")
    yield _no_bias("pre-logits", "no bias of the pre-logits layer", r"heads\.pre_logits$")
    yield Kind("pre-logits", {"tanh": _skipped}, "no tanh after the pre-logits layer", "a tanh", "nn.Tanh()")
    for name, function in ADDED.items():
        yield Kind("pre-logits", {"tanh": _instead(function)}, f"{name} after the pre-logits layer", "a tanh",
                   "nn.Tanh()")
    outputs: dict[str, Activation] = {
        "softmax": functools.partial(torch.softmax, dim=-1),
        "log-softmax": functools.partial(torch.log_softmax, dim=-1),
        "softmax over the batch": functools.partial(torch.softmax, dim=0),
        **ADDED,
    }
    for name, function in outputs.items():
        yield Kind("output-activation", {"output": _after(function)}, f"{name} of the logits", "the logits",
                   "return the logits; the loss takes the softmax", only="^(heads)?$")
        if "softmax" not in name:
            yield Kind("extra-activation", {"input": _after(function)}, f"{name} before the head", "none there",
                       "take the activation away", only="^heads$")
    yield Kind("output-scale", {"output": lambda original, x, value: original(x) * value}, "logits times {value}",
               "as they are", "return the logits", only="^(heads)?$", start=(0.1, 0.5, 2.0, 10.0))


# --- roundings inside a run of higher precision


def _rounding_kinds(_: Mapping[str, Any]) -> Iterator[Kind]:
    for name, dtype in _NARROW.items():
        hint = f"take the cast to {name} away"
        for eps in (1e-6, 1e-5):
            with_eps = "" if eps == 1e-6 else f" with eps {eps:g}"
            yield Kind("norm-dtype", {"norm": functools.partial(_norm_in, dtype=dtype, eps=eps)},
                       f"LayerNorm in {name}{with_eps}", "in the model's dtype", hint, only=_NORM)
        yield Kind("attention-dtype", {"softmax": functools.partial(_computed_in, dtype=dtype)}, f"softmax in {name}",
                   "in the model's dtype", hint)
        for operation, what in (("scores", "scores"), ("softmax", "attention weights"), ("mix", "heads' output")):
            yield Kind("attention-dtype", {operation: functools.partial(_rounded_to, dtype=dtype)},
                       f"{what} rounded to {name}", "in the model's dtype", hint, only=_ATTENTION)
        for operation in ("activation", "output", "input", "images"):
            yield Kind("hidden-cast", {operation: functools.partial(_rounded_to, dtype=dtype)}, f"rounded to {name}",
                       "in the model's dtype", hint)


def _norm_in(
    _: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, *, dtype: torch.dtype, eps: float
) -> Tensor:
    narrow = [part if part is None else part.to(dtype) for part in (weight, bias)]
    return F.layer_norm(x.to(dtype), x.shape[-1:], narrow[0], narrow[1], eps).to(x.dtype)


def _computed_in(original: Callable[..., Tensor], x: Tensor, *others: Any, dtype: torch.dtype) -> Tensor:
    return original(x.to(dtype), *others).to(x.dtype)


def _rounded_to(original: Callable[..., Tensor], x: Tensor, *others: Any, dtype: torch.dtype) -> Tensor:
    result = original(x, *others)
    return result.to(dtype).to(result.dtype)


# --- tensors that only the reference has

_ABSENT = (
    (r"conv_proj\.bias", "patch-bias", "no bias of the patch projection", "bias=True"),
    (r"pos_embedding\[.*0:1\]", "position-of-class-token", "no position for the class token", "one row more"),
    (r"pos_embedding", "position-missing", "no learned position embedding", "nn.Parameter(torch.zeros(1, N + 1, dim))"),
    (r"in_proj_bias", "qkv-bias", "no bias of query, key and value", "bias=True"),
    (r"in_proj_weight", "qkv-missing", "no projection of its own", "nn.Linear(dim, 3 * dim)"),
    (r"out_proj\.weight", "out-proj-missing", "no output projection of attention", "nn.Linear(dim, dim)"),
    (r"out_proj\.bias", "out-proj-bias", "no bias of attention's output projection", "bias=True"),
    (r"ln(_\d)?\.weight", "layer-norm-scale", "LayerNorm without a scale", "nn.LayerNorm(dim, eps=1e-6)"),
    (r"ln(_\d)?\.bias", "layer-norm-bias", "LayerNorm without a bias", "nn.LayerNorm(dim, eps=1e-6)"),
    (r"mlp\.\d\.bias", "mlp-bias", "no bias in the MLP", "bias=True"),
    (r"mlp\.\d\.weight", "mlp-width", "another MLP", "nn.Linear(dim, mlp_dim)"),
    (r"heads\.head\.bias", "head-bias", "no bias of the head", "bias=True"),
    (r"heads\.head\.weight", "head-missing", "no such head", "nn.Linear(dim, num_classes)"),
    (r"heads\.pre_logits", "pre-logits", "no pre-logits layer", "nn.Linear(dim, representation_size)"),
)


def absences(names: Iterable[str], config: Mapping[str, Any]) -> list[Change]:
    """Returns the changes for tensors of the reference, or slices of them, that the candidate has no counterpart of."""
    left = dict.fromkeys(names)
    whole = {
        f"{module}.in_proj_{part}": [f"{module}.in_proj_{part}[{n * width}:{(n + 1) * width}]" for n in range(3)]
        for width in [config["hidden_dim"]]
        for part in ("weight", "bias")
        for module in {name.partition(".in_proj_")[0] for name in left if ".in_proj_" in name}
    }
    for name, slices in whole.items():
        if left.keys() >= set(slices):
            left = {n: None for n in left if n not in slices} | {name: None}
    changes = []
    for name in left:
        module, _, part = name.rpartition(".")
        pair = {f"{module}.weight", f"{module}.bias"} <= left.keys()
        if pair and re.search(_NORM, module):
            kind = _entry("layer-norm-affine", config)
        elif name == "class_token":
            changes.append(Change(_entry("class-token-zero", config), name))
            continue
        elif pair and re.search(r"(out_proj|pre_logits)$", module):
            kind = _entry("out-proj-missing", config) if "out_proj" in module else _NO_PRE_LOGITS
        else:
            changes.append(Change(_absence(name), split(name)[0]))
            continue
        if part == "weight":
            changes.append(Change(kind, module))
    return changes


_NO_PRE_LOGITS = Kind(
    "pre-logits", {"linear": _skipped}, "no pre-logits layer", "one", "nn.Linear(dim, representation_size)"
)


def _entry(id: str, config: Mapping[str, Any]) -> Kind:  # noqa: A002
    return next(kind for kind in catalogue(config) if kind.id == id)


def _absence(name: str) -> Kind:
    _, id_, phrase, hint = next(row for row in _ABSENT if re.search(row[0], name))
    box = split(name)[1]
    tensor = _after(functools.partial(_zeroed, box=box)) if box else _given(None)
    if ".in_proj_" in name and box:
        start, stop = box[0]
        part = ("query", "key", "value")[start // (stop - start)] if start % (stop - start) == 0 else "some rows"
        phrase = f"no {'bias' if 'bias' in name else 'projection'} of the {part}"
    return Kind(id_, {"tensor": tensor}, phrase, "one", hint)


def _zeroed(tensor: Tensor, *, box: Box) -> Tensor:
    tensor = tensor.clone()
    cut(tensor, box).zero_()
    return tensor


# fmt: on

# --- where, in words


def in_words(places: Sequence[str], config: Mapping[str, Any]) -> str:
    """Says where places are: `in all 25 norms`, `in self_attention of blocks 0 and 2`, `in encoder.ln`."""
    layers = config["num_layers"]
    places = list(dict.fromkeys(re.sub(r"\.(\w+_)?(weight|bias)$", "", place) for place in places))
    if len(places) == 2 * layers + 1 and all(re.search(_NORM, place) for place in places):
        return f"in all {len(places)} norms"
    blocks: dict[str, list[int]] = defaultdict(list)
    parts = []
    for place in places:
        match = re.match(r"encoder\.layers\.encoder_layer_(\d+)\.?(.*)", place)
        if match:
            blocks[match[2]].append(int(match[1]))
        else:
            parts.append(_PLACES.get(place, f"in {place}"))
    by_numbers: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for inside, numbers in blocks.items():
        by_numbers[tuple(numbers)].append(inside)
    for numbers_, insides in by_numbers.items():
        count = len(numbers_)
        which = f"block{'s' * (count > 1)} {joined(map(str, numbers_))}"
        if count == layers > 1:
            which = f"all {layers} blocks"
        names = [inside for inside in insides if inside]
        parts.append(f"in {joined(names)} of {which}" if names else f"in {which}")
    return joined(parts)


# places that go without saying
_PLACES = {"": "", "class_token": "", "encoder.pos_embedding": "", "encoder": "", "heads": "", "heads.head": ""}


def joined(parts: Iterable[str]) -> str:
    """Joins words as a sentence does."""
    words = [part for part in parts if part]
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
