"""Beyond the forward pass: the same gradients, the same dropout, initial values and trajectories, to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parity.suite.conftest import small

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.report import Report
    from parity.suite.conftest import Architecture


def test_every_phase_is_identical(
    candidate: str, architecture: Architecture, assert_identical: Callable[..., Report]
) -> None:
    """Patches and heads of every architecture, with two blocks and heads of eight; four steps of both optimizers."""
    overrides = small(architecture.name)
    report = assert_identical(
        candidate, architecture.name, overrides=overrides, phases=["backward", "training"], steps=4
    )
    assert {check.name for check in report.checks if not check.name.startswith("forward/")} == {
        "registration",
        *(f"backward/{loss}/{dtype}" for loss in ("projection", "cross-entropy") for dtype in ("float64", "float32")),
        *(f"training/{what}" for what in ("modes", "dropout", "initialisation", "weight-decay")),
        *(f"training/{what}/{dtype}" for what in ("gradients", "adamw", "sgd") for dtype in ("float64", "float32")),
        "training/resume/float32",
        "training/autocast/bfloat16",
        "training/checkpointing/float64",
    }
    assert {check.verdict for check in report.checks} == {"identical"}
    assert not report.causes


@pytest.mark.full_size
def test_no_condition_changes_anything(candidate: str, reference: str, assert_parity: Callable[..., Report]) -> None:
    report = assert_parity(candidate, reference, overrides=small(reference), phases=["conditions"])
    made = {check.name: check.verdict for check in report.checks if check.name.startswith("conditions/")}
    for name in ("inference-mode/float32", "channels-last/float32", "transposed-input/float32", "bfloat16"):
        assert made[f"conditions/{name}"] in ("identical", "equivalent")
    assert not report.causes
