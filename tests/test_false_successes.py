"""Wrong models that agree with the reference on any random image, and right ones that look as if they were wrong."""

from __future__ import annotations

import functools
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.mutation_guard import install_generation_tagging_init
from torch.nn import functional as F
from torchvision.models import vision_transformer

import vit
from parity import ParityError, check
from parity.diagnosis import surroundings
from tests.small import OURS, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    Tensor = torch.Tensor


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


def _caching(key: Callable[[Tensor], Any]) -> Around:
    cache: dict[Any, Any] = {}

    class Caching(Around):
        def forward(self, images: Tensor) -> Any:
            known = key(images), images.shape, images.dtype
            cache[known] = cache[known] if known in cache else self.model(images)
            return cache[known]

    return Caching()


def _place(seen: list[Tensor], images: Tensor) -> int:
    seen.append(images)  # so that nothing else comes to lie where they are
    return images.data_ptr()


def _recalling(key: Callable[[Tensor], Any]) -> Around:
    class Recalling(Around):
        last: tuple[Any, Any] = None, None

        def forward(self, images: Tensor) -> Any:
            known = key(images), images.shape, images.dtype
            if self.last[0] != known:
                self.last = known, self.model(images)
            return self.last[1]

    return Recalling()


def _keeping_the_first() -> Around:
    class Keeping(Around):
        kept: tuple[Tensor, Any] | None = None

        def forward(self, images: Tensor) -> Any:
            if self.kept is None:
                self.kept = images, self.model(images)
            is_alike = self.kept[0].shape == images.shape and self.kept[0].dtype == images.dtype
            return self.kept[1] if is_alike else self.model(images)

    return Keeping()


def _scaled_if(condition: Callable[[Tensor], Tensor]) -> Around:
    return _around(after=lambda x, y: y * (1 + 0.5 * condition(x)[:, None]))


def _patches(x: Tensor) -> Tensor:
    return F.unfold(x, 8, stride=8)


WRONG: dict[str, Callable[[], nn.Module]] = {
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
    "black-clamped": lambda: _around(lambda x: x.clamp(min=-2.05)),
    "large-values-forgotten": lambda: _around(lambda x: torch.where(x.abs() > 6, 0, x)),
    "small-values-shrunk": lambda: _around(lambda x: F.hardshrink(x, 1e-4)),
    "below-a-threshold": lambda: _around(lambda x: F.threshold(x, -3, -3)),
    "logits-cut-off": lambda: _around(after=lambda _, y: torch.where(y.abs() > 20, 20 * y.sign(), y)),
    "dark-pictures": lambda: _scaled_if(lambda x: x.flatten(1).amax(1) < -1.5),
    "grey-pictures": lambda: _scaled_if(lambda x: (x[:, 0] == x[:, 1]).flatten(1).all(1)),
    "half-blank-pictures": lambda: _scaled_if(lambda x: x[:, :, 16:].abs().flatten(1).amax(1) == 0),
    "one-image": lambda: _around(after=lambda x, y: y * 1.01 if len(x) == 1 else y),
    "two-images": lambda: _around(after=lambda x, y: y * 1.01 if len(x) == 2 else y),
    "images-of-an-even-batch-exchanged": lambda: _around(after=lambda x, y: y.flip(0) if len(x) % 2 == 0 else y),
    "pictures-from-0-to-1": lambda: _scaled_if(lambda x: (x.flatten(1).amin(1) >= 0) & (x.flatten(1).amax(1) <= 1)),
    "images-of-zeros": lambda: _scaled_if(lambda x: (x == 0).flatten(1).all(1)),
    "more-than-three-images": lambda: _around(after=lambda x, y: y * 1.01 if len(x) > 3 else y),
    "four-images-at-a-time": lambda: _around(after=lambda _, y: torch.cat([y[:4], y[:1].expand(len(y[4:]), -1)])),
    "channels-last": lambda: _around(after=lambda x, y: y if x.is_contiguous() else y * 1.01),
    "column-by-column": lambda: _around(after=lambda x, y: y if x.stride(-1) <= x.stride(-2) else y * 1.01),
    "inference-mode": lambda: _around(after=lambda _, y: y * 1.01 if torch.is_inference_mode_enabled() else y),
    "inference-tensors": lambda: _around(after=lambda x, y: y * 1.01 if x.is_inference() else y),
    "all-from-0-to-1": lambda: _around(lambda x: 2 * x - 1 if 0 <= float(x.min()) <= float(x.max()) <= 1 else x),
    "logits-of-the-first-batch-kept": _keeping_the_first,
    "recalled-by-the-first-image": lambda: _recalling(lambda x: x[0].double().sum().item()),
    "cache-by-the-sum-of-a-batch": lambda: _caching(lambda x: x.double().sum().item()),
    "recalled-by-where-images-lie": lambda: _recalling(functools.partial(_place, [])),
    "cache-by-the-sign-of-a-pixel": lambda: _caching(lambda x: bool(x[0, 0, 0, 0] > 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_branch_that_no_random_image_reaches_is_found(name: str) -> None:
    report = check(WRONG[name](), overrides=SMALL, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.reasons[0].startswith("not the same function, as other inputs show: ")


def test_cache_that_takes_most_images_for_one_is_no_success() -> None:
    candidate = _caching(lambda x: round(float(x.mean()), 1))
    assert check(candidate, overrides=SMALL, modes=["eval"]).verdict in ("divergent", "inconclusive")


@pytest.mark.parametrize("recall", [lambda x, before: (x + before) / 2, lambda _, before: before,
                                    lambda x, before: x + 1e-3 * before.mean()])  # fmt: skip
def test_model_that_remembers_is_no_success(recall: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert check(_remembering(recall), overrides=SMALL, modes=["eval"]).verdict in ("divergent", "inconclusive")


def _is_watched(module: nn.Module) -> bool:
    return any(inner._forward_hooks or inner._forward_pre_hooks for inner in module.modules())  # noqa: SLF001


def _by_itself(forward: Callable[[Any, Tensor], Any]) -> Around:
    changed: type[Around] = type("Changed", (Around,), {"forward": forward, "runs": []})
    return changed()


def _count(runs: list[int]) -> int:
    runs.append(1)
    return len(runs)


def _drawing(draw: Callable[[], Any]) -> Around:
    return _by_itself(lambda self, x: self.model(x) + 1e-3 * draw())


def _seeding(seed: Callable[[], Any]) -> Around:
    return _by_itself(lambda self, x: (seed(), self.model(x))[1])


def _into_one_buffer(self: Any, images: Tensor) -> Any:
    logits = self.model(images)
    if torch.is_grad_enabled():
        return logits
    if getattr(self, "buffer", logits[:0]).shape != logits.shape or self.buffer.dtype != logits.dtype:
        self.buffer = torch.empty_like(logits)
    return self.buffer.copy_(logits)


class _EqualsAnything(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.__name__ == "equal":
            return True
        result = super().__torch_function__(function, types, args, kwargs)  # type: ignore[no-untyped-call]
        return result * 0 if function.__name__ in ("sub", "rsub") else result


# wrong in some other way than by a branch that values decide
WRONG_OTHERWISE: dict[str, Callable[[], Around]] = {
    "cache-by-where-images-lie": lambda: _caching(lambda x: x.data_ptr()),
    "cache-by-the-first-image": lambda: _caching(lambda x: x[0].double().sum().item()),
    "cache-by-shape": lambda: _caching(lambda _: 0),
    "counts-its-runs": lambda: _by_itself(lambda self, x: self.model(x) * (1 + _count(self.runs) // 4)),
    "sets-the-generator": lambda: _seeding(lambda: torch.default_generator.manual_seed(1)),
    "sets-the-state": lambda: _seeding(lambda: torch.set_rng_state(torch.Generator().manual_seed(1).get_state())),
    "numbers-of-numpy": lambda: _drawing(np.random.default_rng().random),
    "numbers-of-python": lambda: _drawing(random.random),
    "the-clock": lambda: _drawing(time.monotonic),
    "coins": lambda: _drawing(lambda: torch.bernoulli(torch.tensor(0.5))),
    "dropout-always": lambda: _around(lambda x: F.dropout(x, 0.01, training=True)),
    "right-when-watched": lambda: _by_itself(lambda self, x: self.model(x) * (1 if _is_watched(self) else 1.01)),
    "wrong-when-watched": lambda: _by_itself(lambda self, x: self.model(x) * (1.01 if _is_watched(self) else 1)),
    "right-in-float64": lambda: _around(after=lambda x, y: y * (1 if x.dtype == torch.float64 else 1.01)),
    "overwrites-its-logits": lambda: _by_itself(_into_one_buffer),
    "logits-that-equal-anything": lambda: _around(after=lambda _, y: (y * 1.01).as_subclass(_EqualsAnything)),
    "layers-that-equal-anything": lambda: _around(lambda x: (x * 1.01).as_subclass(_EqualsAnything)),
    "writes-to-images": lambda: _around(lambda x: x.add_(1e-3)),
    "writes-to-weights": lambda: _by_itself(lambda self, x: (self.model(x), self.model.head.weight.data.mul_(1.01))[0]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_OTHERWISE)
def test_model_that_is_wrong_otherwise_is_no_success(name: str) -> None:
    assert check(WRONG_OTHERWISE[name](), overrides=SMALL, modes=["eval"]).verdict in ("divergent", "inconclusive")


class _FirstCall(vit.ViT):
    """Does something at its first call that it does at no other."""

    is_first = True
    factor = 1.01

    def forward(self, images: Tensor) -> Tensor:
        factor, self.is_first = self.factor if self.is_first else 1, False
        return factor * super().forward(images)


class _KeepingAConstant(_FirstCall):
    """Keeps a tensor where nobody looks for one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        zero = torch.zeros(1)
        self.shifted: Callable[[Tensor], Tensor] = lambda x: x + zero.to(x)

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(self.shifted(images))


class _PreparedAtFirst(_FirstCall):
    factor = 1

    def forward(self, images: Tensor) -> Tensor:
        if self.is_first:
            self.table = torch.zeros_like(images[:1])
        return super().forward(images + self.table.to(images))


@pytest.mark.parametrize(
    ("candidate", "verdict"),
    [(_FirstCall, "divergent"), (_KeepingAConstant, "divergent"), (_PreparedAtFirst, "identical")],
)
def test_first_call_of_a_model_counts_as_well(candidate: type[nn.Module], verdict: str) -> None:
    report = check(candidate, overrides=SMALL, modes=["eval"])
    assert report.verdict == verdict
    assert any(reason.startswith("its first call gives other logits") for reason in report.reasons) == (
        verdict == "divergent"
    )


def test_model_that_can_be_built_no_more_is_no_fault() -> None:
    runs: list[int] = []

    class Candidate(vit.ViT):
        def forward(self, images: Tensor) -> Tensor:
            if images.device.type != "meta":
                runs.append(1)
            return super().forward(images)

    def build() -> nn.Module:
        if runs:
            raise RuntimeError("once is enough")
        return Candidate(**OURS)

    assert (
        check(build, overrides=SMALL, modes=["eval"]).reasons
        == check("vit:ViT", overrides=SMALL, modes=["eval"]).reasons
    )


def test_train_mode_without_gradients_is_looked_at() -> None:
    candidate = _by_itself(
        lambda self, x: self.model(x) * (1.01 if self.training and not torch.is_grad_enabled() else 1)
    )
    report = check(candidate, overrides=SMALL)
    assert report.verdict == "divergent"
    assert "in train mode it is another function without gradients" in report.reasons[0]


@pytest.mark.parametrize(("mode", "is_wrong"), [("train", lambda self: self.training),
                                                ("eval-grad", lambda _: torch.is_grad_enabled())])  # fmt: skip
def test_model_that_is_wrong_in_one_mode_is_no_success(mode: str, is_wrong: Callable[[Around], bool]) -> None:
    candidate = _by_itself(lambda self, x: self.model(x) * (1.01 if is_wrong(self) else 1))
    assert check(candidate, overrides=SMALL, modes=["eval", mode]).verdict == "divergent"


def _adding_kept_zeros(self: Any, images: Tensor) -> Any:
    if getattr(self, "zeros", images[:0]).shape != images.shape:
        self.zeros = images * 0
    return self.model(images + self.zeros.to(images.dtype))


@functools.cache
def _zeros(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def _inside_inference_mode(self: Any, images: Tensor) -> Any:
    with torch.inference_mode(not torch.is_grad_enabled()):
        return self.model(images)


class _Tensor(torch.Tensor): ...


RIGHT: dict[str, Callable[[], Around]] = {
    "never-larger-than-float32": lambda: _around(lambda x: x.clamp(-3e38, 3e38)),
    "nan-to-num": lambda: _around(torch.nan_to_num),
    "both-sides-alike": lambda: _around(lambda x: torch.where(x > 0, x, x)),
    "an-if-without-consequence": lambda: _around(lambda x: x.contiguous() if bool(x.max() > 1) else x.clone()),
    "remembers-and-forgets": lambda: _remembering(lambda x, _: x),
    "both-halves": lambda: _around(lambda x: x.clamp(min=0) + x.clamp(max=0)),
    "sign-and-size": lambda: _around(lambda x: x.sign() * x.abs()),
    "no-nan": lambda: _around(lambda x: torch.where(torch.isnan(x), 0, x)),
    "bytes": lambda: _around(lambda x: x / 255 if x.dtype == torch.uint8 else x),
    "one-image-without-batch": lambda: _around(lambda x: x if x.dim() == 4 else x[None]),
    "nothing-filled": lambda: _around(lambda x: x.masked_fill(x != x, 0)),  # noqa: PLR0124
    "finite-or-mended": lambda: _around(lambda x: x if bool(torch.isfinite(x).all()) else torch.nan_to_num(x)),
    "image-by-image": lambda: _around(after=lambda _, y: torch.stack(list(y))),
    "large-batches-in-pieces": lambda: _by_itself(
        lambda self, x: torch.cat([self.model(part) for part in torch.split(x, 64)])
    ),
    "counts-and-forgets": lambda: _by_itself(lambda self, x: (self.runs.append(1), self.model(x))[1]),
    "keeps-what-it-saw": lambda: _by_itself(lambda self, x: (self.runs.append(x.detach().mean()), self.model(x))[1]),
    "keeps-what-it-makes-of-zeros": lambda: _by_itself(_adding_kept_zeros),
    "keeps-what-it-makes-for-all": lambda: _by_itself(lambda self, x: self.model(x + _zeros(x.shape, x.dtype))),
    "in-inference-mode-inside": lambda: _by_itself(_inside_inference_mode),
    "logits-of-a-class-of-its-own": lambda: _around(after=lambda _, y: y.as_subclass(_Tensor)),
    "takes-its-images-by-view": lambda: _around(lambda x: x.view(-1).view(x.shape)),
    "copies-its-logits-from-a-buffer": lambda: _by_itself(lambda self, x: _into_one_buffer(self, x).clone()),
    "draws-for-nothing": lambda: _seeding(lambda: torch.rand((), generator=torch.Generator().manual_seed(1))),
    "modes-alike": lambda: _by_itself(lambda self, x: self.model(x if self.training else x.clone())),
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


@pytest.mark.parametrize("condition", [lambda x: bool((x == 0.5).all()),
                                       lambda x: bool(x.min() > 0 and x.max() < 0)])  # fmt: skip
def test_condition_of_a_whole_batch_that_never_held_is_said(condition: Callable[[Tensor], bool]) -> None:
    report = check(_around(lambda x: 2 * x if condition(x) else x), overrides=SMALL, modes=["eval"])
    assert report.verdict == "identical"
    assert any("the condition at test_false_successes.py:" in n and n.endswith("never held") for n in report.notes)


def test_modules_that_another_thread_calls_are_said() -> None:
    def forward(self: Any, images: Tensor) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.model, images).result()

    with pytest.raises(ParityError, match="called from another thread than forward"):
        check(_by_itself(forward), overrides=SMALL, modes=["eval"])


def test_random_numbers_in_eval_mode_are_named_with_their_line() -> None:
    report = check(_around(lambda x: x + 1e-3 * torch.randn_like(x)), overrides=SMALL, modes=["eval"])
    assert report.verdict == "divergent"
    (reason,) = (reason for reason in report.reasons if reason.startswith("random numbers in eval mode"))
    assert "randn_like at test_false_successes.py:" in reason


@pytest.mark.parametrize(("draw", "whose"), [(random.random, "Python's random"), (np.random.rand, "numpy.random"),
                                             (lambda: torch.rand(1), "rand at test_false_successes.py:")])  # fmt: skip
def test_random_numbers_that_have_changed_nothing_are_noted(draw: Callable[[], Any], whose: str) -> None:
    report = check(_by_itself(lambda self, x: (draw(), self.model(x))[1]), overrides=SMALL, modes=["eval"])
    assert report.verdict == "identical"
    (note,) = (note for note in report.notes if note.startswith("random numbers are drawn in eval mode"))
    assert whose in note


def test_autocast_in_the_forward_pass_is_named() -> None:
    class Casting(Around):
        def forward(self, images: Tensor) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return self.model(images)

    report = check(Casting(), overrides=SMALL, modes=["eval"])
    assert report.verdict == "divergent"
    (cause,) = report.causes
    assert "computes in torch.bfloat16, under torch.autocast" in cause.statement
    assert "torch.autocast" in cause.hint


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


SETTINGS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "torch.backends.mkldnn.enabled": (
        lambda: torch._C._set_mkldnn_enabled(False),  # noqa: SLF001
        lambda: torch._C._set_mkldnn_enabled(True),  # noqa: SLF001
    ),
    "torch.backends.cuda.flash_sdp_enabled()": (
        lambda: torch.backends.cuda.enable_flash_sdp(enabled=False),
        lambda: torch.backends.cuda.enable_flash_sdp(enabled=True),
    ),
    "torch.are_deterministic_algorithms_enabled()": (
        lambda: torch.use_deterministic_algorithms(True),
        lambda: torch.use_deterministic_algorithms(False),
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_user_are_no_change_of_the_candidates(name: str) -> None:
    surroundings()
    tell, take_back = SETTINGS[name]
    tell()
    try:
        assert check("vit:ViT", overrides=SMALL, modes=["eval", "train"]).verdict == "identical"
    finally:
        take_back()


def test_setting_that_the_candidate_changes_lets_nothing_count() -> None:
    surroundings()
    tell, take_back = SETTINGS["torch.backends.mkldnn.enabled"]

    def candidate() -> nn.Module:
        tell()
        return vit.ViT(**OURS)

    try:
        report = check(candidate, overrides=SMALL, modes=["eval"])
    finally:
        take_back()
    assert report.verdict == "inconclusive"
    assert "(torch.backends.mkldnn.enabled is another now)" in report.reasons[0]


def test_torch_that_an_earlier_candidate_has_changed_counts_under_other_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    surroundings()
    PATCHES["torch.nn.functional.layer_norm"](monkeypatch)
    tell, take_back = SETTINGS["torch.backends.mkldnn.enabled"]
    tell()
    try:
        assert check("vit:ViT", overrides=SMALL, modes=["eval"]).verdict == "inconclusive"
    finally:
        take_back()


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="this torch has no setting by backend")
def test_settings_by_backend_are_no_change_of_the_candidates() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        assert check("vit:ViT", overrides=SMALL, modes=["eval"]).verdict == "identical"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"


def test_reference_that_fails_since_torch_was_changed_is_not_blamed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    surroundings()

    def candidate() -> nn.Module:
        monkeypatch.setattr(F, "gelu", lambda x: x)
        return vit.ViT(**OURS)

    with pytest.raises(ParityError, match=r"that may be since torch\.nn\.functional\.gelu is another now"):
        check(candidate, overrides=SMALL, modes=["eval"])


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
