"""All entries in one list. Their order counts: of entries that explain the same, the first is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parity.explanation.causes import (
    anywhere,
    attention,
    blocks,
    head,
    mlp,
    norms,
    patches,
    roundings,
    scores,
    solved,
    tokens,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from parity.explanation.bending import Kind


def catalogue(config: Mapping[str, Any]) -> list[Kind]:
    """Returns all entries for a reference of torchvision's configuration `config`, the likeliest of a place first."""
    makers = (
        patches.kinds, solved.channels, solved.positions, tokens.kinds, norms.kinds, attention.kinds, scores.kinds,
        blocks.kinds, anywhere.dropouts, mlp.kinds, anywhere.insertions, head.kinds, solved.classes, roundings.kinds,
        solved.features,
    )  # fmt: skip
    return [kind for maker in makers for kind in maker(config)]
