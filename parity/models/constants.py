"""Sizes that a constructor doesn't take: constants of its module and attributes of its class that it reads.

They are set while a candidate is built, and only where the tensors are the reference's by that. What a forward pass
reads as well is left alone, as it would be another number there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import dis
import inspect
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from parity.models.holders import Holder, Slot
from parity.models.slots import takes
from parity.models.words import meanings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Namespace = dict[str, Any]

_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
_RUN = {"forward", "__call__"}
_MOST_MODULES = 16  # of a project in which constants are looked for, the nearest first


def with_constants(function: Callable[..., Any], taken: Holder) -> Holder | None:
    """Returns what a constructor takes together with the constants and class attributes that it reads; None if none.

    Args:
        function: a class or function.
        taken: what it takes.
    """
    attributes = {name: value for name, value in _attributes(function).items() if name not in taken.parts}
    places = _constants(function)
    constants = {name: found[0][name] for name, found in places.items() if name not in {*taken.parts, *attributes}}
    known = constants | attributes
    if not known:
        return None
    slots = {name: Slot(name, default=value, is_required=False, is_constant=True) for name, value in known.items()}

    def make(values: dict[str, Any]) -> Any:
        rest = {name: value for name, value in values.items() if name not in known}
        own = {name: values[name] for name in attributes if name in values}
        changed = {name: (places[name], values[name]) for name in constants if name in values}
        with _changed(changed):
            return takes(_derived(function, own)).make(rest) if own else taken.make(rest)

    return dataclasses.replace(taken, parts={**taken.parts, **slots}, make=make)


def _derived(function: Any, attributes: Mapping[str, Any]) -> Any:
    """Returns a class that is the same but for its attributes."""
    names = {"__module__": function.__module__, "__qualname__": function.__qualname__, "__doc__": function.__doc__}
    return type(function)(function.__name__, (function,), {**names, **attributes})


@contextlib.contextmanager
def _changed(values: Mapping[str, tuple[list[Namespace], Any]]) -> Iterator[None]:
    """Gives constants other values for as long as the context lasts."""
    before = [(place, name, place[name]) for name, (places, _) in values.items() for place in places]
    try:
        for name, (places, value) in values.items():
            for place in places:
                place[name] = value
        yield
    finally:
        for place, name, value in before:
            place[name] = value


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


def _constants(function: Any) -> dict[str, list[Namespace]]:
    """Returns in which namespaces of its project the sizes are that are read while a model is built, and not run."""
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
    return {
        name: [namespace for namespace in namespaces if _is_size(name, namespace.get(name))] for name in sorted(names)
    }


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


def _package(module: str) -> str:
    return module.partition(".")[0]
