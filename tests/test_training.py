"""Training both models side by side on real images: the same bits after every step, and weights that are good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from matplotlib import image
from safetensors.torch import load_file
from torch import nn
from torchvision.models import VisionTransformer

import vit
from examples import train_digits
from examples.train_digits import CONFIG, Race, accuracy, load_data, logits

if TYPE_CHECKING:
    from pathlib import Path


class OtherEps(vit.ViT):
    """One norm has another eps, which no initial value shows."""

    def _initialise(self) -> None:
        super()._initialise()
        self.ln.eps = 1e-5


class OneMoreNumber(vit.ViT):
    """Draws a random number that nobody uses."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.rand(())
        return super().forward(images)


class OtherStart(vit.ViT):
    """Draws its head."""

    def _initialise(self) -> None:
        super()._initialise()
        nn.init.normal_(self.head.weight)


@pytest.mark.full_size
@pytest.mark.xdist_group("trained")
def test_short_training_ends_with_weights_that_classify(trained_digits: Path) -> None:
    _, held_out = load_data()
    state = load_file(trained_digits / "weights.safetensors")
    model = VisionTransformer(**CONFIG)
    model.load_state_dict(state)
    assert accuracy(logits(model, held_out.images), held_out.labels) > 0.85
    assert {file.name for file in trained_digits.iterdir()} == {"weights.safetensors", "losses.png"}


@pytest.mark.full_size
@pytest.mark.xdist_group("trained")
def test_picture_shows_both_curves(trained_digits: Path) -> None:
    pixels = image.imread(trained_digits / "losses.png")
    assert pixels.shape == (825, 1350, 4)
    for colour in ("#f4c463", "#1d3557", "#c1121f"):
        wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (abs(pixels[..., :3] - wanted).max(-1) < 0.01).sum() > 500, colour


def test_digits_are_real_and_held_out_ones_are_others() -> None:
    training, held_out = load_data()
    assert training.images.shape == (1437, 3, 8, 8)
    assert held_out.images.shape == (360, 3, 8, 8)
    assert training.images.min() == held_out.images.min() == -1
    assert training.images.max() == held_out.images.max() == 1
    assert set(held_out.labels.tolist()) == set(range(10))
    known = {tuple(picture.flatten().tolist()) for picture in training.images}
    assert not any(tuple(picture.flatten().tolist()) in known for picture in held_out.images)


def test_norms_biases_and_embeddings_do_not_decay() -> None:
    model = vit.ViT(img_size=8, patch_size=2, embed_dim=16, hidden_dim=24, num_heads=2, num_layers=1)
    names = {id(p): name for name, p in model.named_parameters()}
    learner = train_digits.Learner(model, list(names.values()), steps=10)
    decaying, others = ({names[id(p)] for p in group["params"]} for group in learner.optimizer.param_groups)
    assert decaying == {
        "patches.patch.weight", "attn_layers.0.attention.in_proj_weight", "attn_layers.0.attention.out_proj.weight",
        "attn_layers.0.MLP.0.weight", "attn_layers.0.MLP.3.weight", "head.weight",
    }  # fmt: skip
    assert decaying | others == set(names.values())
    assert [group["weight_decay"] for group in learner.optimizer.param_groups] == [0.05, 0.0]


def test_dropout_counts() -> None:
    """Guards the comparison: with dropout, a step has moved the random generator."""
    race = Race.start()
    learner = train_digits.Learner(race.candidate, [n for n, _ in race.candidate.named_parameters()], steps=10)
    training, _ = load_data()
    before = torch.Generator().manual_seed(0).get_state()
    step = learner.step(train_digits.Digits(training.images[:8], training.labels[:8]), before)
    assert not torch.equal(step.random, before)


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ("OtherEps", "differs after step 1"),
        ("OneMoreNumber", "the random generator's state differs after step 1"),
        ("OtherStart", "head.weight differs before the first step"),
    ],
)
def test_other_training_is_told_and_has_exit_status_1(
    candidate: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--candidate", f"tests.test_training:{candidate}", "--steps", "4", "--output", str(tmp_path)]
    assert train_digits.main(arguments) == 1
    output = capsys.readouterr()
    assert message in output.err
    assert output.out.splitlines()[-1].startswith("different: ")


def test_other_parameters_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    candidate = "tests/candidates/no_qkv_bias.py:BiaslessViT"
    assert train_digits.main(["--candidate", candidate, "--steps", "4", "--output", str(tmp_path / "no")]) == 2
    assert "has other parameters: " in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
