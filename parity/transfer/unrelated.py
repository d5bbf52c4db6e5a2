"""What a tensor looks like that no formula makes of the expected one: trained further, never loaded, or another one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from parity.transfer.finding import Found

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

# A tensor that was trained further points in the direction it had; two that have nothing to do with each other don't.
_SAME_DIRECTION = 0.7

UNRELATED = "unrelated to what is expected"
FEW_UNRELATED = f"{UNRELATED}, as far as so few values tell"

_LITTLE = 0.3  # of its size

# Of so few values nobody can tell what distribution they are from.
_FEW = 64

UNTRAINED_HINT = "it was never loaded: the key must be the one that the file has, and strict=True says which don't fit"


def constant(found: torch.Tensor) -> Found | None:
    """Tells of a tensor that holds one value only."""
    value = float(found.flatten()[0])
    if found.numel() < 2 or not bool((found == value).all()):
        return None
    if value == 0:
        return Found("weights-zero", "all zeros", UNTRAINED_HINT)
    if value == 1:
        return Found("weights-initial", "initial values", UNTRAINED_HINT, "all ones")
    return Found("weights-other", f"all {value:.6g}", "load the tensor that belongs there")


def unrelated(expected: torch.Tensor, found: torch.Tensor, fan_in: int | None) -> Found:
    """Tells what is known of a tensor that no formula explains.

    Args:
        expected: the tensor that should be there.
        found: the one that is there, of the same shape.
        fan_in: the inputs of the layer that it belongs to, if that is known.
    """
    e, f = expected.double(), found.double()
    off = int((e != f).sum())
    if off <= max(1, e.numel() // 100) and off <= 8:
        place = (e != f).nonzero()[0].tolist()
        values = f"{float(f[tuple(place)]):.6g} for {float(e[tuple(place)]):.6g}"
        count = "one value differs" if off == 1 else f"{off} values differ"
        return Found("weights-other", count, "load the tensor as it is", f"{values} at {place}")
    difference, size = float((f - e).norm()), float(e.norm())
    # the scales of a norm all lie about 1: only what they are beside their mean tells
    is_alike = _correlation(e, f) > _SAME_DIRECTION or not float((e - e.mean()).norm())
    if is_alike and difference < _LITTLE * size:
        phrase, by = "changed a little, without structure, as by training", f"by {difference / size:.2g} of its size"
        return Found("weights-trained", phrase, "load the same checkpoint", by)
    like = next(_like_initial(f, fan_in), None)
    if like and f.numel() > _FEW and abs(_correlation(e, f)) < 3 / math.sqrt(f.numel()):
        return Found("weights-initial", "initial values", UNTRAINED_HINT, like)
    phrase = UNRELATED if f.numel() > _FEW else FEW_UNRELATED
    return Found("weights-other", phrase, "load the tensor that belongs there", like or "")


def _correlation(e: torch.Tensor, f: torch.Tensor) -> float:
    e, f = e - e.mean(), f - f.mean()
    norms = float(e.norm() * f.norm())
    return float((e * f).sum()) / norms if norms else 0.0


def _like_initial(f: torch.Tensor, fan_in: int | None) -> Iterator[str]:
    """Names the distributions of initial values that the values of a tensor could be drawn from."""
    count, largest, deviation = f.numel(), float(f.abs().max()), float(f.square().mean().sqrt())
    if count < 8 or not deviation or abs(float(f.mean())) > 5 * deviation / math.sqrt(count):
        return
    inputs, outputs = (f[0].numel(), len(f)) if f.ndim > 1 else (fan_in, None)
    bounds: dict[str, float] = {}
    deviations = [1e-6, 0.01, 0.02, 1.0]
    if inputs:
        bounds |= {"nn.Linear": 1 / math.sqrt(inputs), "kaiming_uniform_": math.sqrt(6 / inputs)}
        deviations += [1 / math.sqrt(inputs), math.sqrt(2 / inputs)]
    if inputs and outputs:
        bounds["xavier_uniform_"] = math.sqrt(6 / (inputs + outputs))
        deviations.append(math.sqrt(2 / (inputs + outputs)))
    tolerance = 5 / math.sqrt(count)
    for how, bound in bounds.items():
        reaches_it = bound * (1 - 20 / count) <= largest <= bound * (1 + 1e-6)
        if reaches_it and abs(deviation * math.sqrt(3) / bound - 1) < tolerance:
            yield f"uniform within {bound:.4g}, as {how} draws"
    kurtosis = float((f / deviation).pow(4).mean())
    for expected in deviations:
        if abs(deviation / expected - 1) < tolerance and 2 < kurtosis < 3 + 10 * tolerance:
            yield f"normal with a standard deviation of {expected:.3g}"
