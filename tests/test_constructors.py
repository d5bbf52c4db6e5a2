"""Constructors in many people's styles, each built as its author means it."""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from parity import ParityError, check
from parity.models import build_reference, build_without_values, configuration, resolve_candidate, state_shapes
from parity.models.state import without_initial_values
from tests.constructors.catalogue import BASE, DIVERGENT, MEANT, REFUSED, SMALL, Size

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent / "constructors"

# what is imported by these names in the folders of the corpus
NAMES = {*(path.stem for path in FOLDER.iterdir()), "models", "utils", "vit", "vision"}

CASES = [pytest.param(*case, id=f"{case[0]}-{'base' if case[1] == BASE else 'small'}") for case in MEANT]


@contextlib.contextmanager
def _imported(spec: str) -> Iterator[ModuleType]:
    """Imports a file of the corpus as somebody does who works in its folder; afterwards nothing of it is left."""
    path = FOLDER / spec.split(":", maxsplit=1)[0]
    package = (path.parent / "__init__.py").exists() and path.parent != FOLDER
    search, arguments, known = sys.path[:], sys.argv, {*sys.modules}
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in NAMES}
    sys.path.insert(0, str(path.parent.parent if package else path.parent))
    sys.argv = [str(path)]
    try:
        if path.suffix == ".ipynb":
            yield _notebook(path)
        else:
            inside = "" if path.stem == "__init__" else f".{path.stem}"
            yield importlib.import_module(f"{path.parent.name}{inside}" if package else path.stem)
    finally:
        sys.path[:], sys.argv = search, arguments
        for name, module in list(sys.modules.items()):
            if name not in known and FOLDER in Path(getattr(module, "__file__", None) or "/").parents:
                del sys.modules[name]
        sys.modules.update(hidden)


def _notebook(path: Path) -> ModuleType:
    """Runs the cells that define something."""
    module = ModuleType(path.stem)
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code" and cell["source"][0].startswith(("import ", "class ")):
            exec("".join(cell["source"]), vars(module))  # noqa: S102  (our own file)
    return module


def _as_meant(spec: str, size: Size) -> nn.Module:
    with _imported(spec) as module, without_initial_values():
        model = MEANT[spec, size](module, size)
    assert isinstance(model, nn.Module)
    return model


def _settings(model: nn.Module) -> dict[str, Any]:
    """Returns what shapes don't show: heads, rates, eps, and whatever else a module has kept."""
    return {
        f"{name}.{key}": value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (bool, int, float, str)) and key != "training"
    }


def test_every_file_is_in_the_catalogue() -> None:
    files = {path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".ipynb")}
    specs = {spec for spec, _ in MEANT}
    named = {spec.split(":")[0] for spec in (*specs, *REFUSED, *DIVERGENT)}
    assert files - {"__init__.py", "catalogue.py", "common.py"} == {name for name in named if "/" not in name}
    assert len(specs) >= 64
    assert len(REFUSED) >= 16


@pytest.mark.parametrize(("spec", "size"), CASES)
def test_called_as_meant_a_constructor_gives_the_references_parameters(spec: str, size: Size) -> None:
    model = _as_meant(spec, size)
    with without_initial_values():
        reference = build_reference(configuration("vit_b_16", size.overrides))
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in reference.parameters())
    heads = [m.num_heads for m in model.modules() if type(m).__name__ in ("Attention", "MultiheadAttention")]
    assert heads == [size.heads] * size.depth
    if size == BASE:
        assert sum(p.numel() for p in model.parameters()) == 86_567_656
    else:
        model = model.to_empty(device="cpu").eval()
        assert model(torch.zeros(2, 3, size.image, size.image)).shape == (2, size.classes)


@pytest.mark.parametrize(("spec", "size"), CASES)
def test_constructor_is_called_as_meant_without_a_hint(spec: str, size: Size) -> None:
    meant = _as_meant(spec, size)
    candidate = resolve_candidate(f"{FOLDER}/{spec}", configuration("vit_b_16", size.overrides))
    built = build_without_values(candidate)
    assert state_shapes(built) == state_shapes(meant)
    assert _settings(built) == _settings(meant)


@pytest.mark.parametrize("spec", REFUSED)
def test_what_cannot_be_built_is_said_in_a_sentence(spec: str) -> None:
    with pytest.raises(ParityError) as raised:
        check(f"{FOLDER}/{spec}", overrides=SMALL.overrides, modes=["eval"])
    sentence = str(raised.value)
    assert not [pattern for pattern in REFUSED[spec] if not re.search(pattern, sentence, re.IGNORECASE)], sentence


@pytest.mark.parametrize("spec", DIVERGENT)
def test_what_can_only_be_what_it_is_diverges_by_its_sizes(spec: str) -> None:
    report = check(f"{FOLDER}/{spec}", overrides=SMALL.overrides, modes=["eval"])
    assert report.verdict == "divergent"
    sentence = report.reasons[0]
    assert not [pattern for pattern in DIVERGENT[spec] if not re.search(pattern, sentence, re.IGNORECASE)], sentence
