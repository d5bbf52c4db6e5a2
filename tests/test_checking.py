"""The orchestrator: candidates of every form, comparisons that could not have failed, and nothing left changed."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import parity
import vit
from parity import ParityError, check
from parity.diagnosis.verdict import Check
from parity.models.candidate import resolve_candidate
from parity.models.reference import configuration
from parity.suite.conftest import SMALL

if TYPE_CHECKING:
    from pathlib import Path

OURS: dict[str, Any] = {
    "img_size": 48, "patch_size": 16, "embed_dim": 64, "hidden_dim": 96, "num_heads": 4, "num_layers": 3,
    "num_classes": 10,
}  # fmt: skip
EVAL: dict[str, Any] = {"modes": ["eval"]}


def _reference(seed: int = 0) -> VisionTransformer:
    """A torchvision model whose every tensor is random."""
    torch.manual_seed(seed)
    model = VisionTransformer(**configuration("vit_b_16", SMALL))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def _port_of(reference: VisionTransformer) -> vit.ViT:
    """Our ViT with the weights of a torchvision model."""
    model = vit.ViT(**OURS)
    model.load_state_dict(parity.infer_mapping(reference, model).apply(reference.state_dict()))
    return model


def test_every_public_name_is_there() -> None:
    for package in (parity, vit):
        for name in package.__all__:
            assert inspect.getdoc(getattr(package, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = parity.nothing


@pytest.mark.parametrize("form", ["name", "class", "function", "instance", "torchvision"])
def test_candidate_of_any_form(form: str) -> None:
    candidate: Any = {
        "name": "vit:ViT",
        "class": vit.ViT,
        "function": lambda: vit.ViT(**OURS),
        "instance": vit.ViT(**OURS),
        "torchvision": VisionTransformer,
    }[form]
    assert check(candidate, overrides=SMALL).verdict == "identical"


def test_modules_on_both_sides_keep_their_weights_and_modes() -> None:
    reference = _reference().train()
    candidate = _port_of(reference).eval()
    candidate.attn_layers.train()
    parameters = [(p, p.data_ptr(), p.clone()) for model in (reference, candidate) for p in model.parameters()]
    report = check(candidate, reference)
    assert report.verdict == "identical"
    assert report.reference["weights"] == "the reference's own"
    now = [p for model in (reference, candidate) for p in model.parameters()]
    for (parameter, pointer, values), current in zip(parameters, now, strict=True):
        assert parameter is current
        assert current.data_ptr() == pointer
        assert torch.equal(current, values)
        assert current.grad is None
    assert reference.training
    assert not candidate.training
    assert candidate.attn_layers.training


def test_random_state_and_grad_mode_are_put_back() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with torch.no_grad():
        check(vit.ViT, overrides=SMALL)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


def test_fresh_reference_is_inconclusive() -> None:
    report = check(lambda: vit.ViT(**OURS), VisionTransformer(**configuration("vit_b_16", SMALL)))
    assert report.verdict == "inconclusive"
    assert "all exactly 0" in report.reasons[0]


def test_bug_is_found_even_where_the_logits_are_blind() -> None:
    candidate = vit.ViT(**OURS)
    candidate.ln.eps = 1e-5
    report = check(candidate, VisionTransformer(**configuration("vit_b_16", SMALL)))
    assert report.verdict == "divergent"
    assert report.origin is not None
    assert report.origin.reference == "encoder.ln"


def test_dead_parameters_are_inconclusive_and_named() -> None:
    reference = _reference()
    nn.init.zeros_(reference.encoder.layers[2].mlp[3].weight)
    report = check(lambda: vit.ViT(**OURS), reference)
    assert report.verdict == "inconclusive"
    assert "encoder.layers.encoder_layer_2.ln_2.weight" in report.reasons[0]
    assert "have no effect on its logits" in report.reasons[0]


def test_reference_that_is_not_finite_is_inconclusive() -> None:
    reference = _reference()
    nn.init.constant_(reference.encoder.ln.bias, torch.inf)
    report = check(vit.ViT(**OURS), reference, **EVAL)
    assert report.verdict == "inconclusive"
    assert any("not finite" in reason for reason in report.reasons)


def test_candidate_that_is_not_finite_is_divergent() -> None:
    candidate = vit.ViT(**OURS)
    candidate.ln.register_forward_hook(lambda *arguments: arguments[-1] * torch.nan)
    report = check(candidate, overrides=SMALL, **EVAL)
    assert report.verdict == "divergent"
    assert "values of the candidate that are not finite" in report.reasons[0]
    assert "NaN" not in report.to_json()


class _Random(vit.ViT):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * (1 + 1e-6 * next(_noise))


_noise = iter(range(10**6))


class _Shy(vit.ViT):
    """Computes something else as soon as somebody looks."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        watched = any(module._forward_hooks for module in self.attn_layers)  # noqa: SLF001
        return super().forward(images) * (1 + 1e-6 * watched)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [(_Random, "the candidate is not deterministic"), (_Shy, "watching the candidate's modules changes its result")],
)
def test_candidate_that_cannot_be_measured_is_inconclusive(candidate: type[vit.ViT], reason: str) -> None:
    report = check(candidate(**OURS), overrides=SMALL, **EVAL)
    assert report.verdict == "inconclusive"
    assert any(reason in sentence for sentence in report.reasons)


def test_hidden_cast_is_divergent() -> None:
    class Rounded(vit.ViT):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images).float().to(images.dtype)

    report = check(Rounded(**OURS), overrides=SMALL, **EVAL)
    assert report.verdict == "divergent"
    assert report.origin is not None
    assert report.origin.after == "the logits"


def test_loss_of_accuracy_in_the_dtype_under_test_alone_is_divergent() -> None:
    class Coarse(nn.LayerNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.bfloat16().to(x.dtype) if x.dtype == torch.float32 else x)

    candidate = vit.ViT(**OURS)
    candidate.ln = Coarse(64, eps=1e-6)
    report = check(candidate, overrides=SMALL, **EVAL)
    assert [entry.verdict for entry in report.checks] == ["identical", "divergent"]
    assert report.verdict == "divergent"
    assert report.origin is not None
    assert report.origin.reference == "encoder.ln"


def test_shared_block_is_divergent() -> None:
    candidate = vit.ViT(**OURS)
    candidate.attn_layers = nn.Sequential(*[candidate.attn_layers[0]] * 3)
    report = check(candidate, overrides=SMALL, **EVAL)
    assert report.verdict == "divergent"


def test_candidate_that_refuses_the_meta_device_is_built_for_real() -> None:
    class Counting(vit.ViT):
        def __init__(self, **sizes: Any) -> None:
            super().__init__(**sizes)
            self.rates = [rate.item() for rate in torch.linspace(0, 1, 3)]

    assert check(Counting, overrides=SMALL, candidate_args=OURS, **EVAL).verdict == "identical"


def test_constants_that_the_meta_device_loses_are_built_for_real() -> None:
    class Scaled(vit.ViT):
        def __init__(self, **sizes: Any) -> None:
            super().__init__(**sizes)
            self.one: torch.Tensor
            self.register_buffer("one", torch.ones(1), persistent=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) * self.one

    assert check(Scaled, overrides=SMALL, candidate_args=OURS, **EVAL).verdict == "identical"


def test_model_that_is_the_reference_itself_or_shares_a_module_with_it() -> None:
    reference = _reference()
    assert check(reference, reference).verdict == "identical"
    candidate = _port_of(reference)
    candidate.head = reference.heads.head
    assert check(candidate, reference).verdict == "identical"
    assert candidate.head is reference.heads.head


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")  # torch 2.0 says so
def test_lazy_layers_are_refused() -> None:
    with pytest.raises(ParityError, match="lazy layers"):
        check(nn.LazyLinear(3))


def test_required_verdict_must_be_one() -> None:
    with pytest.raises(ParityError, match="expected 'equivalent' or 'identical'"):
        parity.assert_parity(vit.ViT, overrides=SMALL, require="identcal")


def test_assert_parity_raises_with_the_table() -> None:
    candidate = vit.ViT(**OURS)
    candidate.ln.eps = 1e-5
    with pytest.raises(AssertionError, match=r"it begins in encoder\.ln"):
        parity.assert_parity(candidate, overrides=SMALL)
    assert parity.assert_parity(vit.ViT, overrides=SMALL, require="identical").verdict == "identical"


def test_report_is_text_and_html() -> None:
    report = check(vit.ViT, overrides=SMALL, **EVAL)
    assert str(report).splitlines()[-1].startswith("identical: ViT and vit_b_16")
    assert "ViT is vit_b_16, to the bit" in report._repr_html_()


def test_progress_counts_to_the_end() -> None:
    seen: list[tuple[str, int, int]] = []
    check(vit.ViT, overrides=SMALL, progress=lambda *state: seen.append(state), **EVAL)
    counted = [state for state in seen if state[2]]
    assert [done for _, done, _ in counted] == list(range(1, counted[-1][2] + 1))
    assert counted[-1][0] == "forward/eval/float32"


def test_same_seed_gives_the_same_report() -> None:
    checks = [check(vit.ViT, overrides=SMALL, seed=seed, **EVAL).checks[0] for seed in (1, 1, 2)]
    outputs = [made.free.reference_output for made in checks if isinstance(made, Check) and made.free]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_arguments_are_bound_by_the_names_that_implementations_use() -> None:
    class Other(nn.Module):
        def __init__(
            self, *, image_size: int, dim: int, depth: int, heads: int, mlp_ratio: float = 4.0, pool: str = "cls"
        ) -> None: ...

    config = configuration("vit_l_16")
    found = resolve_candidate(Other, config)
    assert found.arguments == {
        "image_size": 224, "depth": 24, "heads": 16, "dim": 1024, "mlp_ratio": 4.0,
    }  # fmt: skip
    assert found.defaults == ("pool",)
    assert resolve_candidate(vit.ViT, config).arguments["hidden_dim"] == 4096
    assert resolve_candidate(VisionTransformer, config).arguments["hidden_dim"] == 1024


def test_argument_that_nothing_goes_by_is_asked_for() -> None:
    def build(dim: int, pool: str) -> nn.Module:
        raise AssertionError((dim, pool))

    with pytest.raises(ParityError, match=r"needs an argument 'pool', .*--candidate-arg pool=VALUE"):
        resolve_candidate(build, configuration("vit_b_16"))


def test_check_is_a_function_whatever_was_imported_before() -> None:
    script = "import parity.checking, parity\nassert callable(parity.check)\nassert callable(parity.infer_mapping)"
    subprocess.run([sys.executable, "-c", script], check=True)  # noqa: S603


def test_arguments_of_like_types_are_taken_as_they_are_meant(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(_reference().state_dict(), weights)
    like: dict[str, Any] = {"batch": np.int64(2), "seed": np.int64(3), "modes": {"eval"}, "phases": {"forward"}}
    report = check("vit:ViT", overrides=SMALL, weights=weights, **like)
    assert report.verdict == "identical"
    assert report.inputs.startswith("2 random images")
    assert report.to_dict()["options"]["weights"] == f"{weights}"


@pytest.mark.parametrize("given", [{"batch": "3"}, {"seed": 1.5}, {"steps": True}, {"modes": "eval"}, {"phases": None},
                                   {"weights": 3}, {"overrides": {1: 2}}, {"reference": None}])  # fmt: skip
def test_argument_of_another_type_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ParityError, match=f"{next(iter(given))}=.*: expected a value of type"):
        check("vit:ViT", **{"overrides": SMALL, **given})
