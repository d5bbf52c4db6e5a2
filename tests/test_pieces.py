"""Tensors that the reference holds whole and a candidate in pieces, or the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parity import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.report.report import Report

WIDTH, HEADS, MLP, CLASSES = 48, 4, 80, 10
SMALL = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": HEADS, "hidden_dim": WIDTH, "mlp_dim": MLP,
         "num_classes": CLASSES}  # fmt: skip


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def heads(self, x: Any) -> Any:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> Any:
        q, k, v = map(self.heads, self.qkv(x).chunk(3, -1))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ValueBiasAfterwards(Attention):
    """The attention's weights add up to one, so that a bias of the values may be added to what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 2 * WIDTH)
        self.value, self.value_bias = nn.Linear(WIDTH, WIDTH, bias=False), nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: torch.Tensor) -> Any:
        (q, k), v = map(self.heads, self.qkv(x).chunk(2, -1)), self.heads(self.value(x))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(mixed + self.value_bias)


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(WIDTH, MLP // 2) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(MLP // 2, WIDTH, bias=half == 0) for half in range(2))

    def forward(self, x: torch.Tensor) -> Any:
        return sum(down(F.gelu(up(x))) for up, down in zip(self.up, self.down, strict=True))


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sizes = [WIDTH * MLP, MLP, MLP * WIDTH, WIDTH]
        self.all = nn.Parameter(torch.zeros(sum(self.sizes)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up, up_bias, down, down_bias = torch.split(self.all, self.sizes)
        return F.linear(F.gelu(F.linear(x, up.view(MLP, WIDTH), up_bias)), down.view(WIDTH, MLP), down_bias)


class ByClass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList(nn.Linear(WIDTH, 1) for _ in range(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([one(x) for one in self.each], -1)


class BackwardsByClass(ByClass):
    """The classes come out in another order than they are used in, which no order tells."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([one(x) for one in self.each], -1)[:, [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]]


class ByColour(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.ModuleList(nn.Conv2d(1, WIDTH, 8, 8, bias=colour == 0) for colour in range(3))

    def forward(self, x: torch.Tensor) -> Any:
        return sum(one(x[:, n : n + 1]) for n, one in enumerate(self.colours))


class Block(nn.Module):
    def __init__(self, attention: Callable[[], nn.Module], mlp: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.attention, self.mlp = attention(), mlp()

    def forward(self, x: torch.Tensor) -> Any:
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, MLP), nn.GELU(), nn.Linear(MLP, WIDTH))


class Model(nn.Module):
    def __init__(
        self,
        attention: Callable[[], nn.Module] = Attention,
        mlp: Callable[[], nn.Module] = _mlp,
        head: Callable[[], nn.Module] = lambda: nn.Linear(WIDTH, CLASSES),
        patches: Callable[[], nn.Module] = lambda: nn.Conv2d(3, WIDTH, 8, 8),
    ) -> None:
        super().__init__()
        self.patches, self.token = patches(), nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, 17, WIDTH))
        self.blocks = nn.Sequential(*(Block(attention, mlp) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=1e-6), head()

    def forward(self, x: torch.Tensor) -> Any:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        return self.classified(self.norm(self.blocks(x))[:, 0])

    def classified(self, x: torch.Tensor) -> Any:
        return self.head(x)


def _check(build: Callable[[], nn.Module]) -> Report:
    return check(build, overrides=SMALL, modes=["eval"])


@pytest.mark.parametrize(
    "pieces",
    [{"attention": ValueBiasAfterwards}, {"mlp": Halves}, {"mlp": Flat}, {"head": ByClass}, {"patches": ByColour}],
    ids=lambda pieces: next(iter(pieces.values())).__name__,
)
def test_pieces_are_mapped_where_the_logits_then_agree(pieces: dict[str, Any]) -> None:
    report = _check(lambda: Model(**pieces))
    assert report.verdict == "equivalent", report
    assert report.mapping is not None
    assert report.mapping.is_complete
    assert report.mapping.certainty == "unique by proof"


@pytest.mark.usefixtures("brief_search")
def test_pieces_that_nobody_can_put_together_are_no_firm_difference() -> None:
    report = _check(lambda: Model(head=BackwardsByClass))
    assert report.verdict == "inconclusive"
    assert report.reasons[0].endswith(
        "have as many values as heads.head.weight, heads.head.bias of the reference, and may be these in another form, "
        "for which no weight map was found"
    )
    assert "--mapping FILE" in report.reasons[1]


@pytest.mark.usefixtures("brief_search")
def test_module_whose_tensors_are_mapped_differs_all_the_same() -> None:
    def build() -> nn.Module:
        model = Model(head=BackwardsByClass)
        model.norm.eps = 1e-3
        return model

    assert _check(build).verdict == "divergent"


class Mapped(Model):
    """Calls its head image by image, as torch.vmap does."""

    def classified(self, x: torch.Tensor) -> Any:
        return torch.vmap(self.head)(x)


def test_module_under_vmap_is_passed_over() -> None:
    report = _check(Mapped)
    assert report.verdict in ("identical", "equivalent")
    head = next(layer for layer in report.layers if layer.reference == "heads.head")
    assert head.status == "not compared"


class TwoSteps(nn.Module):
    """Patches of its own width, and a Linear that makes them the model's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 192, 8, 8), nn.Linear(192, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        return self.second(self.first(x).flatten(2).transpose(1, 2)).transpose(1, 2)


@pytest.mark.usefixtures("brief_search")
def test_tensor_that_no_map_has_room_for_is_a_firm_difference() -> None:
    report = _check(lambda: Model(patches=TwoSteps))
    assert report.verdict == "divergent"
    assert [reason for reason in report.reasons if reason.startswith("an extra projection: the reference has none of")]
