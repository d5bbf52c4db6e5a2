"""A candidate that keeps its tokens apart, or in another order, is compared and explained as any other is."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parity import check
from parity.explanation.proof import Group, prove
from parity.tracing import Portion
from parity.tracing.putting_together import layout_of
from tests.test_maps_that_close import HEADS, SIZES, WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MLP, GRID = SIZES["mlp_dim"], SIZES["image_size"] // SIZES["patch_size"]


@dataclass
class Ways:
    """What may be wrong."""

    pooled: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda token, _: token  # (B, D, 1) and (B, D, N)

    eps: float = 1e-6
    scale: float = (WIDTH // HEADS) ** -0.5
    activation: Callable[[torch.Tensor], torch.Tensor] = F.gelu
    value: Callable[[torch.Tensor], torch.Tensor] = lambda v: v
    added: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.add  # what the MLP's branch is added by
    positions: Callable[[torch.Tensor], torch.Tensor] = lambda table: table


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ways: Ways) -> torch.Tensor:
    """Attention over (B, N, D), written out."""
    q, k, v = (x.view(*x.shape[:2], HEADS, -1).transpose(1, 2) for x in (q, k, v))
    return ((q @ k.mT * ways.scale).softmax(-1) @ ways.value(v)).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    def __init__(self, layer: Callable[[], nn.Module], ways: Ways) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (layer() for _ in range(4))
        self.ways = ways


class AttentionOfRows(Attention):
    """Of a class token (B, 1, D) and rows of patches (B, h, w, D)."""

    def forward(self, token: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q, k, v = (
            torch.cat([layer(token), layer(rows).flatten(1, 2)], 1) for layer in (self.query, self.key, self.value)
        )
        y = attended(q, k, v, self.ways)
        return self.out(y[:, :1]), self.out(y[:, 1:].reshape(-1, GRID, GRID, WIDTH))


class AttentionOfMaps(Attention):
    """Of a feature map (B, D, h, w) and a class token (B, D, 1, 1), in this order."""

    def forward(self, image: torch.Tensor, token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q, k, v = (
            torch.cat([layer(x).flatten(2) for x in (image, token)], 2).mT
            for layer in (self.query, self.key, self.value)
        )
        y = attended(q, k, v, self.ways).mT
        return self.out(y[..., :-1].reshape(-1, WIDTH, GRID, GRID)), self.out(y[..., -1:, None])


class NormOfMaps(nn.Module):
    """LayerNorm over the channels of (B, D, h, w)."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.zeros(WIDTH))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.movedim(1, -1), (WIDTH,), self.weight, self.bias, self.eps).movedim(-1, 1)


class Mlp(nn.Module):
    def __init__(self, layer: Callable[[int, int], nn.Module], ways: Ways) -> None:
        super().__init__()
        self.up, self.down, self.ways = layer(WIDTH, MLP), layer(MLP, WIDTH), ways

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch: torch.Tensor = self.down(self.ways.activation(self.up(x)))
        return branch


class Block(nn.Module):
    """A block that takes both parts of the tokens in one call, and calls all but its attention for each of them."""

    def __init__(self, ways: Ways, *, maps: bool) -> None:
        super().__init__()
        layer = functools.partial(nn.Conv2d, kernel_size=1) if maps else nn.Linear
        self.norm_1, self.norm_2 = (
            NormOfMaps(ways.eps) if maps else nn.LayerNorm(WIDTH, eps=ways.eps) for _ in range(2)
        )
        attention = AttentionOfMaps if maps else AttentionOfRows
        self.attention = attention(lambda: layer(WIDTH, WIDTH), ways)
        self.mlp, self.ways = Mlp(layer, ways), ways

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        more, also = self.attention(self.norm_1(one), self.norm_1(other))
        one, other = one + more, other + also
        return self.ways.added(one, self.mlp(self.norm_2(one))), self.ways.added(other, self.mlp(self.norm_2(other)))


class Apart(nn.Module):
    """The class token and the patches side by side, as rows (B, h, w, D) or as maps (B, D, h, w)."""

    def __init__(self, ways: Ways, *, maps: bool) -> None:
        super().__init__()
        self.maps, self.ways = maps, ways
        self.patches = nn.Conv2d(3, WIDTH, SIZES["patch_size"], SIZES["patch_size"])
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, GRID**2 + 1, WIDTH))
        self.blocks = nn.ModuleList(Block(ways, maps=maps) for _ in range(SIZES["num_layers"]))
        self.norm = NormOfMaps(ways.eps) if maps else nn.LayerNorm(WIDTH, eps=ways.eps)
        self.head = nn.Linear(WIDTH, SIZES["num_classes"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        table = self.ways.positions(self.positions)
        x = self.patches(images) + table[:, 1:].mT.reshape(-1, WIDTH, GRID, GRID)
        token = (self.token + table[:, :1]).expand(len(x), -1, -1)
        if self.maps:
            token = token.mT[..., None]
            for block in self.blocks:
                x, token = block(x, token)
        else:
            x = x.movedim(1, -1)
            for block in self.blocks:
                token, x = block(token, x)
        if self.maps:
            token = self.ways.pooled(token.flatten(2), x.flatten(2))[..., None]
        logits: torch.Tensor = self.head(self.norm(token).flatten(1))
        return logits


class BlockInChunks(nn.Module):
    """A usual block whose MLP is called for some tokens after the others, the last ones first."""

    def __init__(self, ways: Ways) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = (nn.LayerNorm(WIDTH, eps=ways.eps) for _ in range(2))
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.mlp, self.ways = Mlp(nn.Linear, ways), ways

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm_1(x)
        x = x + self.out(attended(self.query(y), self.key(y), self.value(y), self.ways))
        chunks = [self.mlp(chunk) for chunk in reversed(self.norm_2(x).split(2, 1))]
        return self.ways.added(x, torch.cat(chunks[::-1], 1))


class InChunks(nn.Module):
    def __init__(self, ways: Ways) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, SIZES["patch_size"], SIZES["patch_size"])
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, GRID**2 + 1, WIDTH))
        self.blocks = nn.Sequential(*(BlockInChunks(ways) for _ in range(SIZES["num_layers"])))
        self.norm = nn.LayerNorm(WIDTH, eps=ways.eps)
        self.head = nn.Linear(WIDTH, SIZES["num_classes"])
        self.ways = ways

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.ways.positions(self.positions)
        logits: torch.Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


class TokenLast(nn.Module):
    """Functions of parameters; tokens first, then images, and the class token behind the patches."""

    def __init__(self, ways: Ways) -> None:
        super().__init__()
        self.ways = ways
        shapes: dict[str, tuple[int, ...]] = {
            "patches": (WIDTH, 3, SIZES["patch_size"], SIZES["patch_size"]), "patches_bias": (WIDTH,),
            "token": (WIDTH,), "positions": (GRID**2 + 1, WIDTH), **self.linear_of("head", SIZES["num_classes"], WIDTH),
            "last_scale": (WIDTH,), "last_shift": (WIDTH,),
        }  # fmt: skip
        for n in range(SIZES["num_layers"]):
            shapes |= self.linear_of(f"{n}_qkv", 3 * WIDTH, WIDTH) | self.linear_of(f"{n}_out", WIDTH, WIDTH)
            shapes |= self.linear_of(f"{n}_up", MLP, WIDTH) | self.linear_of(f"{n}_down", WIDTH, MLP)
            shapes |= {
                f"{n}_{part}": (WIDTH,) for part in ("first_scale", "first_shift", "second_scale", "second_shift")
            }
        self.all = nn.ParameterDict({name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()})

    def linear_of(self, name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
        return {name: (rows, columns), f"{name}_bias": (rows,)}

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), self.all[f"{name}_scale"], self.all[f"{name}_shift"], self.ways.eps)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.all[name], self.all[f"{name}_bias"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(images, self.all["patches"], self.all["patches_bias"], stride=SIZES["patch_size"])
        x = x.flatten(2).permute(2, 0, 1)
        x = torch.cat([x, self.all["token"].expand(1, x.shape[1], -1)])
        x = x + self.ways.positions(self.all["positions"]).roll(-1, 0)[:, None]
        for n in range(SIZES["num_layers"]):
            q, k, v = self.linear(f"{n}_qkv", self.norm(f"{n}_first", x)).transpose(0, 1).chunk(3, -1)
            y = attended(q, k, v, self.ways).transpose(0, 1)
            x = x + self.linear(f"{n}_out", y)
            y = self.ways.activation(self.linear(f"{n}_up", self.norm(f"{n}_second", x)))
            x = self.ways.added(x, self.linear(f"{n}_down", y))
        return self.linear("head", self.norm("last", x[-1]))


class FunctionsApart(TokenLast):
    """The same functions, called for the class token and then for the patches."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(images, self.all["patches"], self.all["patches_bias"], stride=SIZES["patch_size"]).flatten(2).mT
        table = self.ways.positions(self.all["positions"])
        both = [(self.all["token"] + table[:1]).expand(len(x), 1, -1), x + table[1:]]
        for n in range(SIZES["num_layers"]):
            q, k, v = torch.cat([self.linear(f"{n}_qkv", self.norm(f"{n}_first", t)) for t in both], 1).chunk(3, -1)
            y = attended(q, k, v, self.ways)
            for number, (t, more) in enumerate(zip(both, (y[:, :1], y[:, 1:]), strict=True)):
                there = t + self.linear(f"{n}_out", more)
                h = self.ways.activation(self.linear(f"{n}_up", self.norm(f"{n}_second", there)))
                both[number] = self.ways.added(there, self.linear(f"{n}_down", h))
        return self.linear("head", self.norm("last", both[0][:, 0]))


class ByImage(InChunks):
    """Its blocks are called for one image after the other."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        x = torch.cat([self.blocks(image[None]) for image in x])
        logits: torch.Tensor = self.head(self.norm(x)[:, 0])
        return logits


STYLES: dict[str, Callable[[Ways], nn.Module]] = {
    "rows": functools.partial(Apart, maps=False),
    "maps": functools.partial(Apart, maps=True),
    "chunks": InChunks,
    "token last": TokenLast,
    "functions": FunctionsApart,
}

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "scale": ({"scale": WIDTH**-0.5}, "attention-scale"),
    "gelu": ({"activation": functools.partial(F.gelu, approximate="tanh")}, "activation"),
    "residual": ({"added": lambda _, branch: branch}, "residual-missing"),
    "eps": ({"eps": 1e-5}, "layer-norm-eps"),
    "formula": ({"activation": lambda h: F.gelu(h) + 0.1 * h.sin()}, "graft"),
    "value": ({"value": lambda v: v + 0.2 * v.square()}, "graft"),
}


def _report(style: str, **wrong: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return check(STYLES[style](Ways(**wrong)), overrides=SIZES, weights="synthetic", modes=["eval"])


@pytest.mark.parametrize("style", STYLES)
def test_right_one_is_passed(style: str) -> None:
    assert _report(style).verdict == "equivalent"


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("style", STYLES)
def test_what_is_wrong_is_said_and_nothing_else(style: str, wrong: str) -> None:
    ways, cause = WRONG[wrong]
    report = _report(style, **ways)
    assert report.explanation.complete, report.reasons
    assert [found.id for found in report.causes] == [cause], [found.statement for found in report.causes]
    assert report.causes[0].source.startswith("test_tokens_apart.py:")


def _shifted(table: torch.Tensor) -> torch.Tensor:
    """Each patch has the position of the one before."""
    return torch.cat([table[..., :1, :], table[..., 1:, :].roll(1, -2)], -2)


@pytest.mark.parametrize("style", STYLES)
def test_what_the_order_of_the_tokens_matters_for_is_one_cause(style: str) -> None:
    report = _report(style, positions=_shifted)
    assert report.explanation.complete, report.reasons
    (cause,) = report.causes
    assert cause.statement.startswith("positions of the patches shifted by 1;")


@pytest.mark.parametrize("style", STYLES)
def test_several_causes_are_named_together(style: str) -> None:
    report = _report(style, scale=WIDTH**-0.5, eps=1e-5, activation=F.silu)
    assert report.explanation.complete, report.reasons
    assert report.explanation.minimal
    assert {cause.id for cause in report.causes} == {"layer-norm-eps", "attention-scale", "activation"}


@pytest.mark.parametrize("style", ["rows", "maps"])
def test_places_of_tokens_apart_are_compared(style: str) -> None:
    right, wrong = _report(style), _report(style, activation=F.silu)
    for report in (right, wrong):
        compared = {layer.reference for layer in report.layers if layer.status != "not compared"}
        for module in ("", ".ln_1", ".self_attention", ".self_attention.query", ".ln_2", ".mlp", ".mlp.0", ".mlp.3"):
            assert f"encoder.layers.encoder_layer_1{module}" in compared
    assert all(layer.status in ("clean", "not compared") for layer in right.layers)
    assert wrong.origin.after == "the input of encoder.layers.encoder_layer_0.mlp.3"
    dirty = {layer.reference for layer in wrong.layers if (layer.isolated or 0.0) > 1e-12}
    assert dirty == set()  # it lies between two modules in either block


def test_calls_that_are_not_the_whole_together_are_not_compared() -> None:
    right, wrong = (
        check(ByImage(Ways(**ways)), overrides=SIZES, weights="synthetic", modes=["eval"])
        for ways in ({}, {"scale": WIDTH**-0.5})
    )
    assert right.verdict == "equivalent"
    for report in (right, wrong):
        inside = [layer for layer in report.layers if layer.reference.startswith("encoder.layers.encoder_layer_0")]
        assert {layer.status for layer in inside} == {"not compared"}
        assert any("is called 3 times, and what passes there is together not" in f"{layer.why}" for layer in inside)
    assert [cause.id for cause in wrong.causes] == ["attention-scale"]
    assert wrong.to_dict()["explanation"]["complete"]


@pytest.mark.parametrize(("reference", "candidate"), [("chunks", "rows"), ("rows", "maps")])
def test_reference_may_keep_its_tokens_apart_as_well(reference: str, candidate: str) -> None:
    report = check(
        STYLES[candidate](Ways(scale=WIDTH**-0.5, eps=1e-5)), reference=STYLES[reference](Ways(activation=F.silu)),
        weights="synthetic", modes=["eval"],
    )  # fmt: skip
    assert report.to_dict()["explanation"]["complete"], report.reasons
    assert {cause.id for cause in report.causes} == {"layer-norm-eps", "attention-scale", "activation"}


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 6), "b d"), ((8, 6), "(b n) d"), ((2, 4, 6), "b n d"), ((4, 2, 6), "n b d"), ((2, 6, 4), "b d n"),
        ((2, 6, 2, 2), "b d h w"), ((2, 2, 2, 6), "b h w d"),
    ],
)  # fmt: skip
def test_portion_of_any_layout_is_put_back_where_it_was(shape: tuple[int, ...], layout: str) -> None:
    tensor = torch.randn(shape)
    found = layout_of(tensor.shape, torch.empty(2, 9, 6))
    assert found is not None
    assert found[0] == layout
    count = tensor.numel() // 12
    portion = Portion(0, 0, 3, 3 + count, 9, tensor.shape, *found)
    tokens = portion.as_tokens(tensor)
    assert tokens.shape == (2, count, 6)
    whole = torch.cat([torch.zeros(2, 3, 6), tokens, torch.ones(2, 6 - count, 6)], 1)
    assert torch.equal(portion.of(whole), tensor)


@pytest.mark.parametrize("style", ["rows", "functions"])
def test_formula_of_what_is_done_to_all_tokens_is_that_of_the_whole(style: str) -> None:
    (cause,) = _report(style, value=lambda v: v + 0.2 * v.square()).causes
    assert "@ (v + v^2 / 5)" in cause.statement
    assert "cat(" not in cause.statement


def test_formula_of_what_is_done_to_one_part_of_the_tokens_says_so() -> None:
    (cause,) = _report("maps", pooled=lambda token, patches: token + 0.5 * patches.amax(2, keepdim=True)).causes
    assert "x[:, 1:5]" in cause.statement
    assert "x[:, 0:1]" in cause.statement


def test_what_only_cancels_out_is_left_out_together() -> None:
    def group(name: str) -> Group:
        return Group((), name, name, "", "", (name,))

    turned, turned_back, wrong = map(group, ("turned", "turned back", "wrong"))

    def error(chosen: Sequence[Group]) -> float:
        is_turned = (turned in chosen) != (turned_back in chosen)
        return 1.0 * is_turned + 0.5 * (wrong not in chosen)

    assert prove([turned, wrong, turned_back], error).needed == (turned, wrong, turned_back)
    proof = prove([turned, wrong, turned_back], error, lambda found: found is not wrong)
    assert proof.needed == (wrong,)
    assert (proof.residual, proof.without) == (0.0, (0.5,))
