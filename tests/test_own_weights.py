"""The third question: are the weights that a candidate brings the reference's, and if not, what is wrong with them?"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import einops
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import parity
from parity import ParityError, check
from parity.models.candidate import resolve_candidate
from parity.models.reference import configuration
from parity.models.weights import synthetic
from tests.candidates.catalogue import RIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

CANDIDATES = Path(__file__).parent / "candidates"
SIZES = {"image_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96,
         "num_classes": 10}  # fmt: skip
CONFIG = configuration("vit_b_16", SIZES)
FUSED = f"{CANDIDATES}/fused_qkv.py:{RIGHT['fused_qkv']}"

State = dict[str, torch.Tensor]


def _original() -> VisionTransformer:
    model = VisionTransformer(**CONFIG).eval()
    model.load_state_dict(synthetic(model, 7))
    return model


ORIGINAL = _original()


def port(change: Callable[[State], object] = lambda _: None, spec: str = FUSED) -> nn.Module:
    """A port with the original's weights, after something was done to them."""
    model = resolve_candidate(spec, CONFIG).build().eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    state = {
        k: t.clone() for k, t in parity.infer_mapping(ORIGINAL, model, images=images).apply(original_state()).items()
    }
    change(state)
    model.load_state_dict(state, strict=False)
    return model


def original_state() -> State:
    """Returns the original's tensors by torchvision's names."""
    return {name: tensor.detach() for name, tensor in ORIGINAL.state_dict().items()}


def _each(state: State, part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for name in state:
        if part in name:
            state[name] = change(state[name])


def _grid(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], None]:
    def changed(state: State) -> None:
        table = state["pos_embed"]
        grid = change(table[:, 1:].view(1, 4, 4, -1))
        state["pos_embed"] = torch.cat([table[:, :1], grid.flatten(1, 2)], 1)

    return changed


def _through(side: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def resized(grid: torch.Tensor) -> torch.Tensor:
        planes = grid.permute(0, 3, 1, 2)
        for size in (side, grid.shape[1]):
            planes = nn.functional.interpolate(planes, (size, size), mode="bilinear")
        return planes.permute(0, 2, 3, 1)

    return resized


def _exchange(state: State, one: str, other: str) -> None:
    state[one], state[other] = state[other], state[one]


def _on(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], None]:
    return lambda state: _each(state, part, change)


def _steps(tensor: torch.Tensor) -> torch.Tensor:
    step = tensor.abs().max() / 127
    return (tensor / step).round() * step


def _slice_times(tensor: torch.Tensor, factor: float) -> torch.Tensor:
    return torch.cat([tensor[:48] * factor, tensor[48:]])


def _heads_first(tensor: torch.Tensor) -> torch.Tensor:
    return einops.rearrange(tensor, "(t h d) ... -> (h t d) ...", t=3, h=4)


def _noisy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor + 1e-3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel()))


# what was done to which tensors, the cause, and what is said of it
FAULTS: dict[str, tuple[Callable[[State], object], str, str, str]] = {
    "order": (_on("1.attn.qkv", lambda t: t.roll(-48, 0)), "1.attn.qkv", "weights-qkv-order", "in the order k, v, q"),
    "heads": (_on("attn.qkv", _heads_first), "attn.qkv", "weights-heads-interleaved", r"\(3 h d\) -> \(h 3 d\), h=4"),
    "transposed": (_on("attn.proj.weight", lambda t: t.T), "attn.proj.weight", "weights-transposed", "transposed"),
    "reshaped": (_on("fc1.weight", lambda t: t.T.reshape(t.shape)), "fc1.weight", "weights-transposed", "reshaped"),
    "query transposed": (_on("qkv.weight", lambda t: torch.cat([t[:48].T, t[48:]])), "qkv.weight",
                         "weights-transposed", "rows 0:48: transposed"),
    "rolled": (_on("pos_embed", lambda t: t.roll(1, 1)), "pos_embed", "weights-rolled", "rolled by 1"),
    "columns first": (_grid(lambda t: t.transpose(1, 2)), "pos_embed", "weights-grid-transposed", "transposed"),
    "mirrored": (_grid(lambda t: t.flip(2)), "pos_embed", "weights-mirrored", "left to right"),
    "resampled": (_grid(_through(7)), "pos_embed", "weights-resampled", "7 x 7 and back"),
    "folded": (lambda s: s["cls_token"].add_(s["pos_embed"][:, :1]), "cls_token", "weights-class-position-folded", ""),
    "row missing": (lambda s: s["pos_embed"][:, 0].zero_(), "pos_embed", "weights-zero", "row 0: all zeros"),
    "channels": (_on("patch_embed.proj.weight", lambda t: t.flip(1)), "patch_embed.proj.weight",
                 "weights-channels-reversed", "BGR"),
    "scale": (_on("qkv", lambda t: _slice_times(t, 12**-0.5)), "attn.qkv", "weights-factor",
              r"rows 0:48: times 0.2886751 \(1/sqrt\(12\), the attention's scale\)"),
    "minus one": (_on("norm1.weight", lambda t: t - 1), "norm1.weight", "weights-offset", "-1 added"),
    "norms": (lambda s: _exchange(s, "blocks.0.norm1.weight", "blocks.0.norm2.weight"), "blocks.0.norm",
              "weights-of-another-tensor", r"what belongs in blocks\.0\.norm"),
    "half": (_on("", lambda t: t.half().float()), "", "weights-rounded", "all 44 tensors: rounded to float16"),
    "int8": (_on("fc2.weight", _steps), "fc2.weight", "weights-rounded", "rounded to int8"),
    "clipped": (_on("fc1.weight", lambda t: t.clamp(-0.2, 0.2)), "fc1.weight", "weights-clipped", r"-0\.2 \.\.\. 0\.2"),
    "skipped": (lambda s: [s.pop(n) for n in list(s) if "1.mlp" in n], "1.mlp", "weights-initial", "nn.Linear draws"),
    "trained": (_on("head.weight", _noisy), "head.weight", "weights-trained", "of its size"),
    "one value": (lambda s: s["head.weight"][3, 5].add_(0.1), "head.weight", "weights-other", r"at \[3, 5\]"),
    "reversed": (_on("head", lambda t: t.flip(0)), "head", "weights-reversed", "rows back to front"),
    "shuffled": (_on("fc1", lambda t: t[torch.arange(96).view(8, 12).T.flatten().roll(5)]), "fc1", "weights-rearranged",
                 "another order"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_tensors_and_what_is_wrong_are_named(fault: str) -> None:
    change, part, cause, words = FAULTS[fault]
    candidate = port(change)
    report = check(candidate, ORIGINAL, modes=["eval"], dtype="float64")
    assert report.verdict == "divergent"
    assert report.reasons[0].startswith("the same function, with other weights: ")
    assert report.weights is not None
    expected = [n for n in candidate.state_dict() if part in n and not (fault == "norms" and n.endswith("bias"))]
    assert sorted({tensor.candidate for tensor in report.weights.tensors}) == sorted(expected)
    assert {tensor.cause for tensor in report.weights.tensors} == {cause}
    assert [c.id for c in report.causes] == [cause]
    statement = report.causes[0].statement
    assert re.search(words, statement), statement
    assert report.causes[0].residual is not None
    assert report.causes[0].residual < 1e-12 < (report.causes[0].without or 0)


def test_right_weights_are_the_same() -> None:
    report = check(port(), ORIGINAL, modes=["eval"])
    assert report.exit_status == 0
    assert report.weights is not None
    assert report.weights.verdict == "same"
    assert any(reason.startswith("the weights are the same in all 44 tensors; as") for reason in report.reasons)
    row = report.to_dict()["weights"]
    assert row["tensors"] == []
    assert row["as_is"]["relative"] < 1e-14


def _hidden_units(state: State) -> None:
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    _each(state, "fc1", lambda t: t[order])
    _each(state, "fc2.weight", lambda t: t[:, order])


def _folded(state: State) -> None:
    state["cls_token"] += state["pos_embed"][:, :1]
    state["pos_embed"][:, 0] = 0


def _scaled_against_each_other(state: State) -> None:
    factors = torch.tensor([0.5, 2.0, 1.0]).repeat_interleave(48)
    _each(state, "attn.qkv", lambda t: torch.einsum("n..., n -> n...", t, factors))


@pytest.mark.parametrize("change", [_hidden_units, _folded, _scaled_against_each_other])
def test_differences_that_make_up_for_each_other_are_no_other_weights(change: Callable[[State], None]) -> None:
    report = check(port(change), ORIGINAL, modes=["eval"])
    assert report.verdict == "equivalent"
    assert report.weights is not None
    assert report.weights.verdict == "same"
    assert report.weights.tensors
    assert any("it makes up for what else differs: " in reason for reason in report.reasons)


def test_weights_that_do_the_same_otherwise_are_not_identical() -> None:
    """The class' own original, one of whose layers has its hidden units in another order."""
    original = port()
    assert check(port(), original, modes=["eval"]).verdict == "identical"
    assert check(port(_hidden_units), original, modes=["eval"]).verdict == "equivalent"


def test_bias_that_no_output_depends_on_is_said_and_passed() -> None:
    """A key's bias adds the same to all of a query's scores."""
    candidate = port(_on("0.attn.qkv.bias", lambda t: torch.cat([t[:48], t[48:96] * 0, t[96:]])))
    report = check(candidate, ORIGINAL, modes=["eval"])
    assert report.verdict == "equivalent"
    said = "no output depends on it: blocks.0.attn.qkv.bias: rows 48:96: all zeros"
    assert any(reason.startswith(said) for reason in report.reasons)
    assert report.weights is not None
    assert [tensor.candidate for tensor in report.weights.tensors] == ["blocks.0.attn.qkv.bias"]


def test_other_function_with_other_weights_is_told_both() -> None:
    candidate = port(_on("head", lambda t: t.flip(0)))
    assert isinstance(candidate.norm, nn.LayerNorm)
    candidate.norm.eps = 1e-5
    report = check(candidate, ORIGINAL, modes=["eval"])
    assert report.verdict == "divergent"
    assert {cause.id for cause in report.causes} == {"layer-norm-eps", "weights-reversed"}
    assert any(reason.startswith("and other weights: head.") for reason in report.reasons)


def test_class_brings_no_weights() -> None:
    report = check(FUSED, ORIGINAL, modes=["eval"])
    assert report.exit_status == 0
    assert report.to_dict()["weights"] is None


def test_weights_of_a_module_are_set_aside_beside_synthetic_ones() -> None:
    report = check(port(), "vit_b_16", overrides=SIZES, modes=["eval"])
    assert report.exit_status == 0
    said = " ".join(str(report).split())
    assert "its own the candidate's own weights were set aside; to have them compared, give" in said
    assert report.to_dict()["weights"]["verdict"] == "set aside"


@pytest.mark.parametrize("options", [{}, {"assign": True}], ids=["copied", "assigned"])
def test_constructor_that_loads_weights_brings_them(tmp_path: Path, options: dict[str, bool]) -> None:
    file = tmp_path / "own.pth"
    torch.save(port(_on("head", lambda t: t.flip(0))).state_dict(), file)

    def build() -> nn.Module:
        model = resolve_candidate(FUSED, CONFIG).build()
        state = torch.load(file, map_location="cpu", weights_only=True)
        model.load_state_dict(state, **options)
        return model

    report = check(build, ORIGINAL, modes=["eval"])
    assert report.weights is not None
    assert report.weights.source == "loaded by the candidate's constructor"
    assert [cause.id for cause in report.causes] == ["weights-reversed"]


def test_file_in_the_candidates_own_names(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    theirs, right, wrong = (tmp_path / name for name in ("theirs.pth", "right.pth", "wrong.pth"))
    torch.save(original_state(), theirs)
    torch.save({"model": port().state_dict()}, right)
    other = port(_on("head", lambda t: t.flip(0))).state_dict()
    torch.save({f"module.{name}": tensor for name, tensor in other.items()}, wrong)
    command = ["check", FUSED, *(f"--set={key}={value}" for key, value in SIZES.items()), "--modes=eval"]
    status, output, errors = run(*command, f"--weights={theirs}", f"--candidate-weights={right}#model")
    assert (status, "the weights are the same" in output) == (0, True), errors
    status, output, _ = run(*command, f"--weights={theirs}", f"--candidate-weights={wrong}", "--json=-")
    assert status == 1
    assert json.loads(output)["weights"]["tensors"][0]["cause"] == "weights-reversed"
    assert any("have the prefix 'module.'" in note for note in json.loads(output)["notes"])
    status, _, errors = run(*command, f"--candidate-weights={right}")
    assert (status, "the reference has synthetic weights" in errors) == (2, True)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save({"head.weight": torch.zeros(3, 3)}, file)
    with pytest.raises(ParityError, match="don't fit the candidate"):
        check(FUSED, ORIGINAL, candidate_weights=str(file))


def test_map_has_the_weights_checked(tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    theirs, own = tmp_path / "theirs.pth", tmp_path / "own.pth"
    torch.save(original_state(), theirs)
    torch.save(port(_on("head", lambda t: t.flip(0))).state_dict(), own)
    command = ["map", FUSED, *(f"--set={key}={value}" for key, value in SIZES.items()), "--check-weights"]
    status, output, errors = run(*command, f"--weights={theirs}", f"--candidate-weights={own}")
    assert (status, '"head.weight"' in output) == (1, True)
    assert "head.weight, head.bias: rows back to front; flip its rows" in errors
    status, _, errors = run(*command, f"--weights={theirs}")
    assert (status, "brings no weights" in errors) == (2, True)
    status, _, errors = run(*command, f"--candidate-weights={own}")
    assert (status, "say whose weights they should be" in errors) == (2, True)
    status, _, errors = run(*command[:-1], f"--weights={theirs}", f"--candidate-weights={own}")
    assert (status, "ask for that with --check-weights" in errors) == (2, True)


def test_weights_that_make_up_for_the_function_are_said_first() -> None:
    """A port without the attention's scale, whose query weights hold it: right as it is, and another function."""
    candidate = port(_on("attn.qkv", lambda t: torch.cat([t[:48] * 12**-0.5, t[48:]])))
    for number in range(3):
        vars(candidate.get_submodule(f"blocks.{number}.attn"))["scale"] = 1.0
    report = check(candidate, ORIGINAL, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.reasons[0].startswith("with the weights that they have both models agree")
    assert "attention-scale" in {cause.id for cause in report.causes}


class _Exported(nn.Module):
    """A port whose weights are no tensors that anybody could map."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._models = [model]
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = self._models[0].to(images.dtype)(images)
        return logits


def test_models_without_a_map_are_run_as_they_are() -> None:
    report = check(_Exported(port()), ORIGINAL, modes=["eval"])
    assert report.verdict == "inconclusive"
    assert any("as both models are, in float64, their logits differ by" in reason for reason in report.reasons)
    assert report.to_dict()["weights"]["as_is"]["relative"] < 1e-12


class _WithGain(nn.Module):
    """A port that multiplies its logits with a number that no tensor of the original corresponds to."""

    def __init__(self) -> None:
        super().__init__()
        self.model = resolve_candidate(FUSED, CONFIG).build()
        self.register_buffer("gain", torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images) * self.gain
        return logits


@pytest.mark.parametrize(("gain", "verdict"), [(1.0, "equivalent"), (2.0, "divergent")])
def test_models_that_differ_as_they_are_are_divergent(gain: float, verdict: str, tmp_path: Path) -> None:
    """All tensors that have a counterpart are right; the file has another value of the buffer than the constructor."""
    file = tmp_path / "own.pth"
    torch.save({f"model.{k}": t for k, t in port().state_dict().items()} | {"gain": torch.full((1,), gain)}, file)
    report = check(_WithGain, ORIGINAL, candidate_weights=str(file), modes=["eval"])
    assert report.weights is not None
    assert report.weights.verdict == "same"
    assert report.verdict == verdict, report
