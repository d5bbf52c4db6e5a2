"""Modules in a form that only says how they are run: wrapped, compiled, exported, quantised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from parity.errors import ParityError, described, listed
from parity.models.state import sharing_copy

if TYPE_CHECKING:
    from collections.abc import Iterator

_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


def plain(module: nn.Module) -> tuple[nn.Module, list[str], list[str]]:
    """Returns a module as it would be run if nobody had wrapped, compiled or quantised it or parts of it.

    Args:
        module: any module; it is left as it is, and a copy that holds the same tensors is changed.

    Returns:
        The module, a sentence for everything that was taken off, and a sentence for what makes it another function.
    """
    notes: list[str] = []
    limits: list[str] = []
    while (kind := type(module).__name__) in _WRAPPERS:
        module = getattr(module, _WRAPPERS[kind])
        notes.append(f"the candidate is wrapped in {kind}; what is compared is the module inside it")
    compiled = list(dict.fromkeys(name.replace("._orig_mod", "") for name, *_ in _compiled(module)))
    loops = [name for *_, name in _loops(module)]
    quantised = _quantised(module)
    are_called = any(map(_is_called_itself, module.modules()))
    if compiled or loops or quantised or are_called:
        module = _plain_copy(module)
    for _, part, owner, key in list(_compiled(module)):
        _uncompiled(part, owner, key)
    for owner, key, _ in list(_loops(module)):
        owner.__dict__[key] = owner._modules.pop(key)  # noqa: SLF001  (no public way)
    if compiled:
        parts = listed([name or "the candidate itself" for name in compiled])
        notes.append(f"the candidate is compiled ({parts}); what is compared is what was compiled")
    if loops:
        never = "which state_dict() would never come to the end of"
        notes.append(f"the candidate is inside itself ({listed(loops)}), {never}; it is compared without that")
    if quantised:
        left = [name for name, part in _quantised(module) if not _dequantised(module, name, part)]
        what = f"the weights of {listed([name for name, _ in quantised])} are quantised"
        if left:
            limits.append(f"{what}, and no weight map reaches them: check the model as it was before")
        else:
            instead = "plain Linears in their places, and what the quantisation changes is not measured"
            limits.append(f"{what}; what is compared is the model with {instead}")
    return module, notes, limits


def _plain_copy(module: nn.Module) -> nn.Module:
    """Returns a copy that holds the same tensors, and every part of which has a `forward`."""
    try:
        module = sharing_copy(module)
    except Exception as error:
        what = "it is compiled, quantised, inside itself or with a __call__ and no forward"
        raise ParityError(
            f"the candidate cannot be watched: {what}, and a plain copy of it cannot be made: {described(error)}"
        ) from error
    called: list[Any] = [part for part in module.modules() if _is_called_itself(part)]
    kinds = {kind: _with_forward(kind) for kind in map(type, called)}
    for part in called:
        part.__class__ = kinds[type(part)]
    return module


def is_graph(module: nn.Module) -> bool:
    """Returns whether a module, or one inside it, is a graph of functions that calls no layers, as of torch.export."""
    return any(isinstance(part, fx.GraphModule) and _is_flat(part) for part in module.modules())


def _is_flat(graph: fx.GraphModule) -> bool:
    called = [graph.get_submodule(f"{node.target}") for node in graph.graph.nodes if node.op == "call_module"]
    return not any(True for part in called for _ in part.parameters())  # what guards an exported graph has none


def _is_called_itself(module: nn.Module) -> bool:
    """Whether a module has a `__call__` in place of a `forward`, so that no hook sees it run."""
    kind = type(module)
    return kind.__call__ is not nn.Module.__call__ and kind.forward is nn.Module.forward


def _with_forward(kind: type[nn.Module]) -> type[nn.Module]:
    """Returns the same class with its `__call__` as `forward`."""
    namespace = {"forward": kind.__call__, "__call__": nn.Module.__call__, "__module__": kind.__module__,
                 "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}  # fmt: skip
    return type(kind.__name__, (kind,), namespace)


def _quantised(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns the names of the modules whose weights are quantised, and the modules."""
    return [(name, part) for name, part in module.named_modules()
            if ".quantized." in type(part).__module__ and callable(getattr(part, "weight", None))]  # fmt: skip


def _dequantised(module: nn.Module, name: str, part: Any) -> bool:
    """Puts a Linear of the same weights in the place of one that is quantised as it runs; returns whether it is one."""
    if not (".dynamic." in type(part).__module__ and type(part).__name__ == "Linear"):
        return False
    weight, bias = part.weight().dequantize(), part.bias()
    linear = nn.Linear(part.in_features, part.out_features, bias=bias is not None, device=weight.device)
    with torch.no_grad():
        linear.weight.copy_(weight)
        if bias is not None:
            linear.bias.copy_(bias)
    owner, _, key = name.rpartition(".")
    module.get_submodule(owner)._modules[key] = linear.train(part.training)  # noqa: SLF001  (no public way)
    return True


def _compiled(module: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module | None, str]]:
    """Yields every place that holds something compiled: its name, what is there, who holds it, and the key there."""
    places: list[tuple[str, nn.Module, nn.Module | None, str]] = [("", module, None, "")]
    for prefix, owner in module.named_modules():
        places += [
            (f"{prefix}.{key}" if prefix else key, part, owner, key)
            for key, part in owner._modules.items()  # noqa: SLF001  (every place, and not every child once)
            if part is not None
        ]
    for place in places:
        if _is_wrapped(place[1]) or _call_of(place[1]) is not None or _forward_of(place[1]) is not None:
            yield place


def _uncompiled(part: nn.Module, owner: nn.Module | None, key: str) -> None:
    if _is_wrapped(part):
        inner: Any = part
        while _is_wrapped(inner):
            inner = inner._orig_mod  # noqa: SLF001  (no public way)
        assert owner is not None
        owner._modules[key] = inner  # noqa: SLF001  (no public way)
        return
    if _call_of(part) is not None:
        part._compiled_call_impl = None  # noqa: SLF001  (no public way)
    forward = _forward_of(part)
    if forward is not None:
        is_free = "forward" in vars(part) and not hasattr(forward, "__func__")
        function = getattr(forward, "__func__", forward)  # of a method that is bound to what was copied
        part.__dict__["forward"] = function if is_free else function.__get__(part)


def _is_wrapped(part: nn.Module) -> bool:
    return type(part).__name__ == "OptimizedModule"


def _call_of(part: nn.Module) -> Any:
    """Returns what `part.compile()` has made of its call, if anything."""
    return getattr(part, "_compiled_call_impl", None)


def _forward_of(part: nn.Module) -> Any:
    """Returns the function of which `forward` is a compiled one, if it is one."""
    forward = getattr(getattr(part, "forward", None), "_torchdynamo_orig_callable", None)
    is_made = "_dynamo" in getattr(getattr(forward, "__code__", None), "co_filename", "")
    return getattr(forward, "__wrapped__", forward) if is_made else forward


def _loops(module: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Yields where a module is held by one inside it: the one that holds it, the key there, and the name."""
    done: set[int] = set()

    def visited(part: nn.Module, prefix: str, around: frozenset[int]) -> Iterator[tuple[nn.Module, str, str]]:
        done.add(id(part))
        around |= {id(part)}
        for key, child in list(part.named_children()):
            if id(child) in around:
                yield part, key, prefix + key
            elif id(child) not in done:
                yield from visited(child, f"{prefix}{key}.", around)

    yield from visited(module, "", frozenset())
