"""What stands for tensors that only the reference has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parity import check
from parity.explanation.causes.absences import absences
from tests.candidates.catalogue import RIGHT
from tests.test_candidates import FOLDER, SIZES

if TYPE_CHECKING:
    from pathlib import Path

    from parity.explanation.bending import Change

CONFIG = {**SIZES, "representation_size": None, "dropout": 0.0, "attention_dropout": 0.0}
ATTENTION = "encoder.layers.encoder_layer_1.self_attention"
BIAS = f"{ATTENTION}.in_proj_bias"


def _said(changes: list[Change]) -> list[tuple[str, str]]:
    return [(change.kind.id, change.kind.phrase) for change in changes]


def _slices(*bounds: tuple[int, int]) -> list[str]:
    return [f"{BIAS}[{start}:{stop}]" for start, stop in bounds]


@pytest.mark.parametrize(
    ("names", "phrases"),
    [
        ([BIAS], ["no bias of query, key and value"]),
        (_slices((0, 32), (32, 64), (64, 96)), ["no bias of query, key and value"]),
        (_slices(*((row, row + 8) for row in range(88, -8, -8))), ["no bias of query, key and value"]),
        (_slices((32, 64)), ["no bias of the key"]),
        (_slices((8, 16), (0, 8), (24, 32), (16, 24)), ["no bias of the query"]),
        (_slices((0, 32), (64, 96)), ["no bias of the query", "no bias of the value"]),
        (_slices((0, 64)), ["no bias of the query", "no bias of the key"]),
        (_slices((72, 80)), ["no bias of some rows of the value"]),
        (_slices((24, 40)), ["no bias of some rows of the query", "no bias of some rows of the key"]),
    ],
)
def test_slices_of_a_packed_projection_are_said_as_the_parts_that_they_make_up(
    names: list[str], phrases: list[str]
) -> None:
    assert _said(absences(names, CONFIG)) == [("qkv-bias", phrase) for phrase in phrases]


def test_tensor_that_no_vit_can_be_without_stands_for_nothing() -> None:
    assert not absences(["conv_proj.weight", "encoder.something.new"], CONFIG)


def test_heads_of_their_own_without_a_bias_are_one_cause(tmp_path: Path) -> None:
    source = (FOLDER / "head_modules.py").read_text()
    planted = source.replace("nn.Linear(n_embd, head_size)", "nn.Linear(n_embd, head_size, bias=False)")
    assert planted != source
    (tmp_path / "planted.py").write_text(planted)
    report = check(f"{tmp_path}/planted.py:{RIGHT['head_modules']}", overrides=SIZES, modes=["eval"])
    assert report.verdict == "divergent"
    assert [cause.id for cause in report.causes] == ["qkv-bias"]
    assert report.explanation is not None
    assert report.explanation.complete
