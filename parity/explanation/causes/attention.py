"""Entries for self-attention, from the projections of query, key and value to that of the heads' output."""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch.nn import functional as F

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import merge_heads, split_heads
from parity.explanation.causes.variants import after, found, given, no_bias, replaced_by, skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Tensor = torch.Tensor


# a table reads best with an entry's parts side by side
# fmt: off
def kinds(config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for self-attention, the likeliest first."""
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
    yield Kind("attention-scale", {"scale": found}, "attention scale {value}", f"1 / sqrt(head width {head_width})",
               "(dim // num_heads) ** -0.5", start=grid, named=names)
    yield Kind("attention-transposed", {"weights": after(lambda weights: weights.transpose(-2, -1))},
               "attention weights transposed", "as they are", "weights @ v")
    yield Kind("extra-key", {"softmax": replaced_by(_softmax_with_zero_key)}, "one more key and value, of zeros",
               "the tokens alone", "add_zero_attn=False")
    yield Kind("qkv-bias", {"in_proj": lambda original, x, weight, _: original(x, weight, None)},
               "no bias of query, key and value", "one of each", "nn.Linear(dim, 3 * dim, bias=True)")
    for part, name in ((0, "query"), (2, "value")):
        yield Kind("qkv-bias", {"in_proj_bias": after(functools.partial(_part_zeroed, part=part))},
                   f"no bias of the {name}", "one", "nn.Linear(dim, dim, bias=True)")
    for order in itertools.permutations(range(3)):
        if order != (0, 1, 2):
            letters = "".join("qkv"[part] for part in order)
            yield Kind("qkv-order", {"roles": functools.partial(_parts, which=order)},
                       f"projections used as query, key and value in the order {letters}", "qkv",
                       "q, k, v = qkv.chunk(3, dim=-1)")
            rows = after(functools.partial(_parts_of, which=order))
            yield Kind("qkv-order", {"in_proj_weight": rows, "in_proj_bias": rows},
                       f"the fused projection's rows in the order {letters}", "qkv", "q, k, v = qkv.chunk(3, dim=-1)")
    for which in ((0, 0, 2), (1, 1, 2), (0, 1, 1), (0, 1, 0), (0, 2, 2), (2, 1, 2), (0, 0, 0), (1, 1, 1), (2, 2, 2)):
        letters = "".join("qkv"[part] for part in which)
        id_ = "key-shares-query" if which == (0, 0, 2) else "projection-shared"
        yield Kind(id_, {"roles": functools.partial(_parts, which=which)},
                   f"projections {letters} used as query, key and value", "one for each",
                   "a projection of its own for each")
    for packed in _PACKED_ORDERS:
        mixed = "tokens" if packed[0] == "b" else "images"
        yield Kind("qkv-layout", {"unpack": functools.partial(_unpacked_by_view, order=packed)},
                   f"the fused projection viewed as ({packed}), which mixes {mixed}",
                   "as (b n q h d)", "qkv.reshape(B, N, 3, heads, head_dim)")
    for axes in ("h q d", "h d q", "q d h", "d h q", "d q h"):
        yield Kind("qkv-layout", {"unpack": functools.partial(_unpacked_as, order=axes)},
                   f"the fused projection read as ({axes})", "(q h d)", "qkv.reshape(B, N, 3, heads, head_dim)")
    yield Kind("qkv-layout", {"split": lambda _, x, heads: rearrange(x, "b n (d h) -> b h n d", h=heads)},
               "features of query, key and value read as (d h)", "(h d)", "x.view(B, N, heads, head_dim)")
    yield Kind("qkv-transposed", {"in_proj_weight": after(_transposed_parts)},
               "the matrices of query, key and value transposed", "as nn.Linear has them",
               "transpose the weights as you load them")
    yield Kind("out-proj-transposed", {"linear": lambda original, x, weight, bias: original(x, weight.T, bias)},
               "the matrix of the output projection transposed", "as nn.Linear has it",
               "transpose the weights as you load them", only=r"\.out_proj$")
    for count in (n for n in range(1, width + 1) if width % n == 0 and n != heads):
        yield Kind("head-count", {"heads": given(count)}, f"{count} head{'s' * (count > 1)}",
                   f"{heads} head{'s' * (heads > 1)}", f"num_heads={heads}")
    yield Kind("head-split", {"split": lambda _, x, heads: x.reshape(len(x), heads, x.shape[1], -1)},
               "(B, N, D) viewed as (B, H, N, d), which mixes tokens and heads",
               "viewed as (B, N, H, d), then transposed", "x.view(B, N, heads, head_dim).transpose(1, 2)")
    yield Kind("head-merge", {"merge": lambda _, x: x.reshape(len(x), x.shape[2], -1)},
               "heads (B, H, N, d) merged without being transposed", "transposed first",
               "x.transpose(1, 2).reshape(B, N, dim)")
    yield Kind("head-merge", {"merge": lambda _, x: rearrange(x, "b h n d -> b n (d h)")}, "heads merged as (d h)",
               "as (h d)", "x.transpose(1, 2).reshape(B, N, dim)")
    yield from _mixtures(head_width)
    yield Kind("batch-first", {"split": _split_over_batch, "merge": lambda _, x: merge_heads(x).transpose(0, 1)},
               "attention over the images of the batch", "over the tokens of an image", "batch_first=True")
    yield Kind("out-proj-missing", {"linear": skipped}, "no output projection of attention", "one",
               "nn.Linear(dim, dim) after the heads are merged", only=r"\.out_proj$")
    yield no_bias("out-proj-bias", "no bias of attention's output projection", r"\.out_proj$")
    rates = dict.fromkeys((config["attention_dropout"], config["dropout"], 0.1, 0.2, 0.5))
    for rate in filter(None, rates):
        yield Kind("dropout-in-eval", {"weights": after(functools.partial(F.dropout, p=rate))},
                   f"dropout of attention weights at {rate:g} in eval mode", "none in eval mode",
                   "pass training=self.training", is_random=True)


# fmt: on


def _split_over_batch(_: Any, x: Tensor, heads: int) -> Tensor:
    return split_heads(x.transpose(0, 1), heads)


def _softmax_with_zero_key(scores: Tensor) -> Tensor:
    return torch.cat([scores, torch.zeros_like(scores[..., :1])], -1).softmax(-1)[..., :-1]


def _merged_as_if_transposed(_: Any, x: Tensor) -> Tensor:
    """(B, N, H, d) to (B, N, D) by way of (B, H, N, d)."""
    return x.transpose(1, 2).reshape(len(x), x.shape[1], -1)


def _first_head_for_all(
    original: Callable[..., tuple[Tensor, ...]], *parts: Tensor, which: tuple[int, ...], width: int
) -> tuple[Tensor, ...]:
    return tuple(
        part[..., :width].repeat(1, 1, part.shape[-1] // width) if number in which else part
        for number, part in enumerate(original(*parts))
    )


# Images, heads, tokens and features can stand in any order when they are taken apart or put together by a view; of
# those, the one that is right, and those that have entries of their own.
_RIGHT_ORDER, _OWN_SPLITS, _OWN_MERGES = "b n h d", ("b h n d", "b n d h"), ("b h n d", "b n d h")

# of query, key and value among the others, where the fused projection is taken apart
_PACKED_ORDERS = (
    "b q n h d", "q b n h d", "b q h n d", "q b h n d", "b h q n d", "b h n q d", "b h n d q", "n b q h d", "q n b h d",
)  # fmt: skip


# fmt: off
def _mixtures(head_width: int) -> Iterator[Kind]:
    """Yields the entries for heads that attend along another axis, or are taken apart or put together otherwise."""
    for merge, words in ((lambda _, x: x.flatten(2), ""), (_merged_as_if_transposed, ", then transposed and merged")):
        yield Kind("attention-axis", {"split": lambda _, x, heads: rearrange(x, "b n (h d) -> b n h d", h=heads),
                                      "merge": merge},
                   f"attention over the heads of a token{words}", "over the tokens of an image",
                   "x.view(B, N, heads, head_dim).transpose(1, 2)")
    for parts, names in (((1,), "key"), ((2,), "value"), ((1, 2), "key and value")):
        yield Kind("shared-heads", {"roles": functools.partial(_first_head_for_all, which=parts, width=head_width)},
                   f"the first head's {names} for all heads", "each head's own", "k and v of all heads")
    yield Kind("head-split", {"split": _stacked_and_viewed},
               "heads stacked along the batch, (h b), and viewed as (b h), which mixes images",
               f"viewed as ({_RIGHT_ORDER})", "x.view(B, N, heads, head_dim).transpose(1, 2)")
    yield Kind("head-merge", {"merge": _viewed_and_unstacked},
               "heads (b h) taken for ones stacked along the batch, (h b), which mixes images", f"as ({_RIGHT_ORDER})",
               "x.transpose(1, 2).reshape(B, N, dim)")
    for order in map(" ".join, itertools.permutations("bnhd")):
        mixed = "tokens" if order[0] == "b" else "images"
        split, merge = functools.partial(_split_by_view, order=order), functools.partial(_merged_in, order=order)
        if order not in (_RIGHT_ORDER, *_OWN_SPLITS):
            yield Kind("head-split", {"split": split},
                       f"query, key and value viewed as ({order}), which mixes {mixed}", f"viewed as ({_RIGHT_ORDER})",
                       "x.view(B, N, heads, head_dim).transpose(1, 2)")
        if order not in (_RIGHT_ORDER, *_OWN_MERGES):
            yield Kind("head-merge", {"merge": merge}, f"heads merged as ({order}), which mixes {mixed}",
                       f"as ({_RIGHT_ORDER})", "x.transpose(1, 2).reshape(B, N, dim)")
        if order != _RIGHT_ORDER:
            yield Kind("head-split", {"split": split, "merge": merge},
                       f"tokens viewed as ({order}) for attention and back, which mixes {mixed}",
                       f"viewed as ({_RIGHT_ORDER})", "x.view(B, N, heads, head_dim).transpose(1, 2)")
# fmt: on


def _stacked_and_viewed(_: Any, x: Tensor, heads: int) -> Tensor:
    return torch.cat(x.chunk(heads, dim=-1)).reshape(len(x), heads, x.shape[1], -1)


def _viewed_and_unstacked(_: Any, x: Tensor) -> Tensor:
    return torch.cat(x.reshape(x.shape[1], len(x), *x.shape[2:]).unbind(), dim=-1)


def _split_by_view(_: Any, x: Tensor, heads: int, *, order: str) -> Tensor:
    sizes = {"b": len(x), "n": x.shape[1], "h": heads, "d": x.shape[-1] // heads}
    return rearrange(x.reshape([sizes[axis] for axis in order.split()]), f"{order} -> b h n d")


def _merged_in(_: Any, x: Tensor, *, order: str) -> Tensor:
    return rearrange(x, f"b h n d -> {order}").reshape(len(x), x.shape[2], -1)


def _unpacked_by_view(_: Any, packed: Tensor, heads: int, *, order: str) -> tuple[Tensor, ...]:
    batch, tokens, width = packed.shape
    sizes = {"b": batch, "n": tokens, "q": 3, "h": heads, "d": width // 3 // heads}
    return tuple(rearrange(packed.reshape([sizes[axis] for axis in order.split()]), f"{order} -> q b n (h d)"))


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
