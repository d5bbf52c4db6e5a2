"""The lines of source that a cause comes from, the candidate's beside the reference's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from parity.findings import Cause
from parity.models import build_reference, configuration
from parity.report import with_code
from parity.report.source_lines import lines_named
from tests.small import SMALL

if TYPE_CHECKING:
    from pathlib import Path


def test_named_lines_are_those_of_known_files() -> None:
    source = "model.py:12, 14, head.py:3"
    assert lines_named(source, ["src/model.py"]) == [("src/model.py", 12), ("src/model.py", 14), ("head.py", 3)]


@pytest.mark.parametrize(
    ("where", "lines"),
    [
        ("encoder.layers.encoder_layer_1.ln_2", ["self.ln_2 = norm_layer(hidden_dim)", "y = self.ln_2(x)"]),
        ("encoder.layers.encoder_layer_0.mlp", ["y = self.mlp(y)", "return x + y"]),
        ("encoder.layers.encoder_layer_0.self_attention.in_proj_bias", ["x, _ = self.self_attention("]),
        ("class_token", ["self.class_token = nn.Parameter(torch.zeros(1, 1, hidden_dim))"]),
        ("encoder.layers.encoder_layer_1", ["x = self.ln_1(input)", "x = x + input", "return x + y"]),
        ("encoder", ["x = self.encoder(x)", "x = x[:, 0]"]),
        ("the model", []),
    ],
)
def test_lines_of_the_reference_make_or_use_the_place(where: str, lines: list[str]) -> None:
    found = with_code(Cause("id", "statement", (where,)), [], build_reference(configuration("vit_b_16", SMALL)))
    said = [line.text for line in found.reference_code]
    assert all(any(text.startswith(line) for text in said) for line in lines)
    assert len(said) >= len(lines)
    assert bool(said) == bool(lines)
    assert all(line.at.startswith("vision_transformer.py:") for line in found.reference_code)


def test_statement_of_several_lines_is_shown_as_one() -> None:
    reference = build_reference(configuration("vit_b_16", SMALL))
    first = with_code(Cause("id", "statement", ("encoder",)), [], reference).reference_code[0].text
    assert first.startswith("self.encoder = Encoder(seq_length,")
    assert first.endswith("norm_layer)")


def test_lines_of_the_candidate_are_read_where_they_can_be(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text("first\n    second\n\n")
    cause = Cause("id", "statement", (), source="model.py:2, 3, 9, gone.py:1")
    found = with_code(cause, [f"{file}"], build_reference(configuration("vit_b_16", SMALL)))
    assert [(line.at, line.text) for line in found.candidate_code] == [("model.py:2", "second")]
