"""Trying out which argument is which: building with sizes that tell, and comparing the tensors with the reference's."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from parity.errors import described
from parity.models.constructors.holders import MissingError, watched
from parity.models.constructors.quantities import distance, heads_in_all, heads_of, totals
from parity.models.constructors.signatures import EMPTY
from parity.models.reference import build_reference
from parity.models.state import state_shapes, without_initial_values
from parity.streams import silenced

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from parity.models.constructors.options import Option
    from parity.models.state import Shape

    Assignment = dict[str, Option]

# Sizes of which each has a prime of its own (width 11, MLP 7, classes 17, patches 5, tokens 37), so that a tensor's
# shape tells which of them it comes from. Heads of 11 features, and a grid of 6 by 6.
TELLING = {
    "image_size": 30, "patch_size": 5, "num_layers": 3, "num_heads": 4, "hidden_dim": 44, "mlp_dim": 308,
    "num_classes": 17, "representation_size": None, "dropout": 0.13, "attention_dropout": 0.21,
}  # fmt: skip
_PRIMES = (11, 7, 17, 5, 37, 13)

# what an argument has to gain to be what its name doesn't say: about one kind of tensor that becomes right
CLEARLY = 0.5

_MOST_BUILDS = 100
_MOST_SECONDS = 1.0
# of a model that cannot be run on the images it was built for, or whose heads are others
_UNFIT = 0.5


def telling(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a small configuration in which all sizes can be told apart."""
    found = {**config, **TELLING}
    if config.get("representation_size"):
        found["representation_size"] = 26
    return found


@dataclasses.dataclass
class Tried:
    """What became of an assignment.

    Attributes:
        distance: how far its tensors are from the reference's; None: it cannot be built.
        error: why not.
        heads: of all blocks together, or of one as its modules name them; None where nothing shows them.
        has_heads: whether these are the reference's.
    """

    distance: float | None
    error: BaseException | None = None
    heads: int | None = None
    has_heads: bool = False

    def is_clearly_nearer(self, other: Tried | None) -> bool:
        """Returns whether about one kind of tensor more is right than in another attempt."""
        if self.distance is None or other is None or other.distance is None:
            return self.distance is not None
        return self.distance <= other.distance - CLEARLY


class Probe:
    """Builds a candidate without values at one configuration and compares its tensors with the reference's.

    Attributes:
        builds: how many it has built.
        has_plain_numbers: whether configs are given plain numbers, of which nobody knows what is read from them.
    """

    def __init__(
        self, config: Mapping[str, Any], make: Callable[[dict[str, Any]], Any], given: Mapping[str, Any]
    ) -> None:
        """Prepares builds.

        Args:
            config: sizes of the reference.
            make: builds the candidate from values by path.
            given: values that are fixed.
        """
        self.config, self._make, self._given = config, make, given
        self.builds = 0
        self.has_plain_numbers = False
        self._seconds = 0.0
        self._goal = totals(
            state_shapes(build_reference({key: value for key, value in config.items() if key != "in_channels"})),
            _PRIMES,
        )
        self._known: dict[Any, Tried] = {}

    def values(self, assignment: Assignment) -> dict[str, Any]:
        """Returns what is given to every slot, by path."""
        values = {path: option.of(self.config) for path, option in assignment.items()}
        return {path: value for path, value in values.items() if value is not EMPTY} | dict(self._given)

    def tried(self, assignment: Assignment) -> Tried:
        """Builds the candidate as assigned."""
        key = tuple(sorted((path, id(option)) for path, option in assignment.items()))
        if key not in self._known:
            is_first, began = self.builds == 0, time.process_time()
            self._known[key] = self._try(self.values(assignment))
            if not is_first:  # which may import half of torch
                self._seconds += time.process_time() - began
        return self._known[key]

    @property
    def is_spent(self) -> bool:
        """Whether it has built enough."""
        return self.builds >= _MOST_BUILDS or self._seconds >= _MOST_SECONDS

    def forget(self) -> None:
        """Forgets what was tried, as there are new slots."""
        self._known.clear()

    def _try(self, values: Mapping[str, Any]) -> Tried:
        self.builds += 1
        try:
            module = self.built(values)
            found = totals(state_shapes(module), _PRIMES)
        except (Exception, SystemExit) as error:  # noqa: BLE001  (a constructor can raise anything)
            return Tried(None, error)
        far = distance(found, self._goal)
        heads, wanted = None, self.config["num_heads"] * self.config["num_layers"]
        try:
            with silenced():
                heads = heads_in_all(module, self.config["image_size"])
        except MissingError as error:  # of a config that is read as the model is run
            return Tried(None, error)
        except (Exception, SystemExit):  # noqa: BLE001
            far += _UNFIT
        if not heads:
            heads, wanted = heads_of(module), self.config["num_heads"]
        far += _UNFIT * (heads not in (None, wanted))
        return Tried(far, heads=heads, has_heads=heads == wanted)

    def effect(self, assignment: Assignment, path: str) -> bool | None:
        """Returns whether some of the tensors that an argument changes, or else the heads, are the reference's.

        Those of a kind are so, too, if the candidate has most of them and no others.

        Returns:
            None where it changes nothing that shows.
        """
        values = self.values(assignment)
        found = self._totals(values)
        for factor in (2, 4, 3, 0.5):
            scaled = {**values, path: _scaled(values[path], factor)}
            other = self._totals(scaled)
            if other:
                moved = {kind for kind in found.keys() | other.keys() if found[kind] != other[kind]}
                if moved:
                    return any(CLEARLY * self._goal[kind] <= found[kind] <= self._goal[kind] for kind in moved)
                before, after = self._try(values), self._try(scaled)
                return before.has_heads if after.heads != before.heads else None
        return True  # whatever else it may be, nothing can be built

    def _totals(self, values: Mapping[str, Any]) -> Counter[tuple[int, ...]]:
        """Returns how many values the tensors of each kind have; none if nothing can be built."""
        self.builds += 1
        try:
            return totals(state_shapes(self.built(values)), _PRIMES)
        except (Exception, SystemExit):  # noqa: BLE001  (a constructor can raise anything)
            return Counter()

    def shapes(self, values: Mapping[str, Any]) -> list[Shape] | None:
        """Returns the shapes of all tensors if the candidate is given these values by path; None if it raises."""
        self.builds += 1
        try:
            return list(state_shapes(self.built({**values, **self._given})).values())
        except (Exception, SystemExit):  # noqa: BLE001
            return None

    def built(self, values: Mapping[str, Any]) -> nn.Module:
        """Builds the candidate, without values and in silence."""
        try:
            return self._built(values, contextlib.nullcontext())
        except (RuntimeError, NotImplementedError) as error:
            if "meta" not in described(error):
                raise
            return self._built(values, _Numbers()).to("meta")

    def _built(self, values: Mapping[str, Any], mode: contextlib.AbstractContextManager[Any]) -> nn.Module:
        with (
            silenced(),
            torch.random.fork_rng(devices=[]),
            without_initial_values(),
            mode,
            watched(has_plain_numbers=self.has_plain_numbers),
        ):
            module = self._make(dict(values))
        if not isinstance(module, nn.Module):
            raise TypeError(type(module).__name__)
        return module


class _Numbers(TorchFunctionMode):
    """Gives values to what constructors read numbers from, such as `[x.item() for x in torch.linspace(0, rate, n)]`."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        has_values = function in (torch.linspace, torch.arange, torch.tensor)
        return function(*args, **{**({"device": "cpu"} if has_values else {}), **(kwargs or {})})


def _scaled(value: Any, factor: float) -> Any:
    """Returns a multiple of a number, or of each of several."""
    if isinstance(value, (tuple, list)):
        return type(value)(_scaled(inner, factor) for inner in value)
    return type(value)(value * factor) if isinstance(value, (int, float)) else value
