"""Candidates of other sizes: compared with torchvision's ViT of their sizes, and never passed as the one asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

import vit
from parity import ParityError, assert_parity, check, infer_mapping
from parity.models import configuration
from tests.odd_vit import OddViT
from tests.small import OURS, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity.report.report import Report

pytest_plugins = ["pytester"]


def _built(**changes: Any) -> VisionTransformer:
    return VisionTransformer(**configuration("vit_b_16", {**SMALL, **changes}))


def _check(candidate: Any, **options: Any) -> Report:
    return check(candidate, **{"overrides": SMALL, "modes": ["eval"], **options})


KINDS = [
    ({"num_layers": 3}, "your model has 3 blocks, the reference has 2", "3 blocks"),
    ({"hidden_dim": 64}, "your model is 64 wide, the reference is 48", "width 64"),
    ({"hidden_dim": 40, "num_heads": 5}, "your model is 40 wide, the reference is 48", "width 40, 5 heads"),
    ({"mlp_dim": 80}, "your model's MLP is 80 wide, the reference's 96", "MLP width 80"),
    ({"mlp_dim": 2048}, "your model's MLP is 2048 wide, the reference's 96", "MLP width 2048"),
    ({"num_heads": 8}, "your model has 8 heads, the reference has 4", "8 heads"),
    ({"patch_size": 4}, "your model's patches are 4 pixels wide, the reference's 8", "patches of 4 pixels"),
    ({"image_size": 40}, "your model is for images of 40 pixels, the reference for 32", "images of 40 pixels"),
    ({"num_classes": 7}, "your model has 7 classes, the reference has 10", "7 classes"),
]


@pytest.mark.parametrize(("changes", "sentence", "phrase"), KINDS, ids=[phrase for *_, phrase in KINDS])
def test_instance_of_another_size_is_divergent_and_followed_only_when_asked(
    changes: dict[str, int], sentence: str, phrase: str
) -> None:
    model = _built(**changes)
    report = _check(model)
    assert report.verdict == "divergent"
    setting, size = next(iter(changes.items()))
    assert report.reasons[0] == f"{sentence}: it is built already; compare with --set {setting}={size}"
    beside = f"beside a vit_b_16 of your model's sizes ({phrase}) it is identical; where these sizes are meant, say"
    assert report.reasons[len(changes)] == f"{beside} --follow"
    assert report.causes == []
    report = _check(model, follow=True)
    assert report.verdict == "identical"
    assert report.reasons[0].startswith(
        f"beside a vit_b_16 of your model's sizes, which --follow takes as meant: {phrase};"
    )
    assert report.reference["config"][setting] == size
    assert report.reference["asked"] == {key: SMALL[key] for key in changes}


class Scaled(nn.Module):
    """A ViT for images of 56 pixels, whatever anybody says, with scaled branches and another eps."""

    def __init__(self) -> None:
        super().__init__()
        width = 40
        self.patches, self.side = nn.Conv2d(3, width, 14, 14), 56
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, width))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(
            width, 4, 72, 0.0, "gelu", 1e-5, batch_first=True, norm_first=True) for _ in range(3))  # fmt: skip
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] == self.side
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(self.norm(x)[:, 0])
        return logits


def test_whatever_else_differs_is_found_at_the_candidates_sizes() -> None:
    report = _check(Scaled)
    assert report.verdict == "divergent"
    said = "\n".join(report.reasons[:7])
    for setting in ("num_layers=3", "hidden_dim=40", "mlp_dim=72", "patch_size=14", "image_size=56", "num_classes=7"):
        assert f"it takes no arguments; compare with --set {setting}" in said
    assert [cause.statement for cause in report.causes] == [
        "LayerNorm eps 1e-05 in ln_1 and ln_2 of all 3 blocks; the reference has 1e-06"
    ]
    assert report.explanation is not None
    assert report.explanation.complete
    followed = _check(Scaled, follow=True)
    assert followed.verdict == "divergent"
    assert followed.reasons[0].endswith(
        "3 blocks, width 40, MLP width 72, patches of 14 pixels, images of 56 pixels, 7 classes; asked for were "
        "2 blocks, width 48, MLP width 96, patches of 8 pixels, images of 32 pixels, 10 classes"
    )


class Resampling(nn.Module):
    """Takes images of any size, and has a table of positions for 40 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size, self.inner = 40, _built(image_size=40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(F.interpolate(x, (40, 40)))  # type: ignore[no-any-return]


def test_model_that_resamples_is_compared_at_the_size_that_it_is_for() -> None:
    assert _check(Resampling()).reasons[0].startswith("your model is for images of 40 pixels, the reference for 32: ")
    assert _check(Resampling(), follow=True).verdict in ("identical", "equivalent")


class Moving(OddViT):
    """Puts tensors where it says, and ends in a Softmax, whose `dim` is an axis."""

    def __init__(self) -> None:
        super().__init__({})
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.zeros(len(x), 3, 32, 32).to("cpu")
        return self.softmax(super().forward(torch.cat([x, noise], 1)[:, :3]))  # type: ignore[no-any-return]


def test_model_that_moves_tensors_is_compared_at_its_size() -> None:
    report = _check(Moving, overrides={**SMALL, "hidden_dim": 64})
    assert report.reasons[0].startswith("your model is 48 wide, the reference is 64: ")
    assert [cause.id for cause in report.causes] == ["output-activation"]


def test_size_that_was_given_and_is_not_heeded_stays_a_cause() -> None:
    def build(image_size: int, depth: int) -> Any:
        return _built(image_size=image_size, num_layers=depth - 1)

    report = _check(build)
    assert report.verdict == "divergent"
    assert report.reasons[0].startswith("your model has 1 block, the reference has 2: `depth` was given as 2, and the")
    assert report.reference["asked"] == {}
    assert [cause.id for cause in report.causes] == ["block-missing"]
    assert _check(build, follow=True).verdict == "identical"


def test_exit_statuses(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "fixed.py"
    file.write_text(
        "from torchvision.models import VisionTransformer\n"
        "def build():\n    return VisionTransformer(32, 8, 3, 4, 48, 96, num_classes=10)\n"
    )
    options = [f"--set={key}={value}" for key, value in SMALL.items()]
    status, out, _ = run("check", f"{file}:build", *options)
    assert (status, out.splitlines()[-1][:9]) == (1, "divergent")
    status, out, _ = run("check", f"{file}:build", *options, "--follow", "--json", "-")
    report = json.loads(out)
    assert (status, report["verdict"], report["reference"]["asked"]) == (0, "identical", {"num_layers": 2})
    status, _, err = run("check", f"{file}:build", "--reference", f"{file}:build", "--follow")
    assert status == 2
    assert "--follow gives a ViT of torchvision's other sizes" in err
    with pytest.raises(AssertionError, match="your model has 3 blocks"):
        assert_parity(_built(num_layers=3), overrides=SMALL, modes=["eval"])
    assert_parity(_built(num_layers=3), overrides=SMALL, modes=["eval"], follow=True, require="identical")


def test_plugin_follows_a_reference_of_torchvisions(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "from torchvision.models import VisionTransformer\n"
        f"SMALL = {SMALL}\n"
        "def build():\n    return VisionTransformer(32, 8, 3, 4, 48, 96, num_classes=10)\n"
        "def test_port(assert_parity):\n    assert_parity(build, overrides=SMALL, modes=['eval'])\n"
        "def test_module(assert_parity):\n"
        "    assert_parity(build, build().eval(), weights='synthetic', modes=['eval'])\n"
    )
    pytester.runpytest().assert_outcomes(passed=1, failed=1)
    pytester.runpytest("--parity-follow").assert_outcomes(passed=2)
    pytester.makeini("[pytest]\nparity_follow = true\n")
    pytester.runpytest().assert_outcomes(passed=2)


def test_weights_of_another_size_are_left_out_and_said(tmp_path: Path) -> None:
    model = _built(num_layers=3)
    nn.init.normal_(model.heads.head.weight)
    file, own = tmp_path / "weights.pth", tmp_path / "own.pth"
    torch.save(_built().state_dict(), file)
    torch.save(model.state_dict(), own)
    report = _check(lambda: _built(num_layers=3), weights=str(file), follow=True)
    assert report.verdict == "identical"
    assert f"{file} are of other sizes than the candidate, so both models hold synthetic weights" in report.notes
    report = _check(model, weights=str(file), follow=True)
    assert report.verdict == "inconclusive"
    assert report.reasons[1] == "the candidate's own weights could not be compared"
    report = _check(model, weights=str(own), follow=True)
    assert (report.verdict, report.reference["weights"]) == ("identical", str(own))
    torch.save(_built(num_layers=5).state_dict(), file)
    with pytest.raises(ParityError, match="don't fit the reference"):
        _check(model, weights=str(file), follow=True)


def test_reference_of_somebody_elses_keeps_its_sizes() -> None:
    report = _check(_built(num_classes=7), reference=_built(), overrides=None)
    assert report.verdict == "divergent"
    assert report.reasons[0] == (
        "your model has 7 classes, the reference has 10: it is built already; compare with a reference of that size"
    )


class _Wider(nn.Module):
    """Attention of heads that are 64 features wide, whatever the model's width is; of one projection or of three."""

    def __init__(self, width: int, *, is_fused: bool) -> None:
        super().__init__()
        inner = (3 * 256,) if is_fused else (256, 256, 256)
        self.projections = nn.ModuleList(nn.Linear(width, features) for features in inner)
        self.out = nn.Linear(256, width)

    def forward(self, x: torch.Tensor, *_: torch.Tensor, **__: bool) -> tuple[torch.Tensor, None]:
        together = torch.cat([projection(x) for projection in self.projections], dim=-1)
        q, k, v = together.reshape(*x.shape[:2], 3, 4, 64).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)), None


@pytest.mark.parametrize("is_fused", [True, False])
def test_attention_of_another_width_is_told_with_the_reference_to_compare(*, is_fused: bool) -> None:
    def build(hidden_dim: int = 48) -> nn.Module:
        model = vit.ViT(**{**OURS, "embed_dim": hidden_dim})
        for block in model.attn_layers:
            block.attention = _Wider(hidden_dim, is_fused=is_fused)
        return model

    (cause,) = _check(build).causes
    assert cause.statement.startswith("4 heads of 64 features")
    assert cause.hint.endswith("or, if yours are 64 wide at any width, compare with --set hidden_dim=256")
    assert _check(build, overrides={**SMALL, "hidden_dim": 256}).verdict == "equivalent"


class _SharedNorms(nn.Module):
    """A norm before both branches of a block, or two that all blocks share; its MLP is `times` as wide as a token."""

    def __init__(self, times: int, *, are_blocks_own: bool, classified: int = 1) -> None:
        super().__init__()
        self.patches, self.classified = nn.Conv2d(3, 48, 8, 8), classified
        self.token, self.table = nn.Parameter(torch.zeros(1, 1, 48)), nn.Parameter(torch.zeros(1, 17, 48))
        layers = [
            (nn.Linear(48, 144), nn.Linear(48, 48), nn.Linear(48, 48 * times), nn.Linear(48 * times, 48))
            for _ in range(2)
        ]
        self.layers = nn.ModuleList(
            nn.ModuleList([*layer, *([nn.LayerNorm(48, eps=1e-6)] if are_blocks_own else [])]) for layer in layers
        )
        self.norms = nn.ModuleList([] if are_blocks_own else [nn.LayerNorm(48, eps=1e-6) for _ in range(2)])
        self.last, self.head = nn.LayerNorm(48, eps=1e-6), nn.Linear(48 * classified, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.table
        for layer in self.layers:
            qkv, proj, fc1, fc2, *own = cast("nn.ModuleList", layer)
            before, between = (own[0], own[0]) if own else self.norms
            q, k, v = qkv(before(x)).reshape(*x.shape[:2], 3, 4, 12).permute(2, 0, 3, 1, 4)
            x = x + proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            x = x + fc2(F.gelu(fc1(between(x))))
        logits: torch.Tensor = self.head(self.last(x)[:, : self.classified].flatten(1))
        return logits


@pytest.mark.parametrize(("times", "are_blocks_own"), [(4, False), (1, True)])
def test_norms_that_are_shared_hide_no_width(times: int, *, are_blocks_own: bool) -> None:
    report = _check(lambda: _SharedNorms(times, are_blocks_own=are_blocks_own))
    assert report.reasons[0].startswith(f"your model's MLP is {48 * times} wide, the reference's 96: ")
    assert {cause.id for cause in report.causes} == {"norm-shared"}
    assert report.explanation is not None
    assert report.explanation.complete


def test_a_head_on_many_tokens_hides_no_width() -> None:
    report = _check(lambda: _SharedNorms(1, are_blocks_own=True, classified=17))
    assert report.reasons[0].startswith("your model's MLP is 48 wide, the reference's 96: ")
    assert "norm-shared" in {cause.id for cause in report.causes}


def test_what_follows_an_attention_is_its_projection_whatever_else_is_as_wide() -> None:
    reference = _built()
    found = infer_mapping(reference, _SharedNorms(1, are_blocks_own=True))
    of_out = {e.candidate for e in found.entries if "out_proj.weight" in e.reference}
    assert of_out == {"layers.0.1.weight", "layers.1.1.weight"}


class _Summed(nn.Module):
    """Attention whose heads are projected one by one with their columns of one matrix, and added."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.ModuleList(nn.Linear(48, 12) for _ in range(4)) for _ in range(3))
        self.out = nn.Linear(48, 48)

    def forward(self, x: torch.Tensor, *_: torch.Tensor, **__: bool) -> tuple[torch.Tensor, None]:
        columns = self.out.weight.chunk(4, 1)
        total = self.out.bias.expand_as(x)
        for query, key, value, column in zip(self.query, self.key, self.value, columns, strict=True):
            total = total + F.scaled_dot_product_attention(query(x), key(x), value(x)) @ column.T
        return total, None


def test_heads_of_their_own_are_no_other_width() -> None:
    def build() -> nn.Module:
        model = vit.ViT(**OURS)
        for block in model.attn_layers:
            block.attention = _Summed()
        return model

    assert _check(build).verdict == "equivalent"


def test_more_blocks_than_were_asked_for_are_followed() -> None:
    """An argument that nobody heeds says nothing; what the blocks do is compared with as many of the reference's."""

    def build(num_layers: int = 12) -> nn.Module:  # noqa: ARG001
        model = vit.ViT(**{**OURS, "num_layers": 4})
        for block in model.attn_layers:
            assert isinstance(block, vit.AttentionBlock)
            block.pre_norm.eps = 1e-5
        return model

    report = _check(build)
    assert report.reasons[0].startswith("your model has 4 blocks, the reference has 2")
    assert [cause.id for cause in report.causes] == ["layer-norm-eps"]
    assert report.explanation is not None
    assert report.explanation.complete


def test_number_that_no_run_shows_is_not_taken_from_an_attribute() -> None:
    """A module that is called twice in each block hides how many blocks there are, and the attribute is wrong."""

    class Unheeding(nn.Module):
        def __init__(self, n_blocks: int = 12) -> None:
            super().__init__()
            self.n_blocks, self.model = n_blocks, vit.ViT(**{**OURS, "num_layers": 4})
            for block in self.model.attn_layers:
                assert isinstance(block, vit.AttentionBlock)
                block.norm = block.pre_norm

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(images)
            return logits

    report = _check(Unheeding)
    assert report.reasons[0].startswith("your model has 4 blocks, the reference has 2")
    assert [cause.id for cause in report.causes] == ["norm-shared"]
