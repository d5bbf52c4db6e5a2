"""What the code of a class or function tells of its arguments: annotations, who gets them, what is read of them."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import linecache
import sys
import textwrap
import typing
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EMPTY: Any = inspect.Parameter.empty


def type_hints(function: Any) -> dict[str, Any]:
    """Returns the annotations of a class's constructor or of a function; those that cannot be resolved are no hint."""
    is_constructor = inspect.isclass(function) and not typing.is_typeddict(function)
    target = function.__init__ if is_constructor else function
    try:
        found = typing.get_type_hints(target)
    except Exception:  # noqa: BLE001  (an annotation can be any code)
        found = {}
    if dataclasses.is_dataclass(function) and inspect.isclass(function):
        try:
            found = {**typing.get_type_hints(function), **found}
        except Exception:  # noqa: BLE001
            return found
    return found


def _tree(function: Any) -> ast.AST | None:
    target = function.__init__ if inspect.isclass(function) else function
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(target)))
    except (OSError, TypeError, SyntaxError):
        return None


def calls_with(function: Any, name: str) -> Iterator[tuple[Callable[..., Any], int, set[str]]]:
    """Yields who is called with `**name` or `*name`, with how many other arguments, and which of them by name."""
    tree = _tree(function)
    names = {name}
    for node in ast.walk(tree) if tree else ():  # `merged = {**defaults, **name}`
        if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Name) and _holds(node.value, names):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for call in ast.walk(tree) if tree else ():
        if not isinstance(call, ast.Call):
            continue
        stars = [a.value for a in call.args if isinstance(a, ast.Starred)]
        stars += [keyword.value for keyword in call.keywords if keyword.arg is None]
        if not any(_holds(star, names) for star in stars):
            continue
        callee = _callee(function, call.func)
        if callable(callee) and callee is not dict:
            positional = sum(not isinstance(a, ast.Starred) for a in call.args)
            yield callee, positional, {keyword.arg for keyword in call.keywords if keyword.arg}


def _holds(value: ast.expr, names: set[str]) -> bool:
    """Returns whether a value is what goes by one of `names`, or a mapping that it is merged into."""
    if isinstance(value, ast.Name):
        return value.id in names
    if isinstance(value, ast.Dict):
        return any(key is None and _holds(inner, names) for key, inner in zip(value.keys, value.values, strict=True))
    if isinstance(value, ast.BinOp):
        return _holds(value.left, names) or _holds(value.right, names)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
        inner = [*value.args, *(keyword.value for keyword in value.keywords if keyword.arg is None)]
        return any(_holds(part, names) for part in inner)
    return False


def _callee(function: Any, called: ast.expr) -> Any:
    text = ast.unparse(called)
    target = function.__init__ if inspect.isclass(function) else function
    scope = {**vars(sys.modules["builtins"]), **getattr(target, "__globals__", {}), **_classes_by_default(target)}
    if inspect.isclass(function) and text.endswith(".__init__") and text.startswith("super("):
        defining = next(base for base in function.__mro__ if "__init__" in vars(base))
        after = function.__mro__[function.__mro__.index(defining) + 1 :]
        base = next((base for base in after if "__init__" in vars(base)), None)
        return None if base is None or base.__module__.startswith("torch.nn") else base
    if inspect.isclass(function) and text in ("cls", "self.__class__", "type(self)"):
        return function
    if text == "cls" and inspect.isclass(getattr(function, "__self__", None)):
        return function.__self__
    found: Any = None
    for index, part in enumerate(text.removesuffix(".__init__").split(".")):
        found = scope.get(part) if index == 0 else getattr(found, part, None)
    return found


def _classes_by_default(target: Any) -> dict[str, Any]:
    """Returns the classes and functions that are the defaults of arguments, by the arguments' names."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return {}
    return {name: p.default for name, p in parameters.items() if p.default is not EMPTY and callable(p.default)}


def read_by_name(function: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yields what is read from `name` by a constant key: `name["dim"]`, `name.get("dim", 768)`, `name.pop("dim")`."""
    tree = _tree(function)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == name:
            if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
                yield node.slice.value, EMPTY
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("get", "pop", "setdefault")
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == name
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            default = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else None
            yield str(node.args[0].value), default


def read_from_name(function: Any, name: str) -> set[str]:
    """Returns by which keys and attributes the code reads from an argument."""
    found = {key for key, _ in read_by_name(function, name)}
    tree = _tree(function)
    return found | {
        node.attr
        for node in (ast.walk(tree) if tree else ())
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    }


def keys_for(function: Any, name: str) -> list[str]:
    """Returns the keys of the dictionary of its module in which the code looks an argument up."""
    tree = _tree(function)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name) and node.slice.id == name:
            looked_up = _callee(function, node.value)
            if isinstance(looked_up, dict):
                return [key for key in looked_up if isinstance(key, str)]
    return []


def compared_with(function: Any, name: str) -> Iterator[str]:
    """Yields the words that the code compares an argument with.

    A config's entry of this name may be compared anywhere in the module.
    """
    for tree, is_own in ((_tree(function), True), (_tree_of_module(function), False)):
        for node in ast.walk(tree) if tree else ():
            if not isinstance(node, ast.Compare):
                continue
            sides = (node.left, *node.comparators)
            if not any(_is_entry(side, name) or (is_own and getattr(side, "id", None) == name) for side in sides):
                continue
            for inner in (part for side in sides for part in ast.walk(side)):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and inner.value != name:
                    yield inner.value
                elif isinstance(inner, ast.Attribute) and isinstance(word := _callee(function, inner), str):
                    yield word  # such as the value of an enumeration's member


def is_switch(function: Any, name: str) -> bool:
    """Returns whether the code asks for the truth of an argument, or anywhere of a config's entry of this name."""
    for tree, is_own in ((_tree(function), True), (_tree_of_module(function), False)):
        nodes = [*ast.walk(tree)] if tree else []
        tests = [node.test for node in nodes if isinstance(node, (ast.If, ast.IfExp))]
        asked = [test.operand if isinstance(test, ast.UnaryOp) else test for test in tests]
        if any(_is_entry(node, name) or (is_own and getattr(node, "id", None) == name) for node in asked):
            return True
    return False


def _is_entry(node: ast.expr, name: str) -> bool:
    """Whether an expression is `config.name` or `config["name"]`."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == name
    return isinstance(node, ast.Attribute) and node.attr == name


def _tree_of_module(function: Any) -> ast.AST | None:
    try:
        return tree_of_file(inspect.getsourcefile(function) or "")
    except TypeError:
        return None


def tree_of_file(file: str) -> ast.AST | None:
    """Returns what a source file says; None where it cannot be read."""
    try:
        return _parsed("".join(linecache.getlines(file)))
    except (SyntaxError, ValueError):
        return None


@functools.lru_cache(maxsize=4)  # it is asked for every argument, and at every build
def _parsed(source: str) -> ast.AST:
    return ast.parse(source)


def is_called(function: Any, name: str) -> bool:
    """Returns whether the code calls an argument."""
    tree = _tree(function)
    calls = (node.func for node in (ast.walk(tree) if tree else ()) if isinstance(node, ast.Call))
    return any(isinstance(called, ast.Name) and called.id == name for called in calls)


def classes_beside(function: Any) -> list[type]:
    """Returns the modules' classes that a class or function's own module defines."""
    target = function.__init__ if inspect.isclass(function) else function
    beside = getattr(target, "__globals__", {}).values()
    return [
        kind
        for kind in beside
        if inspect.isclass(kind) and issubclass(kind, nn.Module) and kind.__module__ == function.__module__
    ]
