"""Importing what a user names: `package.module:callable` or `path/to/file.py:callable`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from parity.errors import ParityError


def imported(spec: str) -> Any:
    """Returns what `spec` names.

    Raises:
        ParityError: it has another form, cannot be imported, or names nothing.
    """
    path, colon, attribute = spec.rpartition(":")
    if not colon or not path or not attribute:
        raise ParityError(f"the candidate {spec!r} must be package.module:callable or path/to/file.py:callable")
    module = _import_file(Path(path)) if path.endswith(".py") else _import_module(path)
    found = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ParityError(f"the candidate {spec} cannot be imported: {path} has no attribute {part!r}")
        found = getattr(found, part)
    return found


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise ParityError(f"the candidate cannot be imported: there is no file {path}")
    name = f"_parity_candidate_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _make_importable(path.resolve().parent)  # for the file's own imports of its neighbours
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ParityError(f"the candidate {path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _import_module(name: str) -> Any:
    _make_importable(Path.cwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ParityError(f"the candidate {name} cannot be imported: {type(error).__name__}: {error}") from error


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
