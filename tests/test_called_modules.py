"""Modules with a `__call__` in place of a `forward`, as ports of other frameworks have, are watched like all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from parity import check
from tests.odd_vit import Block, Norm, OddViT
from tests.small import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    Tensor = torch.Tensor


def _called(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (kind,), {"__call__": kind.forward, "forward": nn.Module.forward})


def _model(activation: Callable[[Tensor], Tensor] = F.gelu) -> nn.Module:
    model = OddViT({"activation": activation})
    parts: list[Any] = [part for part in model.modules() if isinstance(part, (Block, Norm, OddViT))]
    for part in parts:
        part.__class__ = _called(type(part))
    return model


def test_called_modules_are_compared_as_others_are() -> None:
    model = _model()
    kinds = [type(part) for part in model.modules()]
    report = check(model, overrides=SMALL, modes=["eval"])
    assert report.verdict == "equivalent"
    assert {layer.reference for layer in report.layers if layer.status == "clean"} >= {
        "encoder.layers.encoder_layer_0.ln_1", "encoder.layers.encoder_layer_1", "encoder.ln",
    }  # fmt: skip
    assert [type(part) for part in model.modules()] == kinds, "what was handed over is left as it is"


def test_what_is_wrong_in_a_called_module_is_told_with_its_line() -> None:
    report = check(_model(lambda x: x * torch.cos(x)), overrides=SMALL, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    (cause,) = report.causes
    assert "x * cos(x) in mlp.1 of all 2 blocks" in cause.statement
    assert cause.source.startswith("test_called_modules.py:")
