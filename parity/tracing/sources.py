"""What a model asks torch for, below `torch.overrides`: the operations by name, and the lines that ask for them."""

from __future__ import annotations

import linecache
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import einops
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

# operations that draw random numbers
DRAWING = frozenset({
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli",
    "multinomial", "uniform", "exponential", "random", "poisson", "native_dropout", "log_normal", "cauchy", "geometric",
})  # fmt: skip

# code in there is nobody's model
_NOT_A_MODELS = (
    f"{Path(torch.__file__).parent}/", f"{Path(einops.__file__).parent}/", f"{Path(__file__).parents[1]}/", "<",
)  # fmt: skip


class SourceLine(str):
    """A line of somebody's source, `model.py:14`.

    Attributes:
        path: of the file.
        number: of the line.
    """

    __slots__ = ("number", "path")
    path: str
    number: int

    @property
    def text(self) -> str:
        """What stands there, or nothing if the file cannot be read."""
        return linecache.getline(self.path, self.number).strip()


def line_of_source() -> SourceLine:
    """Returns the line of the model that runs, the innermost that is the model's own: `model.py:14`."""
    frame = last = sys._getframe(1)  # noqa: SLF001  (what inspect.stack() reads, without reading the files)
    while frame.f_code.co_filename.startswith(_NOT_A_MODELS):
        if frame.f_back is None:
            break
        last = frame = frame.f_back
    path = last.f_code.co_filename
    line = SourceLine(f"{Path(path).name}:{last.f_lineno}")
    line.path, line.number = path, last.f_lineno
    return line


def name_of_operation(function: Any) -> str:
    """Returns what a dispatched operation is called, whether it writes to its input or not: `add`, `softmax`."""
    name: str = function._schema.name.partition("::")[2].strip("_")  # noqa: SLF001  (there is no public name)
    return name


def by_file(lines: Iterable[str], most: int | None = None) -> str:
    """Returns lines as a cause names them, `model.py:41, 44`: of each file all, or the first so many."""
    files: dict[str, dict[str, None]] = defaultdict(dict)
    for line in dict.fromkeys(lines):
        file, _, number = line.rpartition(":")
        files[file][number] = None
    return ", ".join(f"{file}:{', '.join(list(numbers)[:most])}" for file, numbers in files.items())
