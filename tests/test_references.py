"""References that are anybody's: where they come from, and what is read off them."""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import vit
from parity import ParityError, check, infer_mapping
from parity.mapping.images import image_shape, settings_of
from parity.models.candidate import resolve_candidate
from parity.models.reference import build_reference, configuration
from parity.models.sizes import possible_images
from tests.candidates.fused_qkv import VisionTransformer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZES = {
    "image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96,
    "num_classes": 10,
}  # fmt: skip
EVAL: dict[str, Any] = {"modes": ["eval"]}
TIMM: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 48,
    "depth": 2,
    "num_heads": 4,
    "mlp_ratio": 2,
    "num_classes": 10,
}
TRANSFORMERS: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 96, "num_labels": 10, "layer_norm_eps": 1e-6,
}  # fmt: skip
VITS = {"timm:vit_tiny_patch16_224": TIMM, "transformers:ViTForImageClassification": TRANSFORMERS}

# other people's packages warn about their own affairs
pytestmark = pytest.mark.filterwarnings("ignore")


def _candidate(name: str) -> nn.Module:
    return resolve_candidate(f"tests.candidates.{name}", configuration("vit_b_16", SIZES)).build()


def _ours(**changes: Any) -> nn.Module:
    sizes = {"image_size": 32, "in_channels": 3, **changes}
    return vit.ViT(sizes["image_size"], sizes["in_channels"], 8, 48, 96, 4, 2, 0.0, 10)


def _timm(**changes: Any) -> nn.Module:
    module: nn.Module = pytest.importorskip("timm.models.vision_transformer").VisionTransformer(**TIMM | changes)
    return module


@pytest.fixture
def reference(tmp_path: Path) -> str:
    """A file that has a constructor, a module that is built already, and mistakes."""
    path = tmp_path / "theirs.py"
    path.write_text(
        "import vit\n"
        "def small(depth=2):\n"
        "    return vit.ViT(32, 3, 8, 48, 96, 4, depth, 0.0, 10)\n"
        "built = small()\n"
        "def broken():\n"
        "    raise RuntimeError('no such file')\n"
        "def wants(width):\n"
        "    return width\n"
    )
    return str(path)


def test_callable_in_a_file_is_a_reference(reference: str, run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = run(
        "check", "vit:ViT", f"--reference={reference}:small", "--reference-arg=depth=1", "--modes=eval"
    )
    assert (status, out.splitlines()[-1][:9]) == (0, "identical")
    assert "theirs.py:small(image_size=32, in_channels=3, patch_size=8, " in out
    assert ", num_layers=1," in out
    assert "weights    synthetic:0" in out


def test_same_module_on_both_sides_is_compared_with_itself(reference: str) -> None:
    report = check(f"{reference}:built", f"{reference}:built", weights="synthetic", **EVAL)
    assert report.verdict == "identical"


@pytest.mark.parametrize("name", VITS)
def test_librarys_model_is_a_reference_by_its_name(name: str) -> None:
    pytest.importorskip(name.partition(":")[0])
    report = check(VisionTransformer, name, reference_args=VITS[name], **EVAL)
    assert report.verdict in ("identical", "equivalent"), report
    assert report.reference["arguments"] == VITS[name]
    assert {key: report.reference["config"][key] for key in SIZES} == SIZES
    assert check(VisionTransformer, name, reference_args=VITS[name] | _DEEPER[name], **EVAL).verdict == report.verdict


_DEEPER: dict[str, dict[str, Any]] = {
    "timm:vit_tiny_patch16_224": {"depth": 3},
    "transformers:ViTForImageClassification": {"num_hidden_layers": 3},
}


def test_own_weights_are_those_that_it_is_built_with(
    reference: str, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    output = tmp_path / "mine.safetensors"
    status, _, error = run(
        "convert", "vit:ViT", f"--reference={reference}:built", "--weights=own", f"--output={output}"
    )
    assert status == 0, error
    moved = load_file(output)
    assert moved["ln.weight"].eq(1).all()  # no random weights
    assert check("vit:ViT", f"{reference}:built", weights="own", **EVAL).reference["weights"] == "the reference's own"


def test_weights_from_a_file_are_loaded_into_it(reference: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({f"module.{name}": tensor.contiguous() for name, tensor in _ours().state_dict().items()}, path)
    report = check("vit:ViT", f"{reference}:small", weights=str(path), **EVAL)
    assert report.reference["weights"] == str(path)
    assert any("prefix 'module.'" in note for note in report.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reference={}:none"], r"the reference .*theirs.py:none cannot be imported: .* has no attribute 'none'"),
        (
            ["--reference={}:broken"],
            r"the reference .*theirs.py:broken\(\) cannot be built: .* with --reference-arg NAME=VALUE",
        ),
        (["--reference={}:wants"], r"needs an argument 'width'; give it with --reference-arg width=VALUE"),
        (["--reference={}:small", "--reference-arg=dept=1"], r"the reference small takes no argument 'dept'"),
        (
            ["--reference={}:small", "--set=num_layers=1"],
            r"--set changes a model of torchvision's; give .*:small its arg",
        ),
        (
            ["--reference={}:small", "--weights=official"],
            r"official ones are torchvision's, and .*:small is no model of",
        ),
        (["--reference-arg=depth=1"], r"--reference-arg is for a reference that is not torchvision's; change vit_b_16"),
        (["--weights=own"], r"--weights own: expected synthetic, official, a path"),
        (["--reference=vit_tiny_patch16_224"], r"another library's model goes by timm:NAME or transformers:CLASS"),
    ],
)
def test_mistake_is_one_sentence(
    options: list[str], message: str, reference: str, run: Callable[..., tuple[int, str, str]]
) -> None:
    status, _, error = run("check", "vit:ViT", *(option.format(reference) for option in options))
    assert status == 2
    assert len(error.splitlines()) == 1
    with pytest.raises(ParityError, match=message):
        raise ParityError(error)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("timm:vit_tinny_patch16_224", {}, r"timm has no model 'vit_tinny_patch16_224'; did you mean vit_tiny_patch16"),
        ("transformers:ViTForImageClasification", {}, r"no class .*; did you mean ViTForImageClassification or"),
        ("transformers:AutoModel", {}, r"AutoModel of transformers has no config_class"),
        (
            "transformers:ViTForImageClassification",
            {"hidden_sise": 3},
            r"ViTConfig has no setting 'hidden_sise'; did you mean hidden_size",
        ),
    ],
)
def test_name_that_a_library_does_not_know_gives_close_ones(name: str, arguments: dict[str, Any], message: str) -> None:
    pytest.importorskip(name.partition(":")[0])
    with pytest.raises(ParityError, match=message):
        check("vit:ViT", name, reference_args=arguments)


def test_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ParityError, match=r"timm:vit_tiny_patch16_224 needs timm, which cannot be imported .* install"):
        check("vit:ViT", "timm:vit_tiny_patch16_224")


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({"in_chans": 1}, (1, 32, 32)),
        ({"in_chans": 4}, (4, 32, 32)),
        ({"img_size": (32, 48)}, (3, 32, 48)),
        ({"img_size": 35}, (3, 35, 35)),
        ({"dynamic_img_size": True}, (3, 32, 32)),
        ({"reg_tokens": 4}, (3, 32, 32)),
    ],
)
def test_images_of_any_form_are_those_that_the_reference_takes(
    changes: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    original = _timm(**changes)
    assert image_shape(original) == shape
    report = check(copy.deepcopy(original), original, **EVAL)
    assert report.verdict == "identical"
    assert report.inputs.endswith("x".join(map(str, (3, *shape))))


@pytest.mark.parametrize(
    "name",
    [
        "einsum_parameters:FlaxStyleViT",
        "linear_patches_ppc:ViT",
        "head_modules:TinyViT",
        "split_positions:SplitPositionViT",
    ],
)
def test_settings_are_read_off_any_vit(name: str) -> None:
    module = _candidate(name)
    assert image_shape(module) == (3, 32, 32)
    found = settings_of(module, (3, 32, 32))
    assert {key: found.get(key) for key in SIZES} == SIZES


class Silent(nn.Module):
    """Says nothing of its sizes, and has no table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 4, 4), nn.Linear(6 * 9, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.b(self.a(images).flatten(1))
        return logits


def test_images_of_a_model_that_says_nothing_are_multiples_of_its_patch() -> None:
    assert image_shape(Silent()) == (2, 12, 12)
    assert all(height % 4 == width % 4 == 0 for _, height, width in possible_images(Silent()))


def test_candidate_gets_the_channels_of_the_reference() -> None:
    report = check(vit.ViT, _ours(in_channels=1), weights="synthetic", **EVAL)
    assert report.verdict == "identical"
    assert 1 in report.candidate["config"].values()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 1}, r"the candidate takes images of 1 channel, the reference of 3 channels; build both"),
        (
            {"image_size": 40, "in_channels": 4},
            r"of 4 channels and 40 x 40 pixels, the reference of 3 channels and 32 x",
        ),
    ],
)
def test_other_images_of_the_candidate_are_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParityError, match=message) as raised:
        check(_ours(**changes), overrides=SIZES, **EVAL)
    assert "something else than images" not in f"{raised.value}"


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = _ours()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(images))  # type: ignore[no-any-return,operator]


def test_what_failed_in_a_candidate_is_told_before_its_sizes() -> None:
    class Deeper(Failing):
        def __init__(self) -> None:
            super().__init__()
            self.inner = vit.ViT(32, 3, 8, 48, 96, 4, 3, 0.0, 10)

    with pytest.raises(ParityError, match=r"no attribute 'head' .*; beside that, your model has 3 blocks, the"):
        check(Deeper, overrides=SIZES, **EVAL)


class Mistaken(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        print(f"images of {tuple(images.shape)}")  # noqa: T201
        return self.features(images, mask=None)  # type: ignore[call-arg]

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images


def test_call_that_is_wrong_is_not_blamed_on_the_images(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ParityError, match=r"unexpected keyword argument 'mask' \(test_references\.py, line \d+\)$"):
        check(Mistaken(), overrides=SIZES, **EVAL)
    assert capsys.readouterr().out.count("images of") < 20  # whatever else was tried is silent


def test_bug_behind_the_first_layer_is_not_blamed_on_the_images() -> None:
    with pytest.raises(ParityError, match=r"no attribute 'head' \(test_references\.py, line \d+\)$"):
        check(Failing, overrides=SIZES, **EVAL)


def test_grey_model_is_shown_grey_pictures(tmp_path: Path) -> None:
    path, grey = tmp_path / "picture.png", _ours(in_channels=1)
    Image.linear_gradient("L").convert("RGB").save(path)
    assert check(copy.deepcopy(grey), grey, input=str(path), weights="synthetic", **EVAL).verdict == "identical"
    four = _ours(in_channels=4)
    with pytest.raises(ParityError, match=r"a picture has 1 or 3 channels, the reference takes 4; use --input random"):
        check(copy.deepcopy(four), four, input=str(path))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_of_any_dtype_are_compared(dtype: torch.dtype) -> None:
    for candidate, original in ((lambda: _ours().to(dtype), "vit_b_16"), (vit.ViT, _ours().to(dtype))):
        named = isinstance(original, str)
        report = check(candidate, original, overrides=SIZES if named else None, weights="synthetic", **EVAL)
        assert report.verdict == "identical", report
        assert any(f"is built in {dtype}".replace("torch.", "") in note for note in report.notes)
    module = _ours().to(dtype)
    check(module, overrides=SIZES, **EVAL)
    assert {parameter.dtype for parameter in module.parameters()} == {dtype}


class WithTokens(nn.Module):
    """Our model with further tokens behind the class token, in the order of `sizes`."""

    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__()
        self.inner, self.names = _ours(), [*sizes]
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(1, size, 48)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner: Any = self.inner
        x = inner.patches(images)
        x = torch.cat([inner.cls_token.expand(len(x), -1, -1), x], dim=1) + inner.pos_embedding
        tokens = [self.get_parameter(name).expand(len(x), -1, -1) for name in self.names]
        x = torch.cat([x[:, :1], *tokens, x[:, 1:]], dim=1)
        logits: torch.Tensor = inner.head(inner.ln(inner.attn_layers(x))[:, : len(tokens) + 1].sum(1))
        return logits


class AlsoWithTokens(WithTokens):
    pass


def test_any_number_of_tokens_is_mapped_by_running_whatever_they_are_called() -> None:
    original = WithTokens({"one_token": 1, "two_token": 1, "registers": 4})
    port = AlsoWithTokens({"two_embed": 1, "one_embed": 1, "extra": 4})
    found = infer_mapping(original, port)
    assert found.certainty == "unique by proof"
    assert {entry.reference: entry.candidate for entry in found.entries if "." not in entry.reference} == {
        "one_token": "two_embed", "two_token": "one_embed", "registers": "extra",
    }  # fmt: skip
    assert any("the names contradict what the tensors do" in warning for warning in found.warnings)
    assert check(port, original, weights="synthetic", **EVAL).verdict == "identical"


def test_token_without_a_counterpart_is_listed() -> None:
    found = infer_mapping(WithTokens({"a": 1, "b": 4}), AlsoWithTokens({"a": 1}))
    assert found.unmapped_reference == ("b",)
    assert not found.unmapped_candidate


class TwoKernels(nn.Module):
    """The patches' weight is a product of two, to which no layout step leads."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = _ours()
        self.left, self.right = nn.Parameter(torch.zeros(48, 7)), nn.Parameter(torch.zeros(7, 192))
        self.shift = nn.Parameter(torch.zeros(48))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inner: Any = self.inner
        pixels = nn.functional.unfold(images, 8, stride=8).transpose(1, 2)
        x = nn.functional.linear(pixels, self.left @ self.right, self.shift)
        x = torch.cat([inner.cls_token.expand(len(x), -1, -1), x], dim=1) + inner.pos_embedding
        logits: torch.Tensor = inner.head(inner.ln(inner.attn_layers(x))[:, 0])
        return logits


def test_tensor_that_no_layout_leads_to_is_listed_on_both_sides() -> None:
    found = infer_mapping(build_reference(configuration("vit_b_16", SIZES)), TwoKernels())
    assert "conv_proj.weight" in found.unmapped_reference
    assert {"left", "right"} <= {*found.unmapped_candidate}


@pytest.mark.parametrize("name", ["interleaved_h3d:VisionLM", "interleaved_hd3:ViT", "raw_parameters:FunctionalViT"])
def test_layout_of_the_reference_may_be_any(name: str) -> None:
    report = check(VisionTransformer, _candidate(name), weights="synthetic", **EVAL)
    assert report.verdict == "equivalent", report
    assert report.mapping is not None
    assert report.mapping.certainty == "unique by proof"
