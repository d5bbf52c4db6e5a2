"""Two checkpoints of one architecture: which tensors differ, how, and what it does to the logits."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parity.errors import ParityError, listed
from parity.mapping import in_place, infer_mapping, set_up
from parity.models import (
    Entry,
    WeightMap,
    brought_by,
    build_reference,
    configuration_of_state,
    fitted,
    hold,
    is_path,
    lacks_values,
    read,
    resolve_candidate,
    uniform,
)
from parity.progress import Progress
from parity.report import as_json
from parity.tracing import ambient_kept
from parity.transfer import OwnWeights, compare_states, compare_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch import nn

    from parity.models import Checkpoint

    Model = str | nn.Module | Callable[..., Any]


@dataclass(frozen=True)
class Difference:
    """What two checkpoints have in common, and what not.

    Attributes:
        weights: the second one's tensors beside the first one's.
        only_first: tensors that the second lacks.
        only_second: tensors that the first lacks.
        notes: what was done to read them, a sentence each.
    """

    weights: OwnWeights
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether both hold the same weights."""
        return self.weights.verdict == "same" and not (self.only_first or self.only_second)

    def lines(self) -> list[str]:
        """Returns what there is to say, a line each, the answer first."""
        own = self.weights
        only = [
            f"only in the {which}: {listed(list(names))}"
            for which, names in (("first", self.only_first), ("second", self.only_second))
            if names
        ]
        effects = [
            f"- {cause.statement}"
            + (f" [alone: logits off by {cause.without:.2g}]" if cause.without is not None else "")
            + f"; {cause.hint}" * bool(cause.hint)
            for cause in own.causes
        ]
        return [own.summary(), *only, *effects, *own.notes, *self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Returns the difference as JSON types."""
        own = self.weights
        causes = [vars(cause) for cause in own.causes]
        only = {"only_first": self.only_first, "only_second": self.only_second, "notes": [*self.notes, *own.notes]}
        finite: dict[str, Any] = as_json({**own.to_dict(), "causes": causes, **only})
        return finite


@ambient_kept()
def diff(
    first: str | nn.Module,
    second: str | nn.Module,
    *,
    model: Model | None = None,
    overrides: Mapping[str, Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Difference:
    """Compares two checkpoints tensor by tensor, and runs the model with either where there is one that knows them.

    Args:
        first: the one that is taken as right: a file, `PATH` or `PATH#KEY`; a module with its weights; or
            `package.module:callable` or `file.py:callable` that returns one.
        second: the other.
        model: what builds the model that the files' tensors belong to; not needed where they have torchvision's names,
            or where the other side is a model that has theirs.
        overrides: settings of torchvision's that the files don't show: `num_heads`.
        model_args: arguments for `model`.
        seed: of the images that both are run on.
        progress: told what is being done.

    Raises:
        ParityError: one of them cannot be read or built, or they have no tensor in common.
    """
    told = Progress(progress)
    told.say("reading both")
    files = [read(side) if isinstance(side, str) and is_path(side) else None for side in (first, second)]
    models = [None if file else _with_values(side) for side, file in zip((first, second), files, strict=True)]
    known = resolve_candidate(model, {}, model_args).build() if model is not None else models[0] or models[1]
    for n, file in enumerate(files):
        if file:
            models[n] = _holding(file, known, overrides or {})
    notes = tuple(note for file in files if file for note in file.notes)
    if models[0] is None or models[1] is None:
        assert files[0]
        assert files[1]
        return _by_name(files[0], files[1], notes)
    setup = set_up(models[1], models[0], {}, None, None, seed)
    images = uniform(f"{seed}/images", (2, *setup.image_shape))
    mapping = infer_mapping(setup.reference, models[1], images=images, build=setup.candidate.build)
    brought = brought_by(setup.candidate, models[1], None)
    assert brought
    with in_place(setup, models[1], mapping, images, seed, "float64", "cpu", told) as subject:
        weights = compare_weights(subject, brought, told)
    return Difference(weights, mapping.unmapped_reference, (*mapping.unmapped_candidate, *mapping.unused), notes)


def _with_values(side: str | nn.Module) -> nn.Module:
    module = resolve_candidate(side, {}).build()
    if lacks_values(module):
        raise ParityError(f"{side} is a model without values, so there are no weights to compare")
    return module


def _holding(file: Checkpoint, model: nn.Module | None, overrides: Mapping[str, Any]) -> nn.Module | None:
    """Returns a model with a file's weights: `model`, or torchvision's ViT; None if nobody knows one for its names."""
    if model is None:
        config = configuration_of_state(file.state, overrides)
        if config is None:
            return None
        model = build_reference(config)
    module = copy.deepcopy(model)
    hold(module, fitted(file, module, type(module).__name__))
    return module


def _by_name(first: Checkpoint, second: Checkpoint, notes: tuple[str, ...]) -> Difference:
    """Compares tensors of equal names and shapes, where there is no model to run them in."""
    states = [_floats(first), _floats(second)]
    common = [name for name in states[0] if name in states[1] and states[0][name].shape == states[1][name].shape]
    if not common:
        names = [f"{file.source} has {listed(list(file.state), 3)}" for file in (first, second)]
        raise ParityError(f"no tensor in common: {', '.join(names)}; say what builds the model with --model")
    mapping = WeightMap(tuple(Entry(name, name) for name in common), "equal names")
    both = [{name: state[name] for name in common} for state in states]
    weights = compare_states(mapping, both[0], both[1], second.source)
    unknown = "the logits were not compared: these are not torchvision's names; say what builds the model with --model"
    only = [tuple(name for name in state if name not in common) for state in states]
    return Difference(weights, only[0], only[1], (*notes, unknown))


def _floats(file: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: tensor.float() for name, tensor in file.state.items() if tensor.is_floating_point()}
