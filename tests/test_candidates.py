"""Candidates in many people's styles, built, mapped and judged without a hint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from parity import check, infer_mapping
from parity.models.candidate import resolve_candidate
from parity.models.reference import build_reference, configuration
from parity.models.state import state_shapes
from parity.models.weight_maps.expansion import expand
from parity.models.weight_maps.written_map import read_map
from parity.models.weights import synthetic
from tests.candidates.catalogue import RIGHT, WRONG

if TYPE_CHECKING:
    from parity.report.report import Report

FOLDER = Path(__file__).parent / "candidates"

# no two of its sizes are the same, but for a patch's side and a head's width
SIZES = {
    "image_size": 24, "patch_size": 8, "num_layers": 3, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 48,
    "num_classes": 11,
}  # fmt: skip


def _check(name: str, entry_point: str) -> Report:
    return check(f"{FOLDER / name}.py:{entry_point}", overrides=SIZES, modes=["eval", "train"])


def test_there_is_one_entry_per_file() -> None:
    files = {file.stem for file in FOLDER.glob("*.py")} - {"__init__", "catalogue"}
    assert files == {*RIGHT, *WRONG}
    assert len(RIGHT) >= 30
    assert len(WRONG) >= 10


@pytest.mark.parametrize("name", RIGHT)
def test_right_candidate_is_mapped_by_proof_and_found_right(name: str) -> None:
    report = _check(name, RIGHT[name])
    assert report.verdict in ("identical", "equivalent"), report
    assert report.mapping is not None
    assert report.mapping.certainty == "unique by proof"
    assert report.mapping.is_complete
    assert not report.mapping.unused
    assert report.parameters == sum(p.numel() for p in build_reference(configuration("vit_b_16", SIZES)).parameters())


@pytest.mark.parametrize("name", WRONG)
def test_wrong_candidate_is_divergent_from_where_it_is_wrong(name: str) -> None:
    entry_point, expected = WRONG[name]
    if name == "relu_default" and not hasattr(torch, "compiler"):
        pytest.skip("torch before 2.1 runs an nn.TransformerEncoderLayer as one kernel, whoever watches its modules")
    report = _check(name, entry_point)
    assert report.verdict == "divergent", report
    assert report.origin is not None
    places = [("glue:" if place.kind == "glue" else "") + place.reference for place in report.origins]
    assert places[0] == expected[0], report
    assert set(expected) <= set(places), report


@pytest.mark.parametrize("name", RIGHT)
def test_weights_moved_there_and_back_are_the_same_bits(name: str, tmp_path: Path) -> None:
    config = configuration("vit_b_16", SIZES)
    reference = build_reference(config)
    candidate = resolve_candidate(f"{FOLDER / name}.py:{RIGHT[name]}", config).build()
    mapping = infer_mapping(reference, candidate)
    state = synthetic(reference, 0)
    moved = mapping.apply(state)
    candidate.load_state_dict(moved)
    back = mapping.invert().apply(candidate.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    file = tmp_path / "map.toml"
    file.write_text(mapping.to_toml())
    again = expand(read_map(file), state_shapes(reference), state_shapes(candidate), "file")
    assert set(again.entries) == set(mapping.entries)


def test_tensor_that_acts_as_another_than_its_name_says_is_a_warning() -> None:
    report = _check("contradicting_names", RIGHT["contradicting_names"])
    assert report.mapping is not None
    warnings = "\n".join(report.mapping.warnings)
    assert "layers.0.attention.key.weight, the key by its name, acts as the query" in warnings
    assert "layers.0.norm2 is used before layers.0.norm1, whatever their numbers say" in warnings


def test_class_token_in_a_buffer_is_a_warning() -> None:
    report = _check("class_token_buffer", RIGHT["class_token_buffer"])
    assert report.mapping is not None
    assert report.mapping.warnings == ("class_token is a buffer: it is never trained, whatever the weights",)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no_qkv_bias", "no bias of query, key and value"),
        ("no_final_norm", "no such norm: the candidate has no counterpart of encoder.ln.weight"),
        ("patch_norm", "an extra norm: the reference has none of to_patch_embedding.2.weight"),
        ("tanh_head", "an extra projection: the reference has none of pooler.dense.weight"),
        ("sinusoid_positions", "a fixed table: the reference has none of positional_encoding.pe"),
        ("no_out_projection", "no such projection"),
    ],
)
def test_what_has_no_counterpart_is_named_with_what_it_means(name: str, sentence: str) -> None:
    reasons = "\n".join(_check(name, WRONG[name][0]).reasons)
    assert sentence in reasons


def test_key_biases_are_certified_by_the_map_alone() -> None:
    report = _check("separate_qkv", RIGHT["separate_qkv"])
    assert report.unverifiable == tuple(
        f"encoder.layers.encoder_layer_{block}.self_attention.in_proj_bias[32:64]" for block in range(3)
    )
    mapped = {entry.reference for entry in report.mapping.entries} if report.mapping else set()
    assert {*report.unverifiable} <= mapped


@pytest.mark.parametrize(
    ("name", "steps"),
    [("separate_qkv", {"query", "key", "value", "out_proj"}), ("interleaved_hd3", {"in_proj", "out_proj"})],
)
def test_what_attention_computes_inside_is_compared(name: str, steps: set[str]) -> None:
    rows = [row for row in _check(name, RIGHT[name]).layers if ".self_attention." in row.reference]
    assert {row.reference.rpartition(".")[2] for row in rows} == steps
    assert {row.status for row in rows} == {"clean"}


def test_order_that_no_run_can_tell_is_taken_from_the_names() -> None:
    report = _check("softmax_dim_one", WRONG["softmax_dim_one"][0])
    assert report.mapping is not None
    assert report.mapping.certainty == "by name only"
    assert any("it is taken from the names" in warning for warning in report.mapping.warnings)


def test_order_that_neither_runs_nor_names_tell_is_said_to_be_uncertain() -> None:
    report = _check("merged_without_transpose", WRONG["merged_without_transpose"][0])
    assert report.mapping is not None
    assert report.mapping.certainty == "ambiguous"


def test_pixels_of_a_patch_may_be_taken_by_columns(tmp_path: Path) -> None:
    source = (FOLDER / "linear_patches_ppc.py").read_text()
    assert source.count("(p1 p2 c)") == 1
    file = tmp_path / "by_columns.py"
    file.write_text(source.replace("(p1 p2 c)", "(p2 p1 c)"))
    report = check(f"{file}:{RIGHT['linear_patches_ppc']}", overrides=SIZES, modes=["eval"])
    assert report.verdict == "equivalent", report
    assert report.mapping is not None
    assert any("-> o (q p c)" in entry.layout for entry in report.mapping.entries)
