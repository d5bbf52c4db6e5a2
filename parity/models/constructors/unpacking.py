"""Who is called with the entries of a config, `Layer(**config["layer"])`: seen where the config is asked for them."""

from __future__ import annotations

import ast
import builtins
import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from parity.models.constructors.signatures import tree_of_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType


class Call(NamedTuple):
    """Who is called with `**entries`, with how many arguments by position beside them, and with which by name."""

    callee: Callable[..., Any]
    positional: int
    keywords: frozenset[str]


def call_with_entries(frame: FrameType, name: str) -> Call | None:
    """Returns the call that a running function makes with the entries of a config.

    Args:
        frame: where the config is asked for its keys.
        name: the config's own, which tells several calls of a line apart.
    """
    tree = tree_of_file(frame.f_code.co_filename)
    if tree is None:
        return None
    line = frame.f_lineno
    here = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and _is_around(node, line)]
    calls = [node for node in _calls([tree]) if _is_around(node, line)]
    if not calls and here and isinstance(here[-1], ast.Assign):  # `settings = dict(config["layer"])`
        names = [target.id for target in here[-1].targets if isinstance(target, ast.Name)]
        functions = [node for node in here if isinstance(node, ast.FunctionDef)]
        calls = [node for node in _calls(functions[-1:]) if any(_mentions(node, target) for target in names)]
    calls.sort(key=lambda node: not _mentions(node, name))
    for call in calls:
        callee, positional = _named(call.func, frame), sum(not isinstance(given, ast.Starred) for given in call.args)
        if callee is functools.partial and call.args:
            callee, positional = _named(call.args[0], frame), positional - 1
        if callable(callee):
            return Call(callee, positional, frozenset(filter(None, (keyword.arg for keyword in call.keywords))))
    return None


def _is_around(node: ast.AST, line: int) -> bool:
    first, last = getattr(node, "lineno", 0), getattr(node, "end_lineno", None)
    return last is not None and first <= line <= last


def _calls(nodes: Iterable[ast.AST]) -> list[ast.Call]:
    """Returns the calls with `**` in some nodes, the innermost first."""
    found = [inner for node in nodes for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    return [call for call in reversed(found) if any(keyword.arg is None for keyword in call.keywords)]


def _mentions(call: ast.Call, name: str) -> bool:
    texts = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is None]
    return any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts)


def _named(called: ast.expr, frame: FrameType) -> Any:
    """Returns what `Layer`, `nn.Linear` or `self.layer` is in a running function."""
    if isinstance(called, ast.Name):
        scope = {**vars(builtins), **frame.f_globals, **frame.f_locals}
        found = scope.get(called.id)
        return None if found is dict else found
    if isinstance(called, ast.Attribute):
        return getattr(_named(called.value, frame), called.attr, None)
    return None
