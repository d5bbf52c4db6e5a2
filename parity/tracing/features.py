"""In which order the features of two projections stand, by the weight map of their tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from parity.models import IDENTITY, cut, put, rearranged, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parity.models import Entry, Shapes
    from parity.tracing.run import Moment


def orders_of_features(entries: Sequence[Entry], reference: Shapes, candidate: Shapes) -> dict[Moment, torch.Tensor]:
    """Returns which of the reference's features each of the candidate's is, for what enters and leaves a projection.

    Args:
        entries: of the weight map, that belong to one module of the reference and one of the candidate.
        reference: shapes of the reference's tensors.
        candidate: the same of the candidate's.

    Returns:
        Orders by the moment; none where the two are the same, or the module is no projection with one matrix.
    """
    matrices = [
        e for e in entries if len(reference[split(e.reference)[0]]) == len(candidate[split(e.candidate)[0]]) == 2
    ]
    names = {(split(entry.reference)[0], split(entry.candidate)[0]) for entry in matrices}
    if len(names) != 1 or (len(matrices) == 1 and matrices[0].layout == IDENTITY):
        return {}
    ((ours, theirs),) = names
    numbers: list[torch.Tensor] = []
    for axis in (0, 1):
        counted = torch.arange(reference[ours][axis]).unsqueeze(1 - axis).expand(reference[ours])
        whole = torch.full(candidate[theirs], -1)
        for entry in matrices:
            put(rearranged(cut(counted, split(entry.reference)[1]), entry.layout), whole, split(entry.candidate)[1])
        numbers.append(whole)
    if bool((numbers[0][0] != numbers[0][0, 0]).any()):  # stored as (in, out)
        numbers = [number.T for number in numbers]
    orders: dict[Moment, torch.Tensor] = {}
    moments: tuple[tuple[Moment, torch.Tensor], ...] = (("leave", numbers[0][:, 0]), ("enter", numbers[1][0]))
    for moment, order in moments:
        order = order - order.min()  # noqa: PLW2901  (a part of a packed projection begins at its own first row)
        if sorted(order.tolist()) == list(range(len(order))) != order.tolist():
            orders[moment] = order
    return orders
