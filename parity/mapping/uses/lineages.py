"""By which of its uses a model has made a tensor of what it is given, so that it is known what leads to what."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

from torch.utils.weak import WeakTensorKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from parity.mapping.uses.operations import View

# a set of uses is a number with a bit for each; this one for what was made in a way that nobody was told of
LOST = 1


def bit_of(number: int) -> int:
    """Returns the set of a single use, by its number."""
    return 2 << number


class Lineages:
    """The matrices and softmaxes that lead to each tensor, and to each use."""

    def __init__(self) -> None:
        self.of_uses: list[int] = []
        self._known: Any = WeakTensorKeyDictionary()  # of which torch tells no types
        self._first: dict[str, int] = {}  # the first use of each matrix, by its name

    def note(
        self,
        given: list[torch.Tensor],
        steps: Iterable[View | bool],
        results: Iterable[Any],
        *,
        are_nested: bool,
        value: Any = None,
    ) -> None:
        """Notes a call.

        Args:
            given: what it takes that is none of the model's own tensors.
            steps: for each of its uses, in order, the matrix, or whether it is a softmax.
            results: what it makes or changes.
            are_nested: each of its uses takes what the ones before have made.
            value: what the softmax does not take of what is given.
        """
        lineage = self._of(given)
        made = lineage
        for step in steps:
            number = len(self.of_uses)
            taken = self._of([tensor for tensor in given if tensor is not value]) if step is True else lineage
            self.of_uses.append(made if are_nested else taken)
            if step is True:
                made |= bit_of(number)
            elif step is not False:
                made |= bit_of(self._first.setdefault(str(step), self._first.get(step.name, number)))
        for tensor in results if given else ():
            self._known[tensor] = made

    def _of(self, tensors: Iterable[torch.Tensor]) -> int:
        # what is unknown before the first use is what the model is given
        unknown = LOST if self.of_uses else 0
        return functools.reduce(operator.or_, (self._of_one(tensor, unknown) for tensor in tensors), 0)

    def _of_one(self, tensor: torch.Tensor, unknown: int) -> int:
        found: int | None = self._known.get(tensor)
        if found is None and tensor._base is not None:  # noqa: SLF001  (a view that torch 2.0 tells nobody of)
            found = self._known.get(tensor._base)  # noqa: SLF001
        return unknown if found is None else found
