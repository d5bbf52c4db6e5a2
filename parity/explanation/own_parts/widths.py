"""Entries for a candidate's attention whose heads have another width than the reference's, with all its projections.

Where the heads together are not as wide as a token, no projection has a counterpart: what the candidate has between the
norm and the residual addition is carried out instead, in every way in which its matrices can hold queries, keys and
values.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import merge_heads, multiplied, softmax
from parity.explanation.causes.places import joined
from parity.explanation.own_parts.chains import BLOCK, chains_by_block, projected, without_block
from parity.mapping import readings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from parity.explanation.own_parts.chains import Chain
    from parity.mapping import Projection, Reading

    Tensor = torch.Tensor

# the most heads that are thought of where nothing says how many there are
_MOST_HEADS = 16


def width_kinds(chains: Sequence[Chain], held: Mapping[str, Tensor], config: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields entries for an attention of another width, the likeliest number of heads first.

    Args:
        chains: alike, one per block.
        held: the candidate's weights.
        config: torchvision's arguments of the reference.
    """
    if len(chains) != config["num_layers"] or len(_projections(chains[0])) < len(("in", "out")):
        return
    *leading, last = _projections(chains[0])
    tokens, heads, inner = config["hidden_dim"], config["num_heads"], last.matrix.shape[1]
    sizes = [projection.matrix.shape[0] for projection in leading]
    takes_tokens = all(projection.matrix.shape[1] == tokens for projection in leading)
    if not takes_tokens or last.matrix.shape[0] != tokens or sum(sizes) != 3 * inner or inner == tokens:
        return
    by_block = chains_by_block(chains)
    modules = (projection.matrix.view.name.removesuffix(".weight") for projection in (*leading, last))
    said = joined(dict.fromkeys(re.sub(r"\d+", "*", without_block(name)) for name in modules))
    usual = f"{heads} of {tokens // heads}"
    for count in _counts_of_heads(inner, tokens, heads):
        width = inner // count
        for reading in readings(sizes, inner, width):
            for scale, words in _scales(width, tokens, heads):
                made = functools.partial(
                    _attended, by_block=by_block, held=held, reading=reading, count=count, scale=scale
                )
                phrase = f"{count} head{'s' * (count > 1)} of {width} features ({said}){words}"
                hint = "head_dim = dim // num_heads"
                if count == heads:
                    hint += f"; or, if yours are {width} wide at any width, compare with --set hidden_dim={inner}"
                yield Kind("head-width", {"attention": made}, phrase, usual, hint,
                           by_place=True)  # fmt: skip


def _projections(chain: Chain) -> list[Projection]:
    return [projection for operation in chain.operations for projection in operation.projections]


def _counts_of_heads(inner: int, tokens: int, heads: int) -> list[int]:
    """Returns how many heads features may be of: as many as the reference has, as wide as a token or its heads, any."""
    likely = [heads, *([inner // tokens] if inner % tokens == 0 else []), inner * heads // tokens]
    return [count for count in dict.fromkeys((*likely, *range(1, _MOST_HEADS + 1))) if count and inner % count == 0]


def _scales(width: int, tokens: int, heads: int) -> Iterator[tuple[float, str]]:
    for base in dict.fromkeys((width, tokens // heads, tokens)):
        yield 1 / math.sqrt(base), "" if base == width else f", scaled by 1 / sqrt({base})"
    yield 1.0, ", not scaled"


@dataclass(frozen=True)
class _Rows:
    """What one projection gives, of which readings take parts."""

    outputs: Sequence[Tensor]
    count: int
    width: int

    def part(self, parts: Reading, number: int) -> Tensor:
        """Returns query, key or value (B, H, N, d)."""
        heads = []
        for part in parts.parts[number]:
            lengths = {"q": part.count, "h": self.count, "d": self.width}
            output = self.outputs[part.matrix]
            x = output.view(*output.shape[:-1], *(lengths[letter] for letter in part.order))
            letters = part.order
            if "q" in letters:
                x, letters = x.select(letters.index("q") + 2, part.number or 0), letters.replace("q", "")
            x = x.transpose(-1, -2) if letters == "dh" else x
            heads.append(x if "h" in letters else x.unsqueeze(2))
        return torch.cat(heads, 2).transpose(1, 2)


def _attended(
    _: Any, x: Tensor, *, by_block: Mapping[str, Chain], held: Mapping[str, Tensor], reading: Reading, count: int,
    scale: float, place: str,
) -> Tensor:  # fmt: skip
    """Carries out the candidate's attention.

    Raises:
        KeyError: there is none at this place.
    """
    match = BLOCK.match(place)
    *leading, last = _projections(by_block[match[0] if match else ""])
    outputs = [projected(x, projection, held) for projection in leading]
    rows = _Rows(outputs, count, last.matrix.shape[1] // count)
    query, key, value = (rows.part(reading, number) for number in range(3))
    return projected(merge_heads(softmax(multiplied(query, key, scale)) @ value), last, held)
