"""Holding a model in another dtype while it runs, float64 above all, whatever it was written for."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import greenlet
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from parity.errors import ParityError
from parity.models import replaced
from parity.tracing.nested import map_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_ATTEMPTS = 4


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


@contextlib.contextmanager
def held_in(model: nn.Module, dtype: torch.dtype, attempt: int = 0) -> Iterator[None]:
    """Holds `model` in `dtype` for as long as the context lasts, in one of four ways, each for more models.

    0: block by block; 1: as a whole, for a model that uses a block's parameters without calling the block; 2: with its
    constants and torch's default dtype as well, for one that holds float32 constants or makes them as it runs; 3: and
    with `dtype` wherever it asks for float32 by name, for one that casts what it computes to that, which does nothing
    in float32.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(cast(model, dtype, late=attempt == 0))
        if attempt >= 2:
            stack.enter_context(_constants_cast(model, dtype))
        if attempt == 3:
            casts = stack.enter_context(_InsteadOfFloat32(dtype))
            stack.enter_context(casts.watching(model))
        yield


class _InsteadOfFloat32(TorchFunctionMode):
    """Has another dtype wherever a model asks for float32 by name, and nobody else does."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._running: list[greenlet.greenlet] = []

    def watching(self, model: nn.Module) -> contextlib.ExitStack:
        """Looks to the calls of a model until the stack that is returned unwinds."""
        stack = contextlib.ExitStack()
        entered = model.register_forward_pre_hook(lambda *_: self._running.append(greenlet.getcurrent()))
        left = model.register_forward_hook(lambda *_: self._running.clear())
        stack.callback(entered.remove)
        stack.callback(left.remove)
        return stack

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if greenlet.getcurrent() not in self._running:
            return function(*args, **kwargs)
        if function is torch.Tensor.float:
            return args[0].to(self._dtype)
        args = tuple(self._dtype if arg is torch.float32 or _is_name(arg) else arg for arg in args)
        kwargs = {key: self._dtype if value is torch.float32 else value for key, value in kwargs.items()}
        return function(*args, **kwargs)


def _is_name(given: Any) -> bool:
    return given is torch.FloatTensor or (isinstance(given, str) and given == "torch.FloatTensor")


def in_float32(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Holds `model` in float32, as images are, for as long as the context lasts, whatever dtype it was built in."""
    return held_in(model, torch.float32, attempt=1)


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
            return map_leaves(lambda value: value.detach() if isinstance(value, torch.Tensor) else value, output)

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
    children = [(child, _kind(child)) for child in model.children()]
    kinds = Counter(kind for _, kind in children)
    for child, kind in children:
        has_inside = any(True for _ in child.children())
        is_called = kinds[kind] > 1 if has_inside else isinstance(model, nn.Sequential)
        if isinstance(child, nn.ModuleList) or not (is_called or isinstance(model, nn.ModuleList)):
            yield from blocks_of(child)
        else:
            yield child


def _kind(module: nn.Module) -> tuple[type[nn.Module], tuple[torch.Size, ...]]:
    return type(module), tuple(parameter.shape for parameter in module.parameters())
