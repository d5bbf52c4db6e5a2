from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vit
from parity import MappingError, ParityError, WeightMap, check, infer_mapping
from parity.mapping.uses.calls import indexing_is_told
from parity.models.reference import build_reference, configuration
from parity.models.weight_maps.entries import Entry
from parity.models.weight_maps.expansion import by_name, expand
from parity.models.weight_maps.written_map import Patterns, read_map
from parity.suite.conftest import SMALL
from parity.tracing.alignment import align
from parity.tracing.run import Point, call_order
from tests import small
from tests.odd_vit import OddViT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPES = {"a.0.weight": (2, 3), "a.1.weight": (2, 3), "b": (4,)}
PATTERNS = Patterns((Entry("a.{i}.weight", "c.{i}.w"), Entry("b", "d")))
OTHER = {"c.0.w": (2, 3), "c.1.w": (2, 3), "d": (4,)}


def test_patterns_number_the_blocks_alike_on_both_sides() -> None:
    mapping = expand(PATTERNS, SHAPES, OTHER, "test")
    assert mapping.entries == (Entry("a.0.weight", "c.0.w"), Entry("a.1.weight", "c.1.w"), Entry("b", "d"))
    assert mapping.invert().invert() == mapping


def test_number_that_stands_twice_must_be_the_same() -> None:
    mapping = expand(Patterns((Entry("x.{i}.y.{i}", "z.{i}"),)), {"x.1.y.1": (1,)}, {"z.1": (1,)}, "test")
    assert mapping.entries == (Entry("x.1.y.1", "z.1"),)
    with pytest.raises(MappingError, match=r"the weight map test doesn't know 1 of the reference's tensors: x.1.y.2"):
        expand(Patterns((Entry("x.{i}.y.{i}", "z.{i}"),)), {"x.1.y.2": (1,)}, {"z.1": (1,)}, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c.1.w": None}, r"the candidate lacks 1 of the weight map test's tensors: c\.1\.w"),
        ({"extra": (1,)}, r"the weight map test doesn't know 1 of the candidate's tensors: extra"),
        ({"d": (2, 2)}, r"tensors of different shapes are mapped to each other: b \(4,\) = d \(2, 2\)"),
        ({"c.0.w": (3, 2)}, r"a\.0\.weight \(2, 3\) = c\.0\.w \(3, 2\)"),
    ],
)
def test_what_is_no_bijection_is_refused_with_the_names(
    change: dict[str, tuple[int, ...] | None], message: str
) -> None:
    candidate = {name: shape for name, shape in (OTHER | change).items() if shape is not None}
    with pytest.raises(MappingError, match=message):
        expand(PATTERNS, SHAPES, candidate, "test")


def test_tensor_used_twice_is_refused() -> None:
    twice = Patterns((Entry("a", "c"), Entry("b", "c")))
    with pytest.raises(MappingError, match=r"uses 1 of the candidate's tensors twice: c"):
        expand(twice, {"a": (1,), "b": (1,)}, {"c": (1,)}, "test")
    twice = Patterns((Entry("a.{i}", "c"), Entry("a.0", "d")))
    with pytest.raises(MappingError, match=r"uses 1 of the reference's tensors twice: a\.0"):
        expand(twice, {"a.0": (1,)}, {"c": (1,), "d": (1,)}, "test")


def test_slices_must_cover_a_tensor_without_overlap() -> None:
    thirds = [Entry(f"w[{2 * n}:{2 * n + 2}]", name) for n, name in enumerate("qkv")]
    candidate = dict.fromkeys("qkv", (2, 4))
    assert expand(Patterns(tuple(thirds)), {"w": (6, 4)}, candidate, "test").entries == tuple(thirds)
    with pytest.raises(MappingError, match=r"doesn't know 1 of the reference's tensors: w"):
        expand(Patterns(tuple(thirds[:2])), {"w": (6, 4)}, dict.fromkeys("qk", (2, 4)), "test")
    overlapping = (thirds[0], Entry("w[1:4]", "k"), thirds[2])
    with pytest.raises(MappingError, match=r"uses 1 of the reference's tensors twice: w"):
        expand(Patterns(overlapping), {"w": (6, 4)}, candidate | {"k": (3, 4)}, "test")


def test_layouts_are_carried_out_and_undone_exactly() -> None:
    state = {
        "w": torch.arange(72.0).view(12, 6),
        "p": torch.arange(96.0).view(2, 3, 4, 4),
        "x": torch.arange(6.0).view(1, 6),
    }
    mapping = WeightMap(
        (
            Entry("w[0:4]", "q", "o i -> i o"),
            Entry("w[4:12]", "kv", "(k h d) i -> (h d k) i, k=2, h=2, d=2"),
            Entry("p", "patch", "o c p q -> o (p q c), c=3, p=4, q=4"),
            Entry("x[:, 0:2]", "a", "1 n -> n"),
            Entry("x[:, 2:6]", "b", "1 n -> n 1 1"),
        ),
        "test",
    )
    moved = mapping.apply(state)
    assert torch.equal(moved["q"], state["w"][:4].T)
    assert moved["kv"][:2, 0].tolist() == [state["w"][4, 0], state["w"][8, 0]]
    assert torch.equal(moved["patch"], state["p"].permute(0, 2, 3, 1).flatten(1))
    assert moved["b"].shape == (4, 1, 1)
    back = mapping.invert().apply(moved)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_written_map_is_read_back_as_it_was(tmp_path: Path) -> None:
    blocks = [
        entry
        for i in range(12)
        for entry in (
            Entry(f"layers.layer_{i}.w[0:4]", f"blocks.{i}.q.weight", "o i -> i o"),
            Entry(f"layers.layer_{i}.w[4:8]", f"blocks.{i}.k.weight"),
            Entry(f"layers.layer_{i}.b", f"stacked[{i}:{i + 1}]", "a -> 1 a"),
        )
    ]
    mapping = WeightMap(
        (*blocks, Entry("cls", "token")), "test", "", ("pos[:, 0:1]",), ("extra.0.g", "extra.1.g"), ("old",)
    )
    file = tmp_path / "map.toml"
    file.write_text(mapping.to_toml())
    assert (
        '"layers.layer_{i}.w[0:4]" = { candidate = "blocks.{i}.q.weight", layout = "o i -> i o" }' in file.read_text()
    )
    reference = {f"layers.layer_{i}.{k}": shape for i in range(12) for k, shape in (("w", (8, 3)), ("b", (5,)))}
    reference |= {"cls": (2,), "pos": (1, 1)}
    candidate: dict[str, tuple[int, ...]] = {f"blocks.{i}.q.weight": (3, 4) for i in range(12)}
    candidate |= {f"blocks.{i}.k.weight": (4, 3) for i in range(12)}
    candidate |= {"stacked": (12, 5), "token": (2,), "extra.0.g": (1,), "extra.1.g": (1,), "old": (1,)}
    again = expand(read_map(file), reference, candidate, "test")
    assert set(again.entries) == set(mapping.entries)
    assert again.unmapped_reference == mapping.unmapped_reference
    assert again.unmapped_candidate == mapping.unmapped_candidate
    assert again.unused == mapping.unused


def test_layout_that_does_not_fit_is_refused() -> None:
    with pytest.raises(MappingError, match=r"the layout 'o i -> i o' doesn't fit a tensor of shape \(3,\)"):
        expand(Patterns((Entry("a", "b", "o i -> i o"),)), {"a": (3,)}, {"b": (3,)}, "test")


def test_map_is_applied_strictly() -> None:
    mapping = WeightMap((Entry("a", "b"),), "test")
    tensor = torch.ones(2)
    assert mapping.apply({"a": tensor})["b"] is tensor
    with pytest.raises(MappingError, match=r"the state dict lacks 1 tensors of the weight map: a"):
        mapping.apply({})
    with pytest.raises(MappingError, match=r"the state dict has 1 tensors that are not in the weight map: c"):
        mapping.apply({"a": tensor, "c": tensor})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[map\n", "is not valid TOML"),
        ("[mapping]\n", r"needs a table \[map\] of lines"),
        ("[map]\na = 3\n", r"needs a table \[map\] of lines"),
        ("[map]\na = { layout = 'o i -> i o' }\n", r"needs a table \[map\] of lines"),
        ("[map]\n[unmapped]\ncandidate = 'a'\n", r"needs lists of names under \[unmapped\]"),
        (
            "[map]\n[unmapped]\ncandidat = ['a']\n",
            r"\[unmapped\] .* has an unknown key candidat: did you mean candidate\?",
        ),
        ("[map]\n[unmaped]\n", "has an unknown key unmaped: did you mean unmapped?"),
        ("[map]\na = 'x[0:1 of 0]'\n", r"has no slice in x\[0:1 of 0\]"),
        (f"[map]\na = 'x[0:{'9' * 5000}]'\n", r"has no slice in x\[0:9+\.\.\.9+\]"),
    ],
)
def test_file_that_is_no_map_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "map.toml"
    file.write_text(text)
    with pytest.raises(ParityError, match=message):
        read_map(file)


def test_written_map_is_used(tmp_path: Path) -> None:
    file = tmp_path / "map.toml"
    file.write_text('[map]\n"weight" = "0.weight"\n"bias" = "0.bias"\n')
    mapping = infer_mapping(nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 3)), file)
    assert [entry.candidate for entry in mapping.entries] == ["0.weight", "0.bias"]


def test_model_is_its_own_map() -> None:
    model = build_reference(configuration("vit_b_16", SMALL))
    mapping = infer_mapping(model, model)
    assert all(entry.reference == entry.candidate for entry in mapping.entries)
    assert mapping.source == "of equal names"


def test_models_without_a_map_say_what_is_left_over() -> None:
    with pytest.raises(MappingError, match=r"the candidate lacks .* tensors") as raised:
        by_name(nn.Linear(2, 3), nn.Conv2d(2, 3, 1, bias=False))
    assert raised.value.unmapped_reference == ("bias",)
    with pytest.raises(MappingError) as raised:
        by_name(nn.Linear(2, 3, bias=False), nn.Linear(2, 3))
    assert raised.value.unmapped_candidate == ("bias",)


def _aligned(reference: nn.Module, candidate: nn.Module) -> dict[str, str]:
    images = torch.zeros(1, 3, 48, 48)
    orders = call_order(reference, images, "reference"), call_order(candidate, images, "candidate")
    alignment = align(reference, candidate, infer_mapping(reference, candidate), *orders)
    assert set(alignment.order) == set(alignment.pairs.values()) | alignment.unaligned.keys()
    assert not set(alignment.pairs.values()) & alignment.unaligned.keys()
    return {r: c for c, r in alignment.pairs.items()}


@pytest.fixture(scope="module")
def original() -> nn.Module:
    return build_reference(configuration("vit_b_16", SMALL)).to_empty(device="cpu").eval()


@pytest.fixture
def ours() -> vit.ViT:
    return vit.ViT(48, 3, 16, 64, 96, 4, 3, 0.0, 10).eval()


def test_modules_are_aligned_by_what_they_own(original: nn.Module, ours: vit.ViT) -> None:
    pairs = _aligned(original, ours)
    assert pairs["conv_proj"] == "patches.patch"
    assert pairs["encoder.layers"] == "attn_layers"
    assert pairs["heads.head"] == "head"
    assert pairs["encoder.ln"] == "ln"
    for block in range(3):
        prefix = f"encoder.layers.encoder_layer_{block}"
        assert pairs[prefix] == f"attn_layers.{block}"
        assert pairs[f"{prefix}.self_attention"] == f"attn_layers.{block}.attention"
        assert pairs[f"{prefix}.mlp"] == f"attn_layers.{block}.MLP"


def test_modules_without_weights_are_aligned_by_their_place(original: nn.Module, ours: vit.ViT) -> None:
    pairs = _aligned(original, ours)
    assert pairs["encoder.dropout"] == "dropout"
    assert pairs["encoder.layers.encoder_layer_1.dropout"] == "attn_layers.1.dropout"
    for layer in (1, 2, 4):
        assert pairs[f"encoder.layers.encoder_layer_1.mlp.{layer}"] == f"attn_layers.1.MLP.{layer}"


def test_activation_of_another_class_has_the_same_place(original: nn.Module, ours: vit.ViT) -> None:
    block = ours.attn_layers[1]
    assert isinstance(block, vit.AttentionBlock)
    block.MLP[1] = nn.SiLU()
    assert _aligned(original, ours)["encoder.layers.encoder_layer_1.mlp.1"] == "attn_layers.1.MLP.1"


def test_another_number_of_modules_without_weights_is_left_unaligned(original: nn.Module, ours: vit.ViT) -> None:
    ours.dropout = nn.Sequential(nn.Identity(), nn.Identity())  # type: ignore[assignment]
    pairs = _aligned(original, ours)
    assert "encoder.dropout" not in pairs
    assert "encoder.layers.encoder_layer_1.dropout" in pairs


def test_calls_are_listed_in_order() -> None:
    inner = nn.Sequential(nn.Identity())
    assert call_order(nn.Sequential(inner), torch.zeros(1), "candidate") == [
        Point("0", 0, "enter"),
        Point("0.0", 0, "enter"),
        Point("0.0", 0, "leave"),
        Point("0", 0, "leave"),
    ]


AWKWARD = ["w[0:3]", "head[0:4 of 8]", "head{i}", "{{i}}", 'a "quoted" one', "new\nline", "a = b", "[map]", "12"]


class Renamed(nn.Module):
    """torchvision's model with a parameter and a buffer of any name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.inner: nn.Module = build_reference(configuration("vit_b_16", SMALL)).to_empty(device="cpu")
        norm = cast("nn.LayerNorm", self.inner.get_submodule("encoder.ln"))
        self.register_parameter(name, norm.bias)
        self.register_buffer(f"other {name}", torch.zeros(3))
        norm.register_parameter("bias", None)
        norm.register_forward_hook(lambda _, __, output: output + self._parameters[name])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.inner(images))


@pytest.mark.parametrize("name", AWKWARD)
def test_written_map_holds_any_name(name: str, tmp_path: Path) -> None:
    reference, candidate = build_reference(configuration("vit_b_16", SMALL)), Renamed(name)
    mapping = infer_mapping(reference, candidate)
    assert mapping.is_complete
    assert len(mapping.unused) == 1
    file = tmp_path / "map.toml"
    file.write_text(mapping.to_toml(), encoding="utf-8")
    again = infer_mapping(reference, candidate, file)
    assert {*again.entries} == {*mapping.entries}
    assert again.unused == mapping.unused
    candidate.register_buffer("added since", torch.ones(2))
    assert {*infer_mapping(reference, candidate, file).unused} == {*mapping.unused, "added since"}


def test_written_map_of_fewer_blocks_says_which_are_left_out(tmp_path: Path) -> None:
    reference = build_reference(configuration("vit_b_16", SMALL))
    candidate = vit.ViT(48, 3, 16, 64, 96, 4, 2, 0.0, 10)
    mapping = infer_mapping(reference, candidate)
    assert mapping.unmapped_reference
    file = tmp_path / "map.toml"
    file.write_text(mapping.to_toml())
    again = infer_mapping(reference, candidate, file)
    assert {*again.entries} == {*mapping.entries}
    assert {*again.unmapped_reference} == {*mapping.unmapped_reference}


def test_inverted_map_says_what_it_means_that_tensors_are_left_over() -> None:
    meaning = {"a": "no such norm", "b": "an extra bias"}
    mapping = WeightMap(
        (Entry("x", "y"),), "test", "", ("a",), ("b",), ("old",), meaning=meaning, undecided=("x",), constants=("b",)
    )
    back = mapping.invert()
    assert back.meaning == {"a": "an extra norm", "b": "no such bias", "old": "not used by the forward pass"}
    assert back.undecided == ("y",)
    assert back.constants == ("b",)


def _one_by_one(model: OddViT, images: torch.Tensor) -> torch.Tensor:
    patches = torch.zeros(len(images), 16, 192)
    for image, own in zip(patches, images, strict=True):
        for n in range(16):
            row, column = 8 * (n // 4), 8 * (n % 4)
            image[n] = own[:, row : row + 8, column : column + 8].flatten()
    x = F.linear(patches, model.patch.weight.flatten(1), model.patch.bias)
    return torch.cat([model.token.expand(len(x), -1, -1), x], 1) + model.table


def _into_zeros(model: OddViT, images: torch.Tensor) -> torch.Tensor:
    x = images.new_zeros(len(images), 17, 48)
    x[:, :1] = model.token
    x[:, 1:] = model.patch(images).flatten(2).mT
    return x + model.table


def _onto_the_table(model: OddViT, images: torch.Tensor) -> torch.Tensor:
    x = model.table.repeat(len(images), 1, 1)
    x += torch.cat([model.token.expand(len(x), -1, -1), model.patch(images).flatten(2).mT], 1)
    return x


@pytest.mark.parametrize("embed", [_one_by_one, _into_zeros, _onto_the_table], ids=lambda embed: embed.__name__)
def test_what_is_written_into_a_tensor_is_no_part_of_the_models_own(
    embed: Callable[[OddViT, torch.Tensor], torch.Tensor],
) -> None:
    if not indexing_is_told() and embed is not _onto_the_table:
        pytest.skip("torch 2.0 tells nobody of an index")

    class Written(OddViT):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            x = embed(self, images)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)[:, 0])  # type: ignore[no-any-return]

    report = check(Written({}), overrides=small.SMALL, weights="synthetic", modes=["eval"])
    assert report.verdict in ("identical", "equivalent"), report


class _TwoHeads(OddViT):
    """Gives back the logits, and what another head makes of the same token, before them or after them."""

    def __init__(self, *, is_first: bool) -> None:
        super().__init__({"pooled": self._kept})
        self.is_first, self.other, self.kept = is_first, nn.Linear(48, 10), torch.zeros(())

    def _kept(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = x
        return x

    def forward(self, images: torch.Tensor) -> Any:
        logits = super().forward(images)
        others = self.other(self.kept[:, 0])
        return (logits, others) if self.is_first else (others, logits)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_head_of_another_output_is_no_counterpart(*, is_first: bool) -> None:
    candidate = _TwoHeads(is_first=is_first)
    found = infer_mapping(
        build_reference(configuration("vit_b_16", small.SMALL)).to_empty(device="cpu").eval(), candidate
    )
    heads = {entry.candidate for entry in found.entries if entry.reference == "heads.head.weight"}
    assert heads == {"head.weight" if is_first else "other.weight"}
    assert {*found.unmapped_candidate} == {f"{'other' if is_first else 'head'}.{part}" for part in ("weight", "bias")}
    report = check(lambda: _TwoHeads(is_first=is_first), overrides=small.SMALL, modes=["eval"])
    assert report.verdict == "equivalent"


class _FeaturesFirst(_TwoHeads):
    def forward(self, images: torch.Tensor) -> Any:
        logits, _ = super().forward(images)
        return self.kept, logits


def test_logits_behind_other_tensors_are_told() -> None:
    report = check(lambda: _FeaturesFirst(is_first=True), overrides=small.SMALL, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.reasons[0] == (
        "your model gives back 2 tensors, of which the first, of shape (3, 17, 48), is compared; another one has the "
        "shape of logits: give that back first, or as `logits` of a dict"
    )
