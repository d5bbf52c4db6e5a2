"""What a verdict was reached on, as digests: weights, map, the candidate's source files, environment, report."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import torch

from parity.errors import owner_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import nn

    from parity.models import WeightMap


def digest_of_weights(*states: Mapping[str, torch.Tensor]) -> str:
    """Returns the SHA-256 of state dicts: of the names, dtypes, shapes and bits of all tensors."""
    found = hashlib.sha256()
    for place, state in enumerate(states):
        for name in sorted(state):
            tensor = state[name].detach().cpu().contiguous()
            found.update(f"{place} {name} {tensor.dtype} {tuple(tensor.shape)}\n".encode("utf-8", "backslashreplace"))
            if tensor.numel():
                found.update(tensor.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def digest_of_map(mapping: WeightMap) -> str:
    """Returns the SHA-256 of a weight map: its entries, and the tensors that it leaves out."""
    entries = [(entry.reference, entry.candidate, entry.layout) for entry in mapping.entries]
    return digest_of_json([sorted(entries), sorted(mapping.unmapped_reference), sorted(mapping.unmapped_candidate)])


def digest_of_files(files: Iterable[str]) -> str:
    """Returns the SHA-256 of files: of their names, without folders, and their contents."""
    return digest_of_json(sorted((Path(file).name, hashlib.sha256(_content(file)).hexdigest()) for file in files))


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError:  # gone since it was imported
        return b""


def digest_of_json(value: Any) -> str:
    """Returns the SHA-256 of a value of JSON's types, in whatever order an object has its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_of_report(report: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a report's JSON types, all but this digest itself."""
    digests = {key: value for key, value in report["digests"].items() if key != "report"}
    return digest_of_json({**report, "digests": digests})


def source_files(module: nn.Module, name: str) -> list[str]:
    """Returns the files that a model's code is in, its own one first, as short as they can be from the working folder.

    These are those of the classes of its modules, and, of the user's own code, all that these use. Torch's are not
    among them, since the environment names its release.

    Args:
        module: the model.
        name: what builds it, `package.module:callable` or `file.py:callable`, or any other name.
    """
    path = name.rpartition(":")[0]
    builder = sys.modules.get(path)
    to_do = [vars(builder)] if builder else []
    to_do += [namespace for part in module.modules() for kind in type(part).__mro__ for namespace in _of(kind)]
    files = [path] if path.endswith((".py", ".ipynb")) else []
    seen: set[int] = set()
    while to_do:
        namespace = to_do.pop(0)
        file = namespace.get("__file__")
        if id(namespace) in seen or not isinstance(file, str):
            continue
        seen.add(id(namespace))
        owner = owner_of(file)
        if owner in ("user", "library"):
            files.append(file)
        if owner == "user":
            to_do += [inner for value in list(namespace.values()) for inner in _of(value)]
    return list(dict.fromkeys(_short(file) for file in files if _is_file(file)))


def _of(value: Any) -> Iterator[dict[str, Any]]:
    """Yields the namespaces of the code that a value is."""
    kind = type(value)  # of somebody's proxy, isinstance asks the proxy
    if issubclass(kind, ModuleType):
        yield vars(value)
    elif issubclass(kind, FunctionType):
        yield value.__globals__
    elif issubclass(kind, type):
        yield from (item.__globals__ for item in vars(value).values() if type(item) is FunctionType)


def _is_file(file: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return Path(file).is_file()
    return False


def _short(file: str) -> str:
    path = Path(file).resolve()
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else f"{path}"
