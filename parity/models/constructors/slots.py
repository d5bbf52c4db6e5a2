"""What a constructor takes: every place where a value can be given, also inside configs and behind `**kwargs`."""

from __future__ import annotations

import copy
import dataclasses
import enum
import inspect
import types
import typing
from typing import TYPE_CHECKING, Any

from torch import nn

from parity.models.constructors.holders import Holder, Slot, noted, read_from
from parity.models.constructors.signatures import EMPTY, calls_with, read_by_name, read_from_name, type_hints
from parity.models.constructors.words import meanings, meanings_at, words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from parity.models.constructors.unpacking import Call

_DEEPEST = 4  # configs within configs
_CONFIG_KEYS = 2  # settings that are read from an argument which is a config, at least

# packages whose classes hold no settings, such as `nn.Module` or `dict`
_NO_CONFIGS = ("builtins", "typing", "collections", "types", "torch", "pathlib", "numpy", "argparse", "omegaconf")
_CONFIG_NAMES = {
    "config", "cfg", "conf", "configs", "args", "params", "hparams", "opt", "options", "settings", "configuration",
    "parameters", "hyperparameters", "hyperparams", "hp", "opts",
}  # fmt: skip


def takes(function: Callable[..., Any]) -> Holder:
    """Returns what a class or function takes.

    Raises:
        ValueError: Python knows no signature of it.
        TypeError: the same.
    """
    return _of_call(function, "", 0)


def taken_of(call: Call, path: str) -> dict[str, Slot | Holder]:
    """Returns what of a config's entries is taken by who is called with them.

    Args:
        call: who is called, and with what beside.
        path: of the config.
    """
    try:
        parts = _of_call(call.callee, path, path.count(".") + 1).parts
    except (TypeError, ValueError):
        return {}
    given = {*[*parts][: call.positional], *call.keywords}
    return {name: part for name, part in parts.items() if name not in given}


def _of_call(function: Callable[..., Any], path: str, depth: int) -> Holder:
    signature = inspect.signature(function)
    parameters = signature.parameters
    hints = type_hints(function)
    parts: dict[str, Slot | Holder] = {}
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind = hints.get(name, EMPTY)
        parts[name] = _part(f"{path}.{name}" if path else name, kind, parameter.default, depth, function)
    starred: list[str] = []
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            for inner, part in _passed_on(function, name, path, depth).items():
                if inner not in parts:
                    parts[inner] = part
                    if parameter.kind is parameter.VAR_POSITIONAL:
                        starred.append(inner)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return Holder(path, parts, lambda values: _called(function, signature, starred, values), takes_any=takes_any)


def _called(function: Callable[..., Any], signature: inspect.Signature, starred: list[str], values: Any) -> Any:
    """Calls `function` with arguments by name; by position where that is the only way."""
    has_starred = any(name in values for name in starred)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    rest = dict(values)
    arguments = []
    for name, parameter in signature.parameters.items():
        by_position = parameter.kind is parameter.POSITIONAL_ONLY or (
            has_starred and not takes_any and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        )
        if by_position and (name in rest or parameter.default is not EMPTY):
            arguments.append(rest.pop(name, parameter.default))
    if has_starred and not takes_any:
        given = [name for name in starred if name in rest]
        arguments += [rest.pop(name) for name in given]
    return function(*arguments, **rest)


def _part(path: str, kind: Any, default: Any, depth: int, owner: Any) -> Slot | Holder:
    """Returns an argument or field as a slot, or as a config if it holds settings itself."""
    name = path.rpartition(".")[2]
    slot = Slot(path, kind, default, is_required=default is EMPTY)
    if depth >= _DEEPEST:
        return slot
    if type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":  # of a dataclass: the field's type says what it makes
        default = None
        slot = dataclasses.replace(slot, default=None)
    plain = _without_none(kind)
    if default is not EMPTY and default is not None:
        return _of_default(path, default, depth) or slot
    if _holds_settings(plain):
        with_parts = _of_class(path, plain, depth)
        with_parts.is_required = default is EMPTY
        return with_parts
    if _can_be_read(plain):
        parts = _passed_on(owner, name, path, depth, reads=False)
        if parts:
            return Holder(path, parts, lambda values: values, is_required=default is EMPTY)
        if (words(name)[-1:] and words(name)[-1] in _CONFIG_NAMES) or _is_read(owner, name):
            return read_from(path)
    return slot


def _is_read(owner: Any, name: str) -> bool:
    """Returns whether an argument is a config, as several settings are read from it."""
    return sum(bool(meanings(key)) for key in read_from_name(owner, name)) >= _CONFIG_KEYS


def _of_class(path: str, kind: Any, depth: int) -> Holder:
    """Returns a config that is made by calling its class."""
    if typing.is_typeddict(kind):
        parts = {name: _part(f"{path}.{name}", hint, EMPTY, depth + 1, kind) for name, hint in type_hints(kind).items()}
        return Holder(path, parts, lambda values: values)
    try:
        made = _of_call(kind, path, depth + 1)
    except (TypeError, ValueError):
        made = Holder(path, {}, lambda _: kind())
    if made.parts:
        return _with_properties(path, kind, made)
    return Holder(path, _attributes(path, kind, depth), lambda values: _with_attributes(kind(), values))


def _with_properties(path: str, kind: type, holder: Holder) -> Holder:
    """Returns a config that also takes the numbers that can only be set once it is made.

    They are properties, and in a dataclass what its author forgot to annotate.
    """
    settable = [
        name
        for name, member in inspect.getmembers(kind, lambda member: isinstance(member, property))
        if member.fset
        and _without_none(type_hints(member.fget).get("return")) is int
        and meanings(name)
        and name not in holder.parts
    ]
    slots = {name: Slot(f"{path}.{name}", default=None, is_required=False) for name in settable}
    unannotated = _attributes(path, kind, _DEEPEST) if dataclasses.is_dataclass(kind) else {}
    slots |= {
        name: part
        for name, part in unannotated.items()
        if isinstance(part, Slot) and type(part.default) is int and meanings(name) and name not in holder.parts
    }

    def make(values: dict[str, Any]) -> Any:
        made = holder.make({name: value for name, value in values.items() if name not in slots})
        made = _with_attributes(made, {name: values[name] for name in slots if name in values})
        return noted(whole, made) if whole.takes_any else made

    whole = dataclasses.replace(holder, parts={**holder.parts, **slots}, make=make)
    return whole


def _of_default(path: str, default: Any, depth: int) -> Holder | None:
    """Returns a config whose default says what it holds; None where the default is no config."""
    parts: dict[str, Slot | Holder]
    if isinstance(default, dict):
        parts = {
            name: _part(f"{path}.{name}", EMPTY, value, depth + 1, None)
            for name, value in default.items()
            if isinstance(name, str)
        }
        make: Callable[[dict[str, Any]], Any] = lambda values: type(default)({**default, **values})  # noqa: E731
    elif isinstance(default, tuple) and hasattr(default, "_fields") and hasattr(default, "_replace"):
        parts = {
            name: _part(f"{path}.{name}", EMPTY, getattr(default, name), depth + 1, None) for name in default._fields
        }
        make = lambda values: default._replace(**values)  # noqa: E731
    elif isinstance(default, type) and not _is_foreign(default) and not issubclass(default, nn.Module):
        parts = _attributes(path, default, depth)
        make = lambda values: type(default.__name__, (default,), {"__module__": default.__module__, **values})  # noqa: E731
    elif dataclasses.is_dataclass(default) and not isinstance(default, type):
        fields = [f.name for f in dataclasses.fields(default) if f.init]
        parts = {name: _part(f"{path}.{name}", EMPTY, getattr(default, name), depth + 1, None) for name in fields}
        make = lambda values: dataclasses.replace(default, **values)  # noqa: E731
    elif (
        hasattr(default, "__dict__") and not callable(default) and not _is_foreign(type(default), ("argparse", "types"))
    ):
        parts = {
            name: _part(f"{path}.{name}", EMPTY, value, depth + 1, None)
            for name, value in vars(default).items()
            if not name.startswith("_")
        } or _attributes(path, type(default), depth)
        make = lambda values: _with_attributes(copy.copy(default), values)  # noqa: E731
    else:
        return None
    holder = Holder(path, parts, make, is_required=False)
    return holder if any(meanings_at(slot.path) for slot in holder.slots()) else None


def _attributes(path: str, kind: type, depth: int) -> dict[str, Slot | Holder]:
    """Returns a class's own attributes that hold values, those of its bases among them."""
    found = {
        name: value
        for base in reversed(kind.__mro__[:-1])
        for name, value in vars(base).items()
        if not name.startswith("_")
        and not callable(value)
        and not isinstance(value, (property, staticmethod, classmethod))
    }
    return {name: _part(f"{path}.{name}", EMPTY, value, depth + 1, None) for name, value in found.items()}


def _with_attributes(thing: Any, values: Mapping[str, Any]) -> Any:
    for name, value in values.items():
        object.__setattr__(thing, name, value)
    return thing


def _is_foreign(kind: type, besides: tuple[str, ...] = ()) -> bool:
    package = kind.__module__.partition(".")[0]
    return package in _NO_CONFIGS and package not in besides


def _holds_settings(kind: Any) -> bool:
    if typing.is_typeddict(kind):
        return True
    if kind is EMPTY or not inspect.isclass(kind):
        return False
    return not _is_foreign(kind) and not issubclass(kind, (enum.Enum, str, int, float))


def _can_be_read(kind: Any) -> bool:
    """Returns whether an annotation lets a config be anything from which settings can be read."""
    kind = typing.get_origin(kind) or kind
    return kind in (EMPTY, typing.Any, dict, object) or getattr(kind, "__name__", "") in (
        "Namespace", "SimpleNamespace", "DictConfig", "Mapping", "MutableMapping", "ConfigDict",
    )  # fmt: skip


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        inner = [argument for argument in typing.get_args(kind) if argument is not type(None)]
        return inner[0] if len(inner) == 1 else kind
    return kind


def _passed_on(function: Any, name: str, path: str, depth: int, *, reads: bool = True) -> dict[str, Slot | Holder]:
    """Returns what the functions take that `function` hands its `**name` or `*name` on to, and what it reads of it."""
    parts: dict[str, Slot | Holder] = {}
    if depth >= _DEEPEST:
        return parts
    for callee, positional, keywords in calls_with(function, name):
        try:
            inner = _of_call(callee, path, depth + 1)
        except (TypeError, ValueError):
            continue
        taken = [*inner.parts][:positional]
        for key, part in inner.parts.items():
            if key not in taken and key not in keywords and key not in parts:
                parts[key] = part
    for key, default in read_by_name(function, name) if reads else ():
        meant = f"{path}.{key}" if path else key
        parts.setdefault(key, Slot(meant, EMPTY, default, is_required=default is EMPTY))
    return parts
