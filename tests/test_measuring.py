from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parity.tracing.measuring import (
    NOT_FINITE,
    SAME_FUNCTION_BOUND,
    compare,
    compare_all,
    is_degenerate,
    is_finite,
    noise_ratio,
    ulp_distance,
)

NAN, INF = math.nan, math.inf


def test_equal_tensors_are_identical() -> None:
    measurement = compare(torch.ones(2, 3), torch.ones(2, 3))
    assert measurement.identical
    assert (measurement.relative, measurement.max_abs, measurement.max_ulp) == (0, 0, 0)


def test_relative_error_is_that_of_the_norms() -> None:
    reference = torch.tensor([3.0, 4.0], dtype=torch.float64)
    measurement = compare(reference, reference + torch.tensor([0.0, 5e-10], dtype=torch.float64))
    assert measurement.relative == pytest.approx(1e-10, rel=1e-5)
    assert measurement.max_abs == pytest.approx(5e-10, rel=1e-5)
    assert not measurement.same_function


def test_shapes_are_never_broadcast() -> None:
    measurement = compare(torch.ones(3, 4), torch.ones(1, 4))
    assert not measurement.identical
    assert measurement.relative == INF
    assert measurement.problem == "shape (1, 4), the reference has (3, 4)"


@pytest.mark.parametrize(
    ("reference", "candidate", "problem"),
    [
        ([NAN], [NAN], NOT_FINITE),
        ([INF], [INF], NOT_FINITE),
        ([NAN], [1.0], NOT_FINITE),
        ([1.0], [NAN], "values of the candidate that are not finite"),
        ([1.0], [-INF], "values of the candidate that are not finite"),
    ],
)
def test_values_that_are_not_finite_are_never_the_same(
    reference: list[float], candidate: list[float], problem: str
) -> None:
    measurement = compare(torch.tensor(reference), torch.tensor(candidate))
    assert not measurement.identical
    assert not measurement.same_function
    assert measurement.problem == problem


def test_error_against_a_zero_reference_is_infinite() -> None:
    assert compare(torch.zeros(2), torch.tensor([0.0, 1e-30])).relative == INF


def test_dtypes_are_part_of_the_bits() -> None:
    measurement = compare(torch.ones(2), torch.ones(2, dtype=torch.float64))
    assert not measurement.identical
    assert measurement.relative == 0


def test_worst_of_several_pairs_counts() -> None:
    one, two = torch.ones(2, dtype=torch.float64), torch.full((2,), 2.0, dtype=torch.float64)
    assert compare_all([one, two], [one, two]).identical
    assert compare_all([one, two], [one, two * (1 + 1e-6)]).relative == pytest.approx(1e-6)
    assert compare_all([one], [one, two]).problem == "2 tensors, the reference has 1"


def test_bound_lies_between_rounding_and_the_faintest_bug() -> None:
    assert 1e-14 < SAME_FUNCTION_BOUND < 1.9e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_neighbours_are_one_ulp_apart(dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    assert ulp_distance(torch.tensor([1.0], dtype=dtype), torch.tensor([1.0 + eps], dtype=dtype)) == 1
    assert ulp_distance(torch.tensor([0.0], dtype=dtype), torch.tensor([-0.0], dtype=dtype)) == 0
    smallest = torch.tensor([1], dtype=getattr(torch, f"int{torch.finfo(dtype).bits}")).view(dtype)
    assert ulp_distance(smallest, -smallest) == 2


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 1000))
def test_ulp_distance_counts_the_steps(start: float, steps: int) -> None:
    a = torch.tensor(start, dtype=torch.float64)
    b = a.clone()
    for _ in range(steps):
        b = torch.nextafter(b, torch.tensor(0.0, dtype=torch.float64))
    assert ulp_distance(a, b) <= steps
    assert ulp_distance(a, b) == ulp_distance(b, a)
    if start and float(b) != 0:
        assert ulp_distance(a, b) == steps


def test_ulp_distance_of_extremes_does_not_overflow() -> None:
    largest = torch.tensor([torch.finfo(torch.float64).max], dtype=torch.float64)
    assert ulp_distance(-largest, largest) == torch.iinfo(torch.int64).max


def test_noise_ratio_compares_both_errors_with_the_truth() -> None:
    truth = torch.tensor([1.0, 2.0], dtype=torch.float64)
    reference, candidate = truth.float() + torch.tensor([1e-6, 0]), truth.float() + torch.tensor([0, 3e-6])
    assert noise_ratio(reference, candidate, truth) == pytest.approx(3, rel=0.1)
    assert noise_ratio(truth.float(), truth.float(), truth) == 1
    assert noise_ratio(truth.float(), candidate, truth) == INF
    assert noise_ratio(reference, candidate[:1], truth) is None
    assert noise_ratio(reference, candidate * NAN, truth) is None


@pytest.mark.parametrize(
    ("logits", "why"),
    [
        ([[0.0, 0.0], [0.0, 0.0]], "are all exactly 0"),
        ([[2.0, 2.0], [2.0, 2.0]], "are all the same number"),
        ([[1.0, 2.0], [1.0, 2.0]], "are the same for every image"),
        ([[1.0, 2.0], [1.0, 3.0]], None),
        ([[1.0, 2.0]], None),
        ([[5.0]], None),
    ],
)
def test_logits_that_could_not_fail_are_recognised(logits: list[list[float]], why: str | None) -> None:
    assert is_degenerate(torch.tensor(logits)) == why


def test_finite_values_whose_sum_is_not_are_finite() -> None:
    large = torch.full((4,), 3e38)
    assert not torch.isfinite(large.sum())
    assert is_finite(large)
    assert not is_finite(torch.tensor([torch.inf, -torch.inf]))
    assert not is_finite(torch.tensor([0.0, torch.nan]))
