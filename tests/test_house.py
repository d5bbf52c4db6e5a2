"""A wing of the harness shows what others use of it, and nothing else."""

from __future__ import annotations

import ast
import importlib
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import parity

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(parity.__file__).parent
WINGS = sorted(folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").exists() and folder.name != "suite")


def _imports(file: Path) -> Iterator[tuple[str, set[str]]]:
    """Yields every module that a file imports from, and what."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, {alias.name for alias in node.names}


def _imports_from_outside() -> dict[str, set[str]]:
    """Returns, by module of a wing, what other parts of the project import from it; tests may look into every room."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for folder in (ROOT, ROOT.parent / "vit", ROOT.parent / "benchmarks", ROOT.parent / "examples"):
        for file in folder.rglob("*.py"):
            own = file.relative_to(ROOT).parts[0] if folder == ROOT else ""
            for module, names in _imports(file):
                first, _, rest = module.partition(".")
                if first == "parity" and rest.split(".")[0] in set(WINGS) - {own}:
                    wanted[module] |= names
    return wanted


def test_other_wings_are_entered_by_their_front() -> None:
    inside = {module: names for module, names in _imports_from_outside().items() if module.count(".") > 1}
    assert not inside


@pytest.mark.parametrize("wing", WINGS)
def test_wing_names_what_others_use_of_it(wing: str) -> None:
    front = importlib.import_module(f"parity.{wing}")
    public = {name for name, (module, _) in parity._HOMES.items() if module == f"parity.{wing}"}  # noqa: SLF001
    assert set(front.__all__) == _imports_from_outside()[f"parity.{wing}"] | public
