"""How errors are spread over a tensor: planted in single values, they are shown where they were planted."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

import parity
import vit
from parity.report.cells import shades
from parity.report.figures import figures_of
from parity.tracing.spread import LEVELS, places_of, sizes_of
from tests.small import OURS, SMALL

PIXELS = (32, 32)


def _tensor(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_distances_are_counted_by_powers_of_two(steps: int) -> None:
    reference = _tensor(2, 5, 7).float()
    other = (reference.view(torch.int32) + steps).view(torch.float32)
    ulps = sizes_of(reference, other, reference.double()).ulps
    assert ulps == (0,) * steps.bit_length() + (70,)


def test_quantiles_are_those_of_all_values() -> None:
    truth = torch.arange(1.0, 102).double()
    sizes = sizes_of(truth, 3 * truth, 2 * truth)
    assert sizes.reference == sizes.candidate == tuple(1 + 100 * level for level in LEVELS)


def test_values_of_a_large_tensor_are_taken_from_all_its_features() -> None:
    # as many features as a step of the sample would be
    truth = torch.zeros(64, 64, 64)
    other = truth + torch.arange(64)
    assert sizes_of(truth, other, truth.double()).candidate[-1] == 63
    assert sizes_of(truth, other, truth.double()).candidate[5] == pytest.approx(31.5, abs=1)


def test_an_error_shows_in_its_token_and_feature() -> None:
    reference = _tensor(3, 17, 48)
    candidate = reference.clone()
    candidate[1, 6, 47] += 5  # the sixth patch: second row, second column
    shown = places_of(reference, candidate, PIXELS)
    assert shown is not None
    assert (shown.rows, shown.leading) == ("token", 1)
    assert [(y, x) for y, row in enumerate(shown.cells) for x, letter in enumerate(row) if letter != "."] == [(6, 15)]
    assert shown.patches == ("....", ".Z..", "....", "....")
    assert shown.largest == pytest.approx(5 / 3, rel=0.01)  # root mean square of 3 images by 3 features


def test_the_class_token_has_a_row_of_its_own() -> None:
    reference = _tensor(1, 197, 768)
    candidate = reference.clone()
    candidate[:, 0] += 1
    shown = places_of(reference, candidate, (224, 224))
    assert shown is not None
    assert shown.cells == ("Z" * 16, *("." * 16,) * 16)
    assert shown.patches == ("." * 14,) * 14


def test_letters_are_steps_of_the_square_root_of_two() -> None:
    reference = torch.zeros(1, 1, 4)
    candidate = torch.tensor([[[1, 0.5, 2**-30, 0]]])
    shown = places_of(reference, candidate, PIXELS)
    assert shown is not None
    assert shown.cells == ("ZX0.",)


@pytest.mark.parametrize(
    ("shape", "pixels", "leading", "patches"),
    [((2, 17, 8), (32, 32), 1, (4, 4)), ((2, 36, 8), (32, 32), 0, (6, 6)), ((2, 36, 8), (80, 112), 1, (5, 7)),
     ((2, 201, 8), (224, 224), 5, (14, 14)), ((2, 8, 3, 5), (32, 32), 0, (3, 5)), ((2, 40, 8), (32, 32), 4, (6, 6)),
     ((2, 34, 8), (32, 32), 0, (0, 0)), ((2, 10), (32, 32), 0, (0, 0))],
)  # fmt: skip
def test_patches_lie_as_in_the_image(
    shape: tuple[int, ...], pixels: tuple[int, int], leading: int, patches: tuple[int, int]
) -> None:
    shown = places_of(torch.zeros(shape), torch.ones(shape), pixels)
    assert shown is not None
    assert (len(shown.patches), len(shown.patches[0]) if shown.patches else 0) == patches
    assert shown.leading == leading


def test_no_tensor_is_too_odd() -> None:
    huge = torch.full((1, 2, 2), 1e308, dtype=torch.float64)
    assert places_of(huge, -huge, PIXELS) is None
    assert places_of(torch.ones(()), torch.zeros(()), PIXELS) is None
    largest = places_of(huge, 0 * huge, PIXELS)
    assert largest is not None
    assert math.isfinite(largest.largest)
    assert places_of(huge, huge, PIXELS).cells == ("..", "..")  # type: ignore[union-attr]


class TokensFirst(vit.ViT):
    """Hands its last norm (N, B, D), and is wrong in one feature of the class token behind it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding
        x = self.ln(self.attn_layers(self.dropout(x)).transpose(0, 1))
        logits: torch.Tensor = self.head(x[0])
        return logits


def _wrong(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
    output[0, :, 0] += 1e-3
    return output


def test_a_check_keeps_both_where_bits_differ_and_nothing_else() -> None:
    candidate = TokensFirst(**OURS)
    candidate.ln.register_forward_hook(_wrong)
    report = parity.check(candidate, overrides=SMALL, modes=["eval"])
    layers = {row.reference: row for row in report.layers}
    assert layers["encoder.layers.encoder_layer_0"].sizes is None
    found = layers["encoder.ln"]
    assert found.sizes is not None
    assert found.places is not None
    assert found.sizes.candidate[-1] == pytest.approx(1e-3, rel=0.01)
    assert [row.strip(".") for row in found.places.cells] == ["Z", *[""] * 16]
    drawn = figures_of(next(row for row in report.to_dict()["layers"] if row["reference"] == "encoder.ln"))
    assert drawn is not None
    assert drawn.cells is not None
    assert drawn.cells.words.startswith("in leading tokens only; ")


class MeanOfAllTokens(vit.ViT):
    """Pools otherwise: an error that no module has made."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding
        logits: torch.Tensor = self.head(self.ln(self.attn_layers(self.dropout(x))).mean(1))
        return logits


def test_cells_are_strokes_of_their_steps_from_the_least_on() -> None:
    drawn = shades([[0, 2, 2], [1, 0, 2]], 1, lambda step: step / 2)
    assert drawn == [("0.50", "M0 1h1"), ("1.00", "M1 0h2M2 1h1")]


def test_where_code_between_modules_is_wrong_is_kept_as_well() -> None:
    report = parity.check(MeanOfAllTokens, overrides=SMALL, modes=["eval"])
    assert [place.kind for place in report.origins] == ["glue"]
    found = report.origins[0].places
    assert found is not None
    assert (found.rows, len(found.cells), len(found.cells[0])) == ("image", 3, 16)
    page = report.to_html()
    opened = re.search(r'<details class="layer"[^>]* open>\s*<summary>(.+?)</summary>', page)
    assert opened is not None
    assert opened[1] == "between the output of encoder.ln and the input of heads.head: its errors, drawn"
