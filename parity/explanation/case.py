"""What is to be explained, for the rooms that do it."""

from __future__ import annotations

import contextlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from parity.errors import Failures
from parity.explanation.observing import Observations, PassingFunctions
from parity.tracing import Event, FunctionCalls, Gathering, Run, held_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parity.explanation.bending import Change
    from parity.tracing import Alignment, Layer, Mode, Subject

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


@dataclass(frozen=True)
class Case:
    """What is to be explained.

    Attributes:
        subject: who is compared; the reference is torchvision's ViT, or the one that stands for another.
        config: torchvision's arguments of the reference.
        mode: in which the candidate is run.
        alignment: which module is which; one that is called more often than its counterpart may be the cause.
        has_tokens: whether what the candidate returns has an axis for tokens.
        traits: what the reference does otherwise than torchvision's.
        names: what modules and tensors are called in the reference that another one stands for.
        reference: that reference in the candidate's place; None where it is torchvision's own.
        failures: takes what could not be tried.
        ignored: modules at which the candidate was found to have another thing than their places say.
    """

    subject: Subject
    config: Mapping[str, Any]
    mode: Mode
    alignment: Alignment
    has_tokens: bool = False
    traits: tuple[Change, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    reference: Case | None = None
    failures: Failures = field(default_factory=Failures)
    ignored: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def candidate_in(self, mode: Mode, attempt: int) -> Iterator[None]:
        """Holds the candidate in float64 and in a mode, without autograd, for as long as the context lasts.

        Args:
            mode: how it is run.
            attempt: of the ways to hold it in float64.
        """
        candidate = self.subject.models.candidate
        with mode.active(candidate), torch.no_grad(), held_in(candidate, torch.float64, attempt):
            yield

    @contextlib.contextmanager
    def observed(self, images: torch.Tensor, alignment: Alignment) -> Iterator[Observations]:
        """Yields what passes in a run of the candidate, which is held in float64.

        Args:
            images: in float64.
            alignment: which module is which.
        """
        models = self.subject.models
        layers, passing = self.layers_in(alignment), PassingFunctions()
        if layers:
            with FunctionCalls(models.candidate, layers, passing.keep):
                Run(models.candidate, images, set(), models.seed, "candidate").finish()
        gathering = Gathering(alignment)
        wholes = (gathering.whole(Event(point, [tensor])) for point, tensor in passing.tensors.items())
        of_functions = {alignment.to_reference(event.point): event.tensors[0] for event in wholes if event}
        with contextlib.closing(Run(models.candidate, images, set(alignment.pairs), models.seed, "candidate")) as run:
            once = not any(point.call and (point.module, point.moment) not in alignment.portions
                           for point in self.subject.calls[1])  # fmt: skip
            yield Observations(run, alignment, of_functions, once=once)

    def layers_in(self, alignment: Alignment) -> dict[str, Layer]:
        """Returns the candidate's layers that are called as functions and are in an alignment."""
        layers = self.subject.layers_as_functions()
        return {weight: layer for weight, layer in layers.items() if weight in alignment.pairs}


def block_of(name: str) -> int | None:
    """Returns the number of the block of torchvision's ViT that a module or tensor is in, or None."""
    match = _BLOCK.match(name)
    return int(match[1]) if match else None
