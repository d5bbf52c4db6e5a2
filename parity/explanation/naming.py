"""Names the bugs of a candidate that is another function than torchvision's ViT: the ViT's side of the search."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import re
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from parity.diagnosis import in_words_of, is_another_function
from parity.explanation.bent_vit import BentViT
from parity.explanation.causes.absences import absences
from parity.explanation.causes.catalogue import catalogue
from parity.explanation.causes.places import in_words
from parity.explanation.extras import extra_kinds
from parity.explanation.observing import Observations
from parity.explanation.proof import Group, grouped, prove
from parity.explanation.search import Search
from parity.mapping import trace_uses
from parity.models import split
from parity.tracing import Run, first_that_runs, held_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parity.diagnosis import Check
    from parity.explanation.bending import Change, Kind
    from parity.explanation.proof import Explanation
    from parity.explanation.search import Unexplained
    from parity.models import WeightMap
    from parity.progress import Progress
    from parity.tracing import Alignment, Subject

# how many places without an explanation are listed; those behind the first are often but its consequence
_MOST_PLACES = 5

_BLOCK = re.compile(r"encoder\.layers\.encoder_layer_(\d+)(\.|$)")


class Widened(Mapping[str, torch.Tensor]):
    """A state dict in float64, of which only what was asked for last exists.

    Args:
        state: tensors of any floating dtype.
        most: how many tensors are kept.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], most: int = 32) -> None:
        self._state = state
        self._most = most
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._kept:
            self._kept[name] = self._state[name].detach().double()
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


# looking for a cause may take that long, in seconds of the processor, however quick the comparison was
_LEAST_SECONDS = 20.0


@dataclass(frozen=True)
class _Case:
    """What is to be explained: who is compared, torchvision's arguments of the reference, the check that shows it."""

    subject: Subject
    config: Mapping[str, Any]
    check: Check

    @functools.cached_property
    def alignment(self) -> Alignment:
        """Which module is which; one that is called more often than its counterpart may be the cause."""
        return self.subject.aligned_anyhow().without(self.check.elsewhere)


def explain(
    subject: Subject, config: Mapping[str, Any], checks: list[Check], seconds: float, progress: Progress
) -> Explanation | None:
    """Finds the changes to the reference that make it the candidate, and proves them.

    Args:
        subject: who is compared.
        config: torchvision's arguments of the reference; empty for another model.
        checks: of the forward pass.
        seconds: of the processor, how long the comparison took; looking takes no longer, and at least a while.
        progress: told what is being done.

    Returns:
        None if the candidate is the same function, or the reference none of torchvision's ViTs.

    Raises:
        ParityError: the candidate cannot be run in float64.
    """
    if not (config and is_another_function(checks, subject.mapping)):
        return None
    check = next(check for check in checks if check.exact and check.free and not check.mode.train)
    case = _Case(subject, config, check)
    limit = max(seconds, _LEAST_SECONDS)
    with progress.step("explanation", "looking for the cause"):
        return first_that_runs(lambda attempt: _explain(case, limit, attempt), torch.float64)


def _explain(case: _Case, seconds: float, attempt: int) -> Explanation:
    subject, models, weights = case.subject, case.subject.models, Widened(case.subject.held.reference)
    images = models.images.double()
    order, rearranged = _order_of_blocks(case)
    model = BentViT(case.config, weights, order)
    known = absences(_left_out(subject.mapping, order if rearranged else None), case.config)
    kinds = [*_own_kinds(subject), *catalogue(case.config)]
    with contextlib.ExitStack() as stack, torch.no_grad():
        stack.enter_context(case.check.mode.active(models.candidate))
        stack.enter_context(held_in(models.candidate, torch.float64, attempt))
        run = Run(models.candidate, images, set(case.alignment.pairs), models.seed, "candidate")
        stack.callback(run.close)
        observations = Observations(run, case.alignment, once=not any(point.call for point in subject.calls[1]))
        search = Search(model, images, models.seed, observations, kinds, known, seconds)
        search.run()
        groups = grouped(sorted(search.changes, key=_when))
        if rearranged:
            groups.insert(0, rearranged)

        def error(chosen: Sequence[Group]) -> float:
            bent = model if rearranged is None or rearranged in chosen else BentViT(case.config, weights)
            changes = [change for group in chosen for change in group.changes]
            return search.error(bent, changes)

        unexplained = [_in_a_sentence(place) for place in search.unexplained[:_MOST_PLACES]]
        return prove(groups, error, lambda places: in_words(places, case.config), unexplained)


def _when(change: Change) -> tuple[int, int]:
    """Returns a key that sorts changes as their places are come by: what leads to the blocks, each block, the end."""
    block = _block_of(change.place)
    is_end = change.place.startswith(("heads", "encoder.ln", "encoder.layers")) or change.place == "encoder"
    return (1, block) if block is not None else (2, 0) if is_end else (0, 0)


def _in_a_sentence(place: Unexplained) -> str:
    where = in_words_of(place.point)
    size = f"relative error {place.error:.2g}" if math.isfinite(place.error) else "another shape"
    return f"no known cause at {where}: {'; '.join((size, *place.facts))}"


def _own_kinds(subject: Subject) -> list[Kind]:
    """Returns entries for the tensors of the candidate that the reference has no counterpart of."""
    if not subject.mapping.unmapped_candidate:
        return []
    candidate = subject.models.candidate
    used = trace_uses(candidate, subject.models.images, "candidate")
    return extra_kinds(used, subject.mapping, candidate.state_dict())


def _left_out(mapping: WeightMap, order: Sequence[int] | None) -> list[str]:
    """Returns the reference's tensors without a counterpart that a model of these blocks uses."""
    names = list(mapping.unmapped_reference)
    if order is None:
        return names
    blocks = set(order)
    return [name for name in names if (n := _block_of(name)) is None or n in blocks]


def _block_of(name: str) -> int | None:
    match = _BLOCK.match(name)
    return int(match[1]) if match else None


def _order_of_blocks(case: _Case) -> tuple[tuple[int, ...], Group | None]:
    """Returns which block's weights the candidate uses one after the other, and what to say if that is odd."""
    layers = case.config["num_layers"]
    usual = tuple(range(layers))
    calls: dict[str, int] = defaultdict(int)
    entered = []
    for point in case.subject.calls[1]:
        block = _block_of(case.alignment.pairs.get(point.module, ""))
        if block is not None and point.moment == "leave":
            entered.append(block)
            calls[point.module] += 1
    order = tuple(n for n, _ in itertools.groupby(entered))
    mapped = {n for e in case.subject.mapping.entries if (n := _block_of(split(e.reference)[0])) is not None}
    if len({*order}) == 1 < layers:
        repeats = min(n for module, n in calls.items() if _block_of(case.alignment.pairs[module]) is not None)
        if repeats > 1:
            return order * repeats, _odd(
                "block-sharing", f"one block used {repeats} times", f"{layers} blocks with weights of their own",
                "nn.ModuleList([Block(...) for _ in range(depth)]), not [block] * depth", usual,
            )  # fmt: skip
    if 0 < len(order) == len({*order}) < layers:  # some are never called
        mapped = {*order}
    if len(mapped) < layers:
        missing = [n for n in usual if n not in mapped]
        odd = _odd("block-missing", f"{len(mapped)} blocks", f"{layers} blocks", f"depth={layers}", missing)
        return order if {*order} == mapped else tuple(sorted(mapped)), odd
    if sorted(order) == list(usual) != list(order):
        moved = [n for n in usual if order[n] != n]
        return order, _odd("block-order", f"blocks in the order {', '.join(map(str, order))}", "0, 1, 2 ...",
                           "sort blocks by number: int(name.split('.')[1])", moved)  # fmt: skip
    return usual, None


def _odd(id: str, phrase: str, instead: str, hint: str, blocks: Sequence[int]) -> Group:  # noqa: A002
    return Group((), id, phrase, instead, hint, tuple(f"encoder.layers.encoder_layer_{n}" for n in blocks))
