"""What a constructor takes: every place where a value can be given, also inside configs and behind `**kwargs`."""

from __future__ import annotations

import copy
import dataclasses
import enum
import inspect
import types
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from parity.models.signatures import EMPTY, calls_with, read_by_name, type_hints
from parity.models.words import meanings, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_DEEPEST = 4  # configs within configs

# packages whose classes hold no settings, such as `nn.Module` or `dict`
_NO_CONFIGS = ("builtins", "typing", "collections", "types", "torch", "pathlib", "numpy", "argparse", "omegaconf")
_CONFIG_NAMES = {
    "config", "cfg", "conf", "configs", "args", "params", "hparams", "opt", "options", "settings", "configuration",
    "parameters", "hyperparameters", "hyperparams", "hp", "opts",
}  # fmt: skip
_GROUPS = {
    "model", "encoder", "data", "dataset", "vit", "transformer", "arch", "architecture", "backbone", "embeddings",
    "train", "training", "vision", "network", "net", "general", "attention",
}  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """A place where a value can be given.

    Attributes:
        path: as `--candidate-arg` says it: an argument's name, or `config.encoder.depth`.
        kind: its annotation.
        default: what it is if nothing is given.
        is_required: nothing can be built without a value.
    """

    path: str
    kind: Any = EMPTY
    default: Any = EMPTY
    is_required: bool = True

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


@dataclass
class Holder:
    """Something that is made of several values: the module itself, or a config that it takes.

    Attributes:
        path: as of a slot; empty for the module.
        parts: slots and configs, by the name that `make` knows them by.
        make: makes it of the parts' values.
        is_required: it has no default.
        reads: whether its parts are only known from what is read from it.
        takes_any: whether it takes values under other names.
    """

    path: str
    parts: dict[str, Slot | Holder]
    make: Callable[[dict[str, Any]], Any]
    is_required: bool = True
    reads: bool = False
    takes_any: bool = False

    def slots(self) -> Iterator[Slot]:
        """Yields every slot, those of inner configs among them."""
        for part in self.parts.values():
            if isinstance(part, Slot):
                yield part
            else:
                yield from part.slots()

    def holders(self) -> Iterator[Holder]:
        """Yields itself and every config inside."""
        yield self
        for part in self.parts.values():
            if isinstance(part, Holder):
                yield from part.holders()

    def filled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns its parts' values by name, from values by path; those left at their defaults are left out."""
        result: dict[str, Any] = {}
        for name, part in self.parts.items():
            if isinstance(part, Slot):
                if part.path in values:
                    result[name] = values[part.path]
            elif part.is_required or any(path.startswith(f"{part.path}.") for path in values):
                result[name] = part.make(part.filled(values))
        if self.takes_any:
            prefix = f"{self.path}." if self.path else ""
            own = {path[len(prefix) :]: value for path, value in values.items() if path.startswith(prefix)}
            result |= {name: value for name, value in own.items() if "." not in name and name not in result}
        return result


def takes(function: Callable[..., Any]) -> Holder:
    """Returns what a class or function takes.

    Raises:
        ValueError: Python knows no signature of it.
        TypeError: the same.
    """
    return _of_call(function, "", 0)


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
    is_config = words(name)[-1:] and words(name)[-1] in _CONFIG_NAMES
    if is_config and (default is EMPTY or default is None) and _can_be_read(plain):
        parts = _passed_on(owner, name, path, depth, reads=False)
        if parts:
            return Holder(path, parts, lambda values: values, is_required=default is EMPTY)
        return _read_from(path)
    return slot


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
        return made
    return Holder(path, _attributes(path, kind, depth), lambda values: _with_attributes(kind(), values))


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
        make = lambda values: type(default.__name__, (default,), dict(values))  # noqa: E731
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
    return holder if any(meanings(slot.name) for slot in holder.slots()) else None


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


def _read_from(path: str) -> Holder:
    """Returns a config of which only what is read from it tells what it holds."""
    holder = Holder(path, {}, lambda values: values, reads=True)
    holder.make = lambda values: Settings(holder, values)
    return holder


class MissingError(AttributeError, KeyError):
    """A config was asked for something that it has no value for."""

    def __init__(self, holder: Holder, name: str) -> None:
        super().__init__(f"{holder.path}.{name}")
        self.holder, self.name = holder, name


@dataclass
class Reads:
    """What was read from configs while something was built."""

    wanted: list[tuple[Holder, str, Any]] = field(default_factory=list)


_reads = Reads()


class Settings(dict[str, Any]):
    """A config that can be read as items or as attributes, and that notes what is read and not there."""

    def __init__(self, holder: Holder, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        object.__setattr__(self, "_holder", holder)

    def __missing__(self, name: str) -> Any:
        holder: Holder = object.__getattribute__(self, "_holder")
        if isinstance(name, str) and not name.startswith("__"):
            if name not in holder.parts and set(words(name)) <= _GROUPS:
                holder.parts[name] = _read_from(f"{holder.path}.{name}")
            part = holder.parts.get(name)
            if isinstance(part, Holder):
                return part.make({})
            _reads.wanted.append((holder, name, EMPTY))
        raise MissingError(holder, name)

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __bool__(self) -> bool:
        return True

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a setting, or `default` if there is none."""
        if name not in self:
            _reads.wanted.append((object.__getattribute__(self, "_holder"), name, default))
            return default
        return self[name]


def learn(error: BaseException | None) -> bool:
    """Adds slots for what was read from configs since the last call; returns whether there were new ones.

    Args:
        error: what the building ended with: what could not be read then is required.
    """
    needed = None
    while error is not None and needed is None:
        needed = (error.holder, error.name) if isinstance(error, MissingError) else None
        error = error.__cause__ or error.__context__
    is_new = False
    for holder, name, default in _reads.wanted:
        is_required = needed is not None and needed[0] is holder and needed[1] == name
        if name not in holder.parts and (is_required or meanings(name)):
            holder.parts[name] = Slot(f"{holder.path}.{name}", EMPTY, default, is_required=is_required)
            is_new = True
    _reads.wanted.clear()
    return is_new
