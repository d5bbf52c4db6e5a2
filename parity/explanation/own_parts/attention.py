"""Entries for what a candidate's attention has of its own: shared keys and values, norms, and learned numbers.

A learned number may as well be what a branch is multiplied with.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import BLOCK, scaled_and_shifted, standardised
from parity.explanation.own_parts.chains import chains_by_block, projected, value_of, without_block
from parity.models import split
from parity.tracing import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from parity.explanation.own_parts.chains import Chain
    from parity.mapping import Operation, Uses, View
    from parity.models import WeightMap

    Tensor = torch.Tensor


def attention_kinds(
    used: Uses, found: WeightMap, held: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Iterator[Kind]:
    """Yields entries for keys and values that several heads share, and for a learned scale of the scores.

    Args:
        used: what the candidate does with its tensors.
        found: the weight map.
        held: the candidate's weights.
        config: torchvision's arguments of the reference.
    """
    grouped = [operation for operation in used.operations if operation.is_grouped]
    if len(grouped) == config["num_layers"]:
        yield from _shared_kinds(grouped, held, config)
    extra = {split(name)[0] for name in found.unmapped_candidate}
    vectors = [op.views[0] for op in used.operations if op.kind == "scale" and len(op.views) == 1]
    alike: dict[str, list[View]] = defaultdict(list)
    for view in (*vectors, *used.free):
        if view.name in extra and view.size in (1, config["num_heads"]):
            alike[without_block(view.name)].append(view)
    for name, views in alike.items():
        yield from _temperature_kinds(name, views, held, config)
        if views[0].size == 1:
            yield from _branch_kinds(name, views, held, config)


# --- keys and values


def _shared_kinds(
    operations: Sequence[Operation], held: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Iterator[Kind]:
    width, heads = config["hidden_dim"], config["num_heads"]
    shared = (operations[0].rows - width) // 2
    count = shared * heads // width
    first = max(operations[0].projections, key=lambda projection: projection.matrix.shape[0])
    names = dict.fromkeys(
        without_block(re.sub(r"\.(weight|bias)$", "", p.matrix.view.name))
        for p in operations[0].projections
        if p is not first or first.matrix.shape[0] > width
    )
    what = "one key and value for all heads" if count == 1 else f"{count} keys and values for {heads} heads"
    by_block = {BLOCK.format(number): operation for number, operation in enumerate(operations)}
    for order in ((0, 1), (1, 0)):
        for tiled, how in (
            ((False, ", neighbours alike"), (True, ", given out in turn")) if count > 1 else ((False, ""),)
        ):
            variant = functools.partial(
                _with_shared, by_block=by_block, held=held, order=order, heads=heads, tiled=tiled
            )
            yield Kind("shared-heads", {"in_proj": variant}, f"{what} ({' and '.join(names)}){how}",
                       "one of each for every head", f"nn.Linear({width}, {width}) for keys and for values",
                       by_place=True)  # fmt: skip


def _with_shared(
    original: Callable[..., Tensor], x: Tensor, *arguments: Any, by_block: Mapping[str, Operation],
    held: Mapping[str, Tensor], order: tuple[int, int], heads: int, tiled: bool, place: str,
) -> Tensor:  # fmt: skip
    """Puts a key and a value of fewer rows in the place of the reference's.

    Raises:
        KeyError: there are none at this place.
    """
    packed = original(x, *arguments)
    width = packed.shape[-1] // len(PARTS)
    rows = [
        projected(x, projection, held) for projection in by_block[place.removesuffix(".self_attention")].projections
    ]
    own = max(rows, key=lambda part: part.shape[-1])
    both = torch.cat([*(part for part in rows if part is not own), own[..., width:]], -1).chunk(2, -1)
    spread = []
    for number in order:
        groups = both[number].reshape(*x.shape[:2], -1, width // heads)
        count = heads // groups.shape[-2]
        spread.append((groups.repeat(1, 1, count, 1) if tiled else groups.repeat_interleave(count, -2)).flatten(-2))
    return torch.cat([packed[..., :width], *spread], -1)


# --- norms of queries and keys


def query_key_kinds(chains: Sequence[Chain], held: Mapping[str, Tensor], config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields entries for norms or scales of queries and keys, of each its own or one of both, per head or of all heads.

    Args:
        chains: alike, one per block or one in all.
        held: the candidate's weights.
        config: torchvision's arguments of the reference.
    """
    width = config["hidden_dim"]
    head = width // config["num_heads"]
    operations = chains[0].operations
    sizes = {operation.key[-1] for operation in operations}
    if len(operations) > 2 or any(op.projections for op in operations) or sizes not in ({head}, {width}):
        return
    operation = "queries_and_keys" if sizes == {head} else "roles"
    names = [without_block(re.sub(r"\.(weight|bias|scale)$", "", op.views[0].name)) for op in operations]
    # by the number of the part, 0 for the query and 1 for the key, the number of the chain's operation
    ways = [{0: 0, 1: 1}, {0: 1, 1: 0}] if len(operations) == 2 else [{0: 0}, {1: 0}, {0: 0, 1: 0}]
    for (norm, function), way in itertools.product(_NORMS.items(), ways):
        said = f"{' and '.join(PARTS[part] for part in way)} ({' and '.join(names)})"
        variant = functools.partial(_normed, by_block=chains_by_block(chains), held=held, way=way, function=function)
        has_eps = function in (standardised, _of_mean_square_1)
        yield Kind("extra-norm" if function is not _as_it_is else "extra-scale", {operation: variant},
                   f"an extra {norm} of {said}{', eps {value},' * has_eps}", "none there", "take it away",
                   start=(1e-5, 1e-6) if has_eps else (), by_place=True)  # fmt: skip


def _of_mean_square_1(x: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def _of_length_1(x: Tensor, _: float) -> Tensor:
    return F.normalize(x, dim=-1)


def _as_it_is(x: Tensor, _: float) -> Tensor:
    return x


_NORMS = {
    "LayerNorm": standardised,
    "RMSNorm": _of_mean_square_1,
    "scale": _as_it_is,
    "norm to length 1 and scale": _of_length_1,
}


def _normed(
    original: Callable[..., tuple[Tensor, ...]], *arguments: Any, by_block: Mapping[str, Chain],
    held: Mapping[str, Tensor], way: Mapping[int, int], function: Callable[[Tensor, float], Tensor], place: str,
    value: float = 0.0,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Carries out norms of queries and keys.

    Raises:
        KeyError: there are none at this place.
    """
    parts, operations = list(original(*arguments)), by_block[place.removesuffix(".self_attention")].operations
    for part, number in way.items():
        x = parts[part]
        vectors = (None if view is None else value_of(view, held, x).flatten() for view in operations[number].vectors)
        parts[part] = scaled_and_shifted(function(x, value), *vectors)
    return tuple(parts)


# --- the scale of the scores

# what becomes of a parameter before the scores are multiplied with it
_FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "{}": lambda t: t,
    "exp({})": torch.exp,
    "1 / {}": torch.reciprocal,
    "exp({}), at most 100": lambda t: t.clamp(max=math.log(100)).exp(),
    "softplus({})": F.softplus,
}


def _temperature_kinds(
    name: str, views: Sequence[View], held: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Iterator[Kind]:
    """Yields entries for scores times a learned number for each head, or one for all, of each block or for all."""
    root = math.sqrt(config["hidden_dim"] // config["num_heads"])
    if len(views) not in (1, config["num_layers"]):
        return
    by_block = {BLOCK.format(n): views[n if len(views) > 1 else 0] for n in range(config["num_layers"])}
    for form, function in _FORMS.items():
        learned = form.format(name)
        scaled = functools.partial(_scaled, by_block=by_block, held=held, function=function)
        yield Kind("cosine-attention", {"query_key": _unit_length, "scale": scaled},
                   f"query and key of length 1, their products times {learned}",
                   f"as they are, times 1 / sqrt({config['hidden_dim'] // config['num_heads']})",
                   "(q @ k.mT) * head_dim ** -0.5", by_place=True)  # fmt: skip
        for factor, words in ((1.0, learned), (1 / root, f"{learned} / sqrt(head width)")):
            yield Kind("attention-scale", {"scale": functools.partial(scaled, factor=factor)},
                       f"attention scale {words}", "1 / sqrt(head width)", "(dim // num_heads) ** -0.5",
                       by_place=True)  # fmt: skip


def _unit_length(original: Callable[..., Tensor], x: Tensor, *, place: str) -> Tensor:  # noqa: ARG001
    return F.normalize(original(x), dim=-1)


def _scaled(
    _: Any, query: Tensor, *, by_block: Mapping[str, View], held: Mapping[str, Tensor],
    function: Callable[[Tensor], Tensor], factor: float = 1.0, place: str,
) -> Tensor:  # fmt: skip
    """The scale of scores (B, H, N, N), for each head.

    Raises:
        KeyError: there is none at this place.
    """
    return function(value_of(by_block[place.removesuffix(".self_attention")], held, query)).reshape(-1, 1, 1) * factor


def _branch_kinds(
    name: str, views: Sequence[View], held: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Iterator[Kind]:
    """Yields entries for branches times a learned number, of each block or one for all."""
    if len(views) not in (1, config["num_layers"]):
        return
    by_block = {BLOCK.format(n): views[n if len(views) > 1 else 0] for n in range(config["num_layers"])}
    for numbers, words in (
        ((1,), "the output of attention"),
        ((2,), "the output of the MLP"),
        ((1, 2), "both branches"),
    ):
        scaled = functools.partial(_branch_scaled, by_block=by_block, held=held)
        yield Kind("extra-scale", dict.fromkeys((f"residual_{number}" for number in numbers), scaled),
                   f"{words} times a learned number ({name})", "as it is", "take it away", by_place=True)  # fmt: skip


def _branch_scaled(
    original: Callable[..., Tensor], stream: Tensor, normed: Tensor, branch: Tensor, entered: Tensor, *,
    by_block: Mapping[str, View], held: Mapping[str, Tensor], place: str,
) -> Tensor:  # fmt: skip
    """Adds a branch times a number.

    Raises:
        KeyError: there is none at this place.
    """
    return original(stream, normed, value_of(by_block[place], held, branch).flatten() * branch, entered)
