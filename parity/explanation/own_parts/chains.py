"""Operations of a candidate with tensors that the reference has no counterpart of, in chains.

Consecutive operations of that sort are a *chain*: a norm, a scale, a projection, or several of them with activations
between. Where the candidate uses them tells between which modules of the reference they may stand.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from parity.explanation.bent_vit import scaled_and_shifted, standardised
from parity.explanation.causes.variants import ADDED
from parity.mapping import is_low_rank
from parity.models import split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch

    from parity.mapping import Operation, Projection, Uses, View
    from parity.models import WeightMap

    Tensor = torch.Tensor

BLOCK = re.compile(r"encoder\.layers\.encoder_layer_\d+")

# what may stand between the matrices of a chain
BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {"": lambda x: x, **ADDED}


@dataclass(frozen=True)
class Chain:
    """Operations that follow each other, and the reference's tensors that are used before and after them."""

    operations: tuple[Operation, ...]
    before: str
    after: str

    @property
    def pattern(self) -> str:
        """Its tensors' names, which all blocks' chains of a sort share: without the number of the block beside it."""
        names = [view.name for op in self.operations for view in op.views]
        is_of_block = any(map(BLOCK.match, (self.before, self.after)))
        return "; ".join(map(without_block, names) if is_of_block else names)


def chains_of(used: Uses, found: WeightMap) -> Iterator[Chain]:
    """Yields the chains of a candidate, in order of use."""
    extra = {split(name)[0] for name in found.unmapped_candidate}
    partner = {split(entry.candidate)[0]: split(entry.reference)[0] for entry in found.entries}
    chain: list[Operation] = []
    before = ""
    for operation in used.operations:
        mapped = [partner[view.name] for view in operation.views if view.name in partner]
        if mapped:
            yield from _apart(chain, before, mapped[0])
            chain, before = [], mapped[0]
        elif all(view.name in extra for view in operation.views):
            chain.append(operation)
    yield from _apart(chain, before, "")


def _apart(operations: list[Operation], before: str, after: str) -> Iterator[Chain]:
    """Yields one chain, or one for each branch of low rank where it consists of those."""
    pairs = [operations[number : number + 2] for number in range(0, len(operations), 2)]
    parts = pairs if all(map(is_low_rank, pairs)) else [operations]
    yield from (Chain(tuple(part), before, after) for part in parts if part)


def without_block(name: str) -> str:
    """Returns a name with a star for the block's number: the first that stands by itself, or else the first."""
    return re.sub(r"(?<![^.])\d+(?![^.])" if re.search(r"(^|\.)\d+\.", name) else r"\d+", "*", name, count=1)


def chains_by_block(chains: Sequence[Chain]) -> dict[str, Chain]:
    """Returns which chain belongs to which block of the reference; a single one belongs anywhere."""
    if len(chains) == 1:
        return defaultdict(lambda: chains[0])
    by_place = [
        [match[0] if (match := BLOCK.match(name)) else "" for name in names]
        for names in ([chain.before for chain in chains], [chain.after for chain in chains])
    ]
    apart = [blocks for blocks in by_place if len({*blocks}) == len(chains)] or by_place[1:]
    # what leads into the first block has no block before it
    return dict(zip(next((blocks for blocks in apart if all(blocks)), apart[0]), chains, strict=True))


def then(original: Callable[..., Tensor], *arguments: Any, made: Callable[..., Tensor], **options: Any) -> Tensor:
    """A variant that carries out a chain on what the operation returns."""
    return made(original(*arguments), **options)


def in_place_of(_: Any, x: Tensor, *__: Any, made: Callable[..., Tensor], **options: Any) -> Tensor:
    """A variant that carries out a chain instead of the operation."""
    return made(x, **options)


def chained(
    x: Tensor, *, by_block: Mapping[str, Chain], held: Mapping[str, Tensor], between: str, last: str, place: str,
    value: float = 0.0, inside: Callable[..., Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Carries out a chain's operations.

    Where something is done `inside`, that is called with the activation between two of them and what that is given.

    Raises:
        KeyError: there is none at this place.
    """
    match = BLOCK.match(place)
    chain = by_block[match[0] if match else ""]
    left = sum(op.kind == "matrix" for op in chain.operations)
    for operation in chain.operations:
        if operation.kind == "matrix":
            left -= 1
            x, activation = projected(x, operation.projections[0], held), BETWEEN[between if left else last]
            x = inside(activation, x) if inside and left else activation(x)
        else:
            scale, shift = (None if view is None else value_of(view, held, x).flatten() for view in operation.vectors)
            if operation.kind == "norm":
                x = standardised(x, value)
            x = scaled_and_shifted(x, scale, shift)
    return x


def projected(x: Tensor, projection: Projection, held: Mapping[str, Tensor]) -> Tensor:
    """Carries out a projection of the candidate's on the last axis."""
    rows = projection.matrix.rows
    weight = value_of(projection.matrix.view, held, x).movedim(rows, tuple(range(len(rows))))
    bias = None if projection.bias is None else value_of(projection.bias, held, x).flatten()
    return F.linear(x, weight.reshape(projection.matrix.shape), bias)


def value_of(view: View, held: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """Returns a tensor of the candidate, or the item of it that is used, on the device and in the dtype of another."""
    tensor = held[view.name].detach().to(like)
    for item in view.item:
        tensor = tensor[item]
    return tensor
