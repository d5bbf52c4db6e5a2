"""Putting tensors into a model and taking them out again, without copying them."""

from __future__ import annotations

import contextlib
import copy
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    Registry = dict[str, torch.Tensor | None]


Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

# how a tensor is registered
PARAMETER, FROZEN, BUFFER = "parameter", "frozen parameter", "buffer"

# where torch keeps what a module registers
REGISTRIES = {"_parameters", "_buffers", "_modules"}


def slots(model: nn.Module) -> Iterator[tuple[str, Registry, str]]:
    """Yields every place of `model` that holds a parameter or buffer: its full name, its registry, its key there.

    A tensor held in two places is yielded twice.
    """
    for prefix, module in model.named_modules():
        for registry in (module._parameters, module._buffers):  # noqa: SLF001  (no public way to swap in place)
            for key, tensor in registry.items():
                if tensor is not None:
                    yield (f"{prefix}.{key}" if prefix else key), registry, key


def registration(model: nn.Module) -> dict[str, str]:
    """Returns how every tensor of the model is registered: `PARAMETER`, `FROZEN` or `BUFFER`."""
    kinds = {}
    for name, registry, key in slots(model):
        tensor = registry[key]
        if isinstance(tensor, nn.Parameter):
            kinds[name] = PARAMETER if tensor.requires_grad else FROZEN
        else:
            kinds[name] = BUFFER
    return kinds


@contextlib.contextmanager
def replaced(model: nn.Module, replacement: Callable[[str, torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
    """Holds other tensors in the places of `model` for as long as the context lasts; then the old ones are back.

    Args:
        model: any module; its own tensors are untouched.
        replacement: called with a full name and the tensor there, returns the tensor to hold instead or None.
            A tensor held in two places is replaced once, and stays shared.
    """
    old: list[tuple[Registry, str, torch.Tensor]] = []
    made: dict[int, torch.Tensor | None] = {}
    try:
        for name, registry, key in list(slots(model)):
            tensor = registry[key]
            assert tensor is not None
            if id(tensor) not in made:
                made[id(tensor)] = replacement(name, tensor)
            new = made[id(tensor)]
            if new is not None:
                if isinstance(tensor, nn.Parameter):
                    new = made[id(tensor)] = _as_parameter(new, tensor)
                old.append((registry, key, tensor))
                registry[key] = new
        yield
    finally:
        for registry, key, tensor in reversed(old):
            registry[key] = tensor


@contextlib.contextmanager
def without_values(model: nn.Module) -> Iterator[None]:
    """Holds tensors without values in `model` for as long as the context lasts.

    What the model has kept of them by then, such as a table that it makes in its first run, is forgotten.
    """
    kept = [(vars(module), {key: (value, _contents(value)) for key, value in vars(module).items()})
            for module in model.modules()]  # fmt: skip
    try:
        with replaced(model, lambda _, tensor: tensor.detach().to("meta")):
            yield
    finally:
        for attributes, before in kept:
            for key in [key for key, value in attributes.items() if key != "_modules" and _is_meta(value)]:
                _put_back(attributes, key, before)


def _contents(value: Any) -> Any:
    return copy.copy(value) if type(value) in (dict, list) else value


def _put_back(attributes: dict[str, Any], key: str, before: dict[str, tuple[Any, Any]]) -> None:
    """Gives an attribute the value and the contents that it had, unless those had no values either."""
    value, contents = before.get(key, (None, None))
    if _is_meta(contents):
        return
    if key not in before:
        del attributes[key]
        return
    if isinstance(value, dict):
        value.clear()
        value.update(contents)
    elif isinstance(value, list):
        value[:] = contents
    attributes[key] = value


class _NothingDrawn(TorchFunctionMode):
    """Leaves tensors without values alone where somebody fills them, which takes long for nothing, or moves them.

    Attributes:
        copied: how often somebody has copied several values into a tensor that can have none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copied = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.Tensor.copy_:
            target, source = (*args, *kwargs.values())[:2]
            self.copied += (
                target.is_meta and isinstance(source, torch.Tensor) and source.numel() > 1 and not source.is_meta
            )
        tensor = args[0] if args else kwargs.get("tensor")
        if isinstance(tensor, torch.Tensor) and tensor.is_meta:
            name = getattr(function, "__name__", "")
            if name in _DRAWING:
                return tensor
            if name in _MOVING:
                return tensor.to(
                    next((v for v in (*args, *kwargs.values()) if isinstance(v, torch.dtype)), tensor.dtype)
                )
        return function(*args, **kwargs)


_DRAWING = {
    "normal_", "uniform_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_",
}  # fmt: skip
_MOVING = {"to", "cpu", "cuda"}


@contextlib.contextmanager
def without_initial_values() -> Iterator[Callable[[], bool]]:
    """Lets what is built while the context lasts have names and shapes, and no values.

    Yields:
        Tells whether somebody has copied values to where none can be, as one does who loads weights.
    """
    mode = _NothingDrawn()
    with torch.device("meta"), mode:
        yield lambda: mode.copied > 0


def sharing_copy(module: nn.Module) -> nn.Module:
    """Returns a second module of the same structure that holds the very same tensors."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


def hold(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Puts the tensors of `state` into `model` for good, sharing their storage."""
    for name, registry, key in list(slots(model)):
        if name in state:
            old = registry[key]
            registry[key] = _as_parameter(state[name], old) if isinstance(old, nn.Parameter) else state[name]


def assigned(model: nn.Module, state: Mapping[str, torch.Tensor]) -> contextlib.AbstractContextManager[None]:
    """Holds the tensors of `state` in `model`, sharing their storage, for as long as the context lasts."""
    return replaced(model, lambda name, _: state.get(name))


def fingerprint(state: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Returns a checksum of every tensor's bits, to see afterwards whether somebody has written to it."""
    return {
        name: zlib.adler32(tensor.detach().cpu().flatten().view(torch.uint8).numpy().data) if tensor.numel() else 0
        for name, tensor in state.items()
    }


def tensors_of(module: nn.Module, *, keep_vars: bool = False) -> dict[str, torch.Tensor]:
    """Returns the dense tensors of the module's state dict, which may hold anything: packed weights, dtypes, a state.

    Args:
        module: any module.
        keep_vars: return its own tensors, with what autograd knows of them.
    """
    state = module.state_dict(keep_vars=keep_vars)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return {name: tensor for name, tensor in tensors.items() if tensor.layout == torch.strided}


def renamed(module: nn.Module) -> dict[str, str]:
    """Returns the tensors that the state dict of a module has under other names alone, by the names that they have."""
    own = {name: registry[key] for name, registry, key in slots(module)}
    state = tensors_of(module, keep_vars=True)
    others = {id(tensor): name for name, tensor in state.items() if name not in own}
    return {name: others[id(t)] for name, t in own.items() if name not in state and id(t) in others}


def state_shapes(module: nn.Module) -> dict[str, Shape]:
    """Returns the name and shape of every tensor in the module's state dict; counters and indices are no weights."""
    return {k: tuple(tensor.shape) for k, tensor in tensors_of(module).items() if tensor.is_floating_point()}


def twins(model: nn.Module) -> dict[str, str]:
    """Returns every tensor that `model` holds under several names: each further name, and the first one."""
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(tensor), name) for name, tensor in model.state_dict(keep_vars=True).items()}
    return {name: one for name, one in names.items() if name != one}


def lacks_values(model: nn.Module, besides: Collection[str] = ()) -> bool:
    """Returns whether a tensor of `model`, registered or a plain attribute, is on the meta device.

    Args:
        model: any module.
        besides: names of tensors that don't count.
    """
    tensors = [registry[key] for name, registry, key in slots(model) if name not in besides]
    attributes = [value for m in model.modules() for key, value in vars(m).items() if key not in REGISTRIES]
    return any(map(_is_meta, (*tensors, *attributes)))


def unregistered(model: nn.Module) -> list[str]:
    """Returns the names of plain attributes of `model` that hold modules torch doesn't know of."""
    known = set(model.modules())
    return [
        f"{prefix}.{key}" if prefix else key
        for prefix, module in model.named_modules()
        for key, value in vars(module).items()
        if key not in REGISTRIES and any(inner not in known for inner in _modules_in(value))
    ]


def _modules_in(value: object) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _modules_in(inner)


def _is_meta(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_meta, value))
    if isinstance(value, dict):
        return any(map(_is_meta, value.values()))
    if isinstance(value, nn.Module):
        return any(tensor.is_meta for tensor in (*value.parameters(), *value.buffers()))
    return isinstance(value, torch.Tensor) and value.is_meta


def _as_parameter(tensor: torch.Tensor, like: torch.Tensor) -> nn.Parameter:
    """Returns a parameter of these values, with the hooks that stand on the one whose place it takes."""
    if isinstance(tensor, nn.Parameter):
        return tensor
    parameter = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
    for hooks in ("_backward_hooks", "_post_accumulate_grad_hooks"):  # the latter since torch 2.1
        if getattr(like, hooks, None):
            setattr(parameter, hooks, getattr(like, hooks))
    return parameter
