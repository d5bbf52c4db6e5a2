"""Dropout between the layers of a head that only the candidate has, where the reference has no place for one."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

from parity.explanation.causes.dropouts import dropped
from parity.explanation.proof import Group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch

    from parity.explanation.bending import Change
    from parity.tracing import Site

    Tensor = torch.Tensor
    Shape = tuple[int, ...]


class _Dropping:
    """Drops at an activation what a mask is drawn for.

    Args:
        rates: of the candidate's dropouts, by the shapes of their masks.
        is_before: it drops what the activation is given, not what it gives.

    Attributes:
        used: the rates of those that there are.
    """

    def __init__(self, rates: Mapping[Shape, float], *, is_before: bool) -> None:
        self._rates, self._is_before = rates, is_before
        self.used: dict[float, None] = {}

    def __call__(self, activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        shape = tuple(length for length in x.shape if length > 1)
        rate = self._rates.get(shape)
        if rate is None:
            return activation(x)
        self.used[rate] = None
        drop = functools.partial(dropped, rate=rate, shape=shape)
        return activation(drop(x)) if self._is_before else drop(activation(x))


def dropping_inside(
    known: Sequence[Change], drawn: Sequence[Site]
) -> Iterator[tuple[list[Change], Callable[[], Group]]]:
    """Yields the changes with dropout inside the candidate's own head, and what says that as a cause once they are run.

    Args:
        known: the changes of eval mode.
        drawn: the masks that the candidate draws.
    """
    rates = {site.shape: site.rate for site in drawn if len(site.shape) == len("BD")}
    for number, change in enumerate(known):
        for side in ("after", "before") if rates and change.kind.inside else ():
            assert change.kind.inside is not None
            dropping = _Dropping(rates, is_before=side == "before")
            phrase = f"{change.kind.phrase}, and dropout {side} it"
            kind = dataclasses.replace(change.kind, variants=change.kind.inside(dropping), phrase=phrase)
            others = [*known[:number], dataclasses.replace(change, kind=kind), *known[number + 1 :]]
            yield others, functools.partial(_cause, dropping, change.place, side)


def _cause(dropping: _Dropping, place: str, side: str) -> Group:
    rates = " and ".join(f"{rate:g}" for rate in dropping.used)
    phrase = f"dropout of rate {rates} acts inside the head of its own, {side} the activation"
    return Group((), "dropout-extra", phrase, "none there", "take it away, or give it a rate of 0", (place,))
