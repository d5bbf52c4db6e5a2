"""The same function with its weights laid out, multiplied or computed in another way is mapped and passed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from parity import check, infer_mapping
from parity.models.reference import build_reference, configuration
from parity.models.state import state_shapes
from parity.models.weight_maps.expansion import expand
from parity.models.weight_maps.written_map import read_map
from parity.models.weights import synthetic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity.report.report import Report

SIZES = {
    "image_size": 16, "patch_size": 8, "num_layers": 2, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 40,
    "num_classes": 7,
}  # fmt: skip
WIDTH, HEADS = 24, 3
RIGHT = ("identical", "equivalent")


class Attention(nn.Module):
    """Query, key and value are read from `parts`: for each, tensors (B, H, N, d)."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(WIDTH, WIDTH)

    def parts(self, x: torch.Tensor) -> Any:
        raise NotImplementedError

    def merged(self, x: torch.Tensor) -> Any:
        return self.out(rearrange(x, "b h n d -> b n (h d)"))

    def forward(self, x: torch.Tensor) -> Any:
        q, k, v = self.parts(x)
        return self.merged((q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5).softmax(-1) @ v)


class Block(nn.Module):
    def __init__(self, attention: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH, eps=1e-6), attention()
        self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, SIZES["mlp_dim"]), nn.GELU(), nn.Linear(SIZES["mlp_dim"], WIDTH))

    def forward(self, x: torch.Tensor) -> Any:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, attention: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, SIZES["patch_size"], SIZES["patch_size"])
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, 5, WIDTH))
        self.blocks = nn.ModuleList([Block(attention) for _ in range(SIZES["num_layers"])])
        self.norm, self.head = nn.LayerNorm(WIDTH, eps=1e-6), nn.Linear(WIDTH, SIZES["num_classes"])

    def forward(self, images: torch.Tensor) -> Any:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class Fused(Attention):
    """`together` in one Linear, whose rows are read in `order`; what is not in it has a Linear of its own."""

    def __init__(self, order: str, together: str = "qkv", merging: str = "h d") -> None:
        super().__init__()
        self.order, self.together, self.merging = order, together, merging
        self.fused = nn.Linear(WIDTH, len(together) * WIDTH)
        self.alone = nn.Linear(WIDTH, WIDTH) if len(together) == 2 else None

    def parts(self, x: torch.Tensor) -> Any:
        sizes = {"p": len(self.together), "h": HEADS, "d": WIDTH // HEADS}
        parts = rearrange(self.fused(x), f"b n ({self.order}) -> p b h n d", **sizes)
        found = dict(zip(self.together, parts, strict=True))
        if self.alone is not None:
            alone = self.order.replace("p", "")
            (missing,) = set("qkv") - set(self.together)
            found[missing] = rearrange(self.alone(x), f"b n ({alone}) -> b h n d", h=HEADS)
        return found["q"], found["k"], found["v"]

    def merged(self, x: torch.Tensor) -> Any:
        return self.out(rearrange(x, f"b h n d -> b n ({self.merging})"))


def _check(attention: Callable[[], nn.Module], reference: Any = "vit_b_16") -> Report:
    overrides = SIZES if reference == "vit_b_16" else None
    return check(ViT(attention), reference, overrides=overrides, weights="synthetic", modes=["eval"])


ORDERS = [
    *itertools.product(["p d h", "d p h", "d h p"], ["qkv", "vqk"]),
    *itertools.product(["p d h", "d p h", "d h p", "h d p"], ["qk", "vk"]),
    ("h d p", "kvq"),
]  # fmt: skip


@pytest.mark.parametrize(("order", "together"), ORDERS)
def test_rows_of_a_fused_projection_stand_in_any_order(order: str, together: str) -> None:
    report = _check(lambda: Fused(order, together))
    assert report.verdict in RIGHT, report
    assert report.mapping is not None
    assert report.mapping.certainty == "unique by proof"
    assert report.mapping.is_complete


def test_heads_may_be_merged_in_another_order() -> None:
    report = _check(lambda: Fused("d h p", merging="d h"))
    assert report.verdict in RIGHT, report


@pytest.mark.parametrize(("order", "together"), [("h p d", "qkv"), ("h d p", "qk"), ("d p h", "kv")])
@pytest.mark.parametrize("kept", [("p h d", "vqk"), ("d h p", "qv")])
def test_reference_may_be_the_one_that_is_interleaved(order: str, together: str, kept: tuple[str, str]) -> None:
    reference = nn.Sequential(ViT(lambda: Fused(*kept)))  # other names than the candidate's
    reference.load_state_dict(synthetic(reference, 0))
    report = _check(lambda: Fused(order, together), reference)
    assert report.verdict in RIGHT, report


class Tensordot(Attention):
    def __init__(self) -> None:
        super().__init__()
        for name in "qkv":
            self.register_parameter(name, nn.Parameter(torch.zeros(WIDTH, HEADS, WIDTH // HEADS)))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(HEADS, WIDTH // HEADS)))

    def parts(self, x: torch.Tensor) -> Any:
        return [
            (torch.tensordot(x, getattr(self, name), dims=([2], [0])) + getattr(self, f"{name}_bias")).transpose(1, 2)
            for name in "qkv"
        ]


class ReshapedFirst(Attention):
    """One matrix that einsum multiplies by parts, heads and features."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(3 * WIDTH, WIDTH)), nn.Parameter(torch.zeros(3 * WIDTH))

    def parts(self, x: torch.Tensor) -> Any:
        weight = self.weight.view(3, HEADS, WIDTH // HEADS, WIDTH)
        return torch.einsum("bni,phdi->pbhnd", x, weight) + self.bias.view(3, 1, HEADS, 1, WIDTH // HEADS)


class OfOneShape(Attention):
    """One parameter (3, H, d, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, HEADS, WIDTH // HEADS, WIDTH))
        self.bias = nn.Parameter(torch.zeros(3 * WIDTH))

    def parts(self, x: torch.Tensor) -> Any:
        packed = F.linear(x, self.weight.reshape(3 * WIDTH, WIDTH), self.bias)
        return rearrange(packed, "b n (p h d) -> p b h n d", p=3, h=HEADS)


class SplitFirst(Attention):
    """One matrix (D, 3 D) that is cut before it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(WIDTH, 3 * WIDTH)), nn.Parameter(torch.zeros(3 * WIDTH))

    def parts(self, x: torch.Tensor) -> Any:
        pairs = zip(self.weight.chunk(3, 1), self.bias.chunk(3), strict=True)
        return [rearrange(x @ weight + bias, "b n (h d) -> b h n d", h=HEADS) for weight, bias in pairs]


class JoinedFirst(Attention):
    """Three matrices that are joined before they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def parts(self, x: torch.Tensor) -> Any:
        layers = (self.v, self.q, self.k)
        packed = F.linear(x, torch.cat([f.weight for f in layers]), torch.cat([f.bias for f in layers]))
        v, q, k = rearrange(packed, "b n (p h d) -> p b h n d", p=3, h=HEADS)
        return q, k, v


class GroupedConvolution(Attention):
    """Three projections are the groups of a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Conv1d(3 * WIDTH, 3 * WIDTH, 1, groups=3)

    def parts(self, x: torch.Tensor) -> Any:
        packed = self.qkv(x.transpose(1, 2).repeat(1, 3, 1))
        return rearrange(packed, "b (p h d) n -> p b h n d", p=3, h=HEADS)


class Strict(Fused):
    """Works only on contiguous tensors, as it is handed them by its own model."""

    def __init__(self) -> None:
        super().__init__("p h d")

    def parts(self, x: torch.Tensor) -> Any:
        packed = self.fused(x)
        return packed.view(*x.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)


@pytest.mark.parametrize(
    "attention", [Tensordot, ReshapedFirst, OfOneShape, SplitFirst, JoinedFirst, GroupedConvolution, Strict]
)
def test_weight_is_mapped_however_it_is_multiplied(attention: Callable[[], nn.Module]) -> None:
    report = _check(attention)
    assert report.verdict in RIGHT, report
    assert report.mapping is not None
    assert report.mapping.is_complete


class TwoBiases(Attention):
    """One weight without a bias; those of query and value are added in one of two ways."""

    def __init__(self, *, is_joined: bool) -> None:
        super().__init__()
        self.qkv, self.is_joined = nn.Linear(WIDTH, 3 * WIDTH, bias=False), is_joined
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(WIDTH)), nn.Parameter(torch.zeros(WIDTH))

    def parts(self, x: torch.Tensor) -> Any:
        if self.is_joined:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
            q, k, v = F.linear(x, self.qkv.weight, bias).chunk(3, -1)
        else:
            q, k, v = self.qkv(x).chunk(3, -1)
            q, v = q + self.q_bias, v + self.v_bias
        return [rearrange(part, "b n (h d) -> b h n d", h=HEADS) for part in (q, k, v)]


@pytest.mark.parametrize("is_joined", [True, False])
def test_key_without_a_bias_is_the_same_function(is_joined: bool) -> None:  # noqa: FBT001
    report = _check(lambda: TwoBiases(is_joined=is_joined))
    assert report.verdict == "equivalent", report
    assert report.mapping is not None
    bias = "encoder.layers.encoder_layer_{}.self_attention.in_proj_bias[24:48]"
    assert report.mapping.without_effect == (bias.format(0), bias.format(1))
    assert "which changes nothing, whatever it holds" in "\n".join(report.reasons)


def test_query_without_a_bias_is_not() -> None:
    class NoQuery(TwoBiases):
        def parts(self, x: torch.Tensor) -> Any:
            q, k, v = self.qkv(x).chunk(3, -1)
            return [rearrange(part, "b n (h d) -> b h n d", h=HEADS) for part in (q, k + self.q_bias, v + self.v_bias)]

    report = _check(lambda: NoQuery(is_joined=False))
    assert report.verdict == "divergent", report


def _head_computed(how: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model: Any = ViT(lambda: Fused("p h d"))
        utils: Any = nn.utils
        {
            "weight norm": lambda: utils.parametrizations.weight_norm(model.head),
            "weight norm by a hook": lambda: utils.weight_norm(model.blocks[0].mlp[0]),
            "spectral norm": lambda: utils.parametrizations.spectral_norm(model.blocks[1].attention.fused),
            "spectral norm by a hook": lambda: utils.spectral_norm(model.blocks[1].mlp[2]),
            "pruning": lambda: utils.prune.l1_unstructured(model.blocks[0].attention.fused, "weight", 0.3),
        }[how]()
        return cast("nn.Module", model)

    return build


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize(
    "how", ["weight norm", "weight norm by a hook", "spectral norm", "spectral norm by a hook", "pruning"]
)
def test_computed_weight_is_compared_as_what_comes_of_it(how: str) -> None:
    report = check(_head_computed(how), overrides=SIZES, modes=["eval"])
    assert report.verdict in RIGHT, report
    assert "computed by the candidate as it is run" in "\n".join(report.notes)


def test_module_that_computes_its_weights_is_left_as_it_is() -> None:
    model = _head_computed("weight norm")()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert check(model, overrides=SIZES, modes=["eval"]).verdict in RIGHT
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_slices_of_every_so_many_rows_are_written_and_read(tmp_path: Path) -> None:
    reference = build_reference(configuration("vit_b_16", SIZES))
    candidate = ViT(lambda: Fused("h d p", "kv"))
    mapping = infer_mapping(reference, candidate)
    state = synthetic(reference, 0)
    candidate.load_state_dict(mapping.apply(state))
    back = mapping.invert().apply(candidate.state_dict())
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    file = tmp_path / "map.toml"
    file.write_text(mapping.to_toml())
    assert '= "blocks.{i}.attention.fused.weight[1:2 of 2]"' in file.read_text()
    assert set(expand(read_map(file), state_shapes(reference), state_shapes(candidate), "file").entries) == set(
        mapping.entries
    )


def test_layout_of_a_wrong_attention_is_told_by_its_symmetries() -> None:
    class Unscaled(Fused):
        def forward(self, x: torch.Tensor) -> Any:
            q, k, v = self.parts(x)
            return self.merged((q @ k.transpose(-2, -1)).softmax(-1) @ v)

    report = _check(lambda: Unscaled("h d p"))
    assert report.verdict == "divergent", report
    assert report.mapping is not None
    assert report.mapping.certainty in ("by an attention's symmetries", "the closest by far")
    assert [cause.id for cause in report.causes] == ["attention-scale"]


def test_softmax_over_the_queries_makes_no_query_of_the_key() -> None:
    class OverQueries(Attention):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

        def forward(self, x: torch.Tensor) -> Any:
            parts = (self.query(x), self.key(x), self.value(x))
            q, k, v = (rearrange(part, "b n (h d) -> b h n d", h=HEADS) for part in parts)
            return self.merged((q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5).softmax(-2) @ v)

    report = _check(OverQueries)
    assert [cause.id for cause in report.causes] == ["softmax-axis"], report
    assert report.mapping is not None
    assert not any("contradict" in warning for warning in report.mapping.warnings)


class Temperature(Fused):
    """Each block's attention has as many numbers of its own as a class token has."""

    def __init__(self) -> None:
        super().__init__("p h d")
        self.gamma = nn.Parameter(torch.ones(HEADS, 1, WIDTH // HEADS))

    def parts(self, x: torch.Tensor) -> Any:
        q, k, v = super().parts(x)
        return q * self.gamma, k, v


class Tokenless(ViT):
    def __init__(self) -> None:
        super().__init__(Temperature)
        del self.token

    def forward(self, images: torch.Tensor) -> Any:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions[:, 1:]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def test_what_every_block_has_is_no_class_token() -> None:
    found = infer_mapping(build_reference(configuration("vit_b_16", SIZES)), Tokenless())
    assert {"blocks.0.attention.gamma", "blocks.1.attention.gamma"} <= {*found.unmapped_candidate}
    assert "class_token" in found.unmapped_reference


def test_difference_that_may_be_the_maps_is_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.checking.explain", lambda *_: (None, []))  # a search that finds nothing

    class Shuffled(Fused):
        """The rows stand in an order that nobody chooses."""

        def parts(self, x: torch.Tensor) -> Any:
            order = torch.randperm(3 * WIDTH, generator=torch.Generator().manual_seed(0))
            return rearrange(self.fused(x)[..., order], "b n (p h d) -> p b h n d", p=3, h=HEADS)

    report = _check(lambda: Shuffled("p h d"))
    assert report.verdict == "inconclusive", report
    assert report.exit_status == 3
    assert "only where the weight map isn't proved" in report.reasons[0]
    assert "--mapping FILE" in report.reasons[1]


class Adapted(nn.Module):
    """A Linear to whose weight a product of low rank is added."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(rows, WIDTH)), nn.Parameter(torch.zeros(rows))
        self.down, self.up = nn.Parameter(torch.zeros(2, WIDTH)), nn.Parameter(torch.zeros(rows, 2))

    def computed(self) -> Any:
        return self.weight + self.up @ self.down

    def forward(self, x: torch.Tensor) -> Any:
        return F.linear(x, self.computed(), self.bias)


class Normalised(Adapted):
    """Its weight is a direction and a length."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        del self.down, self.up
        self.length = nn.Parameter(torch.ones(rows, 1))

    def computed(self) -> Any:
        return self.length * self.weight / self.weight.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("layer", [Adapted, Normalised])
@pytest.mark.parametrize("place", ["fused", "out", "mlp"])
def test_weight_computed_by_other_means_is_no_firm_divergence(
    layer: type[Adapted], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parity.checking.explain", lambda *_: (None, []))

    def build() -> nn.Module:
        model: Any = ViT(lambda: Fused("p h d"))
        for block in model.blocks:
            if place == "mlp":
                block.mlp[0] = layer(SIZES["mlp_dim"])
            else:
                setattr(block.attention, place, layer(WIDTH * (3 if place == "fused" else 1)))
        return cast("nn.Module", model)

    report = check(build, overrides=SIZES, modes=["eval"])
    assert report.verdict == "inconclusive", report
    assert report.mapping is not None
    assert not report.mapping.unmapped_reference
    assert "a part of a weight that is computed as the model runs" in "\n".join(report.reasons)


class WithoutBiases(Attention):
    """Linears of which some have no bias."""

    def __init__(self, without: str) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=part not in without) for part in "qkv")

    def parts(self, x: torch.Tensor) -> Any:
        return [rearrange(linear(x), "b n (h d) -> b h n d", h=HEADS) for linear in self.linears]


def test_slice_without_a_counterpart_is_said_once_and_as_a_slice() -> None:
    text = " ".join(str(_check(lambda: WithoutBiases("k"))).split())
    assert text.count("in_proj_bias") == text.count("in_proj_bias[24:48] (2 tensors)") == 1, text


def test_slices_of_the_same_tensors_are_said_together() -> None:
    report = _check(lambda: WithoutBiases("qv"))
    assert report.verdict == "divergent", report
    assert report.mapping is not None
    (sentence,) = report.mapping.without_counterpart()
    assert sentence.endswith(
        "parts of encoder.layers.encoder_layer_{i}.self_attention.in_proj_bias (4 slices of 2 tensors)"
    )
