"""Where the scratch ViT looks: its attention weights, their rollout, and the picture of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from einops import rearrange
from PIL import Image
from torchvision import transforms

import vit.weights
from parity.models.weights import synthetic
from tests.small import OURS
from vit import FastViT, Pretrained, ViT
from vit.attention import attention_weights, drawn, main, on_patches, rollout

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model() -> ViT:
    model = ViT(**OURS, dropout=0.5)
    model.load_state_dict(synthetic(model, 0))
    return model


def test_weights_are_the_softmax_of_the_scores_in_eval_mode(model: ViT) -> None:
    images = torch.rand(2, 3, 32, 32)
    weights = attention_weights(model.train(), images)
    assert weights.shape == (2, 2, 4, 17, 17)
    assert model.training
    assert torch.equal(attention_weights(model.eval(), images), weights)
    block: Any = model.attn_layers[0]
    tokens: list[Any] = []
    handle = block.register_forward_pre_hook(lambda _, arguments: tokens.append(*arguments))
    with torch.no_grad():
        model(images)
        handle.remove()
        y = block.pre_norm(tokens[0])
        q, k, _ = torch.nn.functional.linear(y, block.attention.in_proj_weight, block.attention.in_proj_bias).chunk(
            3, -1
        )
        q, k = (rearrange(x, "b n (h d) -> b h n d", h=4) for x in (q, k))
        expected = (q @ k.transpose(-2, -1) / 12**0.5).softmax(-1)
    torch.testing.assert_close(weights[0], expected)


def test_fast_model_keeps_its_attention_to_itself() -> None:
    with pytest.raises(ValueError, match="FastViT shows no attention weights"):
        attention_weights(FastViT(**OURS), torch.rand(1, 3, 32, 32))


def test_rollout_of_one_block_is_half_of_it_and_half_of_the_stream(model: ViT) -> None:
    weights = attention_weights(model, torch.rand(1, 3, 32, 32))
    torch.testing.assert_close(rollout(weights[:1]), (weights[0].mean(1) + torch.eye(17)) / 2)
    both = rollout(weights)
    torch.testing.assert_close(both.sum(-1), torch.ones(1, 17))
    torch.testing.assert_close(both, rollout(weights[1:]) @ rollout(weights[:1]))


def test_map_of_the_patches_is_brightest_where_most_attention_is() -> None:
    tokens = torch.zeros(1, 17, 17)
    tokens[0, 0, 1 + 4 * 2 + 3] = 0.2
    assert on_patches(tokens)[0].nonzero().tolist() == [[2, 3]]
    assert on_patches(tokens).max() == 1
    sheet = drawn(Image.new("RGB", (300, 200), "white"), on_patches(tokens))
    assert sheet.size == (2 * 224 + 8, 224)
    assert sheet.getpixel((232 + 3 * 56 + 28, 2 * 56 + 28)) == (255, 255, 255)
    assert sheet.getpixel((232 + 10, 10)) == (0, 0, 0)


def test_command_draws_every_block_and_the_rollout(
    model: ViT, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare: Any = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])
    monkeypatch.setattr(vit.weights, "load", lambda *_: Pretrained(model.eval(), prepare, []))
    Image.effect_noise((64, 48), 90).save(tmp_path / "photo.png")
    assert main([str(tmp_path / "photo.png"), "-o", str(tmp_path / "out.png")]) == 0
    assert "2 blocks, and the rollout" in capsys.readouterr().out
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.size == (2 * 224 + 8, 2 * 224 + 8)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["nowhere.png"], "nowhere.png"), ([__file__], "cannot identify"), (["--name=x"], "unknown")],
)
def test_what_cannot_be_drawn_is_said_in_a_sentence(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    given = [*arguments, *([] if "png" in arguments[0] or ".py" in arguments[0] else [str(tmp_path / "photo.png")])]
    assert main([*given, "-o", str(tmp_path / "out.png")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.png").exists()
