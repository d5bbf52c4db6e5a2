"""Running a model so that somebody else sees, step by step, what enters and leaves its modules.

Two models are compared *in step*: each run stops at every enter and leave of a watched module and hands its tensors
over, so that they can be compared and dropped at once. Memory doesn't grow with depth, nothing is copied, and no tensor
is looked at after a later in-place operation could have changed it. While it stands still, a run can be handed other
tensors to go on with (teacher forcing).

Runs are greenlets: they switch inside one thread, which leaves torch's thread pools and their numerics alone. What a
model may change while it runs (random generator, grad mode, autocast, default dtype) belongs to each run and is swapped
when it goes on.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import greenlet
import torch
from torch import nn

from parity.errors import ParityError, described, raised_inside
from parity.tracing.attention import STEPS, can_be_opened, opened
from parity.tracing.casting import first_that_runs, held_in
from parity.tracing.modes import Ambient
from parity.tracing.nested import first_tensor, plain, substituted, unique_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from parity.tracing.modes import Mode
    from parity.tracing.nested import Tensors

Moment = Literal["enter", "leave"]


class Point(NamedTuple):
    """A moment of a run: a call of a module, named as in `named_modules()`, is entered or left."""

    module: str
    call: int
    moment: Moment


def outer_modules(name: str) -> Iterator[str]:
    """Yields the names of the modules around this module or tensor, the outermost first, the model itself left out."""
    return itertools.accumulate(name.split(".")[:-1], "{}.{}".format)


@dataclass(frozen=True)
class Event:
    """The tensors that pass a point: those that enter or leave, each of them once."""

    point: Point
    tensors: Tensors


class Run:
    """One forward pass of `model` that stops at every enter and leave of a call to a watched module.

    Args:
        model: runs in the mode it is in.
        inputs: its only argument, of which the run takes a copy, since a model may write to it.
        watched: names of the modules to stop at.
        seed: of this run's own random generator.
        owner: who the model is, for messages.
        inside: stop also inside `nn.MultiheadAttention`, at the watched names of `attention.STEPS`; what is handed over
            there cannot be forced.
        place: where the copy lies in memory, a tensor like it; a new one by default.
    """

    # inside an attention, hand over the first image's first token only
    _first_token = False

    def __init__(
        self,
        model: nn.Module,
        inputs: torch.Tensor,
        watched: set[str],
        seed: int,
        owner: str,
        *,
        inside: bool = False,
        place: torch.Tensor | None = None,
    ) -> None:
        self.output: torch.Tensor | None = None
        self._model = model
        self._inputs = inputs.clone() if place is None else place.copy_(inputs)
        self._untouched_inputs = inputs
        self._watched = watched
        self._owner = owner
        self._inside = inside
        self._calls: dict[str, int] = {}
        self._open: list[str] = []
        self._thread = threading.get_ident()
        self._ambient = Ambient.now().seeded(seed)
        self._greenlet = greenlet.greenlet(self._forward)

    def advance(self, forced: Tensors | None = None) -> Event | None:
        """Goes on to the next event; None when the model is done and `output` is set.

        Args:
            forced: tensors that take the place of those of the event where the run stands.

        Raises:
            ParityError: the model raised, or returned no tensor.
        """
        outer = Ambient.now()
        self._ambient.restore()
        try:
            event = self._greenlet.switch(forced)
            assert event is None or isinstance(event, Event)
            return event
        finally:
            self._ambient = Ambient.now()
            outer.restore()

    def finish(self) -> torch.Tensor:
        """Runs to the end without looking and returns the output."""
        while self.advance() is not None:
            pass
        assert self.output is not None
        return self.output

    @property
    def has_changed_its_input(self) -> bool:
        """Whether the model has written to the tensor that it was given."""
        return not torch.equal(self._inputs, self._untouched_inputs)

    @property
    def random_state(self) -> torch.Tensor:
        """The state of torch's generator where the run stands."""
        return self._ambient.random

    @property
    def grad_enabled(self) -> bool:
        """Whether the model records gradients where the run stands."""
        return self._ambient.grad

    @property
    def is_under_autocast(self) -> bool:
        """Whether the model computes under autocast where it stands."""
        return any(is_enabled for is_enabled, _ in self._ambient.autocast.values())

    def close(self) -> None:
        """Gives the run up where it stands and takes the hooks off the model."""
        if not self._greenlet.dead:
            self._greenlet.throw()

    def _forward(self, _: object) -> None:
        handles = []
        try:
            for name, module in self._model.named_modules():
                is_watched = name in self._watched and not self._is_inside(name)
                if is_watched:
                    handles.append(module.register_forward_pre_hook(self._entering(name), with_kwargs=True))
                if self._inside and can_be_opened(module):
                    handles.append(module.register_forward_pre_hook(self._opening(name), with_kwargs=True))
                    handles.append(module.register_forward_hook(self._closing(name)))
                if is_watched:
                    handles.append(module.register_forward_hook(self._leaving(name)))
            returned = _call(self._model, self._inputs)
            self.output = first_tensor(returned)
        except (KeyboardInterrupt, greenlet.GreenletExit):
            raise
        except BaseException as error:
            where = f" in {self._open[-1]}" if self._open else ""
            raise ParityError(
                f"the {self._owner} failed{where} on an input of shape {tuple(self._inputs.shape)}: "
                f"{described(error)}{self._advice(error)}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        if self.output is None:
            raise ParityError(
                f"the {self._owner} returned {_kind_of(returned)}, expected logits: a dense tensor of floating-point "
                "numbers, or a tuple, list, dict or object with `.logits` that holds one"
            )
        if self.output.device != self._inputs.device:
            where = f"its images are on {self._inputs.device}"
            raise ParityError(f"the {self._owner} returned logits on the device {self.output.device}, and {where}")

    def _advice(self, error: BaseException) -> str:  # noqa: ARG002  (of a run that has been possible before)
        return ""

    def _is_inside(self, name: str) -> bool:
        owner, _, step = name.rpartition(".")
        return self._inside and step in STEPS and can_be_opened(self._model.get_submodule(owner))

    def _opening(self, name: str) -> Callable[..., Any]:
        def hook(module: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if any(f"{name}.{step}" in self._watched for step in STEPS):
                entering = unique_tensors((args, kwargs))
                if self._first_token:
                    entering = [tensor[:1, :1] for tensor in entering]
                for step, moment, tensor in opened(module, entering):
                    self._tell(f"{name}.{step}", moment, tensor)

        return hook

    def _closing(self, name: str) -> Callable[..., Any]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self._tell(f"{name}.out_proj", "leave", output)
            for step in STEPS:
                self._calls[f"{name}.{step}"] = self._calls.get(f"{name}.{step}", 0) + 1

        return hook

    def _tell(self, name: str, moment: Moment, values: Any) -> None:
        if name in self._watched:
            self._hand_over(name, moment, values)

    def _entering(self, name: str) -> Callable[..., Any]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if threading.get_ident() != self._thread:
                raise RuntimeError(
                    "its modules are called from another thread than forward() is, where nobody can watch them; use "
                    "one thread where a check runs it"
                )
            self._open.append(name)
            return self._hand_over(name, "enter", (args, kwargs))

        return hook

    def _leaving(self, name: str) -> Callable[..., Any]:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
            forced = self._hand_over(name, "leave", output)
            self._open.pop()
            self._calls[name] = self._calls.get(name, 0) + 1
            return forced

        return hook

    def _hand_over(self, name: str, moment: Moment, values: Any) -> Any:
        tensors = unique_tensors(values)
        event = Event(Point(name, self._calls.get(name, 0), moment), [*map(plain, tensors)])
        driver = self._greenlet.parent
        assert driver is not None
        forced = driver.switch(event)
        return None if forced is None else substituted(values, dict(zip(map(id, tensors), forced, strict=False)))


class _Passing(Run):
    """A run that doesn't stop at the points, but notes them."""

    _first_token = True  # nobody looks at the tensors

    def note_in(self, points: list[Point], several: set[str] | None = None) -> None:
        """Runs to the end and appends every point that is passed to `points`, as `call_order` does."""
        self._points = points
        self._several = several
        self.finish()

    def _hand_over(self, name: str, moment: Moment, values: Any) -> None:
        if self._several is not None and len(unique_tensors(values)) > 1:
            self._several.add(name)
        self._points.append(Point(name, self._calls.get(name, 0), moment))

    def _advice(self, error: BaseException) -> str:
        """Says what to do about a model that fails on the images themselves: before any layer has made something."""
        of_its_own = isinstance(error, AttributeError) and not isinstance(error.obj, torch.Tensor)
        of_its_own |= isinstance(error, TypeError) and " argument" in f"{error}" and raised_inside(error)
        if self._calls or of_its_own or isinstance(error, _NOT_OF_INPUT):
            return ""
        what = "a model that takes something else than images (B, C, H, W)"
        return f"; {what} needs a module around it that makes it of them"


class Telling(Run):
    """A run that doesn't stop at the points, but tells what passes them; the images enter the model itself first."""

    def tell(self, listener: Callable[[Point, Tensors], None]) -> None:
        """Runs to the end and calls `listener` with every point and the tensors that pass there."""
        self._listener = listener
        listener(Point("", 0, "enter"), [self._inputs])
        listener(Point("", 0, "leave"), [self.finish()])

    def _hand_over(self, name: str, moment: Moment, values: Any) -> None:
        self._listener(Point(name, self._calls.get(name, 0), moment), unique_tensors(values))


# what no other input would help with
_NOT_OF_INPUT = (NameError, ImportError, NotImplementedError, OSError, MemoryError, RecursionError, SystemExit)


def _call(model: nn.Module, images: torch.Tensor) -> Any:
    """Calls a model with its only argument, by name if it takes it no other way."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return model(images)
    takes_any = any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
    by_name = next((p.name for p in parameters if p.kind is p.KEYWORD_ONLY), None)
    return model(images) if takes_any or by_name is None else model(**{by_name: images})


def _kind_of(returned: Any) -> str:
    if isinstance(returned, torch.Tensor):
        return f"a {'nested' if returned.is_nested else returned.layout} tensor of {returned.dtype}"
    return "None" if returned is None else f"an object of {type(returned).__name__}"


def call_order(
    model: nn.Module,
    inputs: torch.Tensor,
    owner: str,
    points: list[Point] | None = None,
    *,
    inside: bool = False,
    several: set[str] | None = None,
) -> list[Point]:
    """Runs `model` once and returns every enter and leave of its modules' calls, in order, itself left out.

    They are appended to `points`, if that is given, as they are passed, and the modules where several tensors pass at
    once are added to `several`. `inside` is that of `Run`.
    """
    names = {name for name, _ in model.named_modules() if name}
    if inside:
        names |= {f"{name}.{step}" for name, module in model.named_modules() for step in STEPS if can_be_opened(module)}
    points = [] if points is None else points
    _Passing(model, inputs, names, seed=0, owner=owner, inside=inside).note_in(points, several)
    return points


def bare_run(
    model: nn.Module,
    images: torch.Tensor,
    mode: Mode,
    dtype: torch.dtype,
    seed: int,
    owner: str,
    *,
    arrange: Callable[[torch.Tensor], torch.Tensor] = lambda images: images,
    around: Callable[[nn.Module], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    first: int = 0,
    place: torch.Tensor | None = None,
) -> Run:
    """Runs a model to its end with nobody watching.

    Args:
        model: held in `dtype` as it runs.
        images: its argument, in any dtype.
        mode: to run it in.
        dtype: to hold model and images in.
        seed: as in `Run`.
        owner: as in `Run`.
        arrange: lays out the images in memory.
        around: given the model, and entered around the run.
        first: of the ways of `held_in`, the first to be attempted.
        place: as in `Run`.

    Raises:
        ParityError: the model failed.
    """

    def run(attempt: int) -> Run:
        with mode.active(model), held_in(model, dtype, max(first, attempt)), around(model):
            bare = Run(model, arrange(images.to(dtype)), set(), seed, owner, place=place)
            bare.finish()
        return bare

    return first_that_runs(run, dtype)
