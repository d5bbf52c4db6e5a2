"""Entries for norms of the candidate's own: with a scale for every token, or by running statistics."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import scaled_and_shifted, standardised
from parity.explanation.causes.places import NORM
from parity.explanation.own_parts.chains import BLOCK, chains_by_block, value_of, without_block
from parity.models import split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from parity.explanation.own_parts.chains import Chain
    from parity.mapping import Uses
    from parity.models import WeightMap

    Tensor = torch.Tensor


def norm_kinds(chains: Sequence[Chain], held: Mapping[str, Tensor], config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields entries for norms with a scale and a shift for every token, or every feature of every token."""
    first = chains[0].operations
    width, tokens = config["hidden_dim"], (config["image_size"] // config["patch_size"]) ** 2 + 1
    size = first[0].views[0].size
    if len(first) != 1 or first[0].kind != "norm" or size == width or size not in (tokens, tokens * width):
        return
    each = "token" if size == tokens else "feature of every token"
    for axes, over in (((-2, -1), "tokens and features together"), ((-1,), "features"), ((-2,), "tokens")):
        norm = functools.partial(_norm_of_its_own, by_block=chains_by_block(chains), held=held, axes=axes)
        name = without_block(first[0].views[0].name)
        yield Kind("layer-norm-axes", {"norm": norm},
                   f"LayerNorm over {over} ({name}), with a scale and a shift for every {each}, eps {{value}},",
                   "LayerNorm over the features", f"nn.LayerNorm({width}, eps={{eps}})", start=(1e-5, 1e-6), only=NORM,
                   by_place=True)  # fmt: skip


def _norm_of_its_own(
    _: Any, x: Tensor, *__: Any, by_block: Mapping[str, Chain], held: Mapping[str, Tensor], axes: tuple[int, ...],
    place: str, value: float,
) -> Tensor:  # fmt: skip
    """Carries out a norm in place of the reference's.

    Raises:
        KeyError: there is none at this place.
    """
    match = BLOCK.match(place)
    chain = by_block[match[0] if match else ""]
    vectors = chain.operations[0].vectors
    scale, shift = (None if view is None else value_of(view, held, x).reshape(x.shape[1], -1) for view in vectors)
    return scaled_and_shifted(standardised(x, value, axes), scale, shift)


_MEAN, _VARIANCE = "running_mean", "running_var"


def batch_norm_kinds(used: Uses, found: WeightMap, held: Mapping[str, Tensor]) -> Iterator[Kind]:
    """Yields entries for norms by running statistics: in place of the reference's norms, or where it has none."""
    partner = {split(e.candidate)[0]: split(e.reference)[0].rpartition(".")[0] for e in found.entries}
    alike: dict[str, list[str]] = defaultdict(list)
    for name in used.statistics:
        if name.endswith(_MEAN):
            alike[without_block(name.removesuffix(f".{_MEAN}"))].append(name.removesuffix(f".{_MEAN}"))
    for pattern, modules in alike.items():
        phrase = f"BatchNorm ({modules[0] if len(modules) == 1 else pattern}) by its running statistics, eps {{value}},"
        instead = {partner[f"{m}.weight"]: m for m in modules if f"{m}.weight" in partner}
        if instead:
            norm = functools.partial(_by_running_statistics, modules=instead, held=held)
            yield Kind("batch-norm", {"statistics": norm}, phrase, "LayerNorm", "nn.LayerNorm(dim, eps={eps})",
                       start=(1e-5, 1e-6), only=NORM, by_place=True)  # fmt: skip
            continue
        blocks = {f"encoder.layers.encoder_layer_{number}": module for number, module in enumerate(modules)}
        by_block = blocks if len(modules) > 1 else defaultdict(functools.partial(str, modules[0]))
        for operation in ("output", "input", "leave", "enter"):
            norm = functools.partial(_then_by_running_statistics, modules=by_block, held=held)
            yield Kind("extra-norm", {operation: norm}, f"an extra {phrase}", "none there", "take it away",
                       start=(1e-5, 1e-6), by_place=True)  # fmt: skip


def _by_running_statistics(
    _: Any, x: Tensor, *__: Any, modules: Mapping[str, str], held: Mapping[str, Tensor], place: str, value: float
) -> Tensor:
    module = modules[place]
    mean, variance = (held[f"{module}.{name}"].detach().to(x) for name in (_MEAN, _VARIANCE))
    if mean.shape != x.shape[-1:]:  # a mean for each token
        mean, variance = mean[:, None], variance[:, None]
    return (x - mean) / torch.sqrt(variance + value)


def _then_by_running_statistics(
    original: Callable[..., Tensor], *arguments: Any, modules: Mapping[str, str], held: Mapping[str, Tensor],
    place: str, value: float,
) -> Tensor:  # fmt: skip
    match = BLOCK.match(place)
    block = match[0] if match else ""
    x = _by_running_statistics(
        None, original(*arguments), modules={block: modules[block]}, held=held, place=block, value=value
    )
    scale, shift = (held.get(f"{modules[block]}.{name}") for name in ("weight", "bias"))
    return scaled_and_shifted(x, *(None if t is None else t.detach().to(x) for t in (scale, shift)))
