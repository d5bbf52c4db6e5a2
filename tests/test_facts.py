from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

import vit
from parity import check
from parity.explanation.facts import facts
from parity.explanation.proof import Group, Proof
from parity.models.weights import uniform
from parity.suite.conftest import SMALL

if TYPE_CHECKING:
    import torch

EXPECTED = uniform("facts", (3, 5, 8)).double()


def _first(found: torch.Tensor) -> str:
    return facts(EXPECTED, found)[0]


def test_factor_shift_and_both_are_told_apart() -> None:
    assert _first(EXPECTED * 0.3) == "it is the expected one times 0.3"
    assert _first(EXPECTED + 2) == "it is the expected one plus 2"
    assert _first(EXPECTED * 3 - 1) == "it is the expected one times 3 plus -1"


def test_constants_are_the_same_for_every_image() -> None:
    assert _first(EXPECTED + uniform("table", (5, 8))) == (
        "it is the expected one plus the same constants for every image"
    )


def test_order_is_named_by_its_axis() -> None:
    assert _first(EXPECTED.flip(1)) == "it holds the expected tokens in another order"
    assert _first(EXPECTED.roll(3, 2)) == "it holds the expected features in another order"
    assert _first(EXPECTED[[1, 2, 0]]) == "it holds the expected images in another order"


def test_few_that_differ_are_counted() -> None:
    found = EXPECTED.clone()
    found[:, :, 6] += 1e-6 * uniform("few", (3, 5))
    assert _first(found) == "1 of 8 features differ (6)"


def test_correlation_is_given_by_axis_where_nothing_else_fits() -> None:
    (only,) = facts(EXPECTED, uniform("others", (3, 5, 8)).double())
    assert only.startswith("correlation with the expected one ")
    assert all(f"by {axis}" in only for axis in ("images", "tokens", "features"))


def test_shapes_and_values_come_first() -> None:
    assert facts(EXPECTED, EXPECTED[:, 1:]) == ["it has shape (3, 4, 8), expected is (3, 5, 8)"]
    assert facts(EXPECTED, EXPECTED * float("nan")) == ["it has values that are not finite"]


class _Broken(vit.ViT):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).sub(100).sqrt()


@pytest.mark.usefixtures("brief_search")
def test_values_that_are_not_finite_are_no_other_shape_and_no_number() -> None:
    sizes = {
        key: value for key, value in SMALL.items() if key in ("patch_size", "num_layers", "num_heads", "num_classes")
    }
    model = _Broken(img_size=SMALL["image_size"], embed_dim=SMALL["hidden_dim"], hidden_dim=SMALL["mlp_dim"], **sizes)
    report = check(model, overrides=SMALL, modes=["eval"])
    assert "no known cause at the logits: it has values that are not finite" in report.reasons
    assert not [reason for reason in report.reasons if "another shape" in reason or "inf" in reason.split()]


def test_explanation_says_what_is_left_only_where_something_is() -> None:
    group = Group((), "pooling", "mean pooling", "the class token", "", ("encoder",))
    for residual, left in ((1e-15, ()), (0.1, ("no known cause at x",))):
        found = Proof((group,), residual, (0.5,)).explanation(lambda _: "", str, ["no known cause at x"])
        assert found.unexplained == left
    endless = Proof((group,), math.inf, (math.inf,)).explanation(lambda _: "", str, [])
    assert endless.sentences("vit_b_16")[-1].endswith("and something more: with this change it still differs")
