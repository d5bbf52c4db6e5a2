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
import dataclasses
import inspect
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import greenlet
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from parity.errors import ParityError
from parity.models.state import replaced
from parity.tracing.attention import STEPS, can_be_opened, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Tensors = list[torch.Tensor]

Moment = Literal["enter", "leave"]
T = TypeVar("T")


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


@dataclass(frozen=True)
class Mode:
    """How a forward pass is run.

    Attributes:
        name: as in the report.
        train: train mode, with dropout.
        grad: with autograd recording.
        fastpath: whether `nn.MultiheadAttention` may use its native kernel, which it does in eval mode without grad.
        same_masks: give equal masks to dropouts of equal shape, whatever their tensors' layout in memory.
        no_dropout: let dropouts keep everything.
        backward: keep what a backward pass needs.
    """

    name: str
    train: bool = False
    grad: bool = False
    fastpath: bool = True
    same_masks: bool = False
    no_dropout: bool = False
    backward: bool = False

    @contextlib.contextmanager
    def active(self, *models: nn.Module) -> Iterator[None]:
        """Puts torch and `models` into this mode for as long as the context lasts."""
        flag = getattr(torch.backends, "mha", None)
        was_enabled = flag.get_fastpath_enabled() if flag else True
        try:
            if flag:
                flag.set_fastpath_enabled(self.fastpath)
            masks: Any = DropoutMasks() if self.same_masks else contextlib.nullcontext()
            masks = NoDropout() if self.no_dropout else masks  # type: ignore[no-untyped-call]
            saved: Any = contextlib.nullcontext() if self.backward else _no_saved_tensors()
            with in_mode(*models, train=self.train), torch.set_grad_enabled(self.grad), saved, masks:
                yield
        finally:
            if flag:
                flag.set_fastpath_enabled(was_enabled)


@contextlib.contextmanager
def in_mode(*models: nn.Module, train: bool) -> Iterator[None]:
    """Puts `models` into train or eval mode for as long as the context lasts."""
    before = [(module, module.training) for model in models for module in model.modules()]
    try:
        if any(was_training != train for _, was_training in before):
            for model in models:
                model.train(train)
        yield
    finally:
        for module, was_training in before:
            if module.training != was_training:
                module.training = was_training


MODES = {
    mode.name: mode
    for mode in (
        Mode("eval"),
        Mode("eval-no-fastpath", fastpath=False),
        Mode("eval-grad", grad=True),
        Mode("train", train=True, grad=True),
    )
}


def can_switch_fastpath() -> bool:
    """Returns whether this torch release has the switch of the native attention kernel (since 2.3)."""
    return hasattr(torch.backends, "mha")


def _no_saved_tensors() -> torch.autograd.graph.saved_tensors_hooks:
    """Drops what a backward pass would need: the code path of grad mode without its memory."""
    nothing = torch.empty(0)
    return torch.autograd.graph.saved_tensors_hooks(lambda _: nothing, lambda packed: packed)


class DropoutMasks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draws dropout masks in the order of their indices, and keeps their rates and shapes in `drawn`.

    Torch draws a mask in the order in which the input lies in memory. Two right implementations whose attention leaves
    its output in another layout therefore drop other elements under the same random state.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.drawn: list[tuple[float, tuple[int, ...]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.bernoulli_.float:
            mask, *options = args
            self.drawn.append((options[0], tuple(mask.shape)))
            return mask.copy_(torch.empty(mask.shape, dtype=mask.dtype, device=mask.device).bernoulli_(*options))
        return function(*args, **(kwargs or {}))


class NoDropout(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps everything that a dropout would drop, and undoes its scale."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.bernoulli_.float:
            return args[0].fill_(args[1])  # which is divided by the same number afterwards
        return function(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Ambient:
    """What torch computes with besides a call's arguments, and a model may change."""

    grad: bool
    random: torch.Tensor
    default_dtype: torch.dtype
    autocast: tuple[bool, torch.dtype]

    @classmethod
    def now(cls) -> Ambient:
        """Returns the state of this moment."""
        return cls(torch.is_grad_enabled(), torch.default_generator.get_state(), torch.get_default_dtype(), _autocast())

    def restore(self) -> None:
        """Puts torch into this state."""
        torch.default_generator.set_state(self.random)
        # most often nothing else has changed, and asking is cheaper than telling
        if torch.is_grad_enabled() != self.grad:
            torch.set_grad_enabled(self.grad)
        if torch.get_default_dtype() != self.default_dtype:
            torch.set_default_dtype(self.default_dtype)
        if _autocast() != self.autocast:
            _set_autocast(*self.autocast)


_HAS_AUTOCAST_BY_DEVICE = hasattr(torch, "get_autocast_dtype")  # since torch 2.4


def _autocast() -> tuple[bool, torch.dtype]:
    if _HAS_AUTOCAST_BY_DEVICE:
        return torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
    return torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()


def _set_autocast(enabled: bool, dtype: torch.dtype) -> None:  # noqa: FBT001
    if _HAS_AUTOCAST_BY_DEVICE:
        torch.set_autocast_enabled("cpu", enabled)
        torch.set_autocast_dtype("cpu", dtype)
    else:
        torch.set_autocast_cpu_enabled(enabled)
        torch.set_autocast_cpu_dtype(dtype)


@contextlib.contextmanager
def ambient_kept() -> Iterator[None]:
    """Puts back what a candidate's constructor or forward pass may change for everybody."""
    ambient, threads = Ambient.now(), torch.get_num_threads()
    try:
        yield
    finally:
        ambient.restore()
        torch.set_num_threads(threads)


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
    ) -> None:
        self.output: torch.Tensor | None = None
        self._model = model
        self._inputs = inputs.clone()
        self._untouched_inputs = inputs
        self._watched = watched
        self._owner = owner
        self._inside = inside
        self._calls: dict[str, int] = {}
        self._open: list[str] = []
        self._ambient = dataclasses.replace(Ambient.now(), random=torch.Generator().manual_seed(seed).get_state())
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
    def grad_enabled(self) -> bool:
        """Whether the model records gradients where the run stands."""
        return self._ambient.grad

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
            self.output = first_tensor(_call(self._model, self._inputs))
        except (Exception, SystemExit) as error:
            where = f" in {self._open[-1]}" if self._open else ""
            raise ParityError(
                f"the {self._owner} failed{where} on an input of shape {tuple(self._inputs.shape)}: "
                f"{type(error).__name__}: {error}{_HINT}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        if self.output is None:
            raise ParityError(f"the {self._owner} returned no tensor")

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
        event = Event(Point(name, self._calls.get(name, 0), moment), tensors)
        driver = self._greenlet.parent
        assert driver is not None
        forced = driver.switch(event)
        return None if forced is None else _substituted(values, dict(zip(map(id, tensors), forced, strict=False)))


class _Passing(Run):
    """A run that doesn't stop at the points, but notes them."""

    _first_token = True  # nobody looks at the tensors

    def note_in(self, points: list[Point]) -> None:
        """Runs to the end and appends every point that is passed to `points`."""
        self._points = points
        self.finish()

    def _hand_over(self, name: str, moment: Moment, _: Any) -> None:
        self._points.append(Point(name, self._calls.get(name, 0), moment))


_HINT = "; a model that takes something else than images (B, C, H, W) needs a module around it that makes it of them"


def _call(model: nn.Module, images: torch.Tensor) -> Any:
    """Calls a model with its only argument, by name if it takes it no other way."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return model(images)
    takes_any = any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
    by_name = next((p.name for p in parameters if p.kind is p.KEYWORD_ONLY), None)
    return model(images) if takes_any or by_name is None else model(**{by_name: images})


def call_order(
    model: nn.Module, inputs: torch.Tensor, owner: str, points: list[Point] | None = None, *, inside: bool = False
) -> list[Point]:
    """Runs `model` once and returns every enter and leave of its modules' calls, in order, itself left out.

    They are appended to `points`, if that is given, as they are passed. `inside` is that of `Run`.
    """
    names = {name for name, _ in model.named_modules() if name}
    if inside:
        names |= {f"{name}.{step}" for name, module in model.named_modules() for step in STEPS if can_be_opened(module)}
    points = [] if points is None else points
    _Passing(model, inputs, names, seed=0, owner=owner, inside=inside).note_in(points)
    return points


def unique_tensors(values: Any) -> Tensors:
    """Returns the floating-point tensors in nested tuples, lists and dicts, each once, in order."""
    found: dict[int, torch.Tensor] = {}

    def collect(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            found.setdefault(id(value), value)
        return value

    _map_leaves(collect, values)
    return list(found.values())


def first_tensor(output: Any) -> torch.Tensor | None:
    """Returns the logits in a model's output: a tensor, `.logits`, or the first tensor of a tuple, list or dict."""
    output = getattr(output, "logits", output)
    return next(iter(unique_tensors(output)), None)


def _substituted(values: Any, replacement: dict[int, torch.Tensor]) -> Any:
    return _map_leaves(lambda value: replacement.get(id(value), value), values)


def _map_leaves(function: Callable[[Any], Any], values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _map_leaves(function, value) for key, value in values.items()}
    if isinstance(values, (tuple, list)):
        items = [_map_leaves(function, value) for value in values]
        return type(values)(*items) if hasattr(values, "_fields") else type(values)(items)
    return function(values)


_ATTEMPTS = 3


def first_that_runs(run: Callable[[int], T], dtype: torch.dtype) -> T:
    """Calls `run` with one `attempt` of `held_in` after the other and returns what the first one returns that runs.

    Only float64, which no model was written for, is attempted more than once.

    Raises:
        ParityError: what the last attempt raised.
    """
    last = _ATTEMPTS - 1 if dtype == torch.float64 else 0
    for attempt in range(last):
        with contextlib.suppress(ParityError):
            return run(attempt)
    return run(last)


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

    Raises:
        ParityError: the model failed.
    """

    def run(attempt: int) -> Run:
        with mode.active(model), held_in(model, dtype, max(first, attempt)), around(model):
            bare = Run(model, arrange(images.to(dtype)), set(), seed, owner)
            bare.finish()
        return bare

    return first_that_runs(run, dtype)


@contextlib.contextmanager
def held_in(model: nn.Module, dtype: torch.dtype, attempt: int = 0) -> Iterator[None]:
    """Holds `model` in `dtype` for as long as the context lasts, in one of three ways, each for more models.

    0: block by block; 1: as a whole, for a model that uses a block's parameters without calling the block; 2: with its
    constants and torch's default dtype as well, for one that holds float32 constants or makes them as it runs.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(cast(model, dtype, late=attempt == 0))
        if attempt == 2:
            stack.enter_context(_constants_cast(model, dtype))
        yield


@contextlib.contextmanager
def _constants_cast(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Holds tensors that are plain attributes in `dtype`, which is torch's default dtype for as long as this lasts."""
    default = torch.get_default_dtype()
    old = [
        (module, key, value)
        for module in model.modules()
        for key, value in vars(module).items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    ]
    try:
        torch.set_default_dtype(dtype)
        for module, key, value in old:
            setattr(module, key, value.to(dtype))
        yield
    finally:
        torch.set_default_dtype(default)
        for module, key, value in old:
            setattr(module, key, value)


@contextlib.contextmanager
def cast(model: nn.Module, dtype: torch.dtype, *, late: bool = True) -> Iterator[None]:
    """Holds the parameters and buffers of `model` in `dtype` for as long as the context lasts.

    A cast to a wider dtype is exact, so it can be made late: a block (one of several alike, or a member of a list) is
    widened when it is entered and let go when it is left, and only one block at a time exists in float64. A model that
    uses a block's parameters without calling the block needs `late=False`.
    """

    def converted(_: str, tensor: torch.Tensor) -> torch.Tensor | None:
        changes = tensor.is_floating_point() and tensor.dtype != dtype
        return tensor.detach().to(dtype) if changes else None

    def is_wider(tensor: torch.Tensor) -> bool:
        return tensor.is_floating_point() and torch.finfo(dtype).bits > torch.finfo(tensor.dtype).bits

    blocks = list(blocks_of(model)) if late and all(map(is_wider, model.parameters())) else []
    in_blocks = {id(tensor) for block in blocks for tensor in (*block.parameters(), *block.buffers())}
    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(model, lambda name, t: None if id(t) in in_blocks else converted(name, t)))
        for block in blocks:
            stack.enter_context(_replaced_during_calls(block, converted))
        yield


@contextlib.contextmanager
def _replaced_during_calls(
    block: nn.Module, replacement: Callable[[str, torch.Tensor], torch.Tensor | None]
) -> Iterator[None]:
    with contextlib.ExitStack() as held:

        def enter(*_: object) -> None:
            held.enter_context(replaced(block, replacement))

        def leave(_: nn.Module, __: object, output: Any) -> Any:
            held.close()
            # an autograd graph would keep the replaced tensors of every block alive
            return _map_leaves(lambda value: value.detach() if isinstance(value, torch.Tensor) else value, output)

        hooks = block.register_forward_pre_hook(enter), block.register_forward_hook(leave)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yields the units that a model calls one after the other: members of lists, and modules that it has several of.

    A single layer is one only in a `Sequential`, which calls it: elsewhere its weight may be used without a call.
    """
    kinds = Counter(map(_kind, model.children()))
    for child in model.children():
        has_inside = any(True for _ in child.children())
        is_called = kinds[_kind(child)] > 1 if has_inside else isinstance(model, nn.Sequential)
        if isinstance(child, nn.ModuleList) or not (is_called or isinstance(model, nn.ModuleList)):
            yield from blocks_of(child)
        else:
            yield child


def _kind(module: nn.Module) -> tuple[type[nn.Module], tuple[torch.Size, ...]]:
    return type(module), tuple(parameter.shape for parameter in module.parameters())
