"""Blocks, and parts of blocks, that a candidate uses more than once are named as that, in every mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.corpus.conftest import one_cause

if TYPE_CHECKING:
    from pathlib import Path

_IN_ORDER = "for n in {}:\n    x = {{layers}}[n](x)"
_FIRST = "for block in {layers}[1:]:\n    block.PART = {layers}[0].PART"

# host, edits, id of the cause, and what is said of it
SHARED = {
    "blocks-in-turn": ("separate", {"model.blocks": _IN_ORDER.format("(0, 1, 0)")}, "block-sharing",
                       "one block at the places 0 and 2"),
    "all-blocks-again": ("ours", {"model.blocks": _IN_ORDER.format("(0, 1, 2, 0, 1, 2)")}, "block-sharing",
                         "one block at the places 0 and 3, one block at the places 1 and 4"),
    "last-block-thrice": ("fused", {"model.blocks": _IN_ORDER.format("(0, 1, 2, 2, 2)")}, "block-sharing",
                          "one block at the places 2, 3 and 4"),
    "one-attention": ("fused", {"model.built": _FIRST.replace("PART", "attn")}, "block-sharing",
                      "one and the same attention in self_attention of all 3 blocks"),
    "one-mlp": ("fused", {"model.built": _FIRST.replace("PART", "mlp")}, "block-sharing",
                "one and the same MLP in mlp of all 3 blocks"),
    "one-second-norm": ("separate", {"model.built": _FIRST.replace("PART", "ln_ff")}, "norm-shared",
                        "one and the same second norm in ln_2 of all 3 blocks"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARED)
def test_what_is_used_more_than_once_is_one_cause(name: str, tmp_path: Path) -> None:
    one_cause(SHARED[name], tmp_path)
