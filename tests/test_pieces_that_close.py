"""Weights and biases that are cut, joined, stacked or added in pieces are mapped piece by piece, and passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from parity import check
from tests.test_maps_that_close import HEADS, RIGHT, SIZES, WIDTH, Attention, Block, Fused, ViT

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.report.report import Report

HEAD = WIDTH // HEADS


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape))


def _heads(x: torch.Tensor) -> Any:
    return rearrange(x, "b n (h d) -> b h n d", h=HEADS)


def _require_right(build: Callable[[], nn.Module]) -> Report:
    report = check(build, overrides=SIZES, weights="synthetic", modes=["eval"])
    assert report.verdict in RIGHT, report
    assert report.mapping is not None
    assert report.mapping.certainty == "unique by proof"
    assert report.mapping.is_complete
    return report


class Apart(Attention):
    """Three Linears, of which some have their features before their heads."""

    def __init__(self, turned: str) -> None:
        super().__init__()
        self.turned = turned
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def parts(self, x: torch.Tensor) -> Any:
        return [
            rearrange(getattr(self, name)(x), f"b n ({'d h' if name in self.turned else 'h d'}) -> b h n d", h=HEADS)
            for name in "qkv"
        ]


class TwoFused(Fused):
    """Two parts are fused feature by feature, the third is laid out head by head."""

    def parts(self, x: torch.Tensor) -> Any:
        fused = rearrange(self.fused(x), f"b n ({self.order}) -> p b h n d", p=2, h=HEADS)
        assert self.alone is not None
        found = dict(zip(self.together, fused, strict=True))
        (missing,) = set("qkv") - set(self.together)
        found[missing] = _heads(self.alone(x))
        return found["q"], found["k"], found["v"]


@pytest.mark.parametrize("turned", ["qkv", "qk", "v"])
def test_each_projection_has_an_order_of_its_own(turned: str) -> None:
    _require_right(lambda: ViT(lambda: Apart(turned)))


@pytest.mark.parametrize(("order", "together"), [("p d h", "qk"), ("d p h", "vq"), ("d h p", "kv")])
def test_what_is_not_fused_has_an_order_of_its_own(order: str, together: str) -> None:
    _require_right(lambda: ViT(lambda: TwoFused(order, together)))


class Broadcast(Attention):
    """All parts and heads at once, along new axes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = _zeros(3, HEADS, WIDTH, HEAD), _zeros(3, 1, HEADS, 1, HEAD)

    def parts(self, x: torch.Tensor) -> Any:
        return (x[None, :, None] @ self.weight[:, None] + self.bias).unbind(0)


class TakenByTwoNumbers(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = _zeros(3, HEADS, HEAD, WIDTH), _zeros(3, HEADS, HEAD)

    def parts(self, x: torch.Tensor) -> Any:
        return [
            torch.stack([F.linear(x, self.weight[part, head], self.bias[part, head]) for head in range(HEADS)], 1)
            for part in range(3)
        ]


class TakenAlongTheLastAxis(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = _zeros(HEADS, WIDTH, HEAD, 3), _zeros(HEADS, 1, HEAD, 3)

    def parts(self, x: torch.Tensor) -> Any:
        return [x[:, None] @ self.weight[..., part] + self.bias[..., part] for part in (0, 1, 2)]


class TakenAfterMoving(Attention):
    """Parts are taken along an axis that was moved to the front; the bias has it there."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = _zeros(HEADS, WIDTH, 3, HEAD), _zeros(3, HEADS, HEAD)

    def parts(self, x: torch.Tensor) -> Any:
        weight = torch.moveaxis(self.weight, 2, 0)
        return [torch.einsum("bni,hid->bhnd", x, weight[part]) + self.bias[part][:, None] for part in (0, 1, 2)]


class Repeated(Attention):
    """The matrix stands once for every image."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.weight, self.bias, self.how = _zeros(WIDTH, 3 * WIDTH), _zeros(3 * WIDTH), how

    def parts(self, x: torch.Tensor) -> Any:
        if self.how == "expand":
            weight = self.weight.unsqueeze(0).expand(len(x), -1, -1)
        else:
            weight = self.weight.repeat(len(x), 1, 1)
        return rearrange(torch.bmm(x, weight) + self.bias, "b n (p h d) -> p b h n d", p=3, h=HEADS)


class Stacked(Attention):
    """Three Linears are stacked, or joined as their transposes, before they are used."""

    def __init__(self, *, is_joined: bool) -> None:
        super().__init__()
        self.is_joined = is_joined
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def parts(self, x: torch.Tensor) -> Any:
        layers = (self.q, self.k, self.v)
        if self.is_joined:
            weight, bias = torch.cat([f.weight.T for f in layers], 1), torch.cat([f.bias for f in layers])
            return [_heads(part) for part in (x @ weight + bias).chunk(3, -1)]
        weight, bias = torch.stack([f.weight for f in layers]), torch.stack([f.bias for f in layers])
        return [_heads(part) for part in torch.einsum("bni,poi->pbno", x, weight) + bias[:, None, None]]


class OneBias(Attention):
    """Three weights, and one bias for all of them."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.bias = _zeros(3 * WIDTH)

    def parts(self, x: torch.Tensor) -> Any:
        made = [layer(x) for layer in (self.q, self.k, self.v)]
        if self.how == "joined":
            return [_heads(part) for part in (torch.cat(made, -1) + self.bias).chunk(3, -1)]
        return [_heads(part + bias) for part, bias in zip(made, self.bias.chunk(3), strict=True)]


class SlicesWithBiases(Attention):
    """Slices of one product, to which biases of their own are added; the key has none."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.q_bias, self.v_bias = nn.Linear(WIDTH, 3 * WIDTH, bias=False), _zeros(WIDTH), _zeros(WIDTH)

    def parts(self, x: torch.Tensor) -> Any:
        made = self.qkv(x)
        q, k, v = made[..., :WIDTH], made[..., WIDTH : 2 * WIDTH], made[..., 2 * WIDTH :]
        return _heads(q + self.q_bias), _heads(k), _heads(v + self.v_bias)


class ScaledFirst(Attention):
    """The scale of the scores is in the query's weight and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: torch.Tensor) -> Any:
        scale = HEAD**-0.5
        q, k, v = F.linear(x, self.q.weight * scale, self.q.bias * scale), self.k(x), self.v(x)
        return self.merged((_heads(q) @ _heads(k).transpose(-2, -1)).softmax(-1) @ _heads(v))


class Masked(Fused):
    """A mask that hides nothing is held beside the weight."""

    def __init__(self, how: str) -> None:
        super().__init__("p h d")
        self.how = how
        self.register_buffer("mask", torch.ones(3 * WIDTH, WIDTH, dtype=torch.bool))

    def parts(self, x: torch.Tensor) -> Any:
        weight, mask = self.fused.weight, cast("torch.Tensor", self.mask)
        weight = {
            "multiply": lambda: weight * mask,
            "where": lambda: torch.where(mask, weight, torch.zeros_like(weight)),
            "fill": lambda: weight.masked_fill(~mask, 0.0),
        }[self.how]()
        return rearrange(F.linear(x, weight, self.fused.bias), "b n (p h d) -> p b h n d", p=3, h=HEADS)


@pytest.mark.parametrize(
    "attention",
    [
        Broadcast, TakenByTwoNumbers, TakenAlongTheLastAxis, TakenAfterMoving, lambda: Repeated("expand"),
        lambda: Repeated("repeat"),
        lambda: Stacked(is_joined=True), lambda: Stacked(is_joined=False), lambda: OneBias("joined"),
        lambda: OneBias("cut"), SlicesWithBiases, ScaledFirst, lambda: Masked("multiply"), lambda: Masked("where"),
        lambda: Masked("fill"),
    ],
)  # fmt: skip
def test_pieces_of_an_attention_are_mapped(attention: Callable[[], nn.Module]) -> None:
    _require_right(lambda: ViT(attention))


@pytest.mark.parametrize("is_whole", [True, False])
def test_mask_in_a_buffer_is_a_constant(is_whole: bool) -> None:  # noqa: FBT001
    class Hidden(Fused):
        def __init__(self) -> None:
            super().__init__("p h d")
            mask = torch.ones(3 * WIDTH, WIDTH)
            self.register_buffer("mask", mask if is_whole else mask.tril())

        def parts(self, x: torch.Tensor) -> Any:
            weight = self.fused.weight * cast("torch.Tensor", self.mask)
            return rearrange(F.linear(x, weight, self.fused.bias), "b n (p h d) -> p b h n d", p=3, h=HEADS)

    if is_whole:
        report = _require_right(lambda: ViT(Hidden))
        assert "a buffer that changes nothing as it is built" in "\n".join(report.reasons)
    else:
        report = check(lambda: ViT(Hidden), overrides=SIZES, modes=["eval"])
        assert report.verdict not in RIGHT, report


def _with_blocks(block: Callable[[], nn.Module]) -> nn.Module:
    model = ViT(lambda: Fused("p h d"))
    model.blocks = nn.ModuleList([block() for _ in model.blocks])
    return model


class BiasesAfterTheResidual(Block):
    """Each branch's last bias is added after the residual."""

    def __init__(self, how: str) -> None:
        super().__init__(lambda: Fused("p h d"))
        self.how = how
        attention: Any = self.attention
        attention.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.mlp[2] = nn.Linear(SIZES["mlp_dim"], WIDTH, bias=False)
        self.first, self.second = _zeros(WIDTH), _zeros(WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        if self.how == "in place":
            x = torch.add(x, self.attention(self.norm1(x))).add_(self.first)
            x = x + self.mlp(self.norm2(x))
            x += self.second
            return x
        x = x + self.attention(self.norm1(x)) + self.first
        return self.mlp(self.norm2(x)) + x + self.second


@pytest.mark.parametrize("how", ["out of place", "in place"])
def test_bias_may_be_added_after_the_residual(how: str) -> None:
    _require_right(lambda: _with_blocks(lambda: BiasesAfterTheResidual(how)))


def test_bias_that_is_added_to_the_norms_output_is_another_one() -> None:
    class Misplaced(BiasesAfterTheResidual):
        def forward(self, x: torch.Tensor) -> Any:
            x = x + self.attention(self.norm1(x)) + self.first
            return x + self.mlp(self.norm2(x) + self.second)

    report = check(lambda: _with_blocks(lambda: Misplaced("")), overrides=SIZES, modes=["eval"])
    assert report.verdict == "divergent", report


def test_bias_that_is_added_right_behind_what_lacks_one_may_be_that_in_another_form() -> None:
    class Behind(BiasesAfterTheResidual):
        def forward(self, x: torch.Tensor) -> Any:
            x = x + self.attention(self.norm1(x))
            return x + self.mlp(self.norm2(x) + self.first) + self.second

    report = check(lambda: _with_blocks(lambda: Behind("")), overrides=SIZES, modes=["eval"])
    assert report.verdict == "inconclusive", report
    assert "may be these in another form" in report.reasons[0]


def test_patches_may_be_multiplied_by_axes_in_any_order() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = _zeros(8, 8, 3, WIDTH), _zeros(WIDTH)

        def forward(self, x: torch.Tensor) -> Any:
            x = rearrange(x, "b c (h p) (w q) -> b c h p w q", p=8, q=8)
            return torch.einsum("bchpwq,pqcd->bdhw", x, self.weight) + self.bias[:, None, None]

    def build() -> nn.Module:
        model = ViT(lambda: Fused("p h d"))
        cast("Any", model).patches = Patches()
        return model

    _require_right(build)


class Flat(nn.Module):
    """Between its layers all tokens of all images stand in one axis; no name tells what is what."""

    def __init__(self, order: str, *, images_first: bool) -> None:
        super().__init__()
        self.order, self.images_first = order, images_first
        self.a, self.b, self.c = nn.Conv2d(3, WIDTH, 8, 8), _zeros(1, 1, WIDTH), _zeros(1, 5, WIDTH)
        self.d = nn.ModuleList([Block(lambda: nn.Linear(WIDTH, 3 * WIDTH)) for _ in range(SIZES["num_layers"])])
        self.e = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in self.d])
        self.f, self.g = nn.LayerNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, SIZES["num_classes"])

    def forward(self, images: torch.Tensor) -> Any:
        count, layout = len(images), "(b n)" if self.images_first else "(n b)"
        x = torch.cat([self.b.expand(count, -1, -1), self.a(images).flatten(2).transpose(1, 2)], 1) + self.c
        x = rearrange(x, f"b n d -> {layout} d")
        for block, out in zip(cast("Any", self.d), self.e, strict=True):
            packed = rearrange(block.attention(block.norm1(x)), f"{layout} (p h d) -> p b h n d", p=3, h=HEADS, b=count)
            part = dict(zip(self.order, packed, strict=True))
            weights = (part["q"] @ part["k"].transpose(-2, -1) / HEAD**0.5).softmax(-1)
            x = x + out(rearrange(weights @ part["v"], f"b h n d -> {layout} (h d)"))
            x = x + block.mlp(block.norm2(x))
        first = rearrange(x, f"{layout} d -> n b d", b=count)[0]
        return self.g(self.f(first))


@pytest.mark.parametrize("images_first", [True, False])
@pytest.mark.parametrize("order", ["qkv", "vqk"])
def test_tokens_of_all_images_may_stand_in_one_axis(order: str, images_first: bool) -> None:  # noqa: FBT001
    report = check(lambda: Flat(order, images_first=images_first), overrides=SIZES, modes=["eval"])
    assert report.verdict in RIGHT, report
