"""Measuring how far two tensors are apart. Knows tensors only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

# Two right implementations that order their operations differently agree in float64 to about 1e-15 per layer and 1e-14
# over 32 layers; the faintest real bug known, a LayerNorm eps of 1.1e-6 for 1e-6 in one of 25 norms, stands at 1.9e-9.
# The bound lies between, closer to the rounding, since an error in one scalar of a large tensor is diluted in the norm.
SAME_FUNCTION_BOUND = 1e-12

# The same for a module that is given the reference's own input, feature by feature, since an error in one scalar of a
# weight shows in one feature. Right implementations of ViT-B/16 stay below 3e-15; a relative change of 1e-8 in a usual
# scalar of its widest matrix, which is 3072 across, makes 1.8e-10.
FEATURE_BOUND = 1e-13

# How much less accurate than the reference, both against float64, a right implementation may be in another dtype.
# Measured for a different operation order: 0.7 to 1.1 at the logits, up to 2 at single layers. A hidden cast from
# float32 to bfloat16 makes it some 10,000.
NOISE_BOUND = 8.0

# Where the logits agree in float64, a point between that is off by more than this is not wrong but placed elsewhere (a
# dropout inside the attention module, a final norm of the class token only): an error of this size would not vanish on
# its way to the logits. Smaller ones are judged as errors, since the logits may dilute them below the bound.
ELSEWHERE_BOUND = 1e-3

# the problem of a measurement whose reference is at fault
NOT_FINITE = "values of the reference that are not finite"

_INTEGER_OF_WIDTH = {16: torch.int16, 32: torch.int32, 64: torch.int64}


@dataclass(frozen=True)
class Measurement:
    """The distance of a candidate's tensor from the reference's.

    Attributes:
        identical: equal shape, dtype and values, no NaN (`torch.equal`).
        relative: norm(c - r) / norm(r), computed in float64; infinite where that is not a number.
        max_abs: largest absolute difference; infinite where that is not a number.
        max_ulp: largest distance in units of the last place: how many numbers of this dtype lie between the two.
        by_feature: the largest error of one feature (an index of the last axis), relative to a feature's usual norm.
        problem: why the values could not be compared, or None.
    """

    identical: bool
    relative: float
    max_abs: float
    max_ulp: int | None
    problem: str | None = None
    by_feature: float = 0.0

    @property
    def distance(self) -> float:
        """The larger of both relative errors, in units in which `SAME_FUNCTION_BOUND` is the bound of either."""
        return max(self.relative, self.by_feature * (SAME_FUNCTION_BOUND / FEATURE_BOUND))

    @property
    def is_clean(self) -> bool:
        """Whether a module that was given the reference's own input has made nothing but rounding."""
        return self.distance <= SAME_FUNCTION_BOUND

    @property
    def same_function(self) -> bool:
        """Whether the distance is within what operation order alone can make in float64."""
        return self.relative <= SAME_FUNCTION_BOUND


IDENTICAL = Measurement(identical=True, relative=0.0, max_abs=0.0, max_ulp=0)


def _incomparable(problem: str) -> Measurement:
    return Measurement(identical=False, relative=math.inf, max_abs=math.inf, max_ulp=None, problem=problem)


def compare(reference: torch.Tensor, candidate: torch.Tensor, *, ulp: bool = True) -> Measurement:
    """Measures how far `candidate` is from `reference`: first shape, then finiteness, then values.

    Nothing is broadcast, and a NaN on either side is a problem, never equal to another NaN. `ulp` says whether to count
    units of the last place, which takes longer than all the rest.
    """
    reference, candidate = reference.detach(), candidate.detach()
    if reference.shape != candidate.shape:
        return _incomparable(f"shape {tuple(candidate.shape)}, the reference has {tuple(reference.shape)}")
    if reference.dtype == candidate.dtype and torch.equal(reference, candidate):
        # an infinity equals itself, and would prove nothing
        return IDENTICAL if is_finite(reference) else _incomparable(NOT_FINITE)
    r, c = reference.double(), candidate.double()
    difference = c - r
    norm, error = _norm(r), _norm(difference)
    if not math.isfinite(norm + error):  # a sum of finite squares may overflow, so this is only a hint
        if not is_finite(reference):
            return _incomparable(NOT_FINITE)
        if not is_finite(candidate):
            return _incomparable("values of the candidate that are not finite")
    return Measurement(
        identical=False,
        relative=error / norm if norm else math.inf,
        max_abs=float(torch.linalg.vector_norm(difference, math.inf)),
        max_ulp=ulp_distance(reference, candidate) if ulp and reference.dtype == candidate.dtype else None,
        by_feature=_by_feature(r, difference),
    )


def of_shapes(reference: list[torch.Tensor], candidate: list[torch.Tensor], *, ulp: bool = False) -> Measurement:  # noqa: ARG001
    """Compares nothing but shapes, in order: of tensors without values, which `compare_all` cannot measure."""
    shapes = ([tuple(tensor.shape) for tensor in side] for side in (reference, candidate))
    wrong = next(((r, c) for r, c in zip(*shapes, strict=False) if r != c), None)
    return _incomparable(f"shape {wrong[1]}, the reference has {wrong[0]}") if wrong else IDENTICAL


def compare_all(reference: list[torch.Tensor], candidate: list[torch.Tensor], *, ulp: bool = True) -> Measurement:
    """Measures several pairs of tensors, in order, and returns the worst of them."""
    if len(reference) != len(candidate):
        return _incomparable(f"{len(candidate)} tensors, the reference has {len(reference)}")
    measured = (compare(r, c, ulp=ulp) for r, c in zip(reference, candidate, strict=True))
    return max(measured, key=lambda m: (not m.identical, m.relative), default=IDENTICAL)


def ulp_distance(a: torch.Tensor, b: torch.Tensor) -> int:
    """Returns the largest number of representable steps between corresponding values of two finite tensors."""
    one, other = in_order(a), in_order(b)
    least, most = (int(x) for x in torch.aminmax(one.sub_(other)))
    # float64 of opposite sign and enormous distance overflow; their signs tell
    if a.dtype == torch.float64 and bool((((a > 0) & (b < 0)) | ((a < 0) & (b > 0))).any()):
        low, high = (pick(in_order(a), other) for pick in (torch.minimum, torch.maximum))
        distance = high - low
        return int(distance.max()) if bool((distance >= 0).all()) else torch.iinfo(torch.int64).max
    return max(most, -least)


def in_order(x: torch.Tensor) -> torch.Tensor:
    """Returns whole numbers for values, so that of neighbouring values they are neighbours."""
    integer = _INTEGER_OF_WIDTH[torch.finfo(x.dtype).bits]
    # sign and magnitude to two's complement
    bits = x.contiguous().view(integer)
    lowest = torch.iinfo(integer).min
    return torch.where(bits < 0, lowest - bits, bits).long()


def noise_ratio(reference: torch.Tensor, candidate: torch.Tensor, truth: torch.Tensor) -> float | None:
    """Returns the candidate's error against `truth` divided by the reference's own; 1 means just as accurate.

    Args:
        reference: the reference's tensor, in the dtype under test.
        candidate: the candidate's, in the same dtype.
        truth: the reference's, in float64.

    Returns:
        The ratio; infinite if only the reference is exact; None if the shapes differ or a value is not finite.
    """
    if not reference.shape == candidate.shape == truth.shape:
        return None
    own, error = (_norm(x.detach().double() - truth.detach().double()) for x in (reference, candidate))
    if not math.isfinite(own) or not math.isfinite(error):
        return None
    if own == 0:
        return 1.0 if error == 0 else math.inf
    return error / own


def is_finite(tensor: torch.Tensor) -> bool:
    """Returns whether no value is NaN or infinite."""
    # a sum has one of them if a value has, and is much faster; it may overflow as well
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def is_degenerate(logits: torch.Tensor) -> str | None:
    """Says why a comparison of these logits (B, classes) could not have failed, or None if it could."""
    if logits.numel() == 0:
        return "are empty"
    if bool((logits == 0).all()):
        return "are all exactly 0"
    if bool((logits == logits.flatten()[0]).all()) and logits.numel() > 1:
        return "are all the same number"
    if len(logits) > 1 and bool((logits == logits[:1]).all()):
        return "are the same for every image"
    return None


def _by_feature(reference: torch.Tensor, difference: torch.Tensor) -> float:
    """Returns the largest error of one feature over all others, relative to what a feature of this tensor is like."""
    if reference.ndim < 2 or not reference.numel():
        return 0.0
    usual = _norm(reference) / math.sqrt(reference.shape[-1])
    largest = float(torch.linalg.vector_norm(difference.flatten(0, -2), dim=0).max())
    return largest / usual if usual else math.inf


def _norm(x: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(x))
