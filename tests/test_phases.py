"""Beyond the forward pass: gradients and training."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import vit
from parity import build_pair, check, infer_mapping
from parity.diagnosis.phases import PhaseCheck
from parity.models.reference import configuration
from parity.models.weights import uniform
from parity.suite.conftest import SMALL
from parity.tracing.masks import NoDropout
from parity.tracing.modes import MODES, Mode
from parity.training.gradients import Pairs
from parity.training.recipes import INITIALISATION_SIGNIFICANCE, decayed, kolmogorov_smirnov
from parity.training.trajectories import RECIPES as LEARNING
from parity.training.trajectories import TRAJECTORY_BOUND, Course, Learner, Recipe, follow
from tests.conftest import SMALL_OPTIONS
from tests.corpus.equivalents import EQUIVALENTS
from tests.corpus.hosts import HOSTS
from tests.corpus.planting import write
from tests.planted_phases import BACKWARD, RECIPES, TRAINING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity.mapping.setup import Pair
    from parity.training.trajectories import Track


@pytest.mark.parametrize("bug", BACKWARD)
def test_bug_of_the_backward_pass_is_divergent_and_named(bug: str, tmp_path: Path) -> None:
    change, cause, where = BACKWARD[bug]
    report = check(change.write(tmp_path), overrides=SMALL, phases=["backward"])
    assert report.verdict == "divergent", report
    assert [found.id for found in report.causes] == [cause], report
    assert where in report.causes[0].where
    assert report.causes[0].statement in " ".join(report.reasons)
    assert all(made.verdict != "divergent" for made in report.checks if made.name.startswith("forward/"))


@pytest.mark.parametrize("bug", TRAINING)
def test_bug_of_training_is_divergent_and_named(bug: str, tmp_path: Path) -> None:
    change, cause, where = TRAINING[bug]
    report = check(change.write(tmp_path), overrides=SMALL, phases=["training"], steps=4)
    assert report.verdict == "divergent", report
    assert {found.id for found in report.causes} - {"dropout-in-eval"} == {cause} - {"dropout-in-eval"}, report
    # what never stops dropping shows in the forward pass as well
    assert any(found.id == cause and where in found.where for found in report.causes), report


@pytest.mark.parametrize("recipe", RECIPES)
def test_other_recipe_is_named_and_not_divergent(recipe: str, tmp_path: Path) -> None:
    change, cause, where = RECIPES[recipe]
    report = check(change.write(tmp_path), overrides=SMALL, phases=["training"], steps=2)
    assert report.verdict == "equivalent", report
    assert [found.id for found in report.causes] == [cause], report
    assert where in report.causes[0].where
    assert "other recipe" in {made.verdict for made in report.checks}
    assert report.causes[0].statement in " ".join(report.reasons)


_TOKENS_FIRST = "tokens-before-batch-throughout"


def _written(way: str, folder: Path) -> str:
    change = next(change for change in EQUIVALENTS if change.id == way)
    return write(folder, HOSTS["ours"], [change.edits_in(HOSTS["ours"])])


@pytest.mark.parametrize("way", ["attention-written-out", "final-norm-of-the-class-token-only", _TOKENS_FIRST])
def test_other_way_to_the_same_function_is_not_flagged(way: str, tmp_path: Path) -> None:
    report = check(_written(way, tmp_path), overrides=SMALL, phases=["backward", "training"], steps=3)
    assert report.verdict in ("identical", "equivalent"), report
    assert not report.causes
    assert not [made for made in report.checks if isinstance(made, PhaseCheck) and made.verdict == "not compared"]


def test_masks_that_cannot_be_aligned_are_compared_by_sites_and_said_so(tmp_path: Path) -> None:
    report = check(_written(_TOKENS_FIRST, tmp_path), overrides=SMALL, phases=["training"], steps=2)
    made = {made.name: made for made in report.checks if isinstance(made, PhaseCheck)}
    assert made["training/dropout"].verdict == "equivalent"
    assert "the same rates at the same sites" in str(made["training/dropout"].why)
    assert "without dropout" in str(made["training/adamw/float64"].why)


def test_place_of_a_gradient_that_goes_wrong(tmp_path: Path) -> None:
    """The origin is the first place backwards, given the reference's own gradient."""
    change = BACKWARD["gradient halved on the way back"].change
    report = check(change.write(tmp_path), overrides=SMALL, phases=["backward"])
    assert report.origin is not None
    assert report.origin.describe() == ("between the output of encoder.dropout and the input of encoder.layers")
    assert report.origin.isolated == pytest.approx(0.5)
    assert [place.check for place in report.origins] == ["backward/projection/float64"]


def test_forward_bug_leaves_gradients_uncompared_and_recipes_compared() -> None:
    candidate = vit.ViT(**_sizes())
    candidate.ln.eps = 1e-5
    candidate.cls_token.requires_grad_(False)
    report = check(candidate, overrides=SMALL, phases=["backward", "training"])
    verdicts = {made.name: made.verdict for made in report.checks}
    assert report.verdict == "divergent"
    assert verdicts["backward/projection/float64"] == verdicts["training/adamw"] == "not compared"
    assert verdicts["training/modes"] == "identical"
    assert [cause.id for cause in report.causes] == ["layer-norm-eps", "frozen-parameter"]
    assert "in encoder.ln" in report.reasons[0]


def test_modules_that_are_built_already_train_alike_and_are_left_alone() -> None:
    torch.manual_seed(0)
    reference = VisionTransformer(**configuration("vit_b_16", SMALL))
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.3)
    candidate = vit.ViT(**_sizes()).eval()
    candidate.load_state_dict(infer_mapping(reference, candidate).apply(reference.state_dict()))
    before = {name: tensor.clone() for name, tensor in candidate.state_dict().items()}
    candidate.head.weight.grad = torch.ones_like(candidate.head.weight)
    report = check(candidate, reference, phases=["backward", "training"], steps=2)
    assert report.verdict == "identical", report
    made = {made.name: made for made in report.checks if isinstance(made, PhaseCheck)}
    assert made["training/initialisation"].why == "the reference is a module that is built already"
    assert made["training/resume/float32"].verdict == "identical"
    assert "built already" in str(made["training/resume/float32"].why)
    assert all(torch.equal(before[name], tensor) for name, tensor in candidate.state_dict().items())
    assert all(parameter.requires_grad for parameter in candidate.parameters())
    assert candidate.head.weight.grad is not None
    assert candidate.cls_token.grad is None
    assert not candidate.training


def test_command_line_lists_phases_and_json_has_causes(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    change = BACKWARD["position embedding frozen"].change
    file = tmp_path / "report.json"
    status, out, _ = run("check", change.write(tmp_path), *SMALL_OPTIONS, "--phases", "backward", "--json", file)
    report = json.loads(file.read_text())
    assert status == 1
    assert "registration: 1 differ" in out
    assert "a frozen parameter, not a parameter" in out
    assert [cause["id"] for cause in report["causes"]] == ["frozen-parameter"]
    keys = {"id", "statement", "where", "residual", "without", "hint", "source", "candidate_code", "reference_code"}
    assert report["causes"][0].keys() == keys
    assert {"name", "verdict", "relative", "max_abs", "max_ulp", "identical"} <= report["checks"][-1].keys()
    status, _, err = run("check", *SMALL_OPTIONS, "--phases", "forwards")
    assert (status, err) == (2, "parity: --phases forwards: expected some of forward, backward, training, conditions\n")
    status, _, err = run("check", *SMALL_OPTIONS, "--phases", "training", "--steps", "0")
    assert (status, err) == (2, "parity: --steps 0: expected at least 1\n")


def test_candidate_that_is_not_deterministic_is_inconclusive_in_every_phase() -> None:
    class Random(vit.ViT):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) * (1 + 1e-6 * next(numbers))

    numbers = iter(range(10**6))
    report = check(Random(**_sizes()), overrides=SMALL, phases=["forward", "backward"], modes=["eval"])
    assert report.verdict == "inconclusive"
    assert [made.verdict for made in report.checks if isinstance(made, PhaseCheck)] == ["not compared"]


def test_candidate_that_runs_in_float32_only_is_inconclusive() -> None:
    class Narrow(vit.ViT):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if images.dtype != torch.float32:
                raise TypeError("float32 only")
            return super().forward(images)

    report = check(Narrow(**_sizes()), overrides=SMALL, phases=["backward", "training"], steps=1)
    assert report.verdict == "inconclusive"
    why = {made.name: made.why for made in report.checks if isinstance(made, PhaseCheck)}
    assert "runs in float32 and not in float64" in str(why["backward/projection/float64"])
    assert "in train mode in float64" in str(why["training/dropout"])


@pytest.mark.parametrize("recipe", LEARNING, ids=lambda recipe: recipe.name)
def test_trajectory_shows_another_weight_decay(recipe: Recipe) -> None:
    pair = build_pair("vit:ViT", overrides=SMALL)
    spared, same = (_followed(pair, recipe, decay) for decay in (0.0, recipe.weight_decay))
    assert same.identical
    assert max(measured.relative for measured in spared.worst.values()) > 100 * TRAJECTORY_BOUND


def _followed(pair: Pair, recipe: Recipe, decay: float) -> Track:
    """Follows two steps; the candidate learns with another weight decay."""
    ours, theirs = decayed(pair.reference, pair.mapping)
    pairs = Pairs.of(pair.mapping)
    order = [entry.reference for entry in pair.mapping.entries]
    mode = Mode("train", train=True, grad=True, backward=True)
    courses = [
        Course(Recipe(recipe.name, weight_decay, recipe.build), mode, 0, 2, lambda n: uniform(f"{n}", (2, 3, 48, 48)))
        for weight_decay in (recipe.weight_decay, decay)
    ]
    return follow(
        Learner(pair.reference, courses[0], torch.float64, "reference", order, ours),
        Learner(pair.candidate, courses[1], torch.float64, "candidate", pairs.entries, theirs),
        pairs,
        2,
        {},
    )


def test_kolmogorov_smirnov_tells_distributions_apart() -> None:
    same = kolmogorov_smirnov(uniform("a", (4096,)), uniform("b", (4096,)))
    wider = kolmogorov_smirnov(uniform("a", (4096,)), uniform("b", (4096,)) * 1.2)
    shifted = kolmogorov_smirnov(uniform("a", (4096,)), uniform("b", (4096,)) + 0.3)
    assert same > 0.01
    assert max(wider, shifted) < INITIALISATION_SIGNIFICANCE
    assert kolmogorov_smirnov(uniform("a", (64,)), uniform("a", (64,))) == 1.0


def test_no_dropout_keeps_every_value() -> None:
    x = uniform("x", (5, 7))
    with NoDropout():  # type: ignore[no-untyped-call]
        assert torch.equal(nn.functional.dropout(x, 0.3), x)
    assert not torch.equal(nn.functional.dropout(x, 0.3), x)
    assert MODES["train"].no_dropout is False


def _sizes() -> dict[str, Any]:
    names = {"image_size": "img_size", "hidden_dim": "embed_dim", "mlp_dim": "hidden_dim"}
    return {names.get(key, key): value for key, value in SMALL.items()}
