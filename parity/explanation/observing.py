"""What passes the aligned points of a candidate's run, kept for as long as somebody may ask for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from parity.tracing import Gathering

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from parity.tracing import Alignment, Point, Run

_BLOCK = re.compile(r"(.*?\.\D*\d+)(\.|$)")


# Of layers that are called as functions all is kept at once, of a ViT-B/16 and three images some 0.9 GB. Of larger ones
# the first blocks say what differs in all of them, and memory must not grow with depth.
_MOST_BYTES = 2 * 2**30


class PassingFunctions:
    """What passes the layers that are called as functions in one run, up to a number of bytes.

    Args:
        most: that number, if it is another one than usual.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self.tensors: dict[Point, torch.Tensor] = {}
        self._bytes = 0

    def keep(self, point: Point, tensor: torch.Tensor) -> None:
        """Keeps what passes a point of the candidate's run, which may change it later."""
        self._bytes += tensor.nelement() * tensor.element_size()
        if self._bytes <= (_MOST_BYTES if self._most is None else self._most):
            self.tensors[point] = tensor.detach().clone()


class Observations:
    """The tensors of one run of a candidate, by point of the reference, block by block.

    The run goes on only as far as is asked for, and what lies more than one block back is let go, so that memory
    doesn't grow with depth.

    Args:
        run: of the candidate, watching its aligned modules, where nothing has been asked for yet.
        alignment: which module is which.
        of_functions: what passes the layers that are called as functions, by the points of the reference.
        once: no module is called twice, so that a block that has been left isn't entered again.
    """

    def __init__(
        self, run: Run, alignment: Alignment, of_functions: Mapping[Point, torch.Tensor], *, once: bool
    ) -> None:
        self.alignment = alignment
        self._of_functions = of_functions
        self._once = once
        self._blocks: list[str] = []  # in the order in which the candidate enters them
        self._run = run
        self._gathering = Gathering(alignment)
        self._tensors: dict[Point, torch.Tensor] = {}
        self._block: dict[Point, int] = {}
        self._is_over = False

    def at(self, point: Point) -> torch.Tensor | None:
        """Returns the tensor that passed a point of the reference, in the candidate's layout, or None."""
        return self._tensors.get(point, self._of_functions.get(point))

    def reach(self, blocks: int) -> None:
        """Goes on until more than `blocks` blocks have been entered and left, and lets go of what lies far back."""
        if not self._once:
            self.output()
            return
        while not self._is_over and len(self._blocks) <= blocks + 1:
            self._advance()
        for point in [point for point, block in self._block.items() if 0 < block < blocks - 1]:
            del self._tensors[point], self._block[point]

    def output(self) -> torch.Tensor:
        """Runs to the end and returns the candidate's output."""
        while not self._is_over:
            self._advance()
        assert self._run.output is not None
        return self._run.output.detach()

    def _advance(self) -> None:
        event = self._run.advance()
        if event is None:
            self._is_over = True
            return
        event = self._gathering.whole(event)
        if event is None:
            return
        point = self.alignment.to_reference(event.point)
        match = _BLOCK.match(point.module)
        if match and self._blocks[-1:] != [match[1]]:
            self._blocks.append(match[1])
        if event.tensors:
            # what the candidate does to its tensors later must not show
            self._tensors[point] = event.tensors[0].detach().clone()
            self._block[point] = len(self._blocks)
