"""The fast path: the same function, proved by the harness, whatever happens to the weights."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import vit
import vit.fast
from parity import check
from parity.models.weights import synthetic, uniform
from parity.suite.conftest import small
from parity.tracing.measuring import compare

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "hidden_dim": 80, "num_heads": 4, "num_layers": 3,
    "num_classes": 7,
}  # fmt: skip
IMAGES = uniform("images", (2, 3, 32, 32))


def _models() -> tuple[vit.ViT, vit.ViT]:
    """The plain model and the fast one, with the same weights."""
    plain, fast = vit.ViT(**SIZES), vit.FastViT(**SIZES)
    plain.load_state_dict(synthetic(plain, 0))
    fast.load_state_dict(plain.state_dict())
    return plain.eval(), fast.eval()


def _agree(plain: nn.Module, fast: nn.Module) -> bool:
    """Whether the logits agree within rounding; no change of this file makes less than 1e-3."""
    with torch.no_grad():
        return compare(plain(IMAGES), fast(IMAGES)).relative < 1e-5


@pytest.mark.parametrize("name", vit.PRESETS)
def test_fast_path_is_proved_equivalent(name: str) -> None:
    """Patches and heads of every architecture, with two blocks and heads of eight."""
    report = check("vit:FastViT", name, overrides=small(name))
    assert report.verdict == "equivalent", report
    verdicts = {made.name: made.verdict for made in report.checks}
    assert verdicts["forward/eval/float32"] == verdicts["forward/eval/float64"] == "equivalent"
    assert verdicts["forward/train/float32"] == verdicts["forward/eval-grad/float32"] == "identical"
    # both halves of a block are bracketed: attention by its two norms, the MLP by norm and block
    eval_mode = next(made for made in report.checks if made.name == "forward/eval/float64")
    seen = {(point.module, point.moment) for point in eval_mode.free.measured}  # type: ignore[union-attr]
    for block in ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"):
        assert {(f"{block}.ln_1", "enter"), (f"{block}.ln_1", "leave")} <= seen
    assert ("encoder.layers.encoder_layer_0.ln_2", "leave") in seen
    assert ("encoder.layers.encoder_layer_0", "leave") in seen


@pytest.mark.full_size
def test_fast_path_of_b16_is_proved_equivalent_at_full_size() -> None:
    report = check("vit:FastViT", modes=["eval"], batch=2)
    assert report.verdict == "equivalent", report


def test_bits_with_autograd_and_initial_values_are_the_plain_models() -> None:
    made = []
    for kind in (vit.ViT, vit.FastViT):
        torch.manual_seed(0)
        made.append(kind(**SIZES, representation_size=6))
    assert made[0].state_dict().keys() == made[1].state_dict().keys()
    assert all(map(torch.equal, made[0].parameters(), made[1].parameters()))
    plain, fast_model = _models()
    assert torch.equal(plain(IMAGES), fast_model(IMAGES))
    with torch.no_grad():
        assert not torch.equal(plain(IMAGES), fast_model(IMAGES)), "the fast path was not taken"


def _step(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.enable_grad():
        torch.nn.functional.cross_entropy(model(IMAGES), torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _load(model: nn.Module) -> None:
    model.load_state_dict(synthetic(model, 1))


def _assign(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.detach() * 1.5)


def _other_memory(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.5


def _behind_torchs_back(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(1.5)
    model.eval()


@pytest.mark.parametrize("change", [_step, _load, _assign, _other_memory, _behind_torchs_back])
def test_changed_weights_are_packed_anew(change: Callable[[nn.Module], None]) -> None:
    plain, fast = _models()
    assert _agree(plain, fast)
    before = fast(IMAGES)
    change(fast)
    assert not _agree(plain, fast)
    assert compare(before, fast(IMAGES)).relative > 1e-3
    change(plain)
    assert _agree(plain, fast)


def test_weights_that_were_rounded_in_another_dtype_are_packed_anew() -> None:
    plain, fast = _models()
    assert _agree(plain, fast)
    rounded = copy.deepcopy(plain).half().float()
    assert not _agree(plain, rounded), "rounding must show, or the next line could not fail"
    assert _agree(rounded, fast.half().float())


def test_copies_and_pickles_are_models_of_their_own() -> None:
    plain, fast = _models()
    assert _agree(plain, fast)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):  # noqa: S301  (our own)
        assert _agree(plain, other)
        _load(fast)
        assert _agree(plain, other), "it must not follow the model that it was copied from"


def test_without_the_kernels_it_is_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = _models()
    monkeypatch.setattr(vit.fast, "_has_kernels", lambda: False)
    assert _agree(plain, fast)
    assert _agree(plain.double().float(), fast)


@pytest.mark.skipif(torch.__version__ < "2.2", reason="torch before 2.2 fails in its own attention under autocast")
def test_under_autocast_it_is_the_plain_model() -> None:
    plain, fast = _models()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plain(IMAGES), fast(IMAGES))


def test_in_inference_mode_and_in_float64_it_is_the_plain_models_function() -> None:
    plain, fast = _models()
    with torch.inference_mode():
        assert compare(plain(IMAGES), fast(IMAGES)).relative < 1e-5
    with torch.no_grad():
        assert compare(plain.double()(IMAGES.double()), fast.double()(IMAGES.double())).relative < 1e-14


def test_in_train_mode_it_drops_as_the_plain_model_does() -> None:
    plain, fast = (kind(**SIZES, dropout=0.3, attention_dropout=0.2).train() for kind in (vit.ViT, vit.FastViT))
    plain.load_state_dict(synthetic(plain, 0))
    fast.load_state_dict(plain.state_dict())
    with torch.no_grad():
        logits = []
        for model in (plain, fast):
            torch.manual_seed(0)
            logits.append(model(IMAGES))
        assert torch.equal(*logits)
        assert not torch.equal(logits[0], plain.eval()(IMAGES)), "nothing was dropped"
