"""Which module of the candidate is which module of the reference.

Two modules are aligned when they own the same mapped tensors; no name is needed. Where several modules, one inside the
other, own the same tensors (`heads` and `heads.head`), they are paired from the inside. Modules that own nothing, such
as activations and dropouts, are aligned by their place between aligned neighbours.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import nn

from parity.models import split, tensors_of
from parity.tracing.attention import PARTS, STEPS, can_be_opened
from parity.tracing.features import orders_of_features
from parity.tracing.run import Point, outer_modules

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch

    from parity.models import Entry, WeightMap
    from parity.tracing.portions import Portions
    from parity.tracing.run import Moment


@dataclass(frozen=True)
class Alignment:
    """Pairs of modules that compute the same thing.

    Attributes:
        pairs: candidate module -> reference module, by name.
        unaligned: reference modules that were called and have no partner -> the reason.
        order: reference modules that were called, in the order in which they were entered.
        containers: aligned reference modules in which another aligned one is called.
        by_place: aligned reference modules without weights, which only their place pairs.
        features: for what enters or leaves a module, which of the reference's features each of the candidate's is,
            where their orders differ.
        rolled: number of tokens, if the candidate's class token is the last of them and not the first; else None.
        portions: what passes a module of the candidate, as it is entered or left, in portions of the tokens.
        apart: modules of the candidate whose calls together are not the whole either -> the reason.
    """

    pairs: dict[str, str]
    unaligned: dict[str, str]
    order: tuple[str, ...]
    containers: frozenset[str]
    by_place: frozenset[str] = frozenset()
    features: dict[tuple[str, Moment], torch.Tensor] = field(default_factory=dict)
    rolled: int | None = None
    portions: Mapping[tuple[str, Moment], Portions] = field(default_factory=dict)
    apart: Mapping[str, str] = field(default_factory=dict)

    def without(self, modules: Collection[str]) -> Alignment:
        """Returns the alignment without these modules of the reference."""
        return dataclasses.replace(self, pairs={c: r for c, r in self.pairs.items() if r not in modules})

    def to_reference(self, point: Point) -> Point:
        """Translates a point of the candidate's run into the reference's."""
        call = 0 if (point.module, point.moment) in self.portions else point.call
        return Point(self.pairs[point.module], call, point.moment)

    @property
    def of_wholes(self) -> Alignment:
        """The alignment without the modules that anything passes in portions."""
        return self.without({self.pairs[module] for module, _ in self.portions if module in self.pairs})


def align(
    reference: nn.Module,
    candidate: nn.Module,
    mapping: WeightMap,
    reference_order: list[Point],
    candidate_order: list[Point],
    *,
    equal_calls: bool = True,
    portions: Mapping[tuple[str, Moment], Portions] = MappingProxyType({}),
    apart: Mapping[str, str] = MappingProxyType({}),
) -> Alignment:
    """Aligns the modules of two models.

    Args:
        reference: the model taken as right.
        candidate: the model under test.
        mapping: their weight map.
        reference_order: the reference's points in the order of a forward pass (`tracing.call_order`).
        candidate_order: the candidate's.
        equal_calls: leave out modules that one side calls more often than the other.
        portions: what passes the candidate in portions, which is the whole together.
        apart: modules of the candidate that are left out -> the reason.
    """
    r_owned = _owned(reference, reference_order, mapping.entries)
    inside = {
        step: entries
        for name, module in reference.named_modules()
        if isinstance(module, nn.MultiheadAttention) and can_be_opened(module)
        for step, entries in _owned_inside(name, module, mapping.entries).items()
    }
    r_owned |= {step: inside[step] for step in dict.fromkeys(p.module for p in reference_order) if step in inside}
    c_owned = _owned(candidate, candidate_order, mapping.invert().entries)
    r_chains, c_chains = _chains(r_owned), _chains(c_owned)
    pairs: dict[str, str] = {}
    for tensors, c_modules in c_chains.items():
        r_modules = r_chains.get(tensors, [])
        if len(r_modules) > len(c_modules):  # a whole attention that owns its projections only is no projection
            r_modules = [name for name in r_modules if name not in inside] or r_modules
        if any(owned < tensors for owned in c_chains):  # what holds projections may do more than project
            r_modules = [name for name in r_modules if name not in inside]
        pairs |= dict(zip(reversed(c_modules), reversed(r_modules), strict=False))
    r_calls, c_calls = number_of_calls(reference_order), number_of_calls(candidate_order)
    unequal = {r: f"called {r_calls[r]} times, {c} {c_calls[c]} times" for c, r in pairs.items()
               if r_calls[r] != c_calls[c] and equal_calls and (c, "leave") not in portions}  # fmt: skip
    unequal |= {r: apart[c] for c, r in pairs.items() if c in apart}
    pairs = {c: r for c, r in pairs.items() if r not in unequal}
    r_gaps = _weightless_between(reference_order, r_owned, _weightless(reference), {r: r for r in pairs.values()})
    c_gaps = _weightless_between(candidate_order, c_owned, _weightless(candidate), pairs)
    by_place: dict[str, str] = {}
    for gap in c_gaps.keys() & r_gaps.keys():
        by_place |= _by_place(reference, candidate, r_gaps[gap], c_gaps[gap])
    pairs |= by_place

    aligned = set(pairs.values())
    names = dict.fromkeys(point.module for point in reference_order)
    order = tuple(name for name in names if name in aligned or name not in inside)
    unaligned = {
        module: unequal.get(module) or _why_unaligned(module, r_chains, aligned)
        for module in order
        if module not in aligned
    }
    containers = frozenset(_containers(reference_order, aligned))
    weightless = frozenset(by_place.values())
    entries = [[mapping.entries[number] for number in sorted(r_owned[r])] for r in pairs.values()]
    shapes = [{k: tuple(v.shape) for k, v in tensors_of(model).items()} for model in (reference, candidate)]
    features = {
        (module, moment): order
        for module, owned in zip(pairs.values(), entries, strict=True)
        for moment, order in orders_of_features(owned, *shapes).items()
    }
    rolled = _tokens_if_class_is_last(mapping)
    return Alignment(pairs, unaligned, order, containers, weightless, features, rolled, portions, apart)


def _owned_inside(name: str, module: nn.MultiheadAttention, entries: tuple[Entry, ...]) -> dict[str, frozenset[int]]:
    """Returns the numbers of the entries that belong to each step inside an attention."""
    width = module.embed_dim
    owned: dict[str, set[int]] = {f"{name}.{step}": set() for step in STEPS}
    for number, entry in enumerate(entries):
        tensor, box = split(entry.reference)
        if tensor in (f"{name}.in_proj_weight", f"{name}.in_proj_bias"):
            rows = box[0].items(3 * width) if box else range(3 * width)
            owned[f"{name}.in_proj"].add(number)
            for part, step in enumerate(PARTS):
                if part * width <= rows[0] and rows[-1] < (part + 1) * width:
                    owned[f"{name}.{step}"].add(number)
        elif tensor.startswith(f"{name}.out_proj."):
            owned[f"{name}.out_proj"].add(number)
    return {step: frozenset(numbers) for step, numbers in owned.items()}


def _tokens_if_class_is_last(mapping: WeightMap) -> int | None:
    """Returns the number of tokens if the map puts the first row of a table into the last row."""
    for entry in mapping.entries:
        (_, first), (_, last) = split(entry.reference), split(entry.candidate)
        if first and last and first[-1] == (0, 1, 0) and last[-1].start == last[-1].stop - 1 > 0:
            return last[-1].stop
    return None


def _owned(module: nn.Module, order: list[Point], entries: tuple[Entry, ...]) -> dict[str, frozenset[int]]:
    """Returns for every called module, outer ones first, the numbers of the map's entries that it owns.

    Args:
        module: the model.
        order: its calls.
        entries: of the map, with the model's tensors on the left.
    """
    numbers: dict[str, set[int]] = defaultdict(set)
    for number, entry in enumerate(entries):
        for name in outer_modules(split(entry.reference)[0]):
            numbers[name].add(number)
    called = {point.module for point in order}
    return {name: frozenset(numbers[name]) for name, _ in module.named_modules() if name in called}


def _weightless(module: nn.Module) -> set[str]:
    """Returns the names of the modules that have no tensors at all, mapped or not."""
    with_tensors = {"", *(name for tensor in module.state_dict() for name in outer_modules(tensor))}
    return {name for name, _ in module.named_modules() if name not in with_tensors}


def _by_place(reference: nn.Module, candidate: nn.Module, ours: list[str], theirs: list[str]) -> dict[str, str]:
    """Pairs modules without weights that are called between the same two points, if equally many are.

    Where only one side has dropouts, they are left out.
    """
    is_alike = len(ours) == len(theirs) and not any(
        isinstance(reference.get_submodule(r), nn.Dropout) and _is_known_otherwise(candidate.get_submodule(c))
        for r, c in zip(ours, theirs, strict=True)
    )
    if not is_alike:
        ours, theirs = (
            [name for name in names if not isinstance(model.get_submodule(name), (nn.Dropout, nn.Identity))]
            for model, names in ((reference, ours), (candidate, theirs))
        )
    return dict(zip(theirs, ours, strict=True)) if len(ours) == len(theirs) else {}


def _is_known_otherwise(module: nn.Module) -> bool:
    """Returns whether `module` is a layer of torch that is known to be no dropout, such as a norm without weights."""
    return type(module).__module__.startswith("torch.nn.") and not isinstance(module, (nn.Dropout, nn.Identity))


def _chains(owned: dict[str, frozenset[int]]) -> dict[frozenset[int], list[str]]:
    chains = defaultdict(list)
    for name, tensors in owned.items():
        if tensors:
            chains[tensors].append(name)
    return chains


def number_of_calls(order: list[Point]) -> dict[str, int]:
    """Counts how often each module is called."""
    calls: dict[str, int] = defaultdict(int)
    for point in order:
        calls[point.module] += point.moment == "leave"  # some steps inside an attention are left only
    return calls


def _weightless_between(
    order: list[Point], owned: dict[str, frozenset[int]], weightless: set[str], aligned: dict[str, str]
) -> dict[tuple[Point | None, Point | None], list[str]]:
    """Returns the innermost modules that own nothing and are called once, by the aligned points around them.

    Where other modules with mapped weights are called between the same two points, their place is not known.
    """
    calls = number_of_calls(order)
    gaps: dict[tuple[Point | None, Point | None], list[str]] = {}
    before: Point | None = None
    inside: list[str] = []
    entered: set[str] = set()  # modules with mapped weights that are not aligned, since the last aligned point
    is_mixed = False
    for point, following in itertools.zip_longest(order, order[1:]):
        if point.module in aligned:
            here = Point(aligned[point.module], point.call, point.moment)
            gaps[before, here] = [] if is_mixed else inside
            before, inside, entered, is_mixed = here, [], set(), False
        elif owned[point.module]:
            is_mixed |= point.module in entered
            entered.add(point.module)
        elif (
            following == Point(point.module, point.call, "leave")
            and calls[point.module] == 1
            and point.module in weightless
        ):
            inside.append(point.module)
    gaps[before, None] = [] if is_mixed else inside
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
        elif point.module in still_open:
            still_open.remove(point.module)
    return containers


def _why_unaligned(module: str, chains: dict[frozenset[int], list[str]], aligned: set[str]) -> str:
    for modules in chains.values():
        if module in modules:
            partner = next((other for other in modules if other in aligned), None)
            if partner:
                return f"owns the same weights as {partner}, which is compared"
            return "no module of the candidate owns the same weights; the modules inside are compared"
    return "owns no weights, and the candidate calls other such modules in its place"
