"""Learning side by side: some steps of an optimizer in both models, on the same batches, compared after each step."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import nn

from parity.diagnosis import worst_of
from parity.errors import ParityError, described
from parity.models import cut, replaced, slots, split
from parity.tracing import Measurement, Run, compare, first_that_runs, held_in
from parity.training.gradients import labels, moved

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from parity.models import Entry
    from parity.tracing import Mode
    from parity.training.gradients import Pairs

# How far apart a parameter of two right implementations may be after some steps in float64, relative to its norm. AdamW
# divides a gradient by its own size, and so makes of rounding in the smallest gradients rounding in the parameters that
# is larger than in those of one backward pass. Measured after 20 steps of AdamW for some forty right implementations:
# 1e-16 to 7.4e-15 (timm's and transformers': up to 5.7e-15), and of SGD below 1e-16. A decay of 0.01 for 0.05 in one
# group stands at 4e-5 after the first step, so there is room for deeper models and more steps.
TRAJECTORY_BOUND = 1e-10

CLIP = 1.0  # of the gradient's norm


@dataclass(frozen=True)
class Recipe:
    """An optimizer and its settings; a cosine schedule takes its rate to 0, and the gradient's norm is clipped."""

    name: str
    weight_decay: float
    build: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


RECIPES = (
    Recipe("adamw", 0.05, lambda groups: torch.optim.AdamW(groups, lr=1e-3)),
    Recipe("sgd", 1e-4, lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9)),
)


@dataclass(frozen=True)
class Course:
    """What is learnt, and how.

    Attributes:
        recipe: the optimizer.
        mode: how the models are run.
        seed: of batches, labels and dropout.
        steps: how many.
        images: of a step, by its number: (B, C, H, W) in float32.
    """

    recipe: Recipe
    mode: Mode
    seed: int
    steps: int
    images: Callable[[int], torch.Tensor]


class Learner:
    """A model in training, with parameters of its own for as long as `learning` lasts.

    Args:
        model: any module.
        course: what it learns.
        dtype: of parameters and images.
        owner: who it is, for messages.
        order: names of parameters, in the order in which their gradients' norms are summed up for clipping: that of
            the weight map, so that both models sum alike.
        decayed: names of the parameters that weight decay applies to.
        frozen: names of the parameters that are not trained.
    """

    def __init__(
        self,
        model: nn.Module,
        course: Course,
        dtype: torch.dtype,
        owner: str,
        order: Collection[str],
        decayed: Collection[str],
        frozen: Collection[str] = (),
    ) -> None:
        self.model = model
        self._course = course
        self.dtype = dtype
        self._owner = owner
        self._order = {name: position for position, name in enumerate(order)}
        self._decayed = decayed
        self._frozen = frozen
        self._done = 0
        self._optimizer: torch.optim.Optimizer | None = None
        self._schedule: torch.optim.lr_scheduler.LRScheduler | None = None

    @contextlib.contextmanager
    def learning(self, attempt: int = 0) -> Iterator[Learner]:
        """Gives the model parameters of its own, and an optimizer; the old ones are back afterwards."""

        def own(_: str, tensor: torch.Tensor) -> torch.Tensor:
            return tensor.detach().to(self.dtype if tensor.is_floating_point() else tensor.dtype, copy=True)

        with contextlib.ExitStack() as stack:
            if attempt >= 2:  # with its constants
                stack.enter_context(held_in(self.model, self.dtype, attempt))
            stack.enter_context(replaced(self.model, own))
            self._prepare()
            yield self

    def _prepare(self) -> None:
        self._done = 0
        decayed: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        named = dict(self.model.named_parameters())
        for name in sorted(named, key=lambda name: self._order.get(name, len(self._order))):
            parameter = named[name]
            parameter.requires_grad_(parameter.is_floating_point() and name not in self._frozen)
            if parameter.requires_grad:
                (decayed if name in self._decayed else others).append(parameter)
        decay = self._course.recipe.weight_decay
        groups = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        self._optimizer = self._course.recipe.build(groups)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, self._course.steps)

    def step(self) -> torch.Tensor:
        """Makes a step and returns the loss before it.

        Raises:
            ParityError: the model failed.
        """
        assert self._optimizer is not None
        assert self._schedule is not None
        number, self._done = self._done, self._done + 1
        images = self._course.images(number).to(self.dtype)
        seed = self._course.seed + number
        self._optimizer.zero_grad()
        with self._course.mode.active(self.model):
            logits = Run(self.model, images, set(), seed, self._owner).finish()
            loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels(seed, logits.flatten(0, -2)))
            try:
                torch.autograd.backward(loss)
            except Exception as error:
                raise ParityError(f"the {self._owner}'s backward pass failed: {described(error)}") from error
        trained = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(trained, CLIP)
        self._optimizer.step()
        self._schedule.step()
        return loss.detach()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns parameters and buffers as they are now, not copied, by each of their names."""
        return {name: tensor.detach() for name, registry, key in slots(self.model)
                if (tensor := registry[key]) is not None}  # fmt: skip

    def save(self, file: BinaryIO) -> None:
        """Writes everything that a resumed training needs."""
        assert self._optimizer is not None
        assert self._schedule is not None
        states = {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict(),
                  "schedule": self._schedule.state_dict(), "done": self._done}  # fmt: skip
        file.seek(0)
        file.truncate()
        torch.save(states, file)

    def load(self, file: BinaryIO) -> None:
        """Takes up what `save` has written, in a model that may be another one of the same code."""
        assert self._optimizer is not None
        assert self._schedule is not None
        file.seek(0)
        states = torch.load(file, weights_only=True)
        self.model.load_state_dict(states["model"])
        self._optimizer.load_state_dict(states["optimizer"])
        self._schedule.load_state_dict(states["schedule"])
        self._done = states["done"]


@dataclass
class Track:
    """What was measured of a trajectory.

    Attributes:
        worst: of every entry of the weight map, the largest distance after any step.
        noise: of every entry, the largest noise ratio, where it was measured.
        losses: the distance of every step's loss.
        apart: of every step, the noise ratio of all parameters taken together, by the mean of absolute errors. AdamW
            moves a value whose gradient is all but zero in whatever direction rounding says, and in a mean of squares a
            few of them would outweigh all others: of right implementations, ratios up to 3.9 were measured with
            squares, and up to 1.6 so.
        final: the candidate's tensors at the end, if its state in the middle was saved.
    """

    worst: dict[Entry, Measurement] = field(default_factory=dict)
    losses: list[Measurement] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)
    final: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def identical(self) -> bool:
        """Whether every loss and every parameter had the same bits after every step."""
        return all(m.identical for m in (*self.losses, *self.worst.values()))


def follow(
    reference: Learner,
    candidate: Learner,
    pairs: Pairs,
    steps: int,
    inert: Mapping[str, torch.Tensor],
    truth: Learner | None = None,
    file: BinaryIO | None = None,
) -> Track:
    """Lets both models learn side by side, and compares losses and parameters after each step.

    Args:
        reference: the model taken as right.
        candidate: the model under test.
        pairs: which tensor is which.
        steps: how many.
        inert: which values of the reference, by tensor, no output depends on; an optimizer moves them by rounding.
        truth: the reference in float64, for noise ratios.
        file: the candidate's state in the middle is written here.

    Raises:
        ParityError: one of the models failed.
    """

    def run(attempt: int) -> Track:
        track = Track()
        with contextlib.ExitStack() as stack:
            learners = [stack.enter_context(reference.learning()), stack.enter_context(candidate.learning(attempt))]
            exact = stack.enter_context(truth.learning()) if truth else None
            for number in range(steps):
                if file and number == steps // 2:
                    candidate.save(file)
                losses = [learner.step() for learner in learners]
                if exact:
                    exact.step()
                track.losses.append(compare(*losses))
                _measure(track, [learner.tensors() for learner in learners], pairs, inert, exact)
            if file:
                track.final = {name: tensor.clone() for name, tensor in candidate.tensors().items()}
        return track

    return first_that_runs(run, candidate.dtype)


def _measure(
    track: Track,
    tensors: list[dict[str, torch.Tensor]],
    pairs: Pairs,
    inert: Mapping[str, torch.Tensor],
    exact: Learner | None,
) -> None:
    ours, theirs = tensors
    true = exact.tensors() if exact else None
    own_error = error = 0.0
    for name, members in pairs.entries.items():
        for entry in members:
            expected, own = moved(entry, ours), cut(theirs[name], split(entry.candidate)[1])
            assert expected is not None
            mask = moved(entry, inert)
            if mask is not None and bool(mask.any()):
                expected, own = expected[~mask], own[~mask]
                if not expected.numel():
                    continue
            measured = compare(expected, own)
            track.worst[entry] = worst_of([measured, track.worst.get(entry, measured)])
            if true:
                value = moved(entry, true)
                assert value is not None
                value = value if mask is None or not bool(mask.any()) else value[~mask]
                own_error += float((expected.double() - value).abs().sum())
                error += float((own.double() - value).abs().sum())
    if true:
        track.apart.append(error / own_error if own_error else 1.0 if not error else math.inf)
