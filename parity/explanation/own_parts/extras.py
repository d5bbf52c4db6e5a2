"""Entries of the catalogue for one candidate alone: what its tensors without a counterpart may do in the reference."""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

from parity.explanation.bending import Kind
from parity.explanation.own_parts.attention import attention_kinds, query_key_kinds
from parity.explanation.own_parts.chains import (
    BETWEEN,
    chained,
    chains_by_block,
    chains_of,
    in_place_of,
    then,
    value_of,
    without_block,
)
from parity.explanation.own_parts.layers import (
    HEAD,
    adapter_kinds,
    branch_kinds,
    gated_kinds,
    head_kinds,
    second_head_kinds,
)
from parity.explanation.own_parts.norms import batch_norm_kinds, norm_kinds
from parity.explanation.own_parts.widths import width_kinds
from parity.mapping import is_low_rank
from parity.models import IDENTITY, cut, rearranged, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from parity.explanation.own_parts.chains import Chain
    from parity.mapping import Uses, View
    from parity.models import WeightMap

    Tensor = torch.Tensor

_WORDS = {"norm": "LayerNorm", "scale": "scale", "matrix": "projection", "attention": "attention"}


def extra_kinds(used: Uses, found: WeightMap, held: Mapping[str, Tensor], config: Mapping[str, Any]) -> list[Kind]:
    """Returns an entry for every way in which a chain of the candidate may stand in the reference.

    Args:
        used: what the candidate does with its tensors.
        found: the weight map.
        held: the candidate's weights.
        config: torchvision's arguments of the reference.
    """
    chains: dict[str, list[Chain]] = defaultdict(list)
    for chain in chains_of(used, found):
        chains[chain.pattern].append(chain)
    kinds: list[Kind] = []
    for members in chains.values():
        is_end = len(members) == 1 and not members[0].after and f"{HEAD}.weight" in found.unmapped_reference
        own = list(head_kinds(members[0], held, config)) if is_end else []
        own = own or list(norm_kinds(members, held, config))
        if len(members) == 1:
            kinds += second_head_kinds(members[0], held, found)
        if is_low_rank(members[0].operations):
            kinds += [*branch_kinds(members, held), *adapter_kinds(members, held)]
        own = own or list(width_kinds(members, held, config))
        kinds += query_key_kinds(members, held, config)
        kinds += own or [*gated_kinds(members, held, found), *_kinds(members, held, found)]
    kinds += _norms_around_patches([m[0] for m in chains.values() if len(m) == 1], held, found)
    kinds += [*batch_norm_kinds(used, found, held), *attention_kinds(used, found, held, config)]
    tables = [view for view in used.free if view.name in {split(name)[0] for name in found.unmapped_candidate}]
    return kinds + [kind for view in tables for kind in _table_kinds(view, held, found)]


def _kinds(chains: Sequence[Chain], held: Mapping[str, Tensor], found: WeightMap) -> Iterator[Kind]:
    """Yields entries for chains that are alike, one per block or one in all."""
    by_block = chains_by_block(chains)
    words = [_WORDS[op.kind] for op in chains[0].operations]
    modules = [re.sub(r"\.(weight|bias)$", "", op.views[0].name) for op in chains[0].operations]
    names = " and ".join(without_block(name) if len(chains) > 1 else name for name in modules)
    has_norm = "LayerNorm" in words
    start = (1e-5, 1e-6) if has_norm else ()
    matrices = sum(op.kind == "matrix" for op in chains[0].operations)
    ids = {"LayerNorm": "extra-norm", "scale": "extra-scale", "projection": "extra-projection"}
    id_ = ids.get(words[-1] if matrices == 0 else "projection", "extra-operation")
    pixels = _pixel_order(found, chains[0].operations[0].key[-1])
    for last in BETWEEN if matrices else [""]:
        for between in BETWEEN if matrices > 1 else [last]:
            if matrices > 1 and last not in ("", between):
                continue
            made = functools.partial(chained, by_block=by_block, held=held, between=between, last=last)
            activations = " and ".join(dict.fromkeys(filter(None, (between if matrices > 1 else "", last))))
            phrase = f"an extra {' and '.join(words)} ({names})" + (f" with {activations}" if activations else "")
            phrase += ", eps {value}," if has_norm else ""
            for operation in ("output", "input", "leave", "enter"):
                yield Kind(id_, {operation: functools.partial(then, made=made)}, phrase, "none there", "take it away",
                           start=start,  by_place=True)  # fmt: skip
            if not matrices and pixels is not None:
                yield Kind(id_, {"pixels": functools.partial(_on_pixels, made=made, order=pixels)},
                           phrase, "none there", "take it away", start=start, by_place=True)  # fmt: skip
            if not matrices:
                yield Kind(id_, {"query_key": functools.partial(then, made=made)}, phrase + " of query and key",
                           "none there", "take it away", start=start, by_place=True)  # fmt: skip
            if matrices:
                own = f"an MLP of its own ({names}) with {activations or 'no activation'}"
                single = f"one Linear ({names}) for the MLP" + f", with {activations}" * bool(activations)
                yield Kind("mlp-width", {"mlp": functools.partial(in_place_of, made=made)},
                           own if matrices > 1 else single, "one of its width" if matrices > 1 else
                           "two Linears and a GELU", "nn.Linear(dim, mlp_dim)", start=start,
                           by_place=True)  # fmt: skip


def _norms_around_patches(chains: Sequence[Chain], held: Mapping[str, Tensor], found: WeightMap) -> Iterator[Kind]:
    """Yields an entry for a norm before the patch projection and one behind it."""
    norms = [chain for chain in chains if len(chain.operations) == 1 and chain.operations[0].kind == "norm"]
    before, behind = (
        next((c for c in norms if getattr(c, side).startswith("conv_proj.")), None) for side in ("after", "before")
    )
    order = _pixel_order(found, before.operations[0].key[-1]) if before else None
    if before is None or behind is None or order is None:
        return
    one, other = (
        functools.partial(chained, by_block=chains_by_block([chain]), held=held, between="", last="")
        for chain in (before, behind)
    )
    names = [chain.operations[0].views[0].name.removesuffix(".weight") for chain in (before, behind)]
    variants = {
        "pixels": functools.partial(_on_pixels, made=one, order=order),
        "output": functools.partial(then, made=other),
    }
    yield Kind("extra-norm", variants, f"a LayerNorm before the patch projection ({names[0]}) and one behind it "
               f"({names[1]}), eps {{value}},", "none there", "take them away", start=(1e-5, 1e-6),
               by_place=True)  # fmt: skip


def _on_pixels(
    original: Callable[..., Tensor], x: Tensor, size: int, *, made: Callable[..., Tensor], order: Tensor, **options: Any
) -> Tensor:
    x = original(x, size)[..., order]  # as the candidate has them
    return made(x, **options)[..., order.argsort()]


def _pixel_order(found: WeightMap, patch_values: int) -> Tensor | None:
    """Returns for each of so many values of a patch, as the candidate has them, its place in (c p q)."""
    entry = next((e for e in found.entries if e.reference == "conv_proj.weight"), None)
    if entry is not None and entry.layout == IDENTITY:
        return torch.arange(patch_values)
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
        return value_of(view, held, x).reshape(1, -1, x.shape[-1])

    def added(_: Any, x: Tensor, __: Any) -> Tensor:
        return x + rows(x)

    def added_to_patches(_: Any, x: Tensor, __: Any) -> Tensor:
        return torch.cat([x[:, :1], x[:, 1:] + rows(x)], 1)

    def put_first(_: Any, x: Tensor, __: Any) -> Tensor:
        return torch.cat([rows(x).transpose(0, 1).expand(len(x), -1, -1), x], 1)

    def joining(*, behind: int | None, positions: str = "") -> Callable[..., Tensor]:
        def joined(original: Callable[..., Tensor], *arguments: Any) -> Tensor:
            x, tokens = original(*arguments), rows(arguments[0])
            if positions:
                name, box = split(positions)
                tokens = tokens + cut(held[name].detach(), box).to(x).reshape(tokens.shape)
            first = x.shape[1] if behind is None else behind
            return torch.cat([x[:, :first], tokens.expand(len(x), -1, -1), x[:, first:]], 1)

        return joined

    tables = [part for part in found.unmapped_candidate if split(part)[1]]
    sizes = {part: cut(held[split(part)[0]], split(part)[1]).numel() for part in tables}
    count = view.size // view.shape[-1] if view.shape else 1
    extra = f"{count} extra tokens" if count > 1 else "an extra token"
    for behind, where in ((1, "behind the class token"), (0, "before the class token"), (None, "behind all others")):
        own = [part for part, size in sizes.items() if size == view.size]
        variants: list[tuple[str, str, Callable[..., Tensor]]] = [
            *(("output", f" and positions ({part})", joining(behind=behind, positions=part)) for part in own),
            ("output", ", without positions", joining(behind=behind)),
            ("place", "", joining(behind=behind)),
            ("leave", ", without positions", joining(behind=behind)),
        ]
        for operation, more, variant in variants:
            yield Kind("extra-tokens", {operation: variant}, f"{extra} ({view.name}) {where}{more}", "none there",
                       "take them away", only=r"(pos_embedding|class_token|^encoder\.dropout)$")  # fmt: skip
    learned = "nn.Parameter(torch.zeros(1, N + 1, dim))"
    yield Kind("position-fixed", {"add": added}, f"the table {view.name} for positions", "a learned one", learned)
    yield Kind(
        "position-fixed", {"add": added_to_patches}, f"the table {view.name} for the patches' positions", "a learned "
        "one for all tokens", learned,
    )  # fmt: skip
    yield Kind("class-token-shape", {"place": put_first}, f"a class token of its own ({view.name})",
               "one of shape (1, 1, D)", "nn.Parameter(torch.zeros(1, 1, dim))")  # fmt: skip
