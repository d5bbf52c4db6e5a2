"""Checkpoints: whatever bytes and objects a file holds, it gives tensors by name or a sentence, and stays as it is."""

from __future__ import annotations

import argparse
import collections
import functools
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from parity.models import build_reference, configuration, fitted, read, synthetic
from tests.fuzz import budget, one_sentence
from tests.fuzz.edits import edited
from tests.fuzz.test_maps import SIZES

if TYPE_CHECKING:
    from pathlib import Path

MODEL = build_reference(configuration("vit_b_16", {**SIZES, "num_layers": 1}))
STATE = synthetic(MODEL, 0)


def _saved(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def _arrays(content: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **content)
    return stream.getvalue()


@functools.cache
def _good() -> dict[str, bytes]:
    few = {name: STATE[name] for name in list(STATE)[:3]}
    return {
        "zip.pth": _saved(few),
        "pickle.pt": _saved(few, _use_new_zipfile_serialization=False),
        "arrays.npz": _arrays({name: tensor.numpy() for name, tensor in few.items()}),
        "all.safetensors": safetensors.torch.save(few),
        "model.safetensors.index.json": json.dumps({"weight_map": dict.fromkeys(few, "part.safetensors")}).encode(),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("checkpoints")
    (made / "part.safetensors").write_bytes(_good()["all.safetensors"])
    return made


_PIECES = (b"PK\x03\x04", b"\x80\x02", b"cos\nsystem\n", b"../", b"part.safetensors", b"F32", b"null", b"[]", b"{}",
           b"\xff" * 8, b"\x00" * 8, b'"', b"1e999", b"-1", b"R", b".")  # fmt: skip


def _read(file: Path, content: bytes, key: str = "") -> None:
    file.write_bytes(content)
    with one_sentence():
        found = fitted(read(f"{file}#{key}" if key else str(file)), MODEL, "reference")
        assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in STATE.items()}
    assert file.read_bytes() == content


@budget()
@pytest.mark.filterwarnings("ignore")
@given(st.data())
def test_any_bytes_are_weights_or_refused(folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(_good())))
    content = data.draw(edited(_good()[name], _PIECES) | st.binary(max_size=40))
    _read(folder / name, content, data.draw(st.sampled_from(["", "", "model", "\x1b[31m"])))


_TENSORS = st.sampled_from(
    [
        *STATE.values(),
        torch.zeros(0),
        torch.tensor(1.0),
        torch.tensor([1, 2]),
        torch.tensor([True]),
        torch.ones(2, dtype=torch.cfloat),
        torch.full((8,), torch.nan),
        torch.full((8,), torch.inf),
        torch.full((8,), 1e300, dtype=torch.float64),
        torch.ones(8, dtype=torch.float16),
        torch.ones(3).to_sparse(),
        torch.ones(2, device="meta"),
        torch.nn.Parameter(torch.ones(8)),
    ]
)
_PREFIXED = [f"module.{name}" for name in STATE]
_NAMES = st.sampled_from([*STATE, *_PREFIXED, "model", "state_dict", "", ".", "\x1b[31m", "a\nb"])
_KEYS = _NAMES | st.integers(0, 3) | st.text(max_size=4)
_OBJECTS = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.binary(max_size=3) | _TENSORS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_KEYS, inner, max_size=4)
        | st.builds(lambda x: argparse.Namespace(x=x), inner)
        | st.dictionaries(_NAMES, _TENSORS, max_size=4).map(collections.OrderedDict)
    ),
    max_leaves=12,
)
_STATES = st.dictionaries(_KEYS, _TENSORS, max_size=3).map(lambda odd: STATE | odd)


@budget()
@pytest.mark.filterwarnings("ignore")
@given(_OBJECTS | _STATES, st.sampled_from(["", "", "model", "0"]))
def test_any_object_holds_weights_or_is_refused(folder: Path, content: Any, key: str) -> None:
    _read(folder / "object.pth", _saved(content), key)


_SHARDS = st.sampled_from(
    ["part.safetensors", "../part.safetensors", "other", "", ".", "..", "/dev/null", "\x00", "a" * 300, 3, None]
)
_INDEX_KEYS = st.sampled_from(["weight_map", "metadata", *list(STATE)[:3]]) | st.text(max_size=3)
_INDEX = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.floats() | _SHARDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_INDEX_KEYS, inner, max_size=4),
    max_leaves=8,
)
_LISTS = st.dictionaries(st.sampled_from(list(STATE)[:4]), _SHARDS).map(lambda files: {"weight_map": files})


@budget()
@given(_INDEX | _LISTS)
def test_any_index_lists_weights_or_is_refused(folder: Path, content: Any) -> None:
    _read(folder / "of.safetensors.index.json", json.dumps(content).encode())
