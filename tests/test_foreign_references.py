"""Causes beside a reference that is no class of torchvision's: what it has of its own is none of them."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from parity import check
from parity.explanation.composing import composed
from parity.models.weight_maps.entries import Entry
from parity.models.weight_maps.weight_map import WeightMap

if TYPE_CHECKING:
    from parity.report.report import Report

WIDTH, HEADS, PATCH, SIDE = 48, 4, 8, 32
TANH = functools.partial(nn.GELU, approximate="tanh")


class Block(nn.Module):
    def __init__(self, eps: float, act: Any, *, bias: bool, scales: bool, cap: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=eps), nn.LayerNorm(WIDTH, eps=eps)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH, bias=bias), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.act, self.fc2 = nn.Linear(WIDTH, 96), act(), nn.Linear(96, WIDTH)
        if scales:
            self.scale1, self.scale2 = nn.Parameter(torch.ones(WIDTH)), nn.Parameter(torch.ones(WIDTH))
        self.scales, self.cap, self.num_heads = scales, cap, HEADS

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        if self.cap:
            scores = torch.sin(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 / self.cap) * self.cap
            mixed = scores.softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v)
        projected: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(x.shape))
        return projected

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.attention(self.norm1(x))
        x = x + (self.scale1 * y if self.scales else y)
        y = self.fc2(self.act(self.fc1(self.norm2(x))))
        x = x + (self.scale2 * y if self.scales else y)
        return x


class ViT(nn.Module):
    """A ViT with the traits that other libraries' ViTs have."""

    def __init__(
        self, eps: float = 1e-6, act: Any = nn.GELU, pool: str = "token", *, bias: bool = True, scales: bool = False,
        registers: bool = False, token: bool = True, norm: bool = True, pre_norm: bool = False, cap: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        patches = (SIDE // PATCH) ** 2
        self.patch_embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH)) if token else None
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + token * (not registers), WIDTH))
        self.reg_token = nn.Parameter(torch.zeros(1, 4, WIDTH)) if registers else None
        self.norm_pre = nn.LayerNorm(WIDTH, eps=eps) if pre_norm else nn.Identity()
        self.blocks = nn.Sequential(*[Block(eps, act, bias=bias, scales=scales, cap=cap) for _ in range(2)])
        self.norm = nn.LayerNorm(WIDTH, eps=eps) if norm else nn.Identity()
        self.head = nn.Linear(WIDTH, 10)
        self.pool, self.patches = pool, patches

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        token = [] if self.cls_token is None else [self.cls_token.expand(len(x), -1, -1)]
        if self.reg_token is None:
            x = torch.cat([*token, x], 1) + self.pos_embed
        else:
            x = torch.cat([*token, self.reg_token.expand(len(x), -1, -1), x + self.pos_embed], 1)
        x = self.blocks(self.norm_pre(x))
        if self.pool == "norm of mean":
            x = self.norm(x[:, -self.patches :].mean(1))
        else:
            x = self.norm(x)[:, 0] if self.pool == "token" else self.norm(x).mean(1)
        logits: torch.Tensor = self.head(x)
        return logits


def _with_values(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def _check(candidate: Any, reference: nn.Module) -> Report:
    return check(candidate, _with_values(reference), modes=["eval"])


def _statements(report: Report) -> list[str]:
    assert report.verdict == "divergent", report
    assert report.explanation is not None, report
    assert report.explanation.complete, report
    assert report.explanation.minimal, report
    return [cause.statement for cause in report.causes]


EPS = "LayerNorm eps 1e-05 in all 5 norms; the reference has 1e-06"
GELU = "GELU's tanh approximation in the MLP in act of all 2 blocks; the reference has exact GELU"
QKV = "bias of query, key and value in self_attention of all 2 blocks"
SCALE = "scale (blocks.*.scale{})"
MEAN = "the mean of all tokens going to the head"


@pytest.mark.parametrize(
    ("traits", "changes", "expected"),
    [
        ({"eps": 1e-12}, {"eps": 1e-6}, ["LayerNorm eps 1e-06 in all 5 norms; the reference has 1e-12"]),
        ({"eps": 1e-12}, {"act": TANH}, [GELU]),
        (
            {"act": TANH},
            {"act": nn.GELU},
            ["exact GELU in act of all 2 blocks; the reference has GELU's tanh approximation in the MLP"],
        ),
        (
            {"act": TANH},
            {"act": nn.ReLU},
            ["ReLU in the MLP in act of all 2 blocks; the reference has GELU's tanh approximation in the MLP"],
        ),
        ({"bias": False}, {"eps": 1e-5}, [EPS]),
        ({"eps": 1e-12}, {"bias": False}, [f"no {QKV}; the reference has one"]),
        ({"bias": False}, {"bias": True}, [f"a {QKV}; the reference has no bias of query, key and value"]),
        ({"scales": True, "pool": "norm of mean"}, {"act": TANH}, [GELU]),
        (
            {"scales": True},
            {"scales": False},
            [
                f"no {SCALE.format(1)} in self_attention of all 2 blocks; the reference has a {SCALE.format(1)}",
                f"no {SCALE.format(2)} in mlp of all 2 blocks; the reference has a {SCALE.format(2)}",
            ],
        ),
        ({"registers": True, "pool": "norm of mean"}, {"eps": 1e-5}, [EPS]),
        ({"token": False, "pool": "mean"}, {"eps": 1e-5}, [EPS]),
        (
            {"pool": "mean"},
            {"pool": "token"},
            [f"not {MEAN} but the class token; the reference has {MEAN}"],
        ),
        (
            {"pre_norm": True},
            {"pre_norm": False},
            ["no LayerNorm (norm_pre), eps 1e-06; the reference has a LayerNorm (norm_pre), eps 1e-06"],
        ),
        (
            {"norm": False},
            {"norm": True, "eps": 1e-5},
            [EPS, "a LayerNorm in encoder.ln; the reference has no norm"],
        ),
    ],
)  # fmt: skip
def test_only_what_the_candidate_does_otherwise_is_a_cause(
    traits: dict[str, Any], changes: dict[str, Any], expected: list[str]
) -> None:
    report = _check(lambda: ViT(**{**traits, **changes}), ViT(**traits))
    assert _statements(report) == expected


def test_same_traits_are_no_cause() -> None:
    report = _check(lambda: ViT(scales=True, bias=False), ViT(scales=True, bias=False))
    assert report.verdict == "identical"
    assert not report.causes


def test_places_and_hints_are_those_of_the_reference() -> None:
    report = _check(lambda: ViT(1e-5, TANH), ViT(1e-12, TANH))
    (cause,) = report.causes
    assert cause.where == ("blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2", "norm")
    assert cause.hint == "nn.LayerNorm(dim, eps=1e-12)"


def test_torchvision_module_with_norms_of_its_own_is_the_reference_as_it_is() -> None:
    norm = functools.partial(nn.LayerNorm, eps=1e-5)
    reference = VisionTransformer(SIDE, PATCH, 2, HEADS, WIDTH, 96, num_classes=10, norm_layer=norm)
    assert _statements(_check(lambda: ViT(1e-6), reference)) == [
        "LayerNorm eps 1e-06 in all 5 norms; the reference has 1e-05"
    ]
    assert _check(lambda: ViT(1e-5), reference).verdict == "equivalent"


def _imported(package: str) -> Any:
    return pytest.importorskip(package, reason=f"{package} is not installed; it belongs to the dependency group peers")


@pytest.mark.filterwarnings("ignore")
def test_port_of_timm_is_explained_beside_timm() -> None:
    timm = _imported("timm")
    sizes = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS, "mlp_ratio": 2}
    reference = timm.models.VisionTransformer(
        **sizes, num_classes=10, reg_tokens=4, global_pool="avg", init_values=0.5, qkv_bias=False
    )
    candidate: Any = copy.deepcopy(_with_values(reference))
    for block in candidate.blocks:
        block.mlp.act, block.norm1.eps = TANH(), 1e-5
    report = check(candidate, reference, modes=["eval"])
    assert _statements(report) == [
        "LayerNorm eps 1e-05 in norm1 of all 2 blocks; the reference has 1e-06",
        "GELU's tanh approximation in the MLP in mlp.act of all 2 blocks; the reference has exact GELU",
    ]


@pytest.mark.filterwarnings("ignore")
def test_port_of_transformers_is_explained_beside_transformers() -> None:
    transformers = _imported("transformers")
    sizes = {"image_size": SIDE, "patch_size": PATCH, "hidden_size": WIDTH, "num_hidden_layers": 2}
    config = transformers.ViTConfig(**sizes, num_attention_heads=HEADS, intermediate_size=96, num_labels=10)
    reference = transformers.ViTForImageClassification(config)
    assert _check(lambda: ViT(1e-12), reference).verdict == "equivalent"
    report = _check(lambda: ViT(1e-6, norm=False), reference)
    assert [cause.id for cause in report.causes] == ["layer-norm-eps", "norm-missing"]
    assert "the reference has 1e-12" in _statements(report)[0]


class Convolutions(nn.Module):
    def __init__(self, act: Any = nn.ReLU) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), act(), nn.Conv2d(8, 8, 3, stride=2), act())
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layers(x).mean((2, 3)))
        return logits


def test_nothing_is_looked_for_where_the_reference_is_no_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parity.explanation.search.Search.run", lambda *_, **__: pytest.fail("it searches"))
    reference = Convolutions()
    candidate = copy.deepcopy(reference)
    candidate.layers[1] = nn.GELU()
    report = check(candidate, reference, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.explanation is None
    assert report.reasons[-1].endswith("none are looked for: Convolutions has no attention")


def test_reference_with_a_trait_that_nobody_knows_is_named_and_no_causes_are_guessed(brief_search: None) -> None:  # noqa: ARG001
    report = _check(lambda: ViT(1e-5, cap=0.5), ViT(cap=0.5))
    assert report.verdict == "divergent"
    assert report.explanation is None
    assert not report.causes
    assert "ViT is another function at the input of blocks.0.proj" in report.reasons[-1]


def _map(*entries: tuple[str, ...], **others: Any) -> WeightMap:
    return WeightMap(tuple(Entry(*entry) for entry in entries), "", **others)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (_map(("a", "b")), _map(("b[0:2]", "c"), ("b[2:6]", "d")), [("a[0:2]", "c"), ("a[2:6]", "d")]),
        (_map(("a[0:2]", "b"), ("a[2:8]", "x")), _map(("b", "c[4:6]")), [("a[0:2]", "c[4:6]")]),
        (_map(("a[:, 1:7]", "b")), _map(("b", "c")), [("a[:, 1:7]", "c")]),
        (_map(("a[:, 0:1]", "b[:, 5:6]"), ("a[:, 1:6]", "b[:, 0:5]")), _map(("b", "c")),
         [("a[:, 0:1]", "c[:, 5:6]"), ("a[:, 1:6]", "c[:, 0:5]")]),
        (_map(("a", "b", "x y -> y x")), _map(("b", "c")), [("a", "c", "x y -> y x")]),
        (_map(("a", "b", "x y -> y x")), _map(("b[0:2]", "c")), []),
    ],
)  # fmt: skip
def test_maps_one_after_the_other(first: WeightMap, second: WeightMap, expected: list[tuple[str, ...]]) -> None:
    assert list(composed(first, second, {"b": (6, 6)}).entries) == [Entry(*entry) for entry in expected]


def test_what_either_map_leaves_out_has_no_counterpart() -> None:
    first = _map(("a", "b"), unmapped_reference=("extra",), unmapped_candidate=("between",))
    second = _map(("between", "d"), unmapped_reference=("b[0:2]",), unmapped_candidate=("e",))
    found = composed(first, second, {"b": (6,), "between": (6,)})
    assert not found.entries
    assert found.unmapped_reference == ("extra", "a[0:2]")
    assert found.unmapped_candidate == ("e", "d")
