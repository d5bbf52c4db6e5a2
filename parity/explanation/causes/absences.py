"""Tensors that only the reference has: which change stands for the absence of each."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange, repeat

from parity.explanation.bending import Change, Kind
from parity.explanation.causes.catalogue import catalogue
from parity.explanation.causes.places import NORM
from parity.explanation.causes.variants import after, given, skipped
from parity.models import cut, put, split
from parity.tracing import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from parity.models import Box

    Tensor = torch.Tensor

_ABSENT = (
    (r"conv_proj\.bias", "patch-bias", "no bias of the patch projection", "bias=True"),
    (r"pos_embedding\[.*0:1\]", "position-of-class-token", "no position for the class token", "one row more"),
    (r"pos_embedding", "position-missing", "no learned position embedding", "nn.Parameter(torch.zeros(1, N + 1, dim))"),
    (r"in_proj_bias", "qkv-bias", "no bias of query, key and value", "bias=True"),
    (r"in_proj_weight", "qkv-missing", "no projection of its own", "nn.Linear(dim, 3 * dim)"),
    (r"out_proj\.weight", "out-proj-missing", "no output projection of attention", "nn.Linear(dim, dim)"),
    (r"out_proj\.bias", "out-proj-bias", "no bias of attention's output projection", "bias=True"),
    (r"ln(_\d)?\.weight", "layer-norm-scale", "LayerNorm without a scale", "nn.LayerNorm(dim, eps={eps})"),
    (r"ln(_\d)?\.bias", "layer-norm-bias", "LayerNorm without a bias", "nn.LayerNorm(dim, eps={eps})"),
    (r"mlp\.\d\.bias", "mlp-bias", "no bias in the MLP", "bias=True"),
    (r"mlp\.\d\.weight", "mlp-width", "another MLP", "nn.Linear(dim, mlp_dim)"),
    (r"heads\.head\.bias", "head-bias", "no bias of the head", "bias=True"),
    (r"heads\.head\.weight", "head-missing", "no such head", "nn.Linear(dim, num_classes)"),
    (r"heads\.pre_logits", "pre-logits", "no pre-logits layer", "nn.Linear(dim, representation_size)"),
)


def absences(names: Iterable[str], config: Mapping[str, Any]) -> list[Change]:
    """Returns the changes for tensors of the reference, or slices of them, that the candidate has no counterpart of."""
    width = config["hidden_dim"]
    changes, others = _on_slices(list(names), width)
    left = dict.fromkeys(_joined(others, width))
    whole = {name.removesuffix(".in_proj_weight") for name in left if name.endswith(".in_proj_weight")}
    for attention in [name for name in whole if f"{name}.out_proj.weight" in left]:
        changes.append(Change(_NO_ATTENTION, attention))
        left = {name: None for name in left if not name.startswith(f"{attention}.")}
    for name in left:
        module, _, part = name.rpartition(".")
        pair = {f"{module}.weight", f"{module}.bias"} <= left.keys()
        if pair and re.search(NORM, module):
            kind = _entry("layer-norm-affine", config)
        elif name == "class_token":
            changes.append(Change(_entry("class-token-zero", config), name))
            continue
        elif pair and module == "conv_proj" and config["patch_size"] ** 2 * config.get("in_channels", 3) == width:
            kind = _NO_PATCHES
        elif pair and module == "heads.pre_logits":
            kind = _NO_PRE_LOGITS
        elif pair and re.search(r"out_proj$|^heads\.head$", module):
            kind = _entry("head-missing" if module == "heads.head" else "out-proj-missing", config)
        else:
            changes += [Change(absence, split(name)[0]) for absence in _absence(name, width)]
            continue
        if part == "weight":
            changes.append(Change(kind, module))
    return changes


# where a patch has as many pixels as a token has features
_NO_PATCHES = Kind(
    "patch-projection-missing", {"projection": lambda _, pixels, *__: pixels}, "no projection of the patches", "one",
    "nn.Conv2d(3, dim, P, stride=P)",
)  # fmt: skip
_NO_ATTENTION = Kind(
    "attention-missing", {"attention": lambda _, x: torch.zeros_like(x)}, "no attention of such projections", "one",
    "nn.MultiheadAttention(dim, heads, batch_first=True)", zeros_for="attention",
)  # fmt: skip
_NO_PRE_LOGITS = Kind(
    "pre-logits", {"linear": skipped}, "no pre-logits layer", "one", "nn.Linear(dim, representation_size)"
)


def _on_slices(names: list[str], width: int) -> tuple[list[Change], list[str]]:
    """Returns the changes for attentions whose heads project a slice each, and the names that they don't stand for."""
    boxes = {name: split(name) for name in names}
    heads = {tensor: box[0].stop - box[0].start for tensor, box in boxes.values()
             if tensor.endswith(".in_proj_weight") and len(box) > 1}  # fmt: skip
    changes = []
    for tensor, head in heads.items():
        module = tensor.removesuffix(".in_proj_weight")
        is_shared = any(other == tensor and len(box) == 1 for other, box in boxes.values())
        variants = {"in_proj_weight": after(functools.partial(_on_diagonal, head=head, is_shared=is_shared))}
        phrase = f"each head's query, key and value made of its own {head} features"
        if is_shared:
            variants["in_proj_bias"] = after(functools.partial(_first_for_all, head=head))
            phrase += ", by weights that all heads share"
        kind = Kind("heads-on-slices", variants, phrase, f"of all {width}", "nn.Linear(dim, 3 * dim)")
        changes.append(Change(kind, module))
        is_bias = {name for name, (other, box) in boxes.items() if other == f"{module}.in_proj_bias" and box}
        names = [name for name in names if boxes[name][0] != tensor and not (is_shared and name in is_bias)]
    return changes, names


def _on_diagonal(weight: Tensor, *, head: int, is_shared: bool) -> Tensor:
    """(3D, D), all zero but for the blocks (d, d) of each head; the first one's for all where they share it."""
    heads = weight.shape[1] // head
    parts = rearrange(weight, "(p h d) (g e) -> p h g d e", p=len(PARTS), h=heads, g=heads)
    blocks = parts[:, :1, :1] if is_shared else parts
    diagonal = torch.eye(heads).to(weight)[:, :, None, None]
    return rearrange(blocks * diagonal, "p h g d e -> (p h d) (g e)")


def _first_for_all(bias: Tensor | None, *, head: int) -> Tensor | None:
    """(3D): the first head's share of query, key and value for every head."""
    if bias is None:
        return None
    parts = rearrange(bias, "(p h d) -> p h d", p=len(PARTS), d=head)
    return repeat(parts[:, 0], "p d -> (p h d)", h=parts.shape[1])


def _entry(id: str, config: Mapping[str, Any]) -> Kind:  # noqa: A002
    return next(kind for kind in catalogue(config) if kind.id == id)


def _joined(names: Iterable[str], width: int) -> Iterator[str]:
    """Yields the names, with slices of a packed projection, such as a head's, put together as far as they go."""
    rows: dict[str, set[int]] = {}
    for name in names:
        tensor, box = split(name)
        if ".in_proj_" in tensor and len(box) == 1:
            rows.setdefault(tensor, set()).update(range(box[0].start, box[0].stop))
        else:
            yield name
    for tensor, missing in rows.items():
        if len(missing) == len(PARTS) * width:
            yield tensor
            continue
        # where a run of rows begins or ends, and where one part ends and the next begins
        starts = [row for row in sorted(missing) if row - 1 not in missing or row % width == 0]
        stops = [row + 1 for row in sorted(missing) if row + 1 not in missing or (row + 1) % width == 0]
        yield from (f"{tensor}[{start}:{stop}]" for start, stop in zip(starts, stops, strict=True))


def _absence(name: str, width: int) -> Iterator[Kind]:
    """Yields the entry for a tensor that a ViT can be without; there is none for the kernel of the patch projection."""
    row = next((row for row in _ABSENT if re.search(row[0], name)), None)
    if row is None:
        return
    _, id_, phrase, hint = row
    box = split(name)[1]
    tensor = after(functools.partial(_zeroed, box=box)) if box else given(None)
    if ".in_proj_" in name and box:
        start, stop, _ = box[0]
        some = "some rows of " * (stop - start < width)
        phrase = f"no {'bias' if 'bias' in name else 'projection'} of {some}the {PARTS[start // width]}"
    yield Kind(id_, {"tensor": tensor}, phrase, "one", hint)


def _zeroed(tensor: Tensor, *, box: Box) -> Tensor:
    tensor = tensor.clone()
    put(tensor.new_zeros(cut(tensor, box).shape), tensor, box)
    return tensor
