"""Importing a file as a member of its own project, beside whatever else is imported in this process.

Every project is a package of its own in `sys.modules`, by a name that nobody else has, and its files are modules in it.
They get an `__import__` of their own, which looks for absolute names in the project first, now and whenever else one
of them imports something. So `import vit` means the project's in a project that has one, and ours in ours.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import itertools
import os
import re
import sys
from importlib.machinery import SOURCE_SUFFIXES, ModuleSpec, PathFinder, SourceFileLoader, all_suffixes
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from parity.models.definitions import Definitions, run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

# there can be only one of each in a process: their tensors and arrays have to be everybody's
_SHARED = {*sys.stdlib_module_names, "torch", "torchvision", "numpy"}
_RELATIVE = re.compile(rb"^\s*from\s+(\.+)", re.MULTILINE)
_MARKERS = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "environment.yml")

NAME = "_candidate"  # how the names of all projects begin
_numbers = itertools.count(1)
_projects: dict[str, Project] = {}


class Project:
    """The modules around one file.

    Attributes:
        name: of its package.
        file: the file.
        entry: of the file's module.
        notes: what there is to say about how its files were imported, a sentence each.
    """

    def __init__(self, file: Path, attribute: str) -> None:
        """Finds out where the project begins; nothing is imported yet.

        Args:
            file: a script, a module of a package, or a notebook; an absolute path.
            attribute: what is wanted of it.
        """
        self.name = f"{NAME}{next(_numbers)}"
        self.notes: list[str] = []
        self.file = file
        package, around = _package_root(file), _around(file)
        self._repository = repository = _repository(around)
        inside = around[: around.index(repository) + 1]
        # `python -m` looks beside the package, a script beside itself; then come the folders up to the repository's
        self._roots = [*dict.fromkeys([package, *inside, repository / "src"])]
        self._last_roots = [folder for folder in around if folder not in self._roots]
        above = [file.parent, *file.parent.parents][: _levels_up(file.parent) + 1]
        self._top = min([package, repository, *above], key=lambda folder: len(folder.parts))
        self._sys_path, self._loading = {*sys.path}, False
        self._packages: dict[Path, str] = {}
        self._partial: dict[str, Definitions] = {}
        self._failed: dict[str, BaseException] = {}
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._missing: dict[str, str] = {}  # modules that nobody has, as the import has them
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._importlib = ModuleType("importlib")
        vars(self._importlib).update(vars(importlib), import_module=self._import_module)
        own = self._package(file.parent)
        if file.name != "__init__.py":
            stem = file.stem.replace(".", "_")
            # of a package and a module of one name, the package is found
            own = f"{own}.{stem}_" if _is_package(file.with_suffix("")) else f"{own}.{stem}"
        self.entry, self._wanted = own, {own: {attribute}}

    def load(self) -> ModuleType:
        """Imports the file.

        Raises:
            BaseException: what it raises.
        """
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        _projects[self.name] = self
        importlib.invalidate_caches()
        self._loading = True
        try:
            importlib.import_module(self._package(self.file.parent))
            return importlib.import_module(self.entry)
        finally:
            self._loading = False

    def run(self, module: ModuleType, file: Path) -> None:
        """Runs a module's file.

        Raises:
            BaseException: what it raises, each time if it failed once.
        """
        name = module.__name__
        if name in self._failed:
            raise self._failed[name]
        self._stamps[file] = _stamp(file)
        vars(module)["__builtins__"] = self._builtins
        try:
            definitions, note = run(file, vars(module), self._wanted.get(name))
        except BaseException as error:
            self._failed[name] = error
            raise
        if definitions is not None:
            self._partial[name] = definitions
            self.notes.append(self.named(note))

    def is_current(self) -> bool:
        """Returns whether no file has changed since it was imported."""
        return all(_stamp(file) == stamp for file, stamp in self._stamps.items())

    def named(self, text: str) -> str:
        """Returns a text with module names as the project's own code has them."""
        roots = [self._packages[root] for root in self._roots if root in self._packages]
        for package in (*roots, self.name):
            text = text.replace(f"{package}.", "")
        return text

    def has(self, namespace: Mapping[str, Any]) -> bool:
        """Returns whether code with these globals is the project's."""
        return str(namespace.get("__name__")).startswith(f"{self.name}.")

    def _package(self, folder: Path) -> str:
        """Returns the name of the package that is a folder; one without `__init__.py` is made if need be."""
        if folder not in self._packages:
            if folder == self._top:
                name = self.name
            elif self._top in folder.parents:
                name = f"{self._package(folder.parent)}.{folder.name.replace('.', '_')}"
            else:
                name = f"{self._package(self._top)}.{folder.name.replace('.', '_')}_{len(self._packages)}"
            self._packages[folder] = name
            is_found = _is_package(folder) and ("." not in folder.name or self.file == folder / "__init__.py")
            if folder == self._top or not is_found:
                spec = ModuleSpec(name, None, is_package=True)
                spec.submodule_search_locations = [str(folder)]
                sys.modules[name] = importlib.util.module_from_spec(spec)
        return self._packages[folder]

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002  (Python's own names for them)
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """Does what `__import__` does, and looks for absolute names in the project first."""
        importer, names = globals or {}, tuple(fromlist or ())
        if level:
            full = _absolute(name, str(importer.get("__package__")), level)
        else:
            file = str(importer.get("__file__"))
            package = self._provider(name, names, file)
            if package is None:
                try:
                    found = builtins.__import__(name, globals, locals, fromlist or (), 0)
                except ModuleNotFoundError as error:
                    is_it = f"{name}.".startswith(f"{error.name}.")
                    package = self._last_provider(name, names, file) if is_it else None
                    if package is None:
                        self._missing[str(error.name)] = name
                        raise
                else:
                    return self._importlib if found is importlib else found
            full = f"{package}.{name}"
        if names and "*" not in names:
            self._wanted.setdefault(full, set()).update(names)
        found = builtins.__import__(name if level else full, globals, locals, names, level)
        if full in self._partial and "*" not in names:
            self._partial[full].take([inner for inner in names if not hasattr(found, inner)])
        return found if names else sys.modules[full.removesuffix(name) + name.partition(".")[0]]

    def _import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Does what `importlib.import_module` does, and looks for absolute names in the project first."""
        if name.startswith("."):
            return importlib.import_module(name, package)
        found: ModuleType = self._import(name)
        for part in name.split(".")[1:]:
            found = sys.modules[f"{found.__name__}.{part}"]
        return found

    def _provider(self, name: str, names: Sequence[str], importer: str) -> str | None:
        """Returns the package in which the project has a module, if it has it; a module doesn't import itself."""
        top = name.partition(".")[0]
        loaded = sys.modules.get(top)
        if top in _SHARED and loaded is not None:
            return None
        if self._loading:  # what it adds to the path is its own
            self._roots += [Path(entry).resolve() for entry in sys.path if entry not in self._sys_path]
            self._sys_path |= {*sys.path}
        for root in self._roots:
            if any(str(file) != importer for file in _provided(root, name, names)):
                return (
                    None
                    if loaded is not None and is_from(getattr(loaded, "__spec__", None), root)
                    else self._package(root)
                )
        return None

    def _last_provider(self, name: str, names: Sequence[str], importer: str) -> str | None:
        """Returns the package that nearly has a module, where nobody else has it."""
        top = name.partition(".")[0]
        for root in self._last_roots:
            if any(_provided(root, name, names)):
                self.notes.append(f"{root} is taken as a folder of the candidate's project, since it has {name}")
                self._last_roots.remove(root)
                self._roots.append(root)
                return self._package(root)
        for root in self._roots:
            if any(str(file) != importer for file in (*_provided(root, top, ()), *(root / top).glob("*.py"))):
                return self._package(root)
        return None

    def elsewhere(self, missing: str) -> Path | None:
        """Returns the one file of the project that is called as a module which was not found, wherever it stands."""
        last = self._missing.get(missing, missing).rpartition(".")[2]
        files = [file for file in _named(self._repository, f"{last}.py") if file != self.file]
        return files[0] if len(files) == 1 else None


def _absolute(name: str, package: str, level: int) -> str:
    """Returns the name of a module of the project by its relative one; as it is where that goes too far up."""
    return importlib.util.resolve_name("." * level + name, package) if package.count(".") >= level - 1 else name


class _Finder:
    """Finds the modules of all projects."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        project = _projects.get(fullname.partition(".")[0])
        if project is None or path is None:
            return None
        if fullname == project.entry:
            return importlib.util.spec_from_file_location(
                fullname, project.file, loader=_Loader(fullname, str(project.file), project)
            )
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path, project)
        return spec


class _Loader(SourceFileLoader):
    """Loads a module of a project; from its source, so that none is older than the file, and nothing is written."""

    def __init__(self, fullname: str, path: str, project: Project | None) -> None:
        super().__init__(fullname, path)
        self._project = project

    def exec_module(self, module: ModuleType) -> None:
        assert self._project is not None
        self._project.run(module, Path(self.path))


def find(root: Path, name: str) -> Path | None:
    """Returns the file of a module by its dotted name, if it is found below the folder `root`."""
    return next((f for f in _provided(root, name, ()) if f.suffix in SOURCE_SUFFIXES), None)


def is_from(spec: ModuleSpec | None, root: Path) -> bool:
    """Returns whether a module stands in the folder `root`."""
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    parents = 2 if spec.has_location and spec.submodule_search_locations is not None else 1
    return any(Path(place).resolve().parents[parents - 1] == root for place in places)


def _provided(root: Path, name: str, names: Collection[str]) -> Iterator[Path]:
    """Yields the files that are the module `name` below `root`, or modules `names` in it if it is a bare folder."""
    place = root.joinpath(*name.split("."))
    yield from _files(place)
    if place.is_dir() and not _is_package(place):
        for inner in names:
            yield from _files(place / inner)


def _files(place: Path) -> Iterator[Path]:
    if _is_package(place):
        yield place / "__init__.py"
    files = (place.with_name(place.name + suffix) for suffix in all_suffixes())
    yield from (file for file in files if file.is_file())


def _named(folder: Path, name: str, deepest: int = 4) -> Iterator[Path]:
    """Yields the files of this name in a folder and those inside it."""
    if (folder / name).is_file():
        yield folder / name
    for inner in sorted(folder.iterdir()) if deepest else ():
        if inner.is_dir() and not inner.name.startswith("."):
            yield from _named(inner, name, deepest - 1)


def _is_package(folder: Path) -> bool:
    return (folder / "__init__.py").is_file()


def _package_root(file: Path) -> Path:
    """Returns the folder in which the outermost package around a file stands."""
    return next(folder for folder in file.parents if not _is_package(folder) or folder.parent == folder)


def _stamp(file: Path) -> tuple[int, int]:
    about = file.stat() if file.is_file() else None
    return (about.st_mtime_ns, about.st_size) if about else (0, 0)


def _levels_up(folder: Path) -> int:
    """Returns how many folders further up the relative imports of a folder's files go."""
    dots = [len(d) for file in folder.glob("*.py") for d in _RELATIVE.findall(file.read_bytes())]
    return max([1, *dots]) - 1


def _around(file: Path) -> list[Path]:
    """Returns the folders around a file, the inner ones first, as far as they can be a project's."""
    outside = {Path(os.path.expanduser("~")), Path(file.anchor)}  # noqa: PTH111  (it doesn't mind having no home)
    inside = itertools.takewhile(lambda folder: folder not in outside, file.parents)
    return [*inside] or [file.parent]


def _repository(around: list[Path]) -> Path:
    """Returns the folder of `around` at which the project begins; the innermost where nothing tells."""
    for markers in ((".git",), _MARKERS):
        for folder in around:
            if any((folder / marker).exists() for marker in markers):
                return folder
    return around[0]
