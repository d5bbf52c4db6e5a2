"""What a file defines: the statements of a script or notebook, and which of them a name needs.

A script may train, download or plot while it is imported, and a notebook nearly always does. Where that cannot be run,
a model needs no more than its own class and what that class refers to.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import dis
import inspect
import json
import linecache
import re
import traceback
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from types import CodeType
from typing import TYPE_CHECKING, Any

from parity.errors import ParityError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

NOTEBOOK = ".ipynb"

# cell magics whose cell is Python
_PYTHON_MAGICS = ("%%time", "%%timeit", "%%capture", "%%prun", "%%python", "%%python3")
_MAGIC = re.compile(r"^(\s*)([%!?].*|[\w., ]+=\s*[%!].*|[\w.]+\?+\s*)$")


@dataclass(frozen=True)
class Source:
    """The code of a file.

    Attributes:
        path: the file.
        statements: what stands at its top level; the lines of a notebook are counted over its cells that are Python.
        cells: of a notebook, how many lines stand before each of these cells, and the cell's number from 1.
        unreadable: what is wrong with the cells that are no Python.
    """

    path: Path
    statements: list[ast.stmt]
    cells: list[tuple[int, int]] = field(default_factory=list)
    unreadable: list[SyntaxError] = field(default_factory=list)

    def place(self, line: int) -> str:
        """Returns how people call a line, behind the file's name."""
        if not self.cells:
            return f":{line}"
        before, number = self.cells[bisect_right([before for before, _ in self.cells], line - 1) - 1]
        return f", cell {number}, line {line - before}"


def read(path: Path) -> Source:
    """Reads a script, or the cells of a notebook without what is no Python in them.

    Raises:
        SyntaxError: a script is no Python.
        ParityError: a notebook is no notebook.
    """
    if path.suffix != NOTEBOOK:
        return Source(path, ast.parse(path.read_bytes(), str(path)).body)
    source, lines = Source(path, []), list[str]()
    for number, text in _cells(path):
        python = _without_magics(text)
        try:
            statements = ast.parse(python, str(path)).body
        except SyntaxError as error:
            error.msg = f"cell {number} is no Python: {error.msg}"
            source.unreadable.append(error)
            continue
        source.cells.append((len(lines), number))
        source.statements.extend(ast.increment_lineno(statement, len(lines)) for statement in statements)
        lines += python.splitlines()
    # where tracebacks and inspect.getsource look lines up; an entry without a time is never read again from the file
    linecache.cache[str(path)] = (0, None, [f"{line}\n" for line in lines], str(path))
    return source


def _cells(path: Path) -> list[tuple[int, str]]:
    """Returns the number and text of each cell of code."""
    try:
        notebook = json.loads(path.read_bytes())
        sheets = [notebook, *notebook.get("worksheets", ())]  # the format had them before 2015
        cells = [cell for sheet in sheets for cell in sheet.get("cells", ())]
        return [
            (number, "".join(cell["source"] if "source" in cell else cell["input"]))
            for number, cell in enumerate(cells, 1)
            if cell["cell_type"] == "code"
        ]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ParityError(f"{path} cannot be read as a notebook: {said(error)}") from error


def _without_magics(text: str) -> str:
    """Returns a cell with its magics and shell commands taken out, line by line."""
    magic, _, body = text.lstrip().partition("\n")
    if magic.startswith("%%"):
        text = f"\n{body}" if magic.split()[0] in _PYTHON_MAGICS else ""
    with suppress(SyntaxError):
        ast.parse(text)
        return text  # what looks like a magic stands in a string
    return "\n".join(_MAGIC.sub(r"\1pass", line) for line in text.splitlines())


def said(error: BaseException) -> str:
    """Returns the type of an exception and the first line of what it says, if it can say anything."""
    words = ""
    with suppress(Exception):  # of somebody else's class
        words = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


_READS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
_BINDS = ("STORE_NAME", "STORE_GLOBAL")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


class _Statement:
    """A statement, ready to be run.

    Attributes:
        node: its syntax.
        line: its first.
        code: the same, compiled; annotations stay text, since they are no use of what they name.
        binds: the names that it gives a value.
        changes: the names whose values it changes.
        reads: the names that it, or a function in it, looks up.
        mentions: the names in its annotations, and in methods that neither building a model nor running it calls.
    """

    def __init__(self, node: ast.stmt, path: Path) -> None:
        flags = __future__.annotations.compiler_flag
        self.node = node
        self.line = min(n.lineno for n in (node, *getattr(node, "decorator_list", ())))
        self.code = compile(ast.Module([node], []), str(path), "exec", flags, dont_inherit=True)
        here = [(i.opname, i.argval) for i in dis.get_instructions(self.code)]
        self.binds = {name for operation, name in here if operation in _BINDS}
        self.reads = _read(_called(self.code))
        self.changes = set(_changed(node))
        hints = [getattr(n, key, None) for n in ast.walk(node) for key in ("annotation", "returns")]
        annotations = {n.id for hint in hints if hint for n in ast.walk(hint) if isinstance(n, ast.Name)}
        self.mentions = annotations | _read(_nested(self.code))

    @property
    def is_import_of_all(self) -> bool:
        return isinstance(self.node, ast.ImportFrom) and self.node.names[0].name == "*"


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _called(code: CodeType) -> Iterator[CodeType]:
    """Yields a piece of code and what is in it, without the methods of a class that its others don't call."""
    yield code
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    if not code.co_flags & inspect.CO_OPTIMIZED and code.co_name != "<module>":  # the body of a class
        names, reached = {"forward"}, list[CodeType]()
        for _ in inner:
            reached = [c for c in inner if c.co_name in names or c.co_name.startswith(("__", "<"))]
            names |= {name for method in reached for part in _nested(method) for name in part.co_names}
        inner = reached
    for part in inner:
        yield from _called(part)


def _read(codes: Iterable[CodeType]) -> set[str]:
    return {i.argval for code in codes for i in dis.get_instructions(code) if i.opname in _READS}


def _changed(node: ast.stmt) -> Iterator[str]:
    """Yields the names whose values a statement changes: `x.y = 1`, `x[0] = 1`, `x.add(1)`, `@add_to(x)`."""
    changed: list[ast.expr] = []
    if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        changed += [target for target in targets if isinstance(target, (ast.Attribute, ast.Subscript))]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        changed += [node.value.func] if isinstance(node.value.func, ast.Attribute) else []
    elif isinstance(node, _DEFINITIONS):
        changed += [name for call in node.decorator_list if isinstance(call, ast.Call) for name in call.args]
    for inner in changed:
        root = inner
        while isinstance(root, (ast.Attribute, ast.Subscript, ast.Call)):
            root = root.func if isinstance(root, ast.Call) else root.value
        if isinstance(root, ast.Name):
            yield root.id


def _single(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields statements, with one for each module or name of an `import`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (ast.copy_location(ast.Import([module]), node) for module in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = (ast.ImportFrom(node.module, [name], node.level) for name in node.names)
            yield from (ast.copy_location(part, node) for part in parts)
        else:
            yield node


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))


class Definitions:
    """The statements of a file that was run up to one that failed, or not at all."""

    def __init__(self, source: Source, namespace: dict[str, Any], error: BaseException | None = None) -> None:
        """Looks at a file.

        Args:
            source: its code.
            namespace: where it was, and is, run.
            error: what the failing statement raised; None where nothing was run.
        """
        self._namespace = namespace
        self._errors = dict[_Statement, BaseException]()
        self._statements = list[_Statement]()
        for node in _single(source.statements):
            with suppress(SyntaxError, ValueError):  # compile refuses some of what can be parsed, an `await` for one
                if not _is_main_guard(node):
                    self._statements.append(_Statement(node, source.path))
        line = _line_in(namespace, error) if error else 0
        self._begun = [s for s in self._statements if s.line <= line]
        failed = self._begun[-1] if self._begun else None
        if failed and isinstance(failed.node, _IMPORTS):  # of several modules or names in a line, one failed
            self._begun = [s for s in self._begun if s.line < failed.line]
        elif failed and error:
            self._errors[failed] = error
        self.place = source.place(line)

    def names(self) -> list[str]:
        """Returns the names of functions and classes."""
        return [s.node.name for s in self._statements if isinstance(s.node, _DEFINITIONS)]

    def take(self, names: Collection[str]) -> bool:
        """Runs, in their order, the statements that `names` need, and no others; none is run twice.

        Returns:
            Whether all of `names` have a value now.

        Raises:
            Exception: what one of them raises.
        """
        needed = self._needed(names, with_mentions=False)
        for statement in self._needed(names, with_mentions=True):
            if statement not in self._begun:
                self._begun.append(statement)
                try:
                    exec(statement.code, self._namespace)  # noqa: S102  (what an import does)
                except Exception as error:  # noqa: BLE001  (a statement can be any code)
                    self._errors[statement] = error
            if statement in self._errors and statement in needed:
                raise self._errors[statement]
        return all(name in self._namespace for name in names)

    def _needed(self, names: Collection[str], *, with_mentions: bool) -> list[_Statement]:
        """Returns the statements that give `names` their values, and those that these need in turn."""
        made = {name for s in self._statements if not isinstance(s.node, _IMPORTS) for name in s.binds}
        reached, chosen, size = set(names), list[_Statement](), -1
        while size != len(chosen):
            size = len(chosen)
            chosen = [s for s in self._statements if s.binds & reached or s.changes & reached & made]
            for s in chosen:
                reached |= s.reads | (s.mentions if with_mentions else set())
        known = {*self._namespace, *vars(builtins), *(name for s in chosen for name in s.binds)}
        if not reached <= known:
            chosen = [s for s in self._statements if s in chosen or s.is_import_of_all]
        return chosen


def _line_in(namespace: dict[str, Any], error: BaseException) -> int:
    """Returns the line of a file, by its namespace, at which an exception left its top level."""
    frames = traceback.walk_tb(error.__traceback__)
    at_top = (line for frame, line in frames if frame.f_globals is namespace and frame.f_code.co_name == "<module>")
    return next(at_top, 0)


def run(path: Path, namespace: dict[str, Any], names: Collection[str] | None) -> tuple[Definitions | None, str]:
    """Runs a file as an import does; where a script fails, and in a notebook, no more than `names` need.

    Args:
        path: the script or notebook.
        namespace: of its module.
        names: what is wanted of it; None: nobody knows.

    Returns:
        What is left of it, None where the whole file was run; and a sentence about that.

    Raises:
        Exception: what is wanted cannot be had, because of this.
    """
    if path.suffix == NOTEBOOK:
        definitions = Definitions(read(path), namespace)
        definitions.take(names or ())
        return definitions, f"{path} is a notebook; no more than {_listed(names or ())} needs is run"
    is_package = path.name == "__init__.py"
    try:
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), namespace)  # noqa: S102
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, SyntaxError) and error.filename == str(path):
            raise
        definitions = Definitions(read(path), namespace, error)
        if names is None:
            has_it = not is_package and True in [_taken(definitions, [name]) for name in definitions.names()]
        else:  # whoever wants several may do with some
            some = _taken(definitions, names) or True in [_taken(definitions, [name]) for name in sorted(names)]
            has_it = some or definitions.take(names)
        if not has_it and not is_package:
            raise
        rest = f"no more than {_listed(names)} needs" if names else "no more than functions and classes"
        rest = "nothing" if is_package and not names else rest
        where = f"{path}{definitions.place} fails when the file is run ({said(error)})"
        return definitions, f"{where}; of the rest {rest} is taken"
    return None, ""


def _taken(definitions: Definitions, names: Collection[str]) -> bool:
    with suppress(Exception):
        return definitions.take(names)
    return False


def _listed(names: Collection[str]) -> str:
    return " and ".join(sorted(names))
