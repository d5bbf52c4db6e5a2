"""The weights that a candidate brings: those of a module that is built, those that a constructor loads, or a file's."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from parity.errors import ParityError
from parity.models.checkpoint import fitted, read
from parity.models.state import lacks_values, tensors_of, without_initial_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from parity.models.candidate import Candidate
    from parity.models.checkpoint import State


@dataclass(frozen=True)
class Brought:
    """A candidate's own weights.

    Attributes:
        source: where they come from, in words.
        state: by the candidate's names, as they are.
        notes: what was done to read them, a sentence each.
    """

    source: str
    state: State
    notes: Sequence[str] = ()


def brought_by(candidate: Candidate, module: nn.Module, file: str | None) -> Brought | None:
    """Returns the weights that a candidate brings, or None if it brings none.

    Args:
        candidate: what builds it.
        module: what it builds, with or without values.
        file: `PATH` or `PATH#KEY` of a state dict in the candidate's names, or None.

    Raises:
        ParityError: the file cannot be read, or holds no weights of this candidate.
    """
    if file is not None:
        checkpoint = read(file)
        return Brought(file, fitted(checkpoint, module, "candidate"), checkpoint.notes)
    if candidate.is_built:
        return None if lacks_values(module) else Brought("the candidate's own", _snapshot(module))
    return _loaded(candidate)


def brings_weights(builder: Candidate) -> bool:
    """Returns whether what is built holds weights that mean something: it is built already, or loads some."""
    return builder.is_built or _loaded(builder) is not None


def _snapshot(module: nn.Module) -> State:
    return {name: tensor.detach() for name, tensor in tensors_of(module).items()}


def _loaded(candidate: Candidate) -> Brought | None:
    """Returns the weights that a constructor has loaded: what comes out the same whatever the random state.

    A constructor that loads something says so on the meta device already, by copying values to where none can be; only
    then, and where it refuses that device, is it built for real, twice.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says of each such copy that it does nothing
        try:
            with without_initial_values() as has_loaded:
                module = candidate.build()
            if not has_loaded() and all(parameter.is_meta for parameter in module.parameters()):
                return None
        except ParityError:
            pass
    first, second = (_built_under(seed, candidate) for seed in (1, 2))
    drawn = {name for name, t in first.items() if t.ndim > 1 and not bool((t == t.flatten()[0]).all())}
    loaded = [name for name in drawn if torch.equal(first[name], second[name])]
    return Brought("loaded by the candidate's constructor", first) if 2 * len(loaded) > len(drawn) else None


def _built_under(seed: int, candidate: Candidate) -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _snapshot(candidate.build())
