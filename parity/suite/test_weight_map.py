"""The weight map is a bijection: every tensor of both models is used exactly once, and nothing is lost on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from parity import build_pair, infer_mapping
from parity.models import build_reference, configuration, state_shapes
from parity.suite.conftest import SMALL

if TYPE_CHECKING:
    from parity.suite.conftest import Architecture


def _pair_without_values(candidate: str, architecture: Architecture) -> tuple[torch.nn.Module, torch.nn.Module]:
    from parity.models import build_without_values, resolve_candidate

    config = configuration(architecture.name, {"image_size": architecture.image_size})
    return build_reference(config), build_without_values(resolve_candidate(candidate, config))


def test_every_tensor_of_both_models_is_mapped_once(candidate: str, architecture: Architecture) -> None:
    original, ours = _pair_without_values(candidate, architecture)
    mapping = infer_mapping(original, ours)
    assert sorted(entry.reference for entry in mapping.entries) == sorted(state_shapes(original))
    assert sorted(entry.candidate for entry in mapping.entries) == sorted(state_shapes(ours))


def test_parameter_counts_are_the_published_ones(candidate: str, architecture: Architecture) -> None:
    _, ours = _pair_without_values(candidate, architecture)
    assert sum(p.numel() for p in ours.parameters()) == architecture.parameters


def test_parameter_counts_at_the_swag_sizes_are_the_published_ones(candidate: str, swag: Architecture) -> None:
    _, ours = _pair_without_values(candidate, swag)
    assert sum(p.numel() for p in ours.parameters()) == swag.parameters


def test_map_is_the_one_that_a_reader_would_write(reference: str) -> None:
    """Written out by hand for one block, so that a bijection that mixes tensors up doesn't pass."""
    pair = build_pair("vit:ViT", reference, overrides=SMALL | {"num_layers": 1, "representation_size": 8})
    block, ours = "encoder.layers.encoder_layer_0", "attn_layers.0"
    assert {entry.reference: entry.candidate for entry in pair.mapping.entries} == {
        "class_token": "cls_token",
        "conv_proj.weight": "patches.patch.weight",
        "conv_proj.bias": "patches.patch.bias",
        "encoder.pos_embedding": "pos_embedding",
        f"{block}.ln_1.weight": f"{ours}.pre_norm.weight",
        f"{block}.ln_1.bias": f"{ours}.pre_norm.bias",
        f"{block}.self_attention.in_proj_weight": f"{ours}.attention.in_proj_weight",
        f"{block}.self_attention.in_proj_bias": f"{ours}.attention.in_proj_bias",
        f"{block}.self_attention.out_proj.weight": f"{ours}.attention.out_proj.weight",
        f"{block}.self_attention.out_proj.bias": f"{ours}.attention.out_proj.bias",
        f"{block}.ln_2.weight": f"{ours}.norm.weight",
        f"{block}.ln_2.bias": f"{ours}.norm.bias",
        f"{block}.mlp.0.weight": f"{ours}.MLP.0.weight",
        f"{block}.mlp.0.bias": f"{ours}.MLP.0.bias",
        f"{block}.mlp.3.weight": f"{ours}.MLP.3.weight",
        f"{block}.mlp.3.bias": f"{ours}.MLP.3.bias",
        "encoder.ln.weight": "ln.weight",
        "encoder.ln.bias": "ln.bias",
        "heads.pre_logits.weight": "pre_logits.weight",
        "heads.pre_logits.bias": "pre_logits.bias",
        "heads.head.weight": "head.weight",
        "heads.head.bias": "head.bias",
    }


def test_round_trip_gives_the_same_tensors(candidate: str, reference: str) -> None:
    pair = build_pair(candidate, reference, overrides=SMALL)
    original = pair.reference.state_dict()
    there = pair.mapping.apply(original)
    back = pair.mapping.invert().apply(there)
    assert back.keys() == original.keys()
    assert all(torch.equal(back[name], original[name]) for name in original)


def test_state_dict_loads_strictly_and_survives_a_file(candidate: str, reference: str, tmp_path: object) -> None:
    pair = build_pair(candidate, reference, overrides=SMALL)
    file = f"{tmp_path}/weights.pth"
    torch.save(pair.mapping.apply(pair.reference.state_dict()), file)
    pair.candidate.load_state_dict({k: torch.zeros_like(v) for k, v in pair.candidate.state_dict().items()})
    pair.candidate.load_state_dict(torch.load(file, weights_only=True))
    restored = pair.mapping.invert().apply(pair.candidate.state_dict())
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        logits = pair.candidate(images)
        pair.reference.load_state_dict(restored)
        assert torch.equal(pair.reference(images), logits)


def test_loading_shares_storage_where_asked(candidate: str, reference: str) -> None:
    pair = build_pair(candidate, reference, overrides=SMALL)
    ours = pair.candidate.state_dict()
    for entry in pair.mapping.entries:
        assert ours[entry.candidate].data_ptr() == pair.reference.state_dict()[entry.reference].data_ptr()


def test_loading_copies_otherwise(candidate: str, reference: str) -> None:
    pair = build_pair(candidate, reference, overrides=SMALL)
    copied = {name: tensor.clone() for name, tensor in pair.reference.state_dict().items()}
    pair.mapping.load(pair.candidate, copied)
    ours = pair.candidate.state_dict()
    for entry in pair.mapping.entries:
        assert ours[entry.candidate].data_ptr() != copied[entry.reference].data_ptr()
        assert torch.equal(ours[entry.candidate], copied[entry.reference])
