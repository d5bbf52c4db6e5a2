"""Causes with a tensor that is solved for, and their proof on other weights and images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional as F

import vit
from parity import check
from tests.small import OURS, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.report import Report

    Tensor = torch.Tensor


def _same(x: Tensor) -> Tensor:
    return x


def _explained(
    images: Callable[[Tensor], Tensor] = _same,
    positions: Callable[[Tensor], Tensor] = _same,
    encoded: Callable[[Tensor], Tensor] = _same,
    logits: Callable[[Tensor], Tensor] = _same,
) -> Report:
    """Checks our ViT, in which something is done at one of four places."""

    class Changed(vit.ViT):
        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(images(x))
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
            x = self.attn_layers(self.dropout(x + positions(self.pos_embedding)))
            return logits(self.head(self.ln(encoded(x))[:, 0]))

    return check(Changed(**OURS), overrides=SMALL, modes=["eval"])


def _grid(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def changed(table: Tensor) -> Tensor:
        grid = table[:, 1:].reshape(1, 4, 4, -1)
        return torch.cat([table[:, :1], change(grid).flatten(1, 2)], 1)

    return changed


def _resized(grid: Tensor) -> Tensor:
    return F.interpolate(grid.permute(0, 3, 1, 2), scale_factor=4.1 / 4, mode="bicubic").permute(0, 2, 3, 1)


def _smoothed(grid: Tensor) -> Tensor:
    return F.avg_pool2d(grid.permute(0, 3, 1, 2), 3, 1, 1, count_include_pad=False).permute(0, 2, 3, 1)


def _zeroed(table: Tensor) -> Tensor:
    return table * (torch.arange(17) != 5)[:, None]


POSITIONS = {
    "position-scale": [(lambda t: 0.25 * t, "positions times 0.25"), (lambda t: -t, "positions times -1")],
    "position-order": [
        (_grid(lambda grid: grid.flip(1)), "positions mirrored top to bottom"),
        (_grid(lambda grid: grid.flip(2)), "positions mirrored left to right"),
        (lambda t: torch.cat([t[:, :1], t[:, 1:].roll(5, 1)], 1), "positions of the patches shifted by 5"),
        (lambda t: t.roll(-3, 1), "positions shifted by -3"),
        (lambda t: t[:, [0, *range(16, 0, -1)]], "positions back to front"),
        (lambda t: t[:, [0, 2, 1, *range(3, 17)]], "positions exchanged: 2 at 1, 1 at 2"),
        (lambda t: t[:, [0, 1, 1, *range(3, 17)]], "positions of which some are used twice: 1 at 2"),
        (_zeroed, "positions of which 5 are zeros"),
    ],
    "position-resampled": [
        (_grid(_smoothed), "positions resampled at their own size (each one a sum of up to 9 of them)"),
        (_grid(_resized), "positions resampled at their own size (each one a sum of up to 16 of them)"),
    ],
    "position-mixed": [
        (lambda t: t.cumsum(1), "positions mixed (each one a sum of up to 17 of them)"),
        (_grid(lambda g: (g + g.transpose(1, 2)) / 2), "positions mixed (each one a sum of up to 2 of them)"),
    ],
    "position-normalised": [
        (lambda t: F.normalize(t, dim=-1), "positions brought to length 1"),
        (lambda t: F.layer_norm(t, (48,)), "a LayerNorm without parameters over the positions, eps 1e-05"),
    ],
    "position-fixed": [(lambda t: torch.arange(17 * 48.0).sin().view(1, 17, 48).to(t), "a fixed table of positions")],
}  # fmt: skip


@pytest.mark.parametrize(("id_", "number"), [(id_, n) for id_, cases in POSITIONS.items() for n in range(len(cases))])
def test_what_was_done_to_the_positions_is_named(id_: str, number: int) -> None:
    change, phrase = POSITIONS[id_][number]
    report = _explained(positions=change)
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.phrases == (phrase,)
    assert [cause.id for cause in report.causes] == [id_]


@pytest.mark.usefixtures("brief_search")
def test_cause_that_fits_these_weights_alone_is_refuted() -> None:
    report = _explained(positions=torch.tanh)
    assert report.explanation is not None
    assert report.explanation.complete
    assert [cause.id for cause in report.causes] == ["graft"]


def test_normalisation_inside_is_named_with_its_numbers() -> None:
    mean, std = torch.tensor([0.1, 0.2, 0.3])[:, None, None], torch.tensor([0.5, 0.25, 2.0])[:, None, None]
    report = _explained(images=lambda x: (x - mean.to(x)) / std.to(x))
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.phrases == (
        "images taken as (x - mean) / std with mean (0.1, 0.2, 0.3) and std (0.5, 0.25, 2)",
    )


@pytest.mark.parametrize(
    ("order", "words"),
    [(lambda y: y.roll(-2, 1), "shifted by -2"), (lambda y: y.flip(1), "back to front"),
     (lambda y: y[:, [1, 0, *range(2, 10)]], "exchanged: 1 at 0, 0 at 1")],
)  # fmt: skip
def test_order_of_classes_is_named(order: Callable[[Tensor], Tensor], words: str) -> None:
    report = _explained(logits=order)
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.phrases == (f"classes {words}",)


def test_constants_of_features_are_named() -> None:
    report = _explained(encoded=lambda x: x * torch.linspace(0.5, 2, 48).to(x) + 0.1)
    assert report.explanation is not None
    assert report.explanation.complete
    assert report.explanation.phrases[0].startswith("features times (0.5, 0.531915, 0.56383 and 45 more) plus 0.1")


def test_number_in_a_formula_is_said_to_stand_for_the_right_one() -> None:
    candidate = vit.ViT(**OURS)
    for number in range(2):
        candidate.get_submodule(f"attn_layers.{number}.MLP")[1] = _HalfErf()  # type: ignore[operator]
    report = check(candidate, overrides=SMALL, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    (phrase,) = report.explanation.phrases
    assert phrase.startswith("GELU with 1.6 instead of sqrt(2) in x * (1 + erf(x / sqrt(2))) / 2, in the MLP")


class _HalfErf(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + torch.erf(x / 1.6)) / 2
