"""Importing what a user names: `package.module:callable`, `path/to/file.py:callable` or `notebook.ipynb:callable`."""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from parity.errors import ParityError, listed
from parity.models.definitions import NOTEBOOK, read, said
from parity.models.projects import NAME, Project, find, is_from

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_FORMS = "package.module:callable or path/to/file.py:callable"
_imports: dict[Path, tuple[Project, ModuleType]] = {}
# what installs a module that is called otherwise
_DISTRIBUTIONS = {
    "PIL": "pillow", "cv2": "opencv-python", "skimage": "scikit-image", "sklearn": "scikit-learn", "yaml": "pyyaml",
}  # fmt: skip


def imported(spec: str, notes: list[str] | None = None) -> Any:
    """Returns what `spec` names, imported as Python would import it.

    A file is imported as a member of its own project, whose modules are nobody else's (see `projects`). Of a notebook,
    and of a script that cannot be run, only what the callable needs is run (see `definitions`).

    Args:
        spec: `package.module:callable`, from the working folder first, `path/to/file.py:callable`, or a notebook.
        notes: takes what there is to say about it, a sentence each.

    Raises:
        ParityError: it has another form, cannot be imported, or names nothing.
    """
    path, colon, attribute = spec.rpartition(":")
    if not colon or not path or not all(part.isidentifier() for part in attribute.split(".")):
        raise ParityError(f"the candidate {spec!r} must be {_FORMS}{_advice(spec)}")
    file = _file(path, spec)
    if file is None:
        module, said_of_it = _import_module(path, spec), list[str]()
    else:
        module, said_of_it = _import_file(file, attribute.partition(".")[0], spec)
        said_of_it += _ambiguity(path, file)
    if notes is not None:
        notes += said_of_it
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ParityError(f"the candidate {spec} cannot be imported: {path} has no attribute {part!r}"
                              f"{_offer(part, found, file)}")  # fmt: skip
        found = getattr(found, part)
    return found


def _file(path: str, spec: str) -> Path | None:
    """Returns the file that is meant, or None if it is a module that Python finds by its name."""
    place = Path(path)
    if _is_module(path):
        local, found = _local(path), _installed(path)
        if local or not place.is_dir() or (found and found.has_location):
            return local
    if place.is_dir():
        if not (place / "__init__.py").is_file():
            attribute = spec.rpartition(":")[2]
            raise ParityError(f"the candidate {spec} cannot be imported: {path} is a folder; give a file in it"
                              f"{_offer_files(place, attribute)}")  # fmt: skip
        place /= "__init__.py"
    if not place.is_file():
        close = difflib.get_close_matches(place.name, [f.name for f in _siblings(place)], n=1)
        hint = f"; did you mean {place.with_name(close[0])}?" if close else ""
        raise ParityError(f"the candidate cannot be imported: there is no file {path}{hint}")
    return place.resolve()


def _siblings(place: Path) -> list[Path]:
    files = place.parent.iterdir() if place.parent.is_dir() else ()
    return [file for file in files if file.suffix in (".py", NOTEBOOK) and file.is_file()]


def _is_module(path: str) -> bool:
    return not path.endswith((".py", NOTEBOOK)) and Path(path).name == path


def _local(name: str) -> Path | None:
    """Returns the file of a module in the working folder, unless this one is imported already."""
    folder = Path.cwd()
    loaded = sys.modules.get(name.partition(".")[0])
    return None if loaded is not None and is_from(getattr(loaded, "__spec__", None), folder) else find(folder, name)


def _installed(name: str) -> importlib.machinery.ModuleSpec | None:
    """Returns where Python finds a module's outermost package by itself."""
    with contextlib.suppress(ValueError):  # of a module without a spec, such as `__main__`
        return importlib.util.find_spec(name.partition(".")[0])
    return None


def _ambiguity(path: str, file: Path) -> list[str]:
    """Says so where a module of the working folder is called as an installed one."""
    found = _installed(path) if _is_module(path) else None
    if found is None or is_from(found, Path.cwd()):
        return []
    other = f"not of the {path.partition('.')[0]} that is installed ({found.origin})"
    return [f"{path} is {_shown(file)} of the working folder, {other}; from another folder it is that one"]


def _import_file(file: Path, attribute: str, spec: str) -> tuple[ModuleType, list[str]]:
    project, module = _imports.get(file, (None, None))
    if project is None or module is None or not project.is_current() or not hasattr(module, attribute):
        project = Project(file, attribute)
        with _undisturbed(file), _told(spec, project):
            module = project.load()
        _imports[file] = project, module
    return module, [*project.notes]


def _import_module(name: str, spec: str) -> ModuleType:
    with _undisturbed(Path(name)), _told(spec, None):
        return importlib.import_module(name)


@contextlib.contextmanager
def _undisturbed(file: Path) -> Iterator[None]:
    """Gives an import no arguments but the file, and takes back what it does to the process."""
    argv, path, folder, leave = sys.argv, sys.path, Path.cwd(), os._exit
    process = os.getpid()

    def leave_import(status: int) -> None:
        if os.getpid() != process:  # a process that was forked does leave
            leave(status)
        raise SystemExit(status)

    sys.argv, sys.path, os._exit = [str(file)], [*path], leave_import  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.argv, sys.path, os._exit = argv, path, leave
        os.chdir(folder)


@contextlib.contextmanager
def _told(spec: str, project: Project | None) -> Iterator[None]:
    """Makes one sentence of whatever an import raises."""
    try:
        yield
    except (KeyboardInterrupt, ParityError):
        raise
    except BaseException as error:
        place, what = _place(error, project), _what(error, project)
        before = f"; before that, {project.notes[0]}" if project and project.notes else ""
        attribute = spec.rpartition(":")[2].partition(".")[0]
        if project and not _may_have(project.file, attribute):
            before = f"; nor does it define {attribute}{_offer(attribute, object(), project.file)}"
        message = f"the candidate {spec} cannot be imported: {place}{what}{before}"
        raise ParityError(project.named(message) if project else message) from error


def _place(error: BaseException, project: Project | None) -> str:
    """Returns the last line of the user's own that an exception went through, as `file.py:1: `."""
    libraries = (*sysconfig.get_paths().values(), str(Path(__file__).parents[1]))
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_filename
        is_own = project.has(frame.f_globals) if project else not name.startswith(libraries)
        if is_own and Path(name).is_file():
            inside = read(Path(name)).place(line) if name.endswith(NOTEBOOK) else f":{line}"
            place = f"{_shown(Path(name))}{inside}: "
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith((*libraries, "<")):
        place = f"{_shown(Path(error.filename))}:{error.lineno}: "
    return place


def _what(error: BaseException, project: Project | None) -> str:
    """Says what is wrong, and what to do."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing(error.name, project)
    if isinstance(error, SyntaxError):
        version = ".".join(map(str, sys.version_info[:2]))
        return f"{type(error).__name__}: {error.msg} (this is Python {version})"
    if isinstance(error, ImportError) and error.name in sys.modules:
        missing = re.match(r"cannot import name '(\w+)'", str(error))
        if missing:
            return f"{said(error)}{_offer(missing[1], sys.modules[error.name], None)}"
    return said(error)


def _missing(name: str, project: Project | None) -> str:
    """Says of a module that isn't found where it may be, or how to get it."""
    other = project.elsewhere(name) if project else None
    if other is not None:
        called = name.rpartition(".")[2]
        return f"there is no module {called} where it is looked for; if {_shown(other)} is meant, correct the import"
    if name.startswith(NAME):
        return f"the project has no module {name}"
    top = name.partition(".")[0]
    above = next((folder for folder in project.file.parents if folder.name == top), None) if project else None
    if above is not None:
        return f"{_shown(above)} has nothing of what is imported from {top}; correct the import"
    package = _DISTRIBUTIONS.get(top, top)
    return f"there is no module {name}; install it (pip install {package}), or set PYTHONPATH to the folder it is in"


def _offer(name: str, owner: Any, file: Path | None) -> str:
    """Says what something has instead of an attribute."""
    modules, functions = _outline(file) if file else ([], [])
    attributes = getattr(owner, "__dict__", {})
    modules += [key for key, value in attributes.items() if inspect.isclass(value) and issubclass(value, nn.Module)]
    modules = [*dict.fromkeys(modules)]
    known = [*modules, *functions, *(key for key in dir(owner) if not key.startswith("_"))]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5) or [n for n in known if n.lower() == name.lower()]
    hint = f"; did you mean {close[0]!r}?" if close else ""
    its = f"{'' if close else ';'} its modules are {listed(modules)}" if modules else ""
    unreadable = read(file).unreadable if file and file.suffix == NOTEBOOK else []
    return f"{hint}{its}{f'; {unreadable[0].msg}' if unreadable else ''}"


def _advice(spec: str) -> str:
    """Says what to give instead of a file, folder or module without a callable."""
    place = Path(spec.rstrip(":"))
    if place.is_dir() and not (place / "__init__.py").is_file():
        return _offer_files(place, None)
    if place.is_dir():
        place /= "__init__.py"
    elif not place.is_file():
        place = find(Path.cwd(), spec.rstrip(":")) or place
    if not place.is_file() or place.suffix not in (".py", NOTEBOOK):
        return ""
    modules, functions = _outline(place)
    whole = _whole_model(place)
    names = [*modules, *functions]
    chosen = whole or (names[0] if len(names) == 1 else "")
    give = f"; give {_shown(place)}:{chosen}" if chosen else ""
    return f"{give}; {_shown(place)} has {listed(names)}" if names else f"; {_shown(place)} has no class or function"


def _offer_files(folder: Path, attribute: str | None) -> str:
    """Says which files of a folder have modules, or one of this name."""
    for file in sorted(folder.rglob("*.py")):
        with contextlib.suppress(SyntaxError, ValueError):
            modules, functions = _outline(file)
            name = attribute if attribute in (*modules, *functions) else None if attribute else _whole_model(file)
            if name:
                return f", such as {_shown(file)}:{name}"
    return ""


def _may_have(file: Path, name: str) -> bool:
    """Returns whether a file mentions a name that is to be had from it, or imports what it doesn't mention."""
    try:
        nodes = [inner for node in read(file).statements for inner in ast.walk(node)]
    except (SyntaxError, ValueError):
        return True
    keys = (getattr(node, key, None) for node in nodes for key in ("id", "name", "asname"))
    return not {name, "*"}.isdisjoint(keys)


def _outline(file: Path) -> tuple[list[str], list[str]]:
    """Returns the names of a file's modules, and of its functions, without running it."""
    nodes = _nodes(file)
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}

    def is_module(node: ast.ClassDef, seen: tuple[str, ...] = ()) -> bool:
        bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        inner = [classes[b] for b in bases if b in classes and b not in (*seen, node.name)]
        return any(b.endswith("Module") for b in bases) or any(is_module(n, (*seen, node.name)) for n in inner)

    functions = [node.name for node in nodes if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return [name for name, node in classes.items() if is_module(node)], functions


def _whole_model(file: Path) -> str | None:
    """Returns the one module of a file that no other is made of, or that is called as a ViT is; None if unclear."""
    modules, _ = _outline(file)
    parts = {
        name.id
        for node in _nodes(file)
        if isinstance(node, ast.ClassDef) and node.name in modules
        for name in ast.walk(node)
        if isinstance(name, ast.Name) and name.id != node.name
    }
    whole = [name for name in modules if name not in parts]
    if len(whole) > 1:
        whole = [name for name in whole if re.search(r"vit|vision_?transformer", name, re.IGNORECASE)]
    return whole[0] if len(whole) == 1 else None


def _nodes(file: Path) -> list[ast.stmt]:
    with contextlib.suppress(SyntaxError, ValueError):
        return read(file).statements
    return []


def _shown(file: Path) -> Path:
    """Returns a path as short as it can be from the working folder."""
    folder = Path.cwd()
    return file.relative_to(folder) if folder in file.parents else file
