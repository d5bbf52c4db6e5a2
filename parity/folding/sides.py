"""The two models that weights are moved between: how each is run, and what it does with its tensors."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from parity.errors import ParityError
from parity.mapping import trace_uses
from parity.models import assigned, synthetic, twins, without_values
from parity.tracing import MODES, bare_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from parity.mapping import Uses

    State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Side:
    """One of the two models that weights are moved between.

    Attributes:
        module: the model, without values if its state dict gives all of them.
        owner: who it is, for messages.
        batches: images (B, C, H, W) to run it on, batches of several sizes.
    """

    module: nn.Module
    owner: str
    batches: tuple[torch.Tensor, ...]

    @functools.cached_property
    def uses(self) -> Uses:
        """What the model does with its tensors."""
        with contextlib.suppress(ParityError), without_values(self.module):
            return trace_uses(self.module, self.batches[0].to("meta"), self.owner)
        return trace_uses(self.module, self.batches[0], self.owner)

    @functools.cached_property
    def own(self) -> dict[str, torch.Tensor]:
        """The model's own state dict, before anything is moved."""
        return {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

    @functools.cached_property
    def twins(self) -> dict[str, str]:
        """Every tensor that the model holds under several names: each further name, and the first one."""
        return twins(self.module)

    def logits(self, state: State, batch: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Runs the model with the values of `state`, in eval mode.

        Raises:
            ParityError: it cannot be run.
        """
        with assigned(self.module, state):
            output = bare_run(self.module, self.batches[batch], MODES["eval"], dtype, 0, self.owner).output
        assert output is not None
        return output

    def other_weights(self, state: State) -> dict[str, torch.Tensor]:
        """Returns random values for the parameters, and those of `state` for what is no parameter."""
        drawn = synthetic(self.module, 1, only=dict(self.module.named_parameters()).keys())
        mixed = {**state, **drawn}
        return mixed | {name: mixed[one] for name, one in self.twins.items() if one in mixed}


def in_float64(state: State) -> dict[str, torch.Tensor]:
    """Returns the floating-point numbers of a state dict in float64."""
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def attention_scale(*sides: Side) -> float:
    """Returns 1 / sqrt(head width), as far as a model tells the number of its heads; else 1."""
    for uses in (side.uses for side in sides):
        operation = next((op for op in uses.operations if op.kind == "attention"), None)
        if operation and uses.heads:
            return float((operation.rows // 3 // uses.heads) ** -0.5)
    return 1.0
