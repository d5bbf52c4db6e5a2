"""Tensors that only the reference has: which change stands for the absence of each."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from parity.explanation.bending import Change, Kind
from parity.explanation.causes.catalogue import catalogue
from parity.explanation.causes.places import NORM
from parity.explanation.causes.variants import after, given, skipped
from parity.models import cut, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

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
        if pair and re.search(NORM, module):
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
    "pre-logits", {"linear": skipped}, "no pre-logits layer", "one", "nn.Linear(dim, representation_size)"
)


def _entry(id: str, config: Mapping[str, Any]) -> Kind:  # noqa: A002
    return next(kind for kind in catalogue(config) if kind.id == id)


def _absence(name: str) -> Kind:
    _, id_, phrase, hint = next(row for row in _ABSENT if re.search(row[0], name))
    box = split(name)[1]
    tensor = after(functools.partial(_zeroed, box=box)) if box else given(None)
    if ".in_proj_" in name and box:
        start, stop = box[0]
        part = ("query", "key", "value")[start // (stop - start)] if start % (stop - start) == 0 else "some rows"
        phrase = f"no {'bias' if 'bias' in name else 'projection'} of the {part}"
    return Kind(id_, {"tensor": tensor}, phrase, "one", hint)


def _zeroed(tensor: Tensor, *, box: Box) -> Tensor:
    tensor = tensor.clone()
    cut(tensor, box).zero_()
    return tensor
