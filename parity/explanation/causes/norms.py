"""Entries for the norms: eps, statistics, scale and bias."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import torch

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import require_freedom, standardised
from parity.explanation.causes.places import NORM
from parity.explanation.causes.variants import found, replaced_by, skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Tensor = torch.Tensor


# a table reads best with an entry's parts side by side
# fmt: off
def kinds(config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for the norms, the likeliest first."""

    def kind(id: str, variants: Mapping[str, Any], phrase: str, instead: str, hint: str = "", **others: Any) -> Kind:  # noqa: A002
        return Kind(id, variants, phrase, instead, hint or "nn.LayerNorm(dim, eps={eps})", only=NORM, **others)

    yield kind("layer-norm-eps", {"eps": found}, "LayerNorm eps {value}", "1e-06", start=(1e-5, 1e-3))
    yield kind("norm-missing", {"norm": skipped}, "no norm", "a LayerNorm")
    yield kind("layer-norm-unbiased", {"statistics": replaced_by(functools.partial(standardised, correction=1))},
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
        yield kind("layer-norm-axes", {"statistics": replaced_by(functools.partial(standardised, axes=axes))},
                   f"LayerNorm over {name}", "over the width", "nn.LayerNorm(dim), over the last axis")
    yield kind("rms-norm", {"statistics": replaced_by(_rms)}, "RMSNorm", "LayerNorm, which takes the mean away")
    for name, function in _STATISTICS.items():
        yield kind("norm-kind", {"statistics": replaced_by(function)}, name, "LayerNorm, with mean 0 and variance 1")
    heads = config["num_heads"]
    yield kind("layer-norm-axes", {"statistics": replaced_by(functools.partial(_by_groups, groups=heads))},
               f"LayerNorm over {heads} groups of features, one after the other,", "over the whole width")
    yield kind("layer-norm-scale", {"affine": lambda original, x, weight, bias: original(x, 1 + weight, bias)},
               "LayerNorm that scales by 1 + weight", "by the weight")
    yield kind("layer-norm-order", {"affine": lambda _, x, weight, bias: (x + bias) * weight},
               "LayerNorm that shifts before it scales", "one that scales first")
    yield kind("layer-norm-bias", {"affine": lambda original, x, weight, _: original(x, weight, None)},
               "LayerNorm without a bias", "with one")
    yield kind("layer-norm-scale", {"affine": lambda original, x, _, bias: original(x, None, bias)},
               "LayerNorm without a scale", "with one")
    yield kind("layer-norm-affine", {"affine": skipped}, "LayerNorm without scale and bias", "with both",
               "nn.LayerNorm(dim, eps={eps}, elementwise_affine=True)")


# fmt: on


def _std_plus_eps(_: Any, x: Tensor, eps: float, *, correction: int) -> Tensor:
    require_freedom(x, (-1,), correction)
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, correction=correction, keepdim=True) + eps)


def _by_groups(x: Tensor, eps: float, *, groups: int) -> Tensor:
    return standardised(x.reshape(*x.shape[:-1], groups, -1), eps).flatten(-2)


_STATISTICS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "a norm that takes the mean away and divides by nothing": lambda x, _: x - x.mean(-1, keepdim=True),
    "a norm that divides by the standard deviation and leaves the mean": lambda x, eps: (
        x / torch.sqrt(x.var(-1, correction=0, keepdim=True) + eps)
    ),
    "a norm that divides by the variance, not by its root": lambda x, eps: (
        (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + eps)
    ),
    "a norm that divides by the mean absolute deviation": lambda x, eps: (
        (x - x.mean(-1, keepdim=True)) / ((x - x.mean(-1, keepdim=True)).abs().mean(-1, keepdim=True) + eps)
    ),
    "a norm to length 1": lambda x, _: x / x.norm(dim=-1, keepdim=True),
    "BatchNorm that normalises by fresh running statistics, mean 0 and variance 1,": lambda x, eps: (
        x / math.sqrt(1 + eps)
    ),
}


def _rms(x: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)
