"""Entries of the catalogue for one candidate alone: operations with tensors that the reference has no counterpart of.

Consecutive operations of that sort are a *chain*: a norm, a scale, a projection, or several of them with activations
between. Where the candidate uses them tells between which modules of the reference they may stand.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import class_token_of, scaled_and_shifted, standardised
from parity.explanation.causes.head import POOLINGS, POOLINGS_TO_MORE
from parity.explanation.causes.places import NORM
from parity.explanation.causes.variants import ADDED
from parity.mapping import is_low_rank
from parity.models import cut, rearranged, split
from parity.tracing import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from parity.mapping import Operation, Uses, View
    from parity.models import WeightMap

    Tensor = torch.Tensor

HEAD = "heads.head"
_BLOCK = re.compile(r"encoder\.layers\.encoder_layer_\d+")
_WORDS = {"norm": "LayerNorm", "scale": "scale", "matrix": "projection", "attention": "attention"}
_BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {"": lambda x: x, **ADDED}


@dataclass(frozen=True)
class _Chain:
    """Operations that follow each other, and the reference's tensors that are used before and after them."""

    operations: tuple[Operation, ...]
    before: str
    after: str

    @property
    def pattern(self) -> str:
        """Its tensors' names without the block's number, which all blocks' chains of a sort share."""
        return "; ".join(_without_block(view.name) for op in self.operations for view in op.views)


def extra_kinds(used: Uses, found: WeightMap, held: Mapping[str, Tensor], config: Mapping[str, Any]) -> list[Kind]:
    """Returns an entry for every way in which a chain of the candidate may stand in the reference.

    Args:
        used: what the candidate does with its tensors.
        found: the weight map.
        held: the candidate's weights.
        config: torchvision's arguments of the reference.
    """
    chains: dict[str, list[_Chain]] = defaultdict(list)
    for chain in _chains(used, found):
        chains[chain.pattern].append(chain)
    kinds = []
    for members in chains.values():
        is_end = len(members) == 1 and not members[0].after and f"{HEAD}.weight" in found.unmapped_reference
        own = list(_head_kinds(members[0], held, config)) if is_end else []
        if is_low_rank(members[0].operations):
            own += _branch_kinds(members, held)
        kinds += [*own, *_norm_kinds(members, held, config)] or list(_kinds(members, held, found))
    tables = [view for view in used.free if view.name in {split(name)[0] for name in found.unmapped_candidate}]
    return kinds + [kind for view in tables for kind in _table_kinds(view, held, found)]


def _chains(used: Uses, found: WeightMap) -> Iterator[_Chain]:
    extra = {split(name)[0] for name in found.unmapped_candidate}
    partner = {split(entry.candidate)[0]: split(entry.reference)[0] for entry in found.entries}
    chain: list[Operation] = []
    before = ""
    for operation in used.operations:
        mapped = [partner[view.name] for view in operation.views if view.name in partner]
        if mapped:
            yield from _apart(chain, before, mapped[0])
            chain, before = [], mapped[0]
        elif all(view.name in extra for view in operation.views):
            chain.append(operation)
    yield from _apart(chain, before, "")


def _apart(operations: list[Operation], before: str, after: str) -> Iterator[_Chain]:
    """Yields one chain, or one for each branch of low rank where it consists of those."""
    pairs = [operations[number : number + 2] for number in range(0, len(operations), 2)]
    parts = pairs if all(map(is_low_rank, pairs)) else [operations]
    yield from (_Chain(tuple(part), before, after) for part in parts if part)


def _kinds(chains: Sequence[_Chain], held: Mapping[str, Tensor], found: WeightMap) -> Iterator[Kind]:
    """Yields entries for chains that are alike, one per block or one in all."""
    by_block = _by_block(chains)
    words = [_WORDS[op.kind] for op in chains[0].operations]
    modules = [re.sub(r"\.(weight|bias)$", "", op.views[0].name) for op in chains[0].operations]
    names = " and ".join(_without_block(name) if len(chains) > 1 else name for name in modules)
    has_norm = "LayerNorm" in words
    start = (1e-5, 1e-6) if has_norm else ()
    matrices = sum(op.kind == "matrix" for op in chains[0].operations)
    ids = {"LayerNorm": "extra-norm", "scale": "extra-scale", "projection": "extra-projection"}
    id_ = ids.get(words[-1] if matrices == 0 else "projection", "extra-operation")
    pixels = _pixel_order(found)
    for last in _BETWEEN if matrices else [""]:
        for between in _BETWEEN if matrices > 1 else [last]:
            if matrices > 1 and last not in ("", between):
                continue
            made = functools.partial(_chained, by_block=by_block, held=held, between=between, last=last)
            activations = " and ".join(dict.fromkeys(filter(None, (between if matrices > 1 else "", last))))
            phrase = f"an extra {' and '.join(words)} ({names})" + (f" with {activations}" if activations else "")
            phrase += ", eps {value}," if has_norm else ""
            for operation in ("output", "input", "leave", "enter"):
                yield Kind(id_, {operation: functools.partial(_then, made=made)}, phrase, "none there", "take it away",
                           start=start,  by_place=True)  # fmt: skip
            if not matrices and pixels is not None:
                yield Kind(id_, {"pixels": functools.partial(_on_pixels, made=made, order=pixels)},
                           phrase, "none there", "take it away", start=start, by_place=True)  # fmt: skip
            if not matrices:
                yield Kind(id_, {"query_key": functools.partial(_then, made=made)}, phrase + " of query and key",
                           "none there", "take it away", start=start, by_place=True)  # fmt: skip
            if matrices > 1:
                yield Kind("mlp-width", {"mlp": functools.partial(_in_place_of, made=made)},
                           f"an MLP of its own ({names}) with {activations or 'no activation'}", "one of its width",
                           "nn.Linear(dim, mlp_dim)", start=start, by_place=True)  # fmt: skip


def _head_kinds(chain: _Chain, held: Mapping[str, Tensor], config: Mapping[str, Any]) -> Iterator[Kind]:
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
        for between in _BETWEEN if len(matrices) > 1 else [""]:
            made = functools.partial(
                _chained, by_block=_by_block([chain]), held=held, between=between, last="", place=""
            )
            variants: dict[str, Any] = {"linear": functools.partial(_in_place_of, made=made)}
            if pool is not class_token_of:
                variants["pooling"] = functools.partial(_pooled, pool=pool)
            is_plain = len(chain.operations) == 1
            phrase = f"{own} classes" if own != classes else f"a head of its own ({names})"
            phrase += f" with {between or 'no activation'} between" * (not is_plain)
            phrase += " and eps {value}" * norms
            phrase += f", given {name}" * (pool is not class_token_of)
            instead = f"{classes} classes" if is_plain and pool is class_token_of else "one Linear on the class token"
            yield Kind("class-count" if instead[0].isdigit() else "head-shape", variants, phrase, instead,
                       f"nn.Linear(dim, {classes})", start=(1e-5, 1e-6) if norms else (), at=HEAD,
                       elsewhere={"pooling": "encoder"})  # fmt: skip


def _branch_kinds(chains: Sequence[_Chain], held: Mapping[str, Tensor]) -> Iterator[Kind]:
    """Yields entries for a branch of low rank beside a projection, or beside one of the attention's three."""
    made = functools.partial(_chained, by_block=_by_block(chains), held=held, between="", last="")
    rank = chains[0].operations[0].rows
    names = " and ".join(_without_block(op.views[0].name) if len(chains) > 1 else op.views[0].name
                         for op in chains[0].operations)  # fmt: skip
    for operation, part, where in (
        ("in_proj", None, "the projection to query, key and value"),
        *(("in_proj", number, f"the projection to the {name}") for number, name in enumerate(PARTS)),
        ("linear", None, "the projection"),
    ):
        yield Kind("low-rank-branch", {operation: functools.partial(_beside, made=made, part=part)},
                   f"a low-rank branch of rank {rank} ({names}), times {{value}}, beside {where}", "no such branch",
                   "merge it into the weight, or take it away", start=(1.0, 4.0), by_place=True)  # fmt: skip


def _beside(
    original: Callable[..., Tensor], x: Tensor, *others: Any, made: Callable[..., Tensor], part: int | None,
    place: str, value: float,
) -> Tensor:  # fmt: skip
    branch = value * made(x, place=place)
    result = original(x, *others)
    if part is None:
        return result + branch
    return torch.cat([t + branch * (number == part) for number, t in enumerate(result.chunk(len(PARTS), -1))], -1)


def _norm_kinds(chains: Sequence[_Chain], held: Mapping[str, Tensor], config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields entries for norms with a scale and a shift for every token, or every feature of every token."""
    first = chains[0].operations
    width, tokens = config["hidden_dim"], (config["image_size"] // config["patch_size"]) ** 2 + 1
    size = first[0].views[0].size
    if len(first) != 1 or first[0].kind != "norm" or size == width or size not in (tokens, tokens * width):
        return
    each = "token" if size == tokens else "feature of every token"
    for axes, over in (((-2, -1), "tokens and features together"), ((-1,), "features"), ((-2,), "tokens")):
        norm = functools.partial(_norm_of_its_own, by_block=_by_block(chains), held=held, axes=axes)
        name = _without_block(first[0].views[0].name)
        yield Kind("layer-norm-axes", {"norm": norm},
                   f"LayerNorm over {over} ({name}), with a scale and a shift for every {each}, eps {{value}},",
                   "LayerNorm over the features", f"nn.LayerNorm({width}, eps={{eps}})", start=(1e-5, 1e-6), only=NORM,
                   by_place=True)  # fmt: skip


def _norm_of_its_own(
    _: Any, x: Tensor, *__: Any, by_block: Mapping[str, _Chain], held: Mapping[str, Tensor], axes: tuple[int, ...],
    place: str, value: float,
) -> Tensor:  # fmt: skip
    """Carries out a norm in place of the reference's.

    Raises:
        KeyError: there is none at this place.
    """
    match = _BLOCK.match(place)
    chain = by_block[match[0] if match else ""]
    vectors = chain.operations[0].vectors
    scale, shift = (None if view is None else _value(view, held, x).reshape(x.shape[1], -1) for view in vectors)
    return scaled_and_shifted(standardised(x, value, axes), scale, shift)


def projections_with_branches(used: Uses, found: WeightMap) -> set[str]:
    """Returns the reference's modules whose counterparts have a branch of low rank beside them.

    What leaves such a counterpart is not yet what the reference's module returns.

    Args:
        used: what the candidate does with its tensors.
        found: the weight map.
    """
    tensors = {chain.before for chain in _chains(used, found) if is_low_rank(chain.operations)}
    modules = {re.sub(r"(_weight|\.weight)$", "", tensor) for tensor in tensors}
    attentions = {module.removesuffix(".in_proj") for module in modules if module.endswith(".in_proj")}
    return modules | {f"{attention}.{part}" for attention in attentions for part in ("query", "key", "value")}


def _pooled(_: Any, x: Tensor, *, pool: Callable[[Tensor], Tensor], value: float = 0.0) -> Tensor:  # noqa: ARG001
    return pool(x)


def _without_block(name: str) -> str:
    """Returns a name with a star for the block's number: the first that stands by itself, or else the first."""
    return re.sub(r"(?<![^.])\d+(?![^.])" if re.search(r"(^|\.)\d+\.", name) else r"\d+", "*", name, count=1)


def _by_block(chains: Sequence[_Chain]) -> dict[str, _Chain]:
    """Returns which chain belongs to which block of the reference; a single one belongs anywhere."""
    if len(chains) == 1:
        return defaultdict(lambda: chains[0])
    by_place = [
        [match[0] if (match := _BLOCK.match(name)) else "" for name in names]
        for names in ([chain.before for chain in chains], [chain.after for chain in chains])
    ]
    apart = [blocks for blocks in by_place if len({*blocks}) == len(chains)] or by_place[1:]
    # what leads into the first block has no block before it
    return dict(zip(next((blocks for blocks in apart if all(blocks)), apart[0]), chains, strict=True))


def _then(original: Callable[..., Tensor], *arguments: Any, made: Callable[..., Tensor], **options: Any) -> Tensor:
    return made(original(*arguments), **options)


def _in_place_of(_: Any, x: Tensor, *__: Any, made: Callable[..., Tensor], **options: Any) -> Tensor:
    return made(x, **options)


def _on_pixels(
    original: Callable[..., Tensor], x: Tensor, size: int, *, made: Callable[..., Tensor], order: Tensor, **options: Any
) -> Tensor:
    x = original(x, size)[..., order]  # as the candidate has them
    return made(x, **options)[..., order.argsort()]


def _chained(
    x: Tensor, *, by_block: Mapping[str, _Chain], held: Mapping[str, Tensor], between: str, last: str, place: str,
    value: float = 0.0,
) -> Tensor:  # fmt: skip
    """Carries out a chain's operations.

    Raises:
        KeyError: there is none at this place.
    """
    match = _BLOCK.match(place)
    chain = by_block[match[0] if match else ""]
    left = sum(op.kind == "matrix" for op in chain.operations)
    for operation in chain.operations:
        if operation.kind == "matrix":
            projection = operation.projections[0]
            rows = projection.matrix.rows
            weight = _value(projection.matrix.view, held, x).movedim(rows, tuple(range(len(rows))))
            bias = None if projection.bias is None else _value(projection.bias, held, x).flatten()
            left -= 1
            x = _BETWEEN[between if left else last](F.linear(x, weight.flatten(1), bias))
        else:
            scale, shift = (None if view is None else _value(view, held, x).flatten() for view in operation.vectors)
            if operation.kind == "norm":
                x = standardised(x, value)
            x = scaled_and_shifted(x, scale, shift)
    return x


def _value(view: View, held: Mapping[str, Tensor], like: Tensor) -> Tensor:
    tensor = held[view.name].detach().to(like)
    for item in view.item:
        tensor = tensor[item]
    return tensor


def _pixel_order(found: WeightMap) -> Tensor | None:
    """Returns for each pixel of a patch, as the candidate has them, its place in (c p q)."""
    entry = next((e for e in found.entries if e.reference == "conv_proj.weight"), None)
    if entry is None or "," not in entry.layout:
        return None
    sizes = dict(size.strip().split("=") for size in entry.layout.split(",")[1:])
    shape = [1, *(int(sizes[letter]) for letter in "cpq" if letter in sizes)]
    if len(shape) != 4:
        return None
    numbers = torch.arange(torch.Size(shape).numel()).reshape(shape)
    return rearranged(numbers, entry.layout).flatten()


def _table_kinds(view: View, held: Mapping[str, Tensor], found: WeightMap) -> Iterator[Kind]:
    """Yields entries for a table or token of the candidate's own that takes the place of the reference's."""

    def rows(x: Tensor) -> Tensor:
        return _value(view, held, x).reshape(1, -1, x.shape[-1])

    def added(_: Any, x: Tensor, __: Any) -> Tensor:
        return x + rows(x)

    def added_to_patches(_: Any, x: Tensor, __: Any) -> Tensor:
        return torch.cat([x[:, :1], x[:, 1:] + rows(x)], 1)

    def put_first(_: Any, x: Tensor, __: Any) -> Tensor:
        return torch.cat([rows(x).transpose(0, 1).expand(len(x), -1, -1), x], 1)

    def joining(*, behind: int, positions: str = "") -> Callable[..., Tensor]:
        def joined(original: Callable[..., Tensor], *arguments: Any) -> Tensor:
            x, tokens = original(*arguments), rows(arguments[0])
            if positions:
                name, box = split(positions)
                tokens = tokens + cut(held[name].detach(), box).to(x).reshape(tokens.shape)
            return torch.cat([x[:, :behind], tokens.expand(len(x), -1, -1), x[:, behind:]], 1)

        return joined

    tables = [part for part in found.unmapped_candidate if split(part)[1]]
    sizes = {part: cut(held[split(part)[0]], split(part)[1]).numel() for part in tables}
    for behind, where in ((1, "behind the class token"), (0, "before the class token")):
        own = [part for part, size in sizes.items() if size == view.size]
        variants: list[tuple[str, str, Callable[..., Tensor]]] = [
            *(("output", f" and positions ({part})", joining(behind=behind, positions=part)) for part in own),
            ("output", ", without positions", joining(behind=behind)),
            ("place", "", joining(behind=behind)),
        ]
        for operation, more, variant in variants:
            yield Kind("extra-tokens", {operation: variant}, f"extra tokens ({view.name}) {where}{more}", "none there",
                       "take them away", only="(pos_embedding|class_token)$")  # fmt: skip
    learned = "nn.Parameter(torch.zeros(1, N + 1, dim))"
    yield Kind("position-fixed", {"add": added}, f"the table {view.name} for positions", "a learned one", learned)
    yield Kind(
        "position-fixed", {"add": added_to_patches}, f"the table {view.name} for the patches' positions", "a learned "
        "one for all tokens", learned,
    )  # fmt: skip
    yield Kind("class-token-shape", {"place": put_first}, f"a class token of its own ({view.name})",
               "one of shape (1, 1, D)", "nn.Parameter(torch.zeros(1, 1, dim))")  # fmt: skip
