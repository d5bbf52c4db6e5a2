"""Wrong models that agree with the reference on any random image, and right ones that look as if they were wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch._dynamo.mutation_guard import install_generation_tagging_init
from torch.nn import functional as F
from torchvision.models import vision_transformer

import vit
from parity import check
from parity.diagnosis import surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

    Tensor = torch.Tensor

SMALL = {
    "image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96,
    "num_classes": 10,
}  # fmt: skip
OURS = {"num_heads": 4, "num_layers": 2, "img_size": 32, "patch_size": 8, "embed_dim": 48, "hidden_dim": 96,
        "num_classes": 10}  # fmt: skip


class Around(nn.Module):
    """Our ViT, with something that happens before or after it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = vit.ViT(**OURS)

    def forward(self, images: Tensor) -> Any:
        return self.model(images)


def _around(
    before: Callable[[Tensor], Tensor] = lambda x: x, after: Callable[[Tensor, Tensor], Tensor] = lambda _, y: y
) -> Around:
    class Changed(Around):
        def forward(self, images: Tensor) -> Tensor:
            return after(images, self.model(before(images)))

    return Changed()


def _remembering(recall: Callable[[Tensor, Tensor], Tensor]) -> Around:
    class Remembering(Around):
        before: Tensor | None = None

        def forward(self, images: Tensor) -> Any:
            before, self.before = self.before, images.detach().clone()
            is_alike = before is not None and before.shape == images.shape and before.dtype == images.dtype
            return self.model(recall(images, before) if is_alike and before is not None else images)

    return Remembering()


def _scaled_if(condition: Callable[[Tensor], Tensor]) -> Around:
    return _around(after=lambda x, y: y * (1 + 0.5 * condition(x)[:, None]))


def _patches(x: Tensor) -> Tensor:
    return F.unfold(x, 8, stride=8)


WRONG = {
    "clamped-to-2": lambda: _around(lambda x: x.clamp(-2, 2)),
    "clamped-to-2.5": lambda: _around(lambda x: x.clamp(-2.5, 2.5)),
    "clamped-to-5": lambda: _around(lambda x: F.hardtanh(x, -5, 5)),
    "large-values-divided": lambda: _around(lambda x: x / 255 if bool(x.abs().max() > 10) else x),
    "taken-for-bytes": lambda: _around(lambda x: x / 2 if bool(x.min() >= 0) else x),
    "dark-pictures-brightened": lambda: _around(lambda x: x + 0.1 if bool(x.mean() < -1) else x),
    "bright-pictures": lambda: _scaled_if(lambda x: x.flatten(1).amin(1) > 2),
    "small-values": lambda: _scaled_if(lambda x: x.flatten(1).abs().amax(1) < 0.2),
    "blank-patches": lambda: _scaled_if(lambda x: (_patches(x).abs().amax(1) == 0).any(1)),
    "patches-of-one-colour": lambda: _scaled_if(lambda x: (_patches(x).std(1) < 1e-6).any(1)),
    "one-bright-pixel": lambda: _scaled_if(lambda x: (x != 0).any(1).flatten(1).sum(1) == 1),
    "large-logits-clamped": lambda: _around(after=lambda _, y: y.clamp(-8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_branch_that_no_random_image_reaches_is_found(name: str) -> None:
    report = check(WRONG[name](), overrides=SMALL, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.reasons[0].startswith("not the same function, as other inputs show: ")


@pytest.mark.parametrize("recall", [lambda x, before: (x + before) / 2, lambda _, before: before,
                                    lambda x, before: x + 1e-3 * before.mean()])  # fmt: skip
def test_model_that_remembers_is_no_success(recall: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert check(_remembering(recall), overrides=SMALL, modes=["eval"]).verdict in ("divergent", "inconclusive")


RIGHT = {
    "never-larger-than-float32": lambda: _around(lambda x: x.clamp(-3e38, 3e38)),
    "nan-to-num": lambda: _around(torch.nan_to_num),
    "both-sides-alike": lambda: _around(lambda x: torch.where(x > 0, x, x)),
    "an-if-without-consequence": lambda: _around(lambda x: x.contiguous() if bool(x.max() > 1) else x.clone()),
    "remembers-and-forgets": lambda: _remembering(lambda x, _: x),
}


@pytest.mark.parametrize("name", RIGHT)
def test_branch_that_changes_nothing_is_no_fault(name: str) -> None:
    assert check(RIGHT[name](), overrides=SMALL, modes=["eval"]).verdict == "identical"


def test_what_nothing_reaches_is_said_with_its_line() -> None:
    report = check(_around(lambda x: x.clamp(-1e4, 1e4)), overrides=SMALL, modes=["eval"])
    assert report.verdict == "identical"
    (note,) = (note for note in report.notes if note.startswith("not covered"))
    assert "clamp at test_false_successes.py:" in note
    assert "never reached its bound -10000" in note


def test_random_numbers_in_eval_mode_are_named_with_their_line() -> None:
    report = check(_around(lambda x: x + 1e-3 * torch.randn_like(x)), overrides=SMALL, modes=["eval"])
    assert report.verdict == "divergent"
    (reason,) = (reason for reason in report.reasons if reason.startswith("random numbers in eval mode"))
    assert "randn_like at test_false_successes.py:" in reason


def test_models_that_both_draw_are_the_same_function_and_it_is_noted() -> None:
    def drawing() -> Around:
        return _around(lambda x: x + 1e-3 * torch.randn_like(x))

    report = check(drawing(), drawing(), weights="synthetic", modes=["eval"])
    assert report.verdict == "identical"
    assert any(note.startswith("random numbers in eval mode: the logits of both models") for note in report.notes)


def test_seed_that_the_forward_pass_sets_is_a_fault() -> None:
    class Seeding(Around):
        def forward(self, images: Tensor) -> Any:
            torch.manual_seed(0)
            return self.model(images)

    report = check(Seeding(), overrides=SMALL, seed=0)
    assert report.verdict == "divergent"
    assert any("sets the seed of torch's global generator" in reason for reason in report.reasons)


def test_model_that_is_wrong_only_unwatched_and_in_train_mode_is_no_success() -> None:
    class Shy(Around):
        def forward(self, images: Tensor) -> Any:
            is_watched = any(module._forward_hooks for module in self.modules())  # noqa: SLF001
            return self.model(images) * (1 if is_watched or not self.training else 1.5)

    assert check(Shy(), overrides=SMALL).verdict == "inconclusive"


def test_hooks_on_parameters_are_there_when_gradients_are_compared() -> None:
    candidate = Around()
    candidate.model.patches.patch.weight.register_hook(lambda gradient: 0.1 * gradient)  # type: ignore[no-untyped-call]
    report = check(candidate, overrides=SMALL, modes=["eval"], phases=["forward", "backward"])
    assert report.verdict == "divergent"
    assert "conv_proj.weight" in report.reasons[0]


def _hooked(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = {0: lambda module, _, output: 1.1 * output if isinstance(module, nn.Linear) else None}
    monkeypatch.setattr(nn.modules.module, "_global_forward_hooks", hooks)


PATCHES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "torch.nn.GELU.forward": lambda patch: patch.setattr(
        nn.GELU, "forward", lambda _, x: F.gelu(x, approximate="tanh")
    ),
    "torch.nn.functional.layer_norm": lambda patch: patch.setattr(F, "layer_norm", lambda x, *_: x),
    "torchvision's VisionTransformer.forward": lambda patch: patch.setattr(
        vision_transformer.VisionTransformer, "forward", lambda _, x: x.flatten(1)[:, :10]
    ),
    "torch.equal": lambda patch: patch.setattr(torch, "equal", lambda *_: True),
    "forward_hooks (a hook on every module)": _hooked,
}


@pytest.mark.parametrize("name", PATCHES)
def test_torch_that_the_candidate_has_changed_lets_nothing_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    surroundings()

    def candidate() -> nn.Module:
        PATCHES[name](monkeypatch)
        return vit.ViT(**OURS)

    report = check(candidate, overrides=SMALL, modes=["eval"])
    assert report.verdict == "inconclusive"
    assert f"({name} is another now)" in report.reasons[0]


def test_what_torch_compile_does_to_modules_is_no_change_of_the_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    surroundings()
    for name in ("__init__", "__setstate__"):
        monkeypatch.setattr(nn.Module, name, getattr(nn.Module, name))
    install_generation_tagging_init()
    PATCHES["torch.nn.functional.layer_norm"](monkeypatch)
    assert "(torch.nn.functional.layer_norm is another now)" in surroundings().doubts()[0]


def test_torch_that_computes_the_same_by_another_function_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    gelu = F.gelu

    def candidate() -> nn.Module:
        monkeypatch.setattr(F, "gelu", lambda x, approximate="none": gelu(x, approximate=approximate))
        return vit.ViT(**OURS)

    assert check(candidate, overrides=SMALL, modes=["eval"]).verdict == "identical"
