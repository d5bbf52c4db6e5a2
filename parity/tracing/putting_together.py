"""Portions of tokens that pass a candidate's module are put together to what passes the reference's module at once.

A candidate may keep the class token and the patches apart, (B, D, 1, 1) beside a feature map (B, D, h, w): a module is
then called for each of them, or for both at once. Put together along the tokens, in the order that proves right, they
are what passes the reference's module; where they cannot be, there is nothing to compare.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from parity.tracing.layouts import in_layout_of
from parity.tracing.measuring import compare
from parity.tracing.portions import Portion, Portions
from parity.tracing.run import Event, Point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from parity.tracing.alignment import Alignment
    from parity.tracing.nested import Tensors
    from parity.tracing.run import Moment

    _Ways = Mapping[tuple[int, ...], tuple[float, Portions]]  # by the order of the tensors: its error, and what it is

# how portions of the tokens may lie, and the same as tokens: B images, D features, N tokens
_LAYOUTS = (
    ("b d", "b 1 d"), ("(b n) d", "b n d"), ("b n d", "b n d"), ("n b d", "b n d"), ("b d n", "b n d"),
    ("b d h w", "b (h w) d"), ("b h w d", "b (h w) d"),
)  # fmt: skip

# of more portions only two orders are looked at: that of the calls, and the reverse
_MOST_ORDERED = 4

# an order proves right where it leaves no more than that, relative, in any dtype; a wrong one leaves a hundred times it
_PROVEN = 1e-3


class Gathering:
    """Puts together what passes a run of the candidate in portions.

    Args:
        alignment: which module is which.
        keep: what to keep of a tensor, which the model may write to later.
    """

    def __init__(self, alignment: Alignment, keep: Callable[[torch.Tensor], torch.Tensor] = torch.clone) -> None:
        self._portions = alignment.portions
        self._keep = keep
        self._held: dict[tuple[str, Moment], dict[Portion, torch.Tensor]] = defaultdict(dict)

    def of(self, point: Point) -> Portions | None:
        """Returns the portions that pass there, if it is no point of a whole."""
        return self._portions.get((point.module, point.moment))

    def whole(self, event: Event) -> Event | None:
        """Returns an event as it is, or with the last portion all of them put together; None for the others."""
        portions = self.of(event.point)
        if portions is None:
            return event
        key = event.point.module, event.point.moment
        held = self._held[key]
        held.update({portion: self._keep(tensor) for portion, tensor in portions.among(event)})
        if event.point.call < portions.each[-1].call:
            return None
        del self._held[key]
        if len(held) < len(portions.each):
            return None  # it is called otherwise than it was when this was looked at
        return Event(event.point, [portions.together(held)])


def portions_of(
    alignment: Alignment, events: Iterable[Event], calls: Mapping[str, int], follow: Callable[[Point], Tensors | None]
) -> tuple[dict[tuple[str, Moment], Portions], dict[str, str]]:
    """Finds what passes the candidate in portions, and the modules of which calls cannot be put together.

    Args:
        alignment: which module is which, those among them that the candidate calls more often; each that is watched.
        events: of a run of the candidate.
        calls: how often the candidate calls each module.
        follow: returns what passes a point of the reference, once.

    Returns:
        Portions by module and moment, and for each module that is called for less than the whole the reason.
    """
    held: dict[tuple[str, Moment], list[tuple[int, int, torch.Tensor]]] = defaultdict(list)
    expected: dict[Point, torch.Tensor | None] = {}
    found: dict[tuple[str, Moment], _Ways] = {}
    wholes: set[str] = set()  # modules of which one call is for all tokens
    others: set[str] = set()  # and those of which that isn't so, and which are not put together
    for event in events:
        module, call, moment = event.point
        key, point = (module, moment), Point(alignment.pairs[module], 0, moment)
        if point not in expected:
            expected[point] = next(iter(follow(point) or ()), None)
        held[key] += [(call, place, tensor.detach().clone()) for place, tensor in enumerate(event.tensors)]
        whole = expected[point]
        if call + 1 < calls[module] or whole is None:
            continue
        ways = _ways(held[key], in_layout_of(whole, whole, point, alignment))
        if ways:
            found[key] = ways
        elif calls[module] > 1:
            (wholes if _is_whole(held[key], whole, point, alignment) else others).add(module)
        del held[key]
        expected[point] = None
    others |= wholes & {module for module, _ in found}
    why = "{0} is called {1} times, and what passes there is together not what passes here".format
    apart = {module: why(module, calls[module]) for module in others}
    return {key: portions for key, portions in _in_order(found).items() if key[0] not in apart}, apart


def _in_order(found: Mapping[tuple[str, Moment], _Ways]) -> dict[tuple[str, Moment], Portions]:
    """Chooses the order of each point's portions: the one that proves right there, or else where as many tokens pass.

    Where a candidate has gone wrong before, a wrong order may be no farther from the reference than the right one.
    """
    best: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
    for ways in found.values():
        least = min((error, order) for order, (error, _) in ways.items())
        lengths = _lengths(ways)
        best[lengths] = min(best.get(lengths, least), least)
    return {
        key: next((portions for error, portions in ways.values() if error < _PROVEN), ways[best[_lengths(ways)][1]][1])
        for key, ways in found.items()
    }


def _lengths(ways: _Ways) -> tuple[int, ...]:
    return tuple(portion.stop - portion.start for portion in next(iter(ways.values()))[1].each)


def _is_whole(
    held: Sequence[tuple[int, int, torch.Tensor]], whole: torch.Tensor, point: Point, alignment: Alignment
) -> bool:
    """Whether the first call is for all tokens, or for those that the candidate goes on with."""
    return not held or in_layout_of(held[0][2], whole, point, alignment).shape == held[0][2].shape


def _ways(held: Sequence[tuple[int, int, torch.Tensor]], whole: torch.Tensor) -> _Ways:
    """Returns the portions that are together the tokens (B, N, D), in every order, with its error; none if none are.

    Args:
        held: the tensors that have passed, each with the call and its place there.
        whole: what passes in the reference.
    """
    if whole.dim() != 3:
        return {}
    laid = [(call, place, tensor, layout) for call, place, tensor in held if (layout := layout_of(tensor.shape, whole))]
    lengths = [math.prod(tensor.shape) // (whole.shape[0] * whole.shape[2]) for *_, tensor, _ in laid]
    if len(laid) < 2 or sum(lengths) != whole.shape[1]:
        return {}

    def placed(order: tuple[int, ...]) -> Portions:
        starts = dict(zip(order, itertools.accumulate((lengths[n] for n in order), initial=0), strict=False))
        return Portions(tuple(
            Portion(call, place, starts[n], starts[n] + lengths[n], whole.shape[1], tensor.shape, *layout)
            for n, (call, place, tensor, layout) in enumerate(laid)
        ))  # fmt: skip

    def error(portions: Portions) -> float:
        tensors = (tensor for *_, tensor, _ in laid)
        return compare(whole, portions.together(dict(zip(portions.each, tensors, strict=True))), ulp=False).distance

    ways = {order: placed(order) for order in _orders(len(laid))}
    return {order: (error(portions), portions) for order, portions in ways.items()}


def _orders(count: int) -> Iterator[tuple[int, ...]]:
    if count <= _MOST_ORDERED:
        yield from itertools.permutations(range(count))
    else:
        yield from (tuple(range(count)), tuple(reversed(range(count))))


def layout_of(shape: torch.Size, whole: torch.Tensor) -> tuple[str, str] | None:
    """Returns the first of the layouts in which a tensor of a shape holds tokens."""
    images, _, features = whole.shape
    for layout, tokens in _LAYOUTS:
        axes = layout.replace("(b n)", "bn").split()
        known = {"b": images, "d": features}
        fits = len(axes) == len(shape) and all(
            known.get(axis, length) == length for axis, length in zip(axes, shape, strict=True)
        )
        if fits and ("bn" not in axes or shape[0] % images == 0):
            return layout, tokens
    return None
