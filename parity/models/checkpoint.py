"""Reading checkpoints: what torchvision, a trainer, a wrapper or a converter has written, by one loader for all places.

Two steps. `read` opens a file, without ever running code in it, and takes the state dict out of what a trainer has put
around it. `fitted` gives its tensors the names of the model that they are for, and refuses by name what cannot be the
weights of that model, before anything is run.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import math
import pickle
import re
import types
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch

from parity.errors import ParityError, listed
from parity.models.state import sharing_copy, state_shapes, twins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

State = dict[str, torch.Tensor]

_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors", ".npz", ".index.json")

# What a folder holds that a model's `save_pretrained` has written, the one that it reads itself first.
_IN_FOLDERS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip

_LFS = b"version https://git-lfs.github.com/"  # how the text begins that stands for a file which wasn't fetched

# What trainers put a state dict under, the one that is most often meant first.
_USUAL_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "teacher", "model_ema", "ema")

# What a trainer keeps beside it, and what does nothing when it is built anew.
_HARMLESS = (argparse.Namespace, types.SimpleNamespace)

_MOST_LEVELS = 3  # of dictionaries around a state dict


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        source: the file, and the key if one was asked for.
        state: tensors by name, as they stand in the file.
        notes: how the state dict was chosen, where that was a choice.
    """

    source: str
    state: State
    notes: list[str] = field(default_factory=list)


def is_path(spec: str) -> bool:
    """Returns whether `spec` means a file, `PATH` or `PATH#KEY`, or a folder with one."""
    path, _ = _parted(spec)
    return spec.partition("#")[0].endswith(_SUFFIXES) or _inside(path).is_file()


def read(spec: str) -> Checkpoint:
    """Reads a state dict from a file. No code in it is ever executed.

    Args:
        spec: a `.safetensors` file, what `torch.save` or `numpy.savez` wrote, the `.index.json` of several, or the
            folder that `save_pretrained` wrote; behind a `#` the key of the dictionary that is meant where the file
            holds several, such as `last.pth#model_ema`.

    Raises:
        ParityError: no such file or key, a damaged file, or a file that holds no tensors by name.
    """
    path, key = _parted(spec)
    path = _inside(path)
    if path.is_dir():
        raise ParityError(f"{path} is a folder, in which there is none of {', '.join(_IN_FOLDERS)}; name the file")
    if not path.is_file():
        raise ParityError(f"there is no weights file {path}")
    state, notes = _chosen(_of_shards(path) if path.name.endswith(".index.json") else _content(path), path, key)
    _require_names(state, path)
    return Checkpoint(spec, state, notes)


def _parted(spec: str) -> tuple[Path, str]:
    """Splits `PATH#KEY`; a file whose own name has a `#` is that file."""
    path, _, key = spec.rpartition("#")
    return (Path(spec), "") if not path or Path(spec).is_file() else (Path(path), key)


def _inside(path: Path) -> Path:
    """Returns the file of weights in a folder; any other path, and a folder without one, as it is."""
    files = [path / name for name in _IN_FOLDERS]
    return next((file for file in files if file.is_file()), path)


def _content(path: Path) -> object:
    """Returns what a single file holds."""
    if _is_pointer(path):
        raise ParityError(f"{path} is no weights file but what Git LFS has in its place; get it with git lfs pull")
    if path.suffix == ".safetensors":
        with _damage_told(path):
            return safetensors.torch.load_file(path)
    if path.suffix == ".npz":
        with _damage_told(path), np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays}
    return _unpickled(path)


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS


@contextlib.contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Turns whatever a reader raises about a damaged file into one sentence."""
    try:
        yield
    except ParityError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ParityError(f"the weights file {path} is damaged or cut off ({reason}); copy it anew") from error


def _of_shards(index: Path) -> State:
    """Reads the tensors that an index of several files lists."""
    with _damage_told(index):
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names_of: dict[Path, list[str]] = {}
        for name, file in files.items():
            names_of.setdefault(index.with_name(Path(file).name), []).append(name)
        if absent := [shard.name for shard in names_of if not shard.is_file()]:
            raise ParityError(f"{index} lists {absent[0]}, and there is no such file beside it; copy all of them")
    state: State = {}
    for shard, names in names_of.items():
        held, _ = _chosen(_content(shard), shard, "")
        if missing := [name for name in names if name not in held]:
            raise ParityError(
                f"{index} promises {listed(missing, 3)} in {shard.name}, which lacks them; copy both anew"
            )
        state |= {name: held[name] for name in names}
    return state


def _unpickled(path: Path) -> object:
    with path.open("rb") as file:
        head = file.read(4)
    if head and not head.startswith((b"PK\x03\x04", b"\x80")):  # a zip file or, before torch 1.6, a pickle
        raise ParityError(f"{path} is no weights file: it is neither safetensors nor what torch.save writes")
    if zipfile.is_zipfile(path):
        with _damage_told(path), zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise ParityError(
                    f"{path} is a TorchScript archive, which is code and weights in one; write the weights alone with "
                    "torch.save(torch.jit.load(path).state_dict(), another_path)"
                )
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    if head.startswith(b"PK") and "mmap" in inspect.signature(torch.load).parameters:  # since torch 2.1
        options["mmap"] = True
    allowing = getattr(torch.serialization, "safe_globals", lambda _: contextlib.nullcontext())  # since torch 2.5
    with _damage_told(path), warnings.catch_warnings(), allowing([*_HARMLESS]):
        warnings.simplefilter("ignore")  # what torch thinks of the pickle's protocol
        try:
            content: object = torch.load(str(path), **options)  # torch 2.1 maps no Path
        except pickle.UnpicklingError as error:
            kinds = dict.fromkeys(re.findall(r"GLOBAL ([\w.]+)", str(error)))
            what = f" ({', '.join(kinds)})" if kinds else ""
            raise ParityError(
                f"{path} holds more than tensors{what}, or is no weights file; nothing in it was executed. "
                "Write it anew with torch.save(model.state_dict(), path)"
            ) from error
        finally:
            # torch would look at what it keeps of a file that it could not read as it reads the next one
            getattr(torch._utils, "_sparse_tensors_to_validate", []).clear()  # noqa: SLF001
    return content


def _chosen(content: object, path: Path, key: str) -> tuple[State, list[str]]:
    """Takes the state dict that is meant out of what a file holds, and says so where another might be."""
    found = dict(_state_dicts(content))
    if key:
        if key not in found:
            raise ParityError(f"{path} has no state dict under {key!r}, but {_held(content, found)}")
        return found[key], []
    if not found:
        raise ParityError(
            f"{path} holds no state dict (names and tensors), but {_held(content, found)}; "
            "write one with torch.save(model.state_dict(), path)"
        )
    taken, *others = sorted(found, key=_rank)
    notes = [
        f"{path} holds {len(found)} state dicts; {taken!r} is taken, and {path}#{other} takes another"
        for other in others[:1]
    ]
    return found[taken], notes


def _rank(key: str) -> int:
    last = key.rpartition(".")[2]
    return _USUAL_KEYS.index(last) if last in _USUAL_KEYS else len(_USUAL_KEYS)


def _state_dicts(content: object, key: str = "", level: int = 0) -> Iterator[tuple[str, State]]:
    """Yields every dictionary of tensors in the dictionaries of a file, and its keys joined by dots."""
    if not isinstance(content, dict) or level > _MOST_LEVELS:
        return
    if content and all(isinstance(value, torch.Tensor) for value in content.values()):
        yield key, content
        return
    for name, value in content.items():
        if isinstance(name, str):  # an optimizer counts its parameters instead
            yield from _state_dicts(value, f"{key}.{name}" if key else name, level + 1)


def _held(content: object, found: Mapping[str, State]) -> str:
    """Says what a file holds: its state dicts, or what else is in it."""
    if "" in found:
        return "is one itself"
    if found:
        return f"has {listed([repr(name) for name in found])}"
    if isinstance(content, dict):
        kinds = [f"{name!r} ({type(value).__name__})" for name, value in content.items()]
        return f"has {listed(kinds) if kinds else 'nothing'}"
    return f"is a {type(content).__name__}"


def _require_names(state: Mapping[Any, torch.Tensor], path: Path) -> None:
    odd = [name for name in state if not isinstance(name, str)]
    if odd:
        raise ParityError(f"{path} holds a tensor under {odd[0]!r}, which is no name of a tensor; take it out")


def fitted(checkpoint: Checkpoint, model: nn.Module, owner: str, hint: Callable[[State], str] = lambda _: "") -> State:
    """Returns a checkpoint's tensors by the names of `model`, floating-point numbers in float32.

    A prefix that a wrapper has put before all names is taken off, and older names are those that the model's own
    loading code makes of them; what was done is added to the checkpoint's notes.

    Args:
        checkpoint: what was read.
        model: whose weights they are to be, on any device; only its names, shapes and loading code are used.
        owner: who the model is, for messages.
        hint: given tensors that don't fit, says what else they might be, as the end of a sentence.

    Raises:
        ParityError: names or shapes are others, a tensor holds no floating-point numbers, or infinite ones, or one
            tensor has other values under each of its names.
    """
    state = _without_prefix(checkpoint, model)
    _require_numbers(state, model, checkpoint.source)
    _require_one_value(state, model, checkpoint.source, owner)
    dtypes = {f"{t.dtype}".removeprefix("torch.") for t in state.values() if t.is_floating_point()} - {"float32"}
    state = _as_loaded(state, model)
    _require_fit(state, model, f"the weights {checkpoint.source} don't fit the {owner}", hint)
    if dtypes:
        _note(checkpoint, f"{checkpoint.source} has weights in {' and '.join(sorted(dtypes))}, converted to float32")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _note(checkpoint: Checkpoint, note: str) -> None:
    if note not in checkpoint.notes:
        checkpoint.notes.append(note)


def _without_prefix(checkpoint: Checkpoint, model: nn.Module) -> State:
    """Takes off the prefix behind which most names of `model` stand, if more than without."""
    state, names = checkpoint.state, model.state_dict().keys()
    prefixes = {name[: -len(own)] for name in state for own in names if name.endswith(f".{own}")}
    fits = {prefix: sum(prefix + own in state for own in names) for prefix in ("", *sorted(prefixes))}
    prefix = max(fits, key=fits.__getitem__)
    if not prefix:
        return state
    _note(checkpoint, f"the names in {checkpoint.source} have the prefix {prefix!r}, which is taken off")
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _require_numbers(state: State, model: nn.Module, source: str) -> None:
    """Refuses tensors that are no weights: whole or complex numbers, sparse, quantised, without values, not finite."""
    own = model.state_dict()
    for name, tensor in state.items():
        mine = own.get(name)
        if mine is not None and not mine.is_floating_point():
            continue
        kind = f"{tensor.dtype}".removeprefix("torch.")
        if tensor.layout != torch.strided:
            kind = f"{tensor.layout}".removeprefix("torch.") + f" {kind}"
        if tensor.is_meta:
            kind = f"{kind} without values"
        if tensor.is_quantized or tensor.is_meta or tensor.layout != torch.strided or not tensor.is_floating_point():
            raise ParityError(
                f"the tensor {name} in {source} is {kind}; weights are dense tensors of floating-point numbers, so "
                "convert it and write the file anew"
            )
        values = tensor.float()
        if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
            if mine is not None and not mine.is_meta and torch.equal(values, mine.float()):
                continue  # a constant of the model's own, such as a mask
            place = (~torch.isfinite(values)).nonzero()[0].tolist()
            number = float(tensor[tuple(place)])
            beyond = f"{number:g}" + ", more than float32 can hold" * math.isfinite(number)
            raise ParityError(f"the tensor {name} in {source} is not finite: at {place} it is {beyond}")


def _require_one_value(state: State, model: nn.Module, source: str, owner: str) -> None:
    """Refuses several values for what the model has as one tensor under several names."""
    for name, first in twins(model).items():
        if name in state and first in state and not torch.equal(state[name], state[first]):
            raise ParityError(
                f"{first} and {name} are one tensor in the {owner}, and differ in {source}; "
                "write the file anew with torch.save(model.state_dict(), path)"
            )


def _as_loaded(state: State, model: nn.Module) -> State:
    """Returns `state` by the names that `model` gives its tensors as it loads them.

    The files that torchvision publishes were written when the layers of an MLP had other names, which its modules
    still know. Source: `MLPBlock._load_from_state_dict` of `torchvision/models/vision_transformer.py`.
    """
    twin, options = sharing_copy(model), {}
    if "assign" in inspect.signature(torch.nn.Module.load_state_dict).parameters:  # since torch 2.1
        options["assign"] = True
    else:
        twin = twin.to_empty(device="cpu")
    try:
        odd = twin.load_state_dict(state, strict=False, **options)
    except Exception:  # noqa: BLE001  (a tensor of another shape, or what else the model's own code finds amiss)
        return state  # whoever asks for the fit, or loads it, names it
    known = {name: tensor for name, tensor in twin.state_dict().items() if name not in odd.missing_keys}
    return known | {name: state[name] for name in odd.unexpected_keys}


def _require_fit(state: State, model: nn.Module, complaint: str, hint: Callable[[State], str]) -> None:
    have = {name: tuple(tensor.shape) for name, tensor in state.items()}
    need, others = state_shapes(model), model.state_dict().keys()
    missing, extra = sorted(need.keys() - have.keys()), sorted(have.keys() - others)
    misshapen = [f"{k} {have[k]} for {need[k]}" for k in need if k in have and have[k] != need[k]]
    complaints = [
        f"{len(names)} {what}: {listed(names, 3)}"
        for what, names in (("missing", missing), ("unknown", extra), ("of another shape", misshapen))
        if names
    ]
    if complaints:
        raise ParityError(f"{complaint} ({'; '.join(complaints)}){hint(state)}")
