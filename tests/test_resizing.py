"""The recogniser names the rule by which somebody else resizes a position embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional as F

import vit
from parity.errors import ParityError
from parity.models.weights import uniform
from parity.tracing.measuring import compare
from parity.training.resizing import RULES, Rule, recognise, recognise_tables

if TYPE_CHECKING:
    from collections.abc import Callable


def _table(side: int) -> torch.Tensor:
    return uniform(f"table of {side}", (1, 1 + side * side, 6)).double()


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_rule_is_told_from_all_others(rule: Rule) -> None:
    found = recognise(rule.apply)
    assert found.rules == (rule,)
    assert found.rule == found.nearest == rule
    assert found.problem is None
    assert found.residual == 0
    assert str(found) == f"{rule} (residual 0.0e+00)"


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 7)])
def test_every_rule_is_found_from_two_tables(rule: Rule, old: int, new: int) -> None:
    table = _table(old)
    found = recognise_tables(table, rule.apply(table, new))
    assert rule in found.rules
    assert {r.mode for r in found.rules} == {rule.mode}
    expected = rule.apply(table, new)
    assert set(found.rules) == {r for r in RULES if compare(expected, r.apply(table, new)).relative < 1e-12}


def test_what_two_tables_cannot_tell_apart_is_said() -> None:
    table = _table(8)
    found = recognise_tables(table, Rule("area").apply(table, 4))
    assert {rule.mode for rule in found.rules} == {"area", "bilinear"}  # halving: the mean of 2 x 2 positions
    assert "what was seen cannot tell it from: " in str(found)


def test_plain_scale_factor_is_the_same_function_as_the_size() -> None:
    def resize(table: torch.Tensor, side: int) -> torch.Tensor:
        old = int((table.shape[1] - 1) ** 0.5)
        grid = table[:, 1:].transpose(1, 2).reshape(1, -1, old, old)
        grid = F.interpolate(grid, scale_factor=side / old + 1e-12, mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    assert recognise(resize).rule == Rule("bicubic", align_corners=False)


def test_our_own_rule_is_torchvisions() -> None:
    found = recognise(lambda table, side: vit.resize_positions({"pos_embedding": table}, side, 1)["pos_embedding"])
    assert str(found) == "bicubic, align_corners=True, antialias=False, by size (residual 0.0e+00)"


def test_float32_inside_is_recognised_and_said() -> None:
    rule = Rule("bilinear", align_corners=False)
    found = recognise(lambda table, side: rule.apply(table.float(), side).double())
    assert found.rules == (rule,)
    assert 1e-9 < found.residual < 1e-6
    assert ", computed in less than float64 (residual " in str(found)


@pytest.mark.parametrize(
    ("resize", "message"),
    [
        (lambda table, side: Rule("nearest").apply(table, side) * 1.001, "the class token's row, .* has changed"),
        (lambda table, side: Rule("area").apply(table, side).roll(1, 2), "class token's row, the first one, has"),
        (lambda table, side: Rule("area").apply(table, side)[:, :-1], "positions, which form no square grid"),
        (lambda table, side: Rule("area").apply(table, side + 1), "it makes 169 positions where a grid of 12 x 12 was"),
        (lambda table, side: Rule("area").apply(table, side)[0], r"it makes a table of shape \(145, 8\) of one of"),
    ],
)  # fmt: skip
def test_no_rule_is_found_for_something_else(resize: Callable[..., torch.Tensor], message: str) -> None:
    found = recognise(resize)
    assert found.rule is None
    with pytest.raises(ValueError, match=message):
        raise ValueError(str(found))


def test_a_mixture_is_none_of_them() -> None:
    """Grows by one rule and shrinks by another."""

    def resize(table: torch.Tensor, side: int) -> torch.Tensor:
        grows = Rule("bicubic", align_corners=False, antialias=True)
        return grows.apply(table, side) if side**2 >= table.shape[1] else Rule("nearest").apply(table, side)

    found = recognise(resize)
    assert found.rule is None
    assert str(found).startswith("no known rule: the nearest one, ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (_table(3), _table(3), "both tables are grids of 3 x 3 positions: nothing was resized"),
        (_table(3)[:, :-1], _table(4), "has 8 positions beside the class token's, which form no square grid"),
        (_table(3)[0], _table(4), r"expected a table of shape \(1, 1 \+ positions, width\), got \(10, 6\)"),
    ],
)
def test_tables_that_show_nothing_are_refused(old: torch.Tensor, new: torch.Tensor, message: str) -> None:
    with pytest.raises(ParityError, match=message):
        recognise_tables(old, new)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, Rule("bicubic", align_corners=False, antialias=True)),
        ({"antialias": False}, Rule("bicubic", align_corners=False)),
        ({"interpolation": "bilinear", "antialias": False}, Rule("bilinear", align_corners=False)),
    ],
)
def test_timms_rule(options: dict[str, object], rule: Rule) -> None:
    resample = pytest.importorskip("timm.layers").resample_abs_pos_embed
    found = recognise(lambda table, side: resample(table, [side, side], **options))
    assert found.rules == (rule,)


def test_transformers_rule() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.vit.modeling_vit import ViTEmbeddings

    def resize(table: torch.Tensor, side: int) -> torch.Tensor:
        old = int((table.shape[1] - 1) ** 0.5)
        config = transformers.ViTConfig(image_size=old, patch_size=1, hidden_size=table.shape[2])
        embeddings = ViTEmbeddings(config)
        embeddings.position_embeddings = torch.nn.Parameter(table)
        resized: torch.Tensor = embeddings.interpolate_pos_encoding(torch.zeros(1, 1 + side**2, 8), side, side)
        return resized

    assert recognise(resize).rules == (Rule("bicubic", align_corners=False),)
