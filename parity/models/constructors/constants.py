"""Sizes that a constructor doesn't take: constants and configs of its module and attributes of its class that it reads.

They are set while a candidate is built, and only where the tensors are the reference's by that. What a forward pass
reads as well is left alone, as it would be another number there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import dis
import inspect
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from torch import nn

from parity.models.constructors.holders import Holder, Slot
from parity.models.constructors.slots import takes
from parity.models.constructors.words import meanings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Namespace = dict[str, Any]

_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
_RUN = {"forward", "__call__"}
_ABSENT: Any = object()  # the value of what was not there
_MOST_MODULES = 16  # of a project in which constants are looked for, the nearest first


def with_constants(function: Callable[..., Any], taken: Holder) -> Holder | None:
    """Returns what a constructor takes together with what else it reads; None if that is nothing.

    It may read constants of its module, class attributes, and what is in a dictionary or object of its module.

    Args:
        function: a class or function.
        taken: what it takes.
    """
    attributes = {name: value for name, value in _attributes(function).items() if name not in taken.parts}
    places, configs = _constants(function)
    constants = {name: found[0][name] for name, found in places.items() if name not in {*taken.parts, *attributes}}
    configs = {path: entry for path, entry in configs.items() if path.partition(".")[0] not in taken.parts}
    known = constants | attributes | {path: _entries(thing)[key] for path, (thing, key) in configs.items()}
    if not known:
        return None
    slots = {name: Slot(name, default=value, is_required=False, is_constant=True) for name, value in known.items()}

    def make(values: dict[str, Any]) -> Any:
        rest = {name: value for name, value in values.items() if name not in known}
        own = {name: values[name] for name in attributes if name in values}
        changed = [(place, name, values[name]) for name in constants if name in values for place in places[name]]
        changed += [(*entry, values[path]) for path, entry in configs.items() if path in values]
        with _changed(changed):
            return takes(_derived(function, own)).make(rest) if own else taken.make(rest)

    return dataclasses.replace(taken, parts={**taken.parts, **slots}, make=make)


def _derived(function: Any, attributes: Mapping[str, Any]) -> Any:
    """Returns a class that is the same but for its attributes."""
    names = {"__module__": function.__module__, "__qualname__": function.__qualname__, "__doc__": function.__doc__}
    return type(function)(function.__name__, (function,), {**names, **attributes})


@contextlib.contextmanager
def _changed(values: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Gives entries of namespaces, configs and classes other values for as long as the context lasts."""
    before = list[tuple[Any, str, Any]]()
    try:
        for thing, name, value in values:
            own = thing if isinstance(thing, dict) else vars(thing)
            before.append((thing, name, own.get(name, _ABSENT)))
            _put(thing, name, value)
        yield
    finally:
        for entry in reversed(before):
            _put(*entry)


def _put(thing: Any, name: str, value: Any) -> None:
    if isinstance(thing, dict):
        thing[name] = value
    elif value is _ABSENT:
        delattr(thing, name)
    elif isinstance(thing, type):
        setattr(thing, name, value)
    else:
        object.__setattr__(thing, name, value)  # it may be frozen


def _entries(thing: Any) -> dict[str, Any]:
    """Returns what a config holds, by key or by attribute."""
    if isinstance(thing, dict):
        return thing
    kind = thing if isinstance(thing, type) else type(thing)
    found = {name: value for base in reversed(kind.__mro__) for name, value in vars(base).items()}
    return found if thing is kind else {**found, **vars(thing)}


def _is_size(name: str, value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    is_pair = isinstance(value, tuple) and len(value) in (2, 3) and all(isinstance(inner, int) for inner in value)
    return not name.startswith("_") and (is_number or is_pair) and bool(meanings(name))


def _attributes(function: Any) -> dict[str, Any]:
    """Returns the sizes among the attributes of a class of the user's, those of its bases among them."""
    if not inspect.isclass(function):
        return {}
    bases = [base for base in reversed(function.__mro__) if _package(base.__module__) not in ("builtins", "torch")]
    return {name: value for base in bases for name, value in vars(base).items() if _is_size(name, value)}


def _constants(function: Any) -> tuple[dict[str, list[Namespace]], dict[str, tuple[Any, str]]]:
    """Returns where the sizes of its project are that are read while a model is built, and not while it is run.

    Returns:
        The namespaces that have a constant, by its name; the config and its key of other sizes, by `config.key`.
    """
    namespaces = _namespaces(function)
    callees: dict[str, set[FunctionType]] = {}
    for namespace in namespaces:
        for name, value in list(namespace.items()):
            for inner in _functions({name: value}):
                callees.setdefault(name, set()).add(inner)
                callees.setdefault(inner.__name__, set()).add(inner)
    built = _reached({*_functions({"": function})}, callees)
    running = _reached({inner for inner in built if inner.__name__ in _RUN}, callees)
    while_run = {name for inner in running for name in _read(inner.__code__)}
    names = {
        name
        for inner in built
        for name in _read(inner.__code__) - while_run
        if _is_size(name, inner.__globals__.get(name))
    }
    places = {
        name: [namespace for namespace in namespaces if _is_size(name, namespace.get(name))] for name in sorted(names)
    }
    return places, _configs(namespaces, built, running)


def _configs(
    namespaces: list[Namespace], built: set[FunctionType], running: set[FunctionType]
) -> dict[str, tuple[Any, str]]:
    """Returns the sizes in dictionaries, objects and classes of a project that are read from them by their key."""
    packages = {_package(namespace.get("__name__", "")) for namespace in namespaces}
    reads = {inner: (_read(inner.__code__), _mentioned(inner.__code__)) for inner in built | running}
    found: dict[tuple[int, str], tuple[str, Any]] = {}
    for namespace in namespaces:
        for name, thing in list(namespace.items()):
            if name.startswith("_") or not _is_config(thing, packages):
                continue
            users = [
                inner
                for inner, (names, _) in reads.items()
                if name in names or any(default is thing for default in inner.__defaults__ or ())
            ]
            for key, value in _entries(thing).items():
                asking = {inner for inner in users if key in reads[inner][1]}
                if asking and not asking & running and isinstance(key, str) and _is_size(key, value):
                    found.setdefault((id(thing), key), (name, thing))
    return {f"{name}.{key}": (thing, key) for (_, key), (name, thing) in found.items()}


def _is_config(thing: Any, packages: set[str]) -> bool:
    """Returns whether something of a module may hold settings: a dictionary, or an object or class of the project's."""
    if type(thing) in (dict, argparse.Namespace, SimpleNamespace):
        return True
    kind = thing if isinstance(thing, type) else type(thing)
    return _package(kind.__module__) in packages and not issubclass(kind, nn.Module) and hasattr(thing, "__dict__")


def _reached(start: set[FunctionType], callees: Mapping[str, set[FunctionType]]) -> set[FunctionType]:
    """Returns some functions and those that they call, as far as names tell."""
    reached, waiting = set[FunctionType](), [*start]
    while waiting:
        inner = waiting.pop()
        if inner not in reached:
            reached.add(inner)
            names = {*inner.__code__.co_names, *_read(inner.__code__)}
            waiting += [callee for name in names if not name.startswith("__") for callee in callees.get(name, ())]
    return reached


def _namespaces(function: Any) -> list[Namespace]:
    """Returns the namespaces of the modules of one project that a class or function knows of."""
    own = [namespace for inner in _functions({"": function}) if (namespace := inner.__globals__)]
    packages = {_package(namespace.get("__name__", "")) for namespace in own} - {"torch"}
    found: dict[int, Namespace] = {}
    waiting = [namespace for namespace in own if _package(namespace.get("__name__", "")) in packages]
    while waiting and len(found) < _MOST_MODULES:
        namespace = waiting.pop(0)
        if id(namespace) in found:
            continue
        found[id(namespace)] = namespace
        for value in list(namespace.values()):
            if isinstance(value, ModuleType):
                waiting += [vars(value)] if _package(value.__name__) in packages else []
            elif _package(getattr(value, "__module__", None) or "") in packages:
                waiting += [inner.__globals__ for inner in _functions({"": value})]
    return list(found.values())


def _functions(namespace: Mapping[str, Any]) -> Iterator[FunctionType]:
    """Yields the functions in a namespace, and those of the classes in it and of their bases."""
    for value in list(namespace.values()):
        if inspect.isclass(value):
            for base in value.__mro__[:-1]:
                if _package(base.__module__) != "torch":
                    yield from (inner for inner in vars(base).values() if isinstance(inner, FunctionType))
        elif isinstance(inner := inspect.unwrap(getattr(value, "__func__", value)), FunctionType):
            yield inner


def _read(code: CodeType) -> set[str]:
    """Returns the names that a piece of code, and what is in it, looks up outside of itself."""
    found = {instruction.argval for instruction in dis.get_instructions(code) if instruction.opname in _GLOBAL}
    for constant in code.co_consts:
        found |= _read(constant) if isinstance(constant, CodeType) else set()
    return found


def _mentioned(code: CodeType) -> set[str]:
    """Returns the attributes and words in a piece of code, and in what is in it."""
    found = {*code.co_names, *(constant for constant in code.co_consts if isinstance(constant, str))}
    for constant in code.co_consts:
        found |= _mentioned(constant) if isinstance(constant, CodeType) else set()
    return found


def _package(module: str) -> str:
    return module.partition(".")[0]
