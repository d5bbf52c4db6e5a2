"""Every kind of report is one that the published JSON Schema describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import torch
from torch import nn

import parity.report
import vit
from parity import check
from parity.models import build_reference, configuration
from parity.report.saved import EXIT_STATUS
from tests.small import OURS, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.report.report import Report

SCHEMA = json.loads(Path(parity.report.__file__).with_name("report.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def _with_other_weights() -> Report:
    reference, candidate = (
        build_reference(configuration("vit_b_16", SMALL)),
        build_reference(configuration("vit_b_16", SMALL)),
    )
    for model in (reference, candidate):
        model.to_empty(device="cpu")
        for number, tensor in enumerate(model.parameters()):
            nn.init.normal_(tensor, generator=torch.Generator().manual_seed(number))
    dict(candidate.named_parameters())["heads.head.weight"].data.mul_(2)
    return check(candidate, reference, modes=["eval"])


KINDS: dict[str, Callable[[], Report]] = {
    "identical": lambda: check(vit.ViT(**OURS), overrides=SMALL, modes=["eval"]),
    "divergent": lambda: check("tests/candidates/eps_bias_pool.py:SmallViT", overrides=SMALL, modes=["eval"]),
    "inconclusive": lambda: check(nn.Flatten(), overrides=SMALL, modes=["eval"]),
    "other phases": lambda: check(
        vit.ViT(**OURS), overrides=SMALL, modes=["eval"], phases=["forward", "backward", "training"], steps=1
    ),
    "other weights": _with_other_weights,
}


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["verdict"]["enum"] == [*EXIT_STATUS]


@pytest.mark.parametrize("kind", KINDS)
def test_reports_are_as_the_schema_says(kind: str) -> None:
    report = KINDS[kind]().to_dict()
    VALIDATOR.validate(report)
    known = SCHEMA["properties"].keys()
    assert report.keys() == known
    rows = SCHEMA["properties"]["layers"]["items"]["properties"].keys()
    assert all(layer.keys() == rows for layer in report["layers"])


@pytest.mark.parametrize(
    ("key", "value"), [("verdict", "right"), ("schema", 2), ("causes", {}), ("layers", [{"status": "clean"}])]
)
def test_what_is_no_report_is_refused(key: str, value: Any) -> None:
    report = KINDS["identical"]().to_dict()
    assert not VALIDATOR.is_valid(report | {key: value})
    assert not VALIDATOR.is_valid({name: held for name, held in report.items() if name != key})
