"""Entries for the MLP: its activation and its biases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parity.explanation.bending import Kind
from parity.explanation.causes.variants import ACTIVATIONS, no_bias, replaced_by, skipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


# a table reads best with an entry's parts side by side
# fmt: off
def kinds(_: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for the MLP, the likeliest first."""
    for name, function in {**ACTIVATIONS, "no activation": lambda x: x}.items():
        yield Kind("activation", {"activation": replaced_by(function)}, f"{name} in the MLP", "exact GELU", "nn.GELU()")
    yield no_bias("mlp-bias", "no bias of the MLP's first Linear", r"\.mlp\.0$")
    yield no_bias("mlp-bias", "no bias of the MLP's second Linear", r"\.mlp\.3$")
    yield Kind("mlp-missing", {"mlp": skipped}, "no MLP in its branch", "two Linears and a GELU", "call the MLP")
