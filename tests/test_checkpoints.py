"""Weights as trainers, wrappers and converters leave them: read where they can be meant, refused by name where not."""

from __future__ import annotations

import argparse
import ast
import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch

import parity
import vit
from parity.errors import ParityError
from parity.models.checkpoint import fitted, read
from parity.models.reference import build_reference, configuration
from parity.models.weights import resolve_weights, synthetic
from parity.suite.conftest import SMALL
from tests.conftest import SMALL_OPTIONS, as_published

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from parity.models.checkpoint import State

INNER = "encoder.layers.encoder_layer_1.mlp.0.weight"


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_reference(configuration("vit_b_16", SMALL))


@pytest.fixture(scope="module")
def state(model: nn.Module) -> State:
    return synthetic(model, seed=5)


def _prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def _assert_same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module.backbone.", "student.vit."])
@pytest.mark.parametrize("names", [dict, as_published], ids=["names of today", "older names"])
def test_prefix_is_taken_off_and_that_is_said(
    prefix: str, names: Callable[[State], State], model: nn.Module, state: State, tmp_path: Path
) -> None:
    torch.save(_prefixed(prefix, names(state)), tmp_path / "file.pth")
    weights = resolve_weights(f"{tmp_path}/file.pth", "vit_b_16")
    _assert_same(weights.state_dict(model), state)
    _assert_same(weights.state_dict(model), state)
    assert [f"the prefix {prefix!r}, which is taken off" in note for note in weights.notes] == [True]


def test_names_that_only_look_prefixed_are_left_alone(tmp_path: Path) -> None:
    inner = torch.nn.Sequential(torch.nn.Linear(2, 3))
    outer = torch.nn.ModuleDict({"model": inner})
    torch.save(outer.state_dict(), tmp_path / "file.pth")
    checkpoint = read(f"{tmp_path}/file.pth")
    assert fitted(checkpoint, outer, "candidate").keys() == {"model.0.weight", "model.0.bias"}
    assert not checkpoint.notes
    assert fitted(checkpoint, inner, "candidate").keys() == {"0.weight", "0.bias"}
    assert checkpoint.notes


def _trainer(state: State) -> dict[str, Any]:
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    return {"state_dict": _prefixed("module.", state), "epoch": 3, "optimizer": optimizer, "best": torch.tensor(0.7)}


@pytest.mark.parametrize(
    "wrap",
    [
        _trainer,
        lambda state: {"model": state, "args": argparse.Namespace(lr=1.0)},
        lambda state: {"state": {"network": {"weights": state}}, "step": 7},
        lambda state: {"teacher": _prefixed("backbone.", state)},
    ],
    ids=["optimizer beside", "arguments beside", "deep", "teacher alone"],
)
def test_state_dict_is_found_in_what_a_trainer_writes(
    wrap: Callable[[State], dict[str, Any]], model: nn.Module, state: State, tmp_path: Path
) -> None:
    if not hasattr(torch.serialization, "safe_globals") and "args" in wrap(state):
        pytest.skip(f"torch {torch.__version__} allows no class by name")
    torch.save(wrap(state), tmp_path / "file.pth")
    _assert_same(resolve_weights(f"{tmp_path}/file.pth", "vit_b_16").state_dict(model), state)


def test_of_several_the_usual_one_is_taken_and_another_can_be_asked_for(
    model: nn.Module, state: State, tmp_path: Path
) -> None:
    other = synthetic(model, seed=6)
    file = tmp_path / "file.pth"
    torch.save({"model_ema": _prefixed("module.", other), "model": state}, file)
    taken = resolve_weights(str(file), "vit_b_16")
    _assert_same(taken.state_dict(model), state)
    assert taken.notes == [f"{file} holds 2 state dicts; 'model' is taken, and {file}#model_ema takes another"]
    _assert_same(resolve_weights(f"{file}#model_ema", "vit_b_16").state_dict(model), other)
    with pytest.raises(ParityError, match=r"has no state dict under 'ema', but has 'model_ema', 'model'"):
        resolve_weights(f"{file}#ema", "vit_b_16")
    torch.save(state, file)
    with pytest.raises(ParityError, match=r"has no state dict under 'model', but is one itself"):
        resolve_weights(f"{file}#model", "vit_b_16")


def test_file_whose_name_has_a_hash_is_that_file(model: nn.Module, state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "run#3.pth")
    _assert_same(resolve_weights(f"{tmp_path}/run#3.pth", "vit_b_16").state_dict(model), state)


def _sharded(state: State, folder: Path, suffix: str = "safetensors") -> Path:
    names = list(state)
    files = {name: f"model-{1 + n % 2}.{suffix}" for n, name in enumerate(names)}
    save = safetensors.torch.save_file if suffix == "safetensors" else torch.save
    for file in set(files.values()):
        save({name: state[name] for name in names if files[name] == file}, folder / file)
    index = folder / f"{'model' if suffix == 'safetensors' else 'pytorch_model'}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return index


def test_shards_are_read_by_their_index(model: nn.Module, state: State, tmp_path: Path) -> None:
    index = _sharded(state, tmp_path)
    _assert_same(resolve_weights(str(index), "vit_b_16").state_dict(model), state)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ParityError, match=r"lists model-2\.safetensors, and there is no such file beside it"):
        read(str(index))
    safetensors.torch.save_file({"class_token": state["class_token"]}, tmp_path / "model-2.safetensors")
    with pytest.raises(ParityError, match=r"promises .* in model-2\.safetensors, which lacks them"):
        read(str(index))
    index.write_text("{}")
    with pytest.raises(ParityError, match=r"index\.json is damaged or cut off"):
        read(str(index))


def test_shards_may_be_what_torch_saves(model: nn.Module, state: State, tmp_path: Path) -> None:
    index = _sharded(state, tmp_path, "bin")
    _assert_same(resolve_weights(str(index), "vit_b_16").state_dict(model), state)
    torch.save([1], tmp_path / "model-1.bin")
    with pytest.raises(ParityError, match=r"model-1\.bin holds no state dict"):
        read(str(index))


def test_folder_is_the_file_of_weights_in_it(model: nn.Module, state: State, tmp_path: Path) -> None:
    with pytest.raises(
        ParityError, match=r"is a folder, in which there is none of model\.safetensors, .*; name the file"
    ):
        read(str(tmp_path))
    torch.save(state, tmp_path / "pytorch_model.bin")
    _assert_same(resolve_weights(str(tmp_path), "vit_b_16").state_dict(model), state)
    other = {name: -tensor for name, tensor in state.items()}
    _sharded(other, tmp_path)
    _assert_same(resolve_weights(f"{tmp_path}/", "vit_b_16").state_dict(model), other)


def test_folder_without_weights_has_no_say_in_what_a_word_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("synthetic", "mine"):
        Path(name).mkdir()
    assert resolve_weights("synthetic", "vit_b_16").source == "synthetic:0"
    with pytest.raises(ParityError, match="--weights mine: expected"):
        resolve_weights("mine", "vit_b_16")


def test_arrays_of_numpy_are_read(model: nn.Module, state: State, tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", **{name: tensor.numpy() for name, tensor in state.items()})  # type: ignore[arg-type]
    _assert_same(resolve_weights(f"{tmp_path}/arrays.npz", "vit_b_16").state_dict(model), state)
    np.savez(tmp_path / "objects.npz", head=np.array([object()]))
    with pytest.raises(ParityError, match=r"objects\.npz is damaged or cut off \(Object arrays cannot be loaded"):
        read(f"{tmp_path}/objects.npz")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_point_numbers_are_converted_and_that_is_said(
    dtype: torch.dtype, model: nn.Module, state: State, tmp_path: Path
) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "file.pth")
    weights = resolve_weights(f"{tmp_path}/file.pth", "vit_b_16")
    _assert_same(weights.state_dict(model), {name: tensor.to(dtype).float() for name, tensor in state.items()})
    assert [note.endswith(f" has weights in {str(dtype)[6:]}, converted to float32") for note in weights.notes] == [
        True
    ]


def _with(value: float, dtype: torch.dtype = torch.float32) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.to(dtype, copy=True)
        changed[3, 4] = value
        return changed

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: (10 * t).long(), r"is int64; weights are dense tensors of floating-point numbers"),
        (lambda t: t > 0, r"is bool; weights"),
        (lambda t: t.to(torch.complex64), r"is complex64; weights"),
        (lambda t: t.to_sparse(), r"is sparse_coo float32; weights"),
        pytest.param(
            lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
            r"is qint8; weights",
            marks=pytest.mark.skipif(torch.__version__ < "2.2", reason="torch 2.1 reads none"),
        ),
        (_with(float("nan")), r"is not finite: at \[3, 4\] it is nan$"),
        (_with(-float("inf")), r"is not finite: at \[3, 4\] it is -inf$"),
        (_with(1e300, torch.float64), r"is not finite: at \[3, 4\] it is 1e\+300, more than float32 can hold$"),
    ],
)
def test_tensor_that_is_no_weight_is_refused_by_name(
    change: Callable[[torch.Tensor], torch.Tensor], message: str, model: nn.Module, state: State, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch thinks of its own quantised and sparse tensors
        torch.save({**state, INNER: change(state[INNER])}, tmp_path / "file.pth")
        with pytest.raises(ParityError, match=rf"the tensor {INNER} in .*file\.pth {message}"):
            resolve_weights(f"{tmp_path}/file.pth", "vit_b_16").state_dict(model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"epoch": 3, "args": None},
            r"holds no state dict .*, but has 'epoch' \(int\), 'args' \(NoneType\)",
        ),
        ([torch.zeros(2)], r"holds no state dict .*, but is a list; write one"),
        ({}, r"holds no state dict .*, but has nothing; write one"),
        ({"head.weight": torch.zeros(2), 5: torch.zeros(2)}, r"holds a tensor under 5, which is no name of a tensor"),
    ],
)
def test_file_without_weights_says_what_it_holds(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ParityError, match=message):
        read(f"{tmp_path}/file.pth")


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_checkpoint_is_told_from_one_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello world\n")
    with pytest.raises(ParityError, match=r"text\.pth is no weights file: it is neither safetensors nor"):
        read(f"{tmp_path}/text.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pth")
    with pytest.raises(ParityError, match=r"script\.pth is a TorchScript archive, .*jit\.load\(path\)\.state_dict"):
        read(f"{tmp_path}/script.pth")


def test_file_that_cannot_be_read_is_not_told_of_the_next_one(state: State, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.pth", tmp_path / "good.pth"
    outside = torch.sparse_coo_tensor(torch.tensor([[5]]), torch.ones(1), (3,), check_invariants=False)
    torch.save({"sparse": outside, "code": re.compile("")}, bad)
    torch.save({**state, "sparse": torch.ones(3).to_sparse()}, good)
    with pytest.raises(ParityError, match="holds more than tensors"):
        read(str(bad))
    assert read(str(good)).state.keys() >= state.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.t().contiguous(), r"don't fit the candidate \(1 of another shape: "),
        (lambda t: t[:5], r"don't fit the candidate \(1 of another shape: "),
        (lambda t: t.long(), r"is int64"),
        (lambda t: t / 0, r"is not finite"),
    ],
)
def test_back_conversion_refuses_what_the_candidate_could_not_hold(
    change: Callable[[torch.Tensor], torch.Tensor],
    message: str,
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    own = synthetic(vit.ViT(48, 3, 16, 64, 96, 4, 3, num_classes=10), seed=1)
    name = "attn_layers.1.MLP.0.weight"
    torch.save(own | {name: change(own[name])}, tmp_path / "own.pth")
    output = tmp_path / "out.safetensors"
    status, _, err = run(
        "convert", "vit:ViT", *SMALL_OPTIONS, f"--weights={tmp_path}/own.pth", "--reverse", "-o", output
    )
    assert status == 2
    assert name in err
    assert re.search(message, err), err
    assert not output.exists()


def test_what_was_done_to_the_weights_stands_in_the_report(
    run: Callable[..., tuple[int, str, str]], state: State, tmp_path: Path
) -> None:
    torch.save({"model": _prefixed("module.", state)}, tmp_path / "file.pth")
    options = "vit:ViT", *SMALL_OPTIONS, f"--weights={tmp_path}/file.pth"
    status, out, _ = run("check", *options, "--modes=eval")
    assert status == 0
    assert "the prefix 'module.', which is taken off" in out
    _, _, err = run("convert", *options, "-o", tmp_path / "out.safetensors")
    assert "the prefix 'module.', which is taken off" in err


def test_empty_name_of_weights_is_refused() -> None:
    with pytest.raises(ParityError, match="expected synthetic, official, a path"):
        parity.check("vit:ViT", weights="")


def test_no_other_module_reads_a_checkpoint() -> None:
    """What a training saves and resumes in memory is no file of anybody's."""
    root = Path(parity.__file__).parent
    readers = {
        str(file.relative_to(root.parent))
        for folder in (root, root.parent / "vit")
        for file in {*folder.rglob("*.py")} - {*(root / "suite").iterdir()}
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "safetensors.torch.load_file")
    }
    assert readers == {"parity/models/checkpoint.py", "parity/training/trajectories.py"}
