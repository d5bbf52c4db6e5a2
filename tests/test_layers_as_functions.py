"""A model without modules, whose layers are functions of its parameters, is explained as one of modules is."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parity import check
from parity.models import Entry, WeightMap, rearranged
from parity.tracing import FunctionCalls, Layer, Point
from parity.tracing.function_calls import function_layers
from tests.test_maps_that_close import HEADS, SIZES, WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable

MLP = SIZES["mlp_dim"]


@dataclass
class Ways:
    """What may be wrong."""

    eps: float = 1e-6
    scale: float = (WIDTH // HEADS) ** -0.5
    activation: Callable[[torch.Tensor], torch.Tensor] = F.gelu
    softmax: Callable[[torch.Tensor], torch.Tensor] = lambda scores: scores.softmax(-1)
    pooled: Callable[[torch.Tensor], torch.Tensor] = lambda x: x[:, 0]


class Functional(nn.Module):
    """A ViT of functions.

    Args:
        ways: what is wrong.
        by_products: with `@` in place of `F.linear`.
        stacked: with one tensor for what all blocks have.
    """

    def __init__(self, ways: Ways, *, by_products: bool, stacked: bool = False) -> None:
        super().__init__()
        self.ways, self.by_products = ways, by_products
        shapes = {
            "patches": (WIDTH, 3, 8, 8), "patches_bias": (WIDTH,), "token": (1, 1, WIDTH), "positions": (1, 5, WIDTH),
            **self.norm_of("last"), **self.linear_of("head", SIZES["num_classes"], WIDTH),
        }  # fmt: skip
        for n in range(SIZES["num_layers"]):
            shapes |= self.norm_of(f"{n}_first") | self.linear_of(f"{n}_qkv", 3 * WIDTH, WIDTH)
            shapes |= self.linear_of(f"{n}_out", WIDTH, WIDTH) | self.norm_of(f"{n}_second")
            shapes |= self.linear_of(f"{n}_up", MLP, WIDTH) | self.linear_of(f"{n}_down", WIDTH, MLP)
        if stacked:
            depth = SIZES["num_layers"]
            shapes = {n.removeprefix("0"): (depth,) * (n[0] == "0") + s for n, s in shapes.items() if n[0] not in "123"}
        self.all = nn.ParameterDict({name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()})

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self.all[name] if name in self.all else self.all[name[1:]][int(name[0])]
        return tensor

    def norm_of(self, name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}_scale": (WIDTH,), f"{name}_shift": (WIDTH,)}

    def linear_of(self, name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
        return {name: (columns, rows) if self.by_products else (rows, columns), f"{name}_bias": (rows,)}

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), self[f"{name}_scale"], self[f"{name}_shift"], self.ways.eps)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self[name], self[f"{name}_bias"]
        return x @ weight + bias if self.by_products else F.linear(x, weight, bias)

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        return F.conv2d(images, self.all["patches"], self.all["patches_bias"], stride=8).flatten(2).transpose(1, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.embedded(images)
        x = torch.cat([self.all["token"].expand(len(x), -1, -1), x], 1) + self.all["positions"]
        for n in range(SIZES["num_layers"]):
            y = self.linear(f"{n}_qkv", self.norm(f"{n}_first", x))
            q, k, v = y.view(*y.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            y = self.ways.softmax(q @ k.transpose(-2, -1) * self.ways.scale) @ v
            x = x + self.linear(f"{n}_out", y.transpose(1, 2).flatten(2))
            y = self.ways.activation(self.linear(f"{n}_up", self.norm(f"{n}_second", x)))
            x = x + self.linear(f"{n}_down", y)
        return self.linear("head", self.ways.pooled(self.norm("last", x)))


class OfPixels(Functional):
    """Has the pixels of a patch in the order row, column, channel."""

    def __init__(self, ways: Ways) -> None:
        super().__init__(ways, by_products=True)
        self.all["patches"] = nn.Parameter(torch.zeros(8 * 8 * 3, WIDTH))

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        x = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        tokens: torch.Tensor = x @ self.all["patches"] + self.all["patches_bias"]
        return tokens


def test_order_of_pixels_is_read_off_what_the_projection_takes() -> None:
    model = OfPixels(Ways(softmax=lambda scores: scores.softmax(-1).flip(-1).sqrt()))
    report = check(model, overrides=SIZES, weights="synthetic", modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    assert [cause.id for cause in report.causes] == ["graft"], report


def _report(form: str = "linear", **wrong: Any) -> Any:
    by_products, stacked = form.endswith("products"), form.startswith("stacked")
    model = Functional(Ways(**wrong), by_products=by_products, stacked=stacked)
    return check(model, overrides=SIZES, weights="synthetic", modes=["eval"])


FORMS = ["linear", "products", "stacked linear", "stacked products"]


@pytest.mark.parametrize("form", FORMS)
def test_right_one_is_passed(form: str) -> None:
    assert _report(form).verdict == "equivalent"


@pytest.mark.parametrize("form", FORMS)
def test_several_causes_are_named_together(form: str) -> None:
    report = _report(form, eps=1e-5, scale=WIDTH**-0.5, activation=F.silu)
    assert report.explanation.complete
    assert report.explanation.minimal
    assert {cause.id for cause in report.causes} == {"layer-norm-eps", "attention-scale", "activation"}


@pytest.mark.parametrize("form", ["linear", "stacked linear", "stacked products"])
@pytest.mark.parametrize(
    ("wrong", "formula"),
    [
        ({"softmax": lambda scores: 1.1 * scores.softmax(-1) + 0.01}, "(0.01 + 1.1 * softmax(q @ k^T / sqrt(8))) @ v"),
        ({"pooled": lambda x: x[:, 0] + x.mean(1)}, "x[:, 0] + mean(x, axis -2)"),
    ],
)
def test_what_has_no_name_is_a_formula_with_its_line(wrong: dict[str, Any], formula: str, form: str) -> None:
    report = _report(form, **wrong)
    assert report.explanation.complete
    (cause,) = report.causes
    assert cause.id == "graft"
    assert formula in cause.statement
    assert cause.source.startswith("test_layers_as_functions.py:")


def test_causes_are_those_of_the_first_blocks_where_no_more_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.explanation.observing._MOST_BYTES", 60_000)
    report = _report(eps=1e-5, activation=F.silu)
    assert report.explanation.complete
    assert {cause.id for cause in report.causes} == {"layer-norm-eps", "activation"}


def test_products_of_layers_are_not_kept_alive() -> None:
    weight, bias = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3))
    model = nn.Module()
    model.weight, model.bias = weight, bias
    told: list[Point] = []
    x = torch.ones(2, 3)
    with FunctionCalls(model, {"weight": Layer("mlp.0", "bias")}, lambda point, _: told.append(point)):
        product = x @ weight
        alive = weakref.ref(product)
        product + bias
        del product
        unused = weakref.ref(x @ weight)
        assert [point.moment for point in told] == ["enter", "leave", "enter"]
        assert alive() is None
        assert unused() is None


@pytest.mark.parametrize(
    ("layout", "is_plain"),
    [("identity", True), ("o i -> i o", True), ("o i -> 1 i o", True), ("(q h d) i -> (h q d) i, q=3, h=4", False),
     ("(h d) i -> 1 i h d, d=12, h=4", False)],
)  # fmt: skip
def test_features_in_another_order_leave_no_layer(layout: str, is_plain: bool) -> None:  # noqa: FBT001
    rows = 144 if "q" in layout else 48
    candidate = rearranged(torch.zeros(rows, 48), layout)
    model = nn.Module()
    model.weight = nn.Parameter(candidate)
    name = "encoder.layers.encoder_layer_0.mlp.0.weight"
    box = "[0:1]" if candidate.shape[0] == 1 else ""
    found = function_layers(WeightMap((Entry(name, f"weight{box}", layout),), ""), model, set())
    assert [layer.is_plain for layer in found.values()] == [is_plain]
