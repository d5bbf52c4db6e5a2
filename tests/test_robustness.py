"""What stands in real people's code: each of these is met, and said in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import vit
from parity import ParityError, check, infer_mapping
from parity.models.candidate import resolve_candidate
from parity.models.reference import build_reference, configuration
from parity.models.weights import synthetic
from parity.suite.conftest import SMALL
from tests.candidates.catalogue import RIGHT

if TYPE_CHECKING:
    from parity.report.report import Report

CANDIDATES = Path(__file__).parent / "candidates"


def _ours(**options: Any) -> vit.ViT:
    return vit.ViT(48, 3, 16, 64, 96, 4, 3, 0.0, 10, **options)


class Changed(nn.Module):
    """Our ViT inside a module of its own, for a change around it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = _ours()

    def forward(self, images: torch.Tensor) -> Any:
        return self.model(images)


def _check(candidate: Any, **options: Any) -> Report:
    return check(candidate, overrides=SMALL | {"dropout": 0.0, "attention_dropout": 0.0}, modes=["eval"], **options)


def test_names_of_a_wrapper_are_no_hindrance() -> None:
    assert _check(Changed).verdict == "identical"


class WithConstant(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.turn = torch.eye(3 * 48 * 48)[:48, :48].clone()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images @ self.turn)
        return logits


def test_constant_in_float32_is_held_in_float64() -> None:
    report = _check(WithConstant)
    assert report.verdict in ("identical", "equivalent"), report


class MakesConstants(Changed):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images @ torch.eye(images.shape[-1]))
        return logits


def test_constant_made_in_the_forward_pass_is_made_in_float64() -> None:
    assert _check(MakesConstants).verdict in ("identical", "equivalent")
    assert torch.get_default_dtype() == torch.float32


class CastsOnce(vit.AttentionBlock):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float().to(x.dtype))


@pytest.mark.usefixtures("brief_search")
def test_cast_to_float32_inside_is_divergent() -> None:
    model = _ours()
    model.attn_layers[1].__class__ = CastsOnce
    report = _check(model)
    assert report.verdict == "divergent"
    assert report.origin is not None
    assert report.origin.reference == "encoder.layers.encoder_layer_1.ln_1"


class ReturnsFloat32(Changed):
    def __init__(self) -> None:
        super().__init__()
        block = self.model.attn_layers[2]
        assert isinstance(block, vit.AttentionBlock)
        block.MLP.register_forward_hook(lambda _, __, output: output.float())


def test_dtype_that_is_left_in_a_float64_run_is_said() -> None:
    report = _check(ReturnsFloat32)
    assert report.verdict == "divergent"
    assert any("in a float64 run the output of model.attn_layers.2.MLP is torch.float32" in r for r in report.reasons)


class CastsImages(Changed):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images.float())
        return logits


class CastsForItsNorms(Changed):
    """Has norms that are in float32 whatever else is in half precision."""

    class _Norm(nn.LayerNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.type(torch.float32)).type(x.dtype)

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        for module in self.model.modules():
            if isinstance(module, nn.LayerNorm):
                module.__class__, module.eps = self._Norm, eps


@pytest.mark.parametrize("model", [CastsImages, CastsForItsNorms])
def test_cast_to_float32_that_float64_cannot_follow_does_nothing(model: type[nn.Module]) -> None:
    assert _check(model).verdict in ("identical", "equivalent")


def test_what_differs_beside_such_a_cast_is_named() -> None:
    report = _check(lambda: CastsForItsNorms(1e-5))
    assert report.explanation is not None
    assert report.explanation.complete, report
    assert [cause.id for cause in report.causes] == ["layer-norm-eps"]


class OnlyFloat32(Changed):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.dtype != torch.float32:
            raise TypeError("float32 only")
        logits: torch.Tensor = self.model(images)
        return logits


def test_model_that_cannot_do_float64_is_inconclusive() -> None:
    report = _check(OnlyFloat32)
    assert report.verdict == "inconclusive"
    assert "only float64 tells rounding from a bug" in report.reasons[0]
    assert "since the candidate runs in float32 and not in float64" in report.reasons[1]


def test_tensors_that_the_state_dict_calls_otherwise_are_refused() -> None:
    model = _ours()
    model._register_state_dict_hook(  # type: ignore[no-untyped-call]  # noqa: SLF001  (public since torch 2.5)
        lambda _, state, __, ___: state.update(place=state.pop("pos_embedding"))
    )
    with pytest.raises(ParityError, match="calls pos_embedding place, by a hook"):
        _check(model)


class InAList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inner = _ours()
        self.patches, self.cls_token, self.pos_embedding = inner.patches, inner.cls_token, inner.pos_embedding
        self.blocks = list(inner.attn_layers)
        self.ln, self.head = inner.ln, inner.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embedding
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(self.ln(x)[:, 0])
        return logits


def test_layers_in_a_python_list_are_named() -> None:
    report = _check(InAList)
    assert report.verdict in ("inconclusive", "divergent")
    assert any("blocks is a plain list or attribute that holds layers torch doesn't know of" in n for n in report.notes)
    assert "use nn.ModuleList" in str(report)


class WithDeadLayer(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(64)


def test_layer_that_is_never_used_is_named_and_does_no_harm() -> None:
    report = _check(WithDeadLayer)
    assert report.verdict == "identical"
    assert report.mapping is not None
    assert report.mapping.unused == ("norm.weight", "norm.bias")
    assert "never used by the candidate: norm.weight, norm.bias" in str(report)


class WithoutEffect(Changed):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Parameter(torch.ones(10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images)
        return logits + 0 * self.extra


def test_agreement_beside_a_tensor_without_counterpart_is_no_proof() -> None:
    report = _check(WithoutEffect)
    assert report.verdict == "inconclusive"
    assert report.reasons[0].startswith("the outputs agree, although some tensors have no counterpart")
    assert "extra" in report.reasons[1]


class FixedBatch(Changed):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images.view(8, 3, 48, 48))
        return logits


def test_hard_wired_batch_is_found_used_and_a_fault() -> None:
    report = _check(FixedBatch)
    assert report.inputs.endswith("8x3x48x48")
    assert "the candidate takes batches of 8 only, so such a batch is compared" in report.notes
    assert report.verdict == "divergent"
    assert any("in a batch of 1: the candidate failed" in reason for reason in report.reasons)


def test_number_of_heads_that_is_not_heeded_is_divergent() -> None:
    def build(num_heads: int) -> nn.Module:
        return vit.ViT(48, 3, 16, 64, 96, 2 * num_heads, 3, 0.0, 10)

    report = _check(build)
    assert report.verdict == "divergent"
    assert report.origin is not None
    assert report.origin.reference == "encoder.layers.encoder_layer_0.self_attention"


class TakesPatches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = _ours()

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = patches.shape
        logits: torch.Tensor = self.model(patches.view(batch, tokens, 16, 16, 3)[:, 0])
        return logits


class TakesCrops(Changed):
    def forward(self, crops: Any) -> Any:
        return self.model(torch.cat([crops[0], crops[1]], 3))


@pytest.mark.parametrize("candidate", [TakesPatches, TakesCrops])
def test_other_form_of_input_is_said(candidate: type[nn.Module]) -> None:
    with pytest.raises(ParityError, match=r"needs a module around it that makes it of them"):
        _check(candidate)


class ByName(Changed):
    def forward(self, *, pixel_values: torch.Tensor) -> Any:  # type: ignore[override]
        return {"loss": None, "logits": self.model(pixel_values)}


def test_images_that_are_taken_by_name_only_are_given_by_name() -> None:
    assert _check(ByName).verdict == "identical"


class SharedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inner = _ours()
        self.patches, self.cls_token, self.pos_embedding = inner.patches, inner.cls_token, inner.pos_embedding
        self.block, self.ln, self.head = inner.attn_layers[0], inner.ln, inner.head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embedding
        for _ in range(3):
            x = self.block(x)
        logits: torch.Tensor = self.head(self.ln(x)[:, 0])
        return logits


def test_block_that_is_used_three_times_is_divergent_and_the_others_named() -> None:
    report = _check(SharedBlock)
    assert report.verdict == "divergent"
    assert report.mapping is not None
    assert len({name.split(".")[2] for name in report.mapping.unmapped_reference}) == 2


class Broken(Changed):
    def __init__(self) -> None:
        super().__init__()
        block = self.model.attn_layers[1]
        assert isinstance(block, vit.AttentionBlock)
        block.MLP[1] = nn.Linear(5, 5)


def test_crash_in_the_middle_says_in_which_module() -> None:
    with pytest.raises(
        ParityError, match=r"the candidate failed in model\.attn_layers\.1\.MLP\.1 on an input of shape"
    ):
        _check(Broken)


class NotFinite(Changed):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images)
        return logits / torch.zeros_like(logits)


def test_values_that_are_not_finite_are_divergent() -> None:
    report = _check(NotFinite)
    assert report.verdict == "divergent"
    assert any("values of the candidate that are not finite" in reason for reason in report.reasons)


def test_reference_as_its_own_candidate_is_said() -> None:
    report = _check("torchvision.models:VisionTransformer")
    assert report.verdict == "identical"
    assert "the candidate is a VisionTransformer, the reference's own class: a model beside itself" in report.notes


@pytest.mark.filterwarnings("ignore")
def test_compiled_and_wrapped_models_are_unwrapped_and_it_is_said() -> None:
    for wrap, kind in ((torch.compile, "OptimizedModule"), (nn.DataParallel, "DataParallel")):
        report = _check(wrap(_ours()))
        assert report.verdict == "identical"
        assert f"the candidate is wrapped in {kind}; what is compared is the module inside it" in report.notes


@pytest.mark.filterwarnings("ignore")
def test_scripted_module_is_refused_with_what_to_do() -> None:
    with pytest.raises(
        ParityError, match=r"is a TorchScript module, whose inside nobody can watch; give the module that"
    ):
        _check(torch.jit.script(nn.Sequential(nn.Linear(2, 2))))


class ChangesEverything(Changed):
    def forward(self, images: torch.Tensor) -> Any:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.manual_seed(7)
        torch.set_grad_enabled(False)
        return self.model(images)


def test_global_state_is_put_back() -> None:
    before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
    report = _check(ChangesEverything)
    assert (report.verdict, len(report.reasons)) == ("divergent", 1)
    assert "sets the seed of torch's global generator" in report.reasons[0]
    after = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_zero_head_of_a_fresh_candidate_is_no_hindrance() -> None:
    model = _ours()
    assert not model.head.weight.any()
    assert _check(model).verdict == "identical"
    assert not model.head.weight.any(), "the caller's module has its own values back"


_STYLES = ("fused_qkv", "separate_qkv")


def test_any_two_modules_can_be_compared() -> None:
    """The reference may be anybody's module, with its own weights, and the candidate written in another style."""
    reference = build_reference(configuration("vit_b_16", SMALL)).to_empty(device="cpu").eval()
    reference.load_state_dict(synthetic(reference, 3))
    config = configuration("vit_b_16", SMALL)
    builders = [resolve_candidate(f"{CANDIDATES}/{name}.py:{RIGHT[name]}", config) for name in _STYLES]
    report = check(builders[0].build, reference, modes=["eval"])
    assert report.exit_status == 0, report  # whether the bits are the same is the processor's affair
    assert report.reference["weights"] == "the reference's own"
    fused = builders[0].build()
    fused.load_state_dict(
        infer_mapping(reference, fused, images=torch.randn(2, 3, 48, 48)).apply(reference.state_dict())
    )
    report = check(builders[1].build, fused, modes=["eval"])
    assert report.exit_status == 0, report
    assert report.mapping is not None
    assert report.mapping.certainty == "unique by proof"


def test_config_object_gets_what_it_lacks_by_name() -> None:
    report = check(
        f"{CANDIDATES}/dataclass_config.py:NanoViT",
        overrides=SMALL,
        candidate_args={"config.n_layers": 2},
        modes=["eval"],
    )
    assert report.verdict == "divergent"
    assert "n_layers=2" in str(report.candidate["config"]["config"])
    with pytest.raises(ParityError, match=r"takes no argument 'nonsense'"):
        check(f"{CANDIDATES}/dataclass_config.py:NanoViT", overrides=SMALL, candidate_args={"nonsense": 1})


_BY_CONFIG = """from torch import nn
from vit import ViT

def build(config):
    hidden = config["hidden_size"], config.mlp_dim
    return ViT(config.img_size, 3, config["patch_size"], *hidden, config.heads, config.depth, 0.0, config["{classes}"])
"""


def test_config_without_a_type_answers_by_every_name(tmp_path: Path) -> None:
    file = tmp_path / "by_config.py"
    file.write_text(_BY_CONFIG.format(classes="num_labels"))
    assert _check(f"{file}:build").verdict == "identical"


def test_config_that_is_asked_for_something_else_is_answered_by_shape(tmp_path: Path) -> None:
    file = tmp_path / "by_config.py"
    file.write_text(_BY_CONFIG.format(classes="how_many"))
    report = _check(f"{file}:build")
    assert report.verdict == "identical"
    assert report.candidate["bound"]["config.how_many"] == {"value": 10, "why": "by shape"}
    assert _check(f"{file}:build", candidate_args={"config.how_many": 10}).verdict == "identical"
    file.write_text(_BY_CONFIG.format(classes="how_many").replace('config["how_many"]', "config.vocabulary.size"))
    report = _check(f"{file}:build")
    assert report.verdict == "divergent"
    assert report.reasons[0].startswith("your model has 48 classes, the reference has 10")


def test_argument_of_a_class_that_is_no_configuration_is_asked_for() -> None:
    def build(norm: nn.Module, image_size: int) -> nn.Module:
        return nn.Sequential(norm, nn.Linear(image_size, image_size))

    with pytest.raises(ParityError, match=r"needs an argument 'norm'"):
        _check(build)
