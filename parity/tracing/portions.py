"""What passes a candidate's module as portions of the tokens that pass the reference's module at once."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import torch
from einops import rearrange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from parity.tracing.nested import Tensors
    from parity.tracing.run import Event


class Portion(NamedTuple):
    """One tensor of the candidate's that holds some of the reference's tokens.

    Attributes:
        call: of the module, that it passes at.
        place: among the tensors that pass there.
        start: the first of the tokens, as the candidate has them put together.
        stop: the one behind the last.
        total: the number of all tokens.
        shape: of the tensor.
        layout: its axes, as einops writes them.
        tokens: the same as tokens (B, n, D).
    """

    call: int
    place: int
    start: int
    stop: int
    total: int
    shape: torch.Size
    layout: str
    tokens: str

    def as_tokens(self, tensor: torch.Tensor) -> torch.Tensor:
        """Lays the tensor out as tokens (B, n, D)."""
        return rearrange(tensor, f"{self.layout} -> {self.tokens}", **self._sizes)

    def of(self, whole: torch.Tensor) -> torch.Tensor:
        """Returns its part of the tokens (B, N, D), laid out as it is."""
        return rearrange(whole[:, self.start : self.stop], f"{self.tokens} -> {self.layout}", **self._sizes)

    @property
    def _sizes(self) -> dict[str, int]:
        if self.layout == "(b n) d":
            return {"n": self.stop - self.start}
        return {"h": self.shape[self.layout.split().index("h")]} if "h" in self.layout else {}


def are_the_whole(portions: Sequence[Portion]) -> bool:
    """Whether portions are all tokens, one behind the other."""
    lengths = (portion.stop - portion.start for portion in portions)
    starts = [portion.start for portion in portions]
    return list(itertools.accumulate(lengths, initial=0)) == [*starts, portions[-1].total]


class Portions(NamedTuple):
    """What passes one point of the reference in portions, in the order in which the candidate comes to them."""

    each: tuple[Portion, ...]

    def in_place_of(self, event: Event, whole: torch.Tensor) -> Tensors:
        """Returns for each tensor of one call the portion of the tokens (B, N, D) that it is; others as they are."""
        tensors = list(event.tensors)
        for portion, _ in self.among(event):
            tensors[portion.place] = portion.of(whole)
        return tensors

    def among(self, event: Event) -> list[tuple[Portion, torch.Tensor]]:
        """Returns the portions among the tensors of one call, each with its tensor."""
        given = dict(enumerate(event.tensors))
        here = [(p, given[p.place]) for p in self.each if p.call == event.point.call and p.place in given]
        return [(portion, tensor) for portion, tensor in here if tensor.shape == portion.shape]

    def together(self, tensors: Mapping[Portion, torch.Tensor]) -> torch.Tensor:
        """Puts the tensors of all portions together as tokens (B, N, D)."""
        ordered = sorted(self.each, key=lambda portion: portion.start)
        return torch.cat([portion.as_tokens(tensors[portion]) for portion in ordered], 1)
