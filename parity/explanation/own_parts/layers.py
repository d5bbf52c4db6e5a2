"""Entries for layers of the candidate's own: another head, a gated MLP, a branch of low rank beside a projection."""

from __future__ import annotations

import functools
import itertools
import re
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import class_token_of
from parity.explanation.causes.head import POOLINGS, POOLINGS_TO_MORE
from parity.explanation.own_parts.chains import (
    BETWEEN,
    BLOCK,
    chained,
    chains_by_block,
    chains_of,
    in_place_of,
    value_of,
    without_block,
)
from parity.mapping import is_low_rank
from parity.models import split
from parity.tracing import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from parity.explanation.own_parts.chains import Chain
    from parity.mapping import Uses
    from parity.models import WeightMap

    Tensor = torch.Tensor

HEAD = "heads.head"


def head_kinds(chain: Chain, held: Mapping[str, Tensor], config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields entries for a head of the candidate's own, after every pooling that gives it as many features as it takes.

    A single matrix on one token is the reference's head with another number of classes.
    """
    matrices = [op.projections[0].matrix for op in chain.operations if op.kind == "matrix"]
    if not matrices:
        return
    names = " and ".join(re.sub(r"\.(weight|bias)$", "", op.views[0].name) for op in chain.operations)
    norms = any(op.kind == "norm" for op in chain.operations)
    classes, own = config["num_classes"], matrices[-1].shape[0]
    tokens = (config["image_size"] // config["patch_size"]) ** 2 + 1
    like = torch.empty(1, tokens, config["hidden_dim"])
    for name, pool in {"the class token": class_token_of, **POOLINGS, **POOLINGS_TO_MORE}.items():
        if pool(like).shape[-1] != matrices[0].shape[1]:
            continue
        for between in BETWEEN if len(matrices) > 1 else [""]:
            made = functools.partial(
                chained, by_block=chains_by_block([chain]), held=held, between=between, last="", place=""
            )
            variants: dict[str, Any] = {}
            if pool is not class_token_of:
                variants["pooling"] = functools.partial(_pooled, pool=pool)
            is_plain = len(chain.operations) == 1
            phrase = f"{own} classes" if own != classes else f"a head of its own ({names})"
            phrase += f" with {between or 'no activation'} between" * (not is_plain)
            phrase += " and eps {value}" * norms
            phrase += f", given {name}" * (pool is not class_token_of)
            instead = f"{classes} classes" if is_plain and pool is class_token_of else "one Linear on the class token"
            for which, kept in _kept_classes(own, classes).items():
                inside = functools.partial(_head_variants, made=made, kept=kept, variants=variants)
                yield Kind("class-count" if instead[0].isdigit() else "head-shape", inside(None),
                           phrase + which, instead, f"nn.Linear(dim, {classes})",
                           start=(1e-5, 1e-6) if norms else (), at=HEAD,
                           elsewhere={"pooling": "encoder"}, inside=inside if len(matrices) > 1 else None)  # fmt: skip


def _head_variants(
    inside: Callable[..., Tensor] | None, *, made: Callable[..., Tensor], kept: slice, variants: Mapping[str, Any]
) -> dict[str, Any]:
    made = functools.partial(made, inside=inside) if inside else made
    return {
        **variants,
        "linear": functools.partial(in_place_of, made=functools.partial(_some_of, made=made, kept=kept)),
    }


def _kept_classes(own: int, classes: int) -> dict[str, slice]:
    """Returns which of a head's classes may be returned, in words."""
    more = own - classes
    if more <= 0:
        return {"": slice(None)}
    return {
        "": slice(None),
        f", without the first {more}": slice(more, None),
        f", without the last {more}": slice(None, -more),
    }


def _some_of(x: Tensor, *, made: Callable[..., Tensor], kept: slice, **options: Any) -> Tensor:
    return made(x, **options)[..., kept]


def _pooled(_: Any, x: Tensor, *, pool: Callable[[Tensor], Tensor], value: float = 0.0) -> Tensor:  # noqa: ARG001
    return pool(x)


def second_head_kinds(chain: Chain, held: Mapping[str, Tensor], found: WeightMap) -> Iterator[Kind]:
    """Yields entries for a second head, on another token than the first, whose logits are joined with the first's."""
    first = next((split(e.candidate)[0] for e in found.entries if e.reference == f"{HEAD}.weight"), None)
    matrices = [op.projections[0].matrix.shape for op in chain.operations if op.kind == "matrix"]
    is_second = chain.after.startswith(HEAD) or (chain.before.startswith(HEAD) and not chain.after)
    if first is None or not is_second or len(chain.operations) != 1 or matrices != [tuple(held[first].shape)]:
        return
    made = functools.partial(chained, by_block=chains_by_block([chain]), held=held, between="", last="", place="")
    heads = [name.removesuffix(".weight") for name in (first, chain.operations[0].views[0].name)]
    places = {"the first token": 0, "the second token": 1, "the last token": -1}
    for (name, count), one, other in itertools.product({"mean": 2, "sum": 1}.items(), places, places):
        variants: dict[str, Any] = {
            "join": functools.partial(_joined_with, made=made, token=places[other], count=count)
        }
        if places[one]:
            variants["pooling"] = functools.partial(_pooled, pool=functools.partial(_token, number=places[one]))
        on = sorted(zip((one, other), heads, strict=True))
        phrase = f"the {name} of two heads' logits, {' and '.join(f'{head} on {token}' for token, head in on)},"
        if one != other or not places[one]:
            yield Kind("two-heads", variants, phrase, "one head", f"nn.Linear(dim, {matrices[0][0]})", at="heads",
                       elsewhere={"pooling": "encoder"})  # fmt: skip


def _joined_with(
    original: Callable[..., Tensor],
    logits: Tensor,
    tokens: Tensor,
    *,
    made: Callable[..., Tensor],
    token: int,
    count: int,
) -> Tensor:
    return (original(logits, tokens) + made(tokens[:, token])) / count


def _token(x: Tensor, *, number: int) -> Tensor:
    return x[:, number]


def branch_kinds(chains: Sequence[Chain], held: Mapping[str, Tensor]) -> Iterator[Kind]:
    """Yields entries for a branch of low rank beside a projection, or beside one of the attention's three."""
    made = functools.partial(chained, by_block=chains_by_block(chains), held=held, between="", last="")
    rank = chains[0].operations[0].rows
    names = " and ".join(without_block(op.views[0].name) if len(chains) > 1 else op.views[0].name
                         for op in chains[0].operations)  # fmt: skip
    for operation, part, where in (
        ("in_proj", None, "the projection to query, key and value"),
        *(("in_proj", number, f"the projection to the {name}") for number, name in enumerate(PARTS)),
        ("linear", None, "the projection"),
    ):
        yield Kind("low-rank-branch", {operation: functools.partial(_beside, made=made, part=part)},
                   f"a low-rank branch of rank {rank} ({names}), times {{value}}, beside {where}", "no such branch",
                   "merge it into the weight, or take it away", start=(1.0, 4.0), by_place=True)  # fmt: skip


def adapter_kinds(chains: Sequence[Chain], held: Mapping[str, Tensor]) -> Iterator[Kind]:
    """Yields entries for a branch of low rank that is added to what it takes, with an activation in it."""
    rank = chains[0].operations[0].rows
    names = " and ".join(without_block(op.views[0].name) if len(chains) > 1 else op.views[0].name
                         for op in chains[0].operations)  # fmt: skip
    for between, operation in itertools.product(BETWEEN, ("output", "leave", "input")):
        made = functools.partial(chained, by_block=chains_by_block(chains), held=held, between=between, last="")
        yield Kind("adapter", {operation: functools.partial(_added, made=made)},
                   f"an adapter of rank {rank} ({names}) with {between or 'no activation'}", "none there",
                   "take it away", by_place=True)  # fmt: skip


def _added(original: Callable[..., Tensor], *arguments: Any, made: Callable[..., Tensor], place: str) -> Tensor:
    x = original(*arguments)
    return x + made(x, place=place)


def _beside(
    original: Callable[..., Tensor], x: Tensor, *others: Any, made: Callable[..., Tensor], part: int | None,
    place: str, value: float,
) -> Tensor:  # fmt: skip
    branch = value * made(x, place=place)
    result = original(x, *others)
    if part is None:
        return result + branch
    return torch.cat([t + branch * (number == part) for number, t in enumerate(result.chunk(len(PARTS), -1))], -1)


def gated_kinds(chains: Sequence[Chain], held: Mapping[str, Tensor], found: WeightMap) -> Iterator[Kind]:
    """Yields entries for an MLP in which one projection's output is multiplied with another's.

    The two may be fused, and what of the MLP corresponds to the reference's is taken from there.
    """
    if not _is_gate(chains[0], found):
        return
    mapped = {split(entry.reference)[0] for entry in found.entries}
    by_block = chains_by_block(chains)
    name = re.sub(r"\.(weight|bias)$", "", chains[0].operations[0].views[0].name)
    names = without_block(name) if len(chains) > 1 else name
    for activation, is_first in itertools.product([*BETWEEN, "sigmoid"], (True, False)):
        gated = functools.partial(_gated, by_block=by_block, held=held, mapped=mapped, activation=activation,
                                  is_first=is_first)  # fmt: skip
        which = "the first" if is_first else "the second"
        phrase = f"a gated MLP ({names}), in which {activation or 'nothing'} of {which} projection is multiplied"
        yield Kind("mlp-gated", {"mlp": gated}, f"{phrase} with the other", "two Linears and a GELU",
                   "nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))",
                   by_place=True)  # fmt: skip


def _is_gate(chain: Chain, found: WeightMap) -> bool:
    """Whether a chain stands in an MLP and makes a gated one of it."""
    mapped = {split(entry.reference)[0] for entry in found.entries}
    if any(operation.kind != "matrix" for operation in chain.operations):
        return False
    match = BLOCK.match(chain.after) if ".mlp." in chain.after else BLOCK.match(chain.before)
    if match is None:
        return False
    known = sum(f"{match[0]}.mlp.{number}.weight" in mapped for number in (0, 3))
    return (".mlp." in chain.after or known == 0) and known + len(chain.operations) in (2, 3)


def _gated(
    _: Any, x: Tensor, layer: Callable[[int], tuple[Tensor, Tensor | None]], *, by_block: Mapping[str, Chain],
    held: Mapping[str, Tensor], mapped: Collection[str], activation: str, is_first: bool, place: str,
) -> Tensor:  # fmt: skip
    """Carries out a gated MLP.

    Raises:
        KeyError: there is none at this place.
    """
    match = BLOCK.match(place)
    layers: list[tuple[Tensor, Tensor | None]] = []
    for operation in by_block[match[0] if match else ""].operations:
        projection = operation.projections[0]
        bias = None if projection.bias is None else value_of(projection.bias, held, x).flatten()
        weight = value_of(projection.matrix.view, held, x)
        layers.append((weight if projection.matrix.rows == (0,) else weight.mT, bias))
    for number, position in ((0, 1), (3, len(layers) + 1)):
        if f"{place}.{number}.weight" in mapped:
            layers.insert(position, layer(number))
    *wide, last = layers
    hidden = torch.cat([F.linear(x, *layer) for layer in wide], -1).chunk(2, -1)
    one, other = hidden if is_first else reversed(hidden)
    return F.linear(BETWEEN[activation](one) * other, *last)


def modules_with_more(used: Uses, found: WeightMap) -> set[str]:
    """Returns the reference's modules whose counterparts have a branch beside them, or are parts of a gated MLP.

    What leaves such a counterpart is not yet what the reference's module returns.

    Args:
        used: what the candidate does with its tensors.
        found: the weight map.
    """
    modules: set[str] = set()
    for chain in chains_of(used, found):
        if is_low_rank(chain.operations):
            module = re.sub(r"(_weight|\.weight)$", "", chain.before)
            attention = module.removesuffix(".in_proj")
            modules |= {module} | {f"{attention}.{part}" for part in ("query", "key", "value") if attention != module}
        elif _is_gate(chain, found):
            match = BLOCK.match(chain.after) or BLOCK.match(chain.before)
            modules |= {f"{match[0]}.mlp.{number}" for number in range(5)} if match else set()
    return modules
