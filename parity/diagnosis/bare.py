"""Bare runs of both models, with nobody watching: one for each mode, whose operations and logits several rooms need."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from parity.diagnosis.branches import Branches, states_of_generators
from parity.errors import ParityError
from parity.tracing import MODES, Operations, bare_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch
    from torch import nn

    from parity.tracing import Mode, Models


class Bare(NamedTuple):
    """What a bare run has come to.

    Attributes:
        output: the logits (B, classes).
        random_state: of torch's generator at the end.
        operations: as in `Operations.done`.
    """

    output: torch.Tensor
    random_state: torch.Tensor
    operations: list[object]


class BareRuns:
    """Runs a model once in a mode when somebody first asks for it.

    In eval mode that is with another random state than in the checks, on which nothing may depend.

    Args:
        models: who is compared.
        dtype: the dtype under test.

    Attributes:
        branches: what the candidate's runs have done with the values they met.
    """

    def __init__(self, models: Models, dtype: torch.dtype) -> None:
        self.branches = Branches()
        self._models = models
        self._dtype = dtype
        self._made: dict[tuple[str, str], Bare] = {}

    def of(self, owner: str, mode: Mode) -> Bare:
        """Returns the run of `reference` or `candidate`.

        Raises:
            ParityError: the model failed.
        """
        key = owner, mode.name
        if key not in self._made:
            operations: list[Operations] = []

            @contextlib.contextmanager
            def around(model: nn.Module) -> Iterator[None]:
                operations.append(Operations(model))
                drawing, states = {**self.branches.drawing}, states_of_generators()
                with self.branches if owner == "candidate" else contextlib.nullcontext(), operations[-1]:
                    yield
                if mode.train:  # where a model is meant to draw
                    self.branches.drawing = drawing
                elif owner == "candidate":
                    now = states_of_generators()
                    self.branches.drawing |= {name: None for name in states if now[name] != states[name]}

            model = self._models.candidate if owner == "candidate" else self._models.reference
            seed = self._models.seed + (not mode.train)
            run = bare_run(model, self._models.images, MODES[mode.name], self._dtype, seed, owner, around=around)
            assert run.output is not None
            self._made[key] = Bare(run.output.detach(), run.random_state, operations[-1].done)
        return self._made[key]

    def like(self, mode: Mode, others: Iterable[Mode]) -> str | None:
        """Returns the first of the other modes in which both models do the very same operations as in this one."""
        for other in others:
            with contextlib.suppress(ParityError):
                if all(self._is_alike(owner, mode, other) for owner in ("candidate", "reference")):
                    return other.name
        return None

    def _is_alike(self, owner: str, mode: Mode, other: Mode) -> bool:
        return self.of(owner, mode).operations == self.of(owner, other).operations
