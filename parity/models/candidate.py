"""The candidate: the implementation under test, found by its name and built with the reference's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.errors import ParityError
from parity.models.binding import bind
from parity.models.importing import imported
from parity.models.state import without_initial_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Candidate:
    """Something that builds the module under test, as often as it is needed.

    Attributes:
        name: how the report names it.
        arguments: what its constructor was given, by argument name.
        defaults: its constructor's arguments that were left alone.
        settings: the reference's settings that reached it.
        notes: what there is to say about what was built, a sentence each.
        is_built: it was handed over as a module, with the weights that it has.
    """

    name: str
    arguments: dict[str, Any]
    defaults: tuple[str, ...]
    settings: frozenset[str]
    _build: Callable[[], nn.Module]
    notes: list[str] = field(default_factory=list, compare=False)
    is_built: bool = False

    def build(self) -> nn.Module:
        """Builds the module, on the device and in the dtype that are torch's defaults at the moment.

        Raises:
            ParityError: it raised, or returned something else than a module.
        """
        try:
            module = self._build()
        except (Exception, SystemExit) as error:
            given = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
            raise ParityError(
                f"the candidate {self.name}({given}) cannot be built: {type(error).__name__}: {error}; "
                "give it other arguments with --candidate-arg NAME=VALUE"
            ) from error
        if not isinstance(module, nn.Module):
            raise ParityError(f"the candidate {self.name} returned {type(module).__name__}, expected a torch.nn.Module")
        module = self._unwrapped(module)
        if any(map(nn.parameter.is_lazy, (*module.parameters(), *module.buffers()))):
            raise ParityError(f"the candidate {self.name} has lazy layers without shapes; run it once before the check")
        return module

    def _unwrapped(self, module: nn.Module) -> nn.Module:
        """Takes off what only says how a module is run."""
        wrappers = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
        while (kind := type(module).__name__) in wrappers:
            module = getattr(module, wrappers[kind])
            note = f"the candidate is wrapped in {kind}; what is compared is the module inside it"
            if note not in self.notes:
                self.notes.append(note)
        if isinstance(module, torch.jit.ScriptModule):
            raise ParityError(
                f"the candidate {self.name} is a TorchScript module, whose inside nobody can watch; give the module "
                "that it was made from"
            )
        return module


def resolve_candidate(
    candidate: str | nn.Module | Callable[..., Any],
    config: Mapping[str, Any],
    arguments: Mapping[str, Any] | None = None,
) -> Candidate:
    """Finds the candidate and binds the reference's configuration to its constructor's arguments.

    Args:
        candidate: `package.module:callable`, `path/to/file.py:callable`, a class or function that returns a module, or
            a module, which is taken as it is.
        config: the reference's configuration.
        arguments: arguments that go to the constructor as they are, and win over the configuration.

    Raises:
        ParityError: it cannot be imported, or has an argument without a default that the configuration doesn't know.
    """
    arguments = dict(arguments or {})
    if isinstance(candidate, nn.Module):
        if arguments:
            raise ParityError(
                "--candidate-arg needs a class or function as candidate, not a module that is built already"
            )
        module = candidate
        return Candidate(type(module).__name__, {}, (), frozenset(), lambda: module, is_built=True)
    notes: list[str] = []
    if isinstance(candidate, str):
        name, function = candidate, imported(candidate, notes)
    else:
        name, function = getattr(candidate, "__qualname__", repr(candidate)), candidate
    if isinstance(function, nn.Module):
        found = resolve_candidate(function, config, arguments)
        found.notes.extend(notes)
        return found
    if not callable(function):
        raise ParityError(f"the candidate {name} is a {type(function).__name__}, expected a class or function")
    bound, defaults, settings = bind(name, function, config, arguments)
    return Candidate(name, bound, defaults, settings, lambda: function(**bound), notes)


def build_without_values(candidate: Candidate) -> nn.Module:
    """Builds the candidate on the meta device, where initial values cost nothing; for real where it refuses that."""
    try:
        with without_initial_values():
            return candidate.build()
    except ParityError:
        return candidate.build()
