from __future__ import annotations

import runpy
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

import vit
from vit import PRESETS, ViT

if TYPE_CHECKING:
    from collections.abc import Callable

TINY: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 16,
    "embed_dim": 32,
    "hidden_dim": 48,
    "num_heads": 4,
    "num_layers": 2,
}


def test_defaults_are_the_tutorials() -> None:
    with torch.device("meta"):
        model = ViT()
    assert sum(p.numel() for p in model.parameters()) == 86_567_656
    with torch.device("meta"):
        positional = ViT(224, 3, 16, 768, 3072, 12, 12, 0.0, 1000)
    assert positional.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "img_size", "parameters"),
    [
        ("vit_b_16", 224, 86_567_656),
        ("vit_b_32", 224, 88_224_232),
        ("vit_l_16", 224, 304_326_632),
        ("vit_l_32", 224, 306_535_400),
        ("vit_h_14", 224, 632_045_800),
        ("vit_b_16", 384, 86_859_496),
        ("vit_l_16", 512, 305_174_504),
        ("vit_h_14", 518, 633_470_440),
    ],
)
def test_presets_have_the_published_parameter_counts(name: str, img_size: int, parameters: int) -> None:
    with torch.device("meta"):
        model = ViT(img_size=img_size, **PRESETS[name]._asdict())
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_size": 33}, "img_size must be divisible by patch_size, got 33 and 16"),
        ({"embed_dim": 30}, "embed_dim must be divisible by num_heads, got 30 and 4"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"patch_size": 0}, "patch_size must be at least 1, got 0"),
        ({"representation_size": 0}, "representation_size must be at least 1, got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_their_numbers(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViT(**(TINY | change))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 32, 32), r"expected images of rank 4, .* got shape \(3, 32, 32\)"),
        ((1, 3, 32, 48), r"expected images of .* = \(3, 32, 32\), got \(3, 32, 48\)"),
        ((1, 3, 64, 64), r"got \(3, 64, 64\); resize them"),
        ((1, 1, 32, 32), r"got \(1, 32, 32\)"),
    ],
)
def test_images_of_another_shape_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViT(**TINY)(torch.zeros(shape))


def test_other_channels_are_possible() -> None:
    assert ViT(**TINY, in_channels=1, num_classes=7)(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_fresh_models_logits_are_zero() -> None:
    assert not ViT(**TINY)(torch.randn(2, 3, 32, 32)).any()


def _run_module(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["vit", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("vit", run_name="__main__")
    return int(ended.value.code or 0)


def test_module_prints_the_model_its_counts_and_its_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run_module(monkeypatch, "vit_b_32") == 0
    out = capsys.readouterr().out
    assert "AttentionBlock" in out
    assert "88,224,232 total parameters." in out
    assert "88,224,232 training parameters." in out
    assert out.endswith("Output shape: (1, 1000)\n")


def test_module_lists_the_presets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run_module(monkeypatch, "--list") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(PRESETS)


@pytest.mark.parametrize("arguments", [["vit_x"], ["vit_b_16", "--img-size", "225"]])
def test_module_refuses_what_it_cannot_build(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run_module(monkeypatch, *arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vit.load("vit_x"), "unknown model 'vit_x'; the presets are vit_b_16"),
        (lambda: vit.load("vit_b_16", "IMAGENET1K_V7"), "expected synthetic, official, .*IMAGENET1K_V1"),
    ],
)
def test_load_refuses_unknown_names(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
