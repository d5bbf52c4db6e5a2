from __future__ import annotations

import hashlib
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
from torch import nn

from parity.errors import ParityError
from parity.models.checkpoint import read
from parity.models.reference import build_reference, configuration
from parity.models.weights import resolve_weights, synthetic, uniform
from parity.suite.conftest import SMALL

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_reference(configuration("vit_b_16", SMALL))


def _digest(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    return digest.hexdigest()[:16]


def test_synthetic_weights_are_the_same_on_any_release(model: nn.Module) -> None:
    assert _digest(synthetic(model, seed=0)) == "36613f51677ff111"


def test_synthetic_weights_follow_the_seed_and_nothing_else(model: nn.Module) -> None:
    torch.manual_seed(1)
    first = synthetic(model, seed=3)
    torch.manual_seed(2)
    assert _digest(synthetic(model, seed=3)) == _digest(first)
    other = synthetic(model, seed=4)
    assert all(not torch.equal(other[name], first[name]) for name in first)


def test_every_synthetic_tensor_is_random_and_of_its_own(model: nn.Module) -> None:
    state = synthetic(model, seed=0)
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32
        assert len(set(tensor.flatten().tolist())) > 0.9 * tensor.numel(), name
        assert tensor.std() > 0.02, name
    flat = [tensor.flatten()[:8].tolist() for tensor in state.values()]
    assert len({tuple(values) for values in flat}) == len(flat)


def test_synthetic_weights_keep_activations_of_order_one() -> None:
    """At full depth: logits that neither vanish nor explode, and that differ between images."""
    from parity import build_pair

    pair = build_pair("vit:ViT", "vit_b_32")
    with torch.no_grad():
        logits = pair.reference(uniform("images", (3, 3, 224, 224)))
    assert 0.2 < logits.std() < 5
    assert (logits[0] - logits[1]).norm() / logits[0].norm() > 0.05


def test_uniform_numbers_have_mean_0_and_variance_1() -> None:
    values = uniform("key", (1000, 1001))
    assert abs(values.mean()) < 5e-3
    assert abs(values.var() - 1) < 5e-3
    assert values.abs().max() <= 3**0.5
    assert torch.equal(values.flatten()[:7], uniform("key", (7,)))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_file_gives_back_what_was_written(model: nn.Module, tmp_path: Path, suffix: str, wrapper: str | None) -> None:
    state = synthetic(model, seed=5)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({wrapper: state} if wrapper else state, file)
    else:
        safetensors.torch.save_file(state, file)
    loaded = resolve_weights(str(file), "vit_b_16").state_dict(model)
    assert _digest(loaded) == _digest(state)


class _Explosive:
    """A pickle that would leave a mark if it were executed."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.mark, "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_refused_and_never_executed(tmp_path: Path, *, legacy: bool) -> None:
    file, mark = tmp_path / "weights.pth", tmp_path / "executed"
    content = {"head.weight": torch.zeros(2), "more": _Explosive(str(mark))}
    if legacy:
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    with pytest.raises(ParityError, match=r"holds more than tensors.*nothing in it was executed"):
        read(str(file))
    assert not mark.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_truncated_file_is_refused(model: nn.Module, tmp_path: Path, suffix: str, kept: float) -> None:
    file = tmp_path / f"weights{suffix}"
    state = synthetic(model, seed=5)
    torch.save(state, file) if suffix == ".pth" else safetensors.torch.save_file(state, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ParityError, match=r"weights\..* is damaged or cut off .*; copy it anew"):
        read(str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
        ({"head.weight": torch.zeros(2)}, r"don't fit the reference .* missing: class_token"),
    ],
)
def test_file_without_the_models_state_dict_is_refused(
    model: nn.Module, tmp_path: Path, content: object, message: str
) -> None:
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    with pytest.raises(ParityError, match=message):
        resolve_weights(str(file), "vit_b_16").state_dict(model)


def test_weights_of_another_architecture_say_which(tmp_path: Path) -> None:
    other = build_reference(configuration("vit_b_32", {"image_size": 64}))
    file = tmp_path / "weights.pth"
    torch.save(synthetic(other, seed=0), file)
    with pytest.raises(ParityError, match=r"they are vit_b_32's: use --reference vit_b_32 --set image_size=64"):
        resolve_weights(str(file), "vit_b_16").state_dict(build_reference(configuration("vit_b_16")))


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ParityError, match=r"expected synthetic, official, a path .*IMAGENET1K_SWAG_E2E_V1"):
        resolve_weights("imagenet", "vit_b_16")
    with pytest.raises(ParityError, match=r"there is no weights file nowhere\.pth"):
        resolve_weights("nowhere.pth", "vit_b_16").state_dict(nn.Linear(1, 1))
