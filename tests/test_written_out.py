"""Arguments of anybody's class are shown as the call that makes them, and never by where in memory they lie."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import vit
from parity import check
from parity.report.plain import as_json, in_a_line
from tests.small import OURS, SMALL


class _Settings:
    kind = "small"

    def __init__(self, width: int = 48, *, norms: _Norms | None = None, names: tuple[str, ...] = ()) -> None:
        self.width, self.norms, self.names = width, norms, names
        self.derived = 3 * width


class _Norms:
    def __init__(self, eps: float) -> None:
        self.eps = eps


class _Keeping:
    def __init__(self, **options: int) -> None:
        self.__dict__ |= options


class _Sizes:
    def __init__(self, hidden_size: int = 48, num_hidden_layers: int = 2, num_attention_heads: int = 4) -> None:
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.num_attention_heads = num_attention_heads


class _Settled(vit.ViT):
    def __init__(self, config: _Sizes | None = None) -> None:
        config = config or _Sizes()
        sizes = {"embed_dim": config.hidden_size, "num_layers": config.num_hidden_layers}
        super().__init__(**OURS | sizes | {"num_heads": config.num_attention_heads})
        self.config = config


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (_Settings(24, norms=_Norms(1e-6)), "_Settings(width=24, norms=_Norms(eps=1e-06), names=())"),
        (_Keeping(depth=2), "_Keeping(depth=2)"),
        (object(), "object()"),
        (torch.float32, "torch.float32"),
        (nn.ReLU(), "ReLU()"),
    ],
)
def test_an_object_is_written_as_the_call_that_makes_it(value: Any, text: str) -> None:
    assert in_a_line(value) == text
    assert as_json({"config": value}) == {"config": text}


@pytest.mark.parametrize("value", [[_Norms(1e-6)], {"norm": _Norms(1e-6)}, lambda: None, _Norms(1e-6).__str__])
def test_no_text_says_where_something_lies(value: Any) -> None:
    assert "0x" not in in_a_line(value)


def test_what_holds_itself_is_written_out_to_an_end() -> None:
    circular = _Keeping()
    circular.__dict__["own"] = circular
    assert in_a_line(circular) == "_Keeping(own=_Keeping(own=_Keeping(...)))"


def test_a_report_shows_the_settings_that_a_candidate_was_given() -> None:
    report = check(_Settled, overrides=SMALL, modes=["eval"])
    shown = " ".join(f"{report}".split())
    assert "config=_Sizes(hidden_size=48, num_hidden_layers=2, num_attention_heads=4)" in shown
    assert "0x" not in shown
