"""Which module of the candidate is which module of the reference.

Two modules are aligned when they own the same mapped tensors; no name is needed. Where several modules, one inside the
other, own the same tensors (`heads` and `heads.head`), they are paired from the inside. Modules that own nothing, such
as activations and dropouts, are aligned by their place between aligned neighbours.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.tracing import Point

if TYPE_CHECKING:
    from collections.abc import Collection

    from torch import nn

    from parity.mapping import WeightMap


@dataclass(frozen=True)
class Alignment:
    """Pairs of modules that compute the same thing.

    Attributes:
        pairs: candidate module -> reference module, by name.
        unaligned: reference modules that were called and have no partner -> the reason.
        order: reference modules that were called, in the order in which they were entered.
        containers: aligned reference modules in which another aligned one is called.
    """

    pairs: dict[str, str]
    unaligned: dict[str, str]
    order: tuple[str, ...]
    containers: frozenset[str]

    def without(self, modules: Collection[str]) -> Alignment:
        """Returns the alignment without these modules of the reference."""
        return dataclasses.replace(self, pairs={c: r for c, r in self.pairs.items() if r not in modules})

    def to_reference(self, point: Point) -> Point:
        """Translates a point of the candidate's run into the reference's."""
        return Point(self.pairs[point.module], point.call, point.moment)


def align(
    reference: nn.Module,
    candidate: nn.Module,
    mapping: WeightMap,
    reference_order: list[Point],
    candidate_order: list[Point],
) -> Alignment:
    """Aligns the modules of two models.

    Args:
        reference: the model taken as right.
        candidate: the model under test.
        mapping: their weight map.
        reference_order: the reference's points in the order of a forward pass (`tracing.call_order`).
        candidate_order: the candidate's.
    """
    r_owned = _owned(reference, reference_order, {})
    c_owned = _owned(candidate, candidate_order, {e.candidate: e.reference for e in mapping.entries})
    r_chains, c_chains = _chains(r_owned), _chains(c_owned)
    pairs = {
        c: r
        for tensors, r_modules in r_chains.items()
        for r, c in zip(reversed(r_modules), reversed(c_chains.get(tensors, [])), strict=False)
    }
    r_calls, c_calls = _calls(reference_order), _calls(candidate_order)
    unequal = {r: f"called {r_calls[r]} times, {c} {c_calls[c]} times" for c, r in pairs.items()
               if r_calls[r] != c_calls[c]}  # fmt: skip
    pairs = {c: r for c, r in pairs.items() if r not in unequal}
    r_gaps = _weightless_between(reference_order, r_owned, {r: r for r in pairs.values()})
    c_gaps = _weightless_between(candidate_order, c_owned, pairs)
    # modules without weights that are called between the same two aligned points, if equally many are
    pairs |= {
        c: r
        for gap, c_modules in c_gaps.items()
        if gap in r_gaps and len(c_modules) == len(r_gaps[gap])
        for c, r in zip(c_modules, r_gaps[gap], strict=True)
    }

    order = tuple(dict.fromkeys(point.module for point in reference_order if point.moment == "enter"))
    aligned = set(pairs.values())
    unaligned = {
        module: unequal.get(module) or _why_unaligned(module, r_chains, aligned)
        for module in order
        if module not in aligned
    }
    return Alignment(pairs, unaligned, order, frozenset(_containers(reference_order, aligned)))


def _owned(module: nn.Module, order: list[Point], translation: dict[str, str]) -> dict[str, frozenset[str]]:
    """Returns for every called module, outer ones first, the tensors it owns, by their names in the reference."""
    names = module.state_dict().keys()
    called = {point.module for point in order}
    return {
        name: frozenset(translation.get(tensor, tensor) for tensor in names if tensor.startswith(f"{name}."))
        for name, _ in module.named_modules()
        if name in called
    }


def _chains(owned: dict[str, frozenset[str]]) -> dict[frozenset[str], list[str]]:
    chains = defaultdict(list)
    for name, tensors in owned.items():
        if tensors:
            chains[tensors].append(name)
    return chains


def _calls(order: list[Point]) -> dict[str, int]:
    calls: dict[str, int] = defaultdict(int)
    for point in order:
        calls[point.module] += point.moment == "enter"
    return calls


def _weightless_between(
    order: list[Point], owned: dict[str, frozenset[str]], aligned: dict[str, str]
) -> dict[tuple[Point | None, Point | None], list[str]]:
    """Returns the innermost modules that own nothing and are called once, by the aligned points around them."""
    calls = _calls(order)
    gaps: dict[tuple[Point | None, Point | None], list[str]] = {}
    before: Point | None = None
    inside: list[str] = []
    for point, following in zip(order, [*order[1:], None], strict=True):
        if point.module in aligned:
            here = Point(aligned[point.module], point.call, point.moment)
            gaps[before, here] = inside
            before, inside = here, []
        elif (
            following == Point(point.module, point.call, "leave")
            and calls[point.module] == 1
            and not owned[point.module]
        ):
            inside.append(point.module)
    gaps[before, None] = inside
    return gaps


def _containers(order: list[Point], aligned: set[str]) -> set[str]:
    """Returns the aligned modules inside whose calls other aligned modules are called."""
    containers: set[str] = set()
    still_open: list[str] = []
    for point in order:
        if point.module not in aligned:
            continue
        if point.moment == "enter":
            containers.update(still_open)
            still_open.append(point.module)
        else:
            still_open.remove(point.module)
    return containers


def _why_unaligned(module: str, chains: dict[frozenset[str], list[str]], aligned: set[str]) -> str:
    for modules in chains.values():
        if module in modules:
            partner = next((other for other in modules if other in aligned), None)
            if partner:
                return f"owns the same weights as {partner}, which is compared"
            return "no module of the candidate owns the same weights; the modules inside are compared"
    return "owns no weights, and the candidate calls other such modules in its place"
