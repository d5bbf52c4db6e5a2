"""Weights moved into a candidate and back: proved, folded where the map leaves something over, and read back."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from parity.converting import Converted
from parity.errors import ParityError
from parity.models.candidate import resolve_candidate
from parity.models.reference import build_reference, configuration
from parity.models.weights import synthetic
from tests.candidates.catalogue import RIGHT

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    State = dict[str, torch.Tensor]
    Command = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("brief_search")

CANDIDATES = Path(__file__).parent / "candidates"
SIZES = {
    "image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96,
    "num_classes": 10,
}  # fmt: skip
CONFIG = configuration("vit_b_16", SIZES)
OPTIONS = [f"--set={key}={value}" for key, value in SIZES.items()]

# what rounding a few weights once more may do to logits, relative
ROUNDED = 1e-6

# changes to tests/candidates/fused_qkv.py, texts and what stands there instead
Changes = list[tuple[str, str]]
NO_ROW = (
    "torch.zeros(1, self.patch_embed.num_patches + 1, embed_dim)",
    "torch.zeros(1, self.patch_embed.num_patches, embed_dim)",
)
TANH = ("nn.GELU()", 'nn.GELU(approximate="tanh")')
NO_AFFINE = ("nn.LayerNorm(dim, eps=1e-6)", "nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)")
TO_QKV = "qkv = self.qkv(x).reshape"


def _patches_only(rows: str = "") -> Changes:
    tokens = "x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x{}), dim=1)"
    return [(tokens.format(""), tokens.format(f" + self.pos_embed{rows}")), ("x + self.pos_embed)))", "x)))")]


def _without(part: str) -> Changes:
    made = (f"self.{p} = nn.Linear(dim, dim, bias={p != part})" for p in ("query", "key", "value"))
    return [
        ("self.qkv = nn.Linear(dim, dim * 3, bias=True)", "; ".join(made)),
        (TO_QKV, "qkv = torch.cat([self.query(x), self.key(x), self.value(x)], -1).reshape"),
    ]


def _extra(made: str, used: str) -> Changes:
    return [
        ("self.mlp = Mlp(dim, mlp_hidden, drop)", f"self.mlp = Mlp(dim, mlp_hidden, drop); {made}"),
        ("x = x + self.attn(self.norm1(x))", f"x = x + {used}"),
    ]


LAYER_SCALE = "self.gain = nn.Parameter(1e-5 * torch.ones(dim))"
VECTOR = "nn.Parameter(torch.zeros(dim))"
BEIT_BIAS = "torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))"
BEIT = [
    ("self.qkv = nn.Linear(dim, dim * 3, bias=True)",
     f"self.qkv = nn.Linear(dim, dim * 3, bias=False); self.q_bias = {VECTOR}; self.v_bias = {VECTOR}"),
    (TO_QKV, f"qkv = nn.functional.linear(x, self.qkv.weight, {BEIT_BIAS}).reshape"),
]  # fmt: skip
GRID = "self.pos_embed[:, 1:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)"
DRAWN = "nn.init.trunc_normal_(self.cls_token, std=0.02)\n"  # the constructor's end
LOADED_OTHERWISE = """
    def load_state_dict(self, state, **options):
        return super().load_state_dict({k: v * 1.001 for k, v in state.items()}, **options)
"""
COPIED_OTHERWISE = LOADED_OTHERWISE.replace("1.001", "(1 if options.get('assign') else 1.001)")
NOT_LOADED = """
    def load_state_dict(self, state, **options):
        raise KeyError("pre_logits")
"""
IN_HALF = """
        self.head.weight.data = self.head.weight.data.bfloat16()
"""
THREE_NORMS = [
    *_without("none"),
    ("self.norm1 = nn.LayerNorm(dim, eps=1e-6)",
     "self.norm1 = nn.ModuleList([nn.LayerNorm(dim, eps=1e-6) for _ in range(3)])"),
    ("self.attn(self.norm1(x))", "self.attn([norm(x) for norm in self.norm1])"),
    ("B, N, C = x.shape", "(B, N, C), (x, y, z) = x[0].shape, x"),
    ("self.key(x), self.value(x)", "self.key(y), self.value(z)"),
]  # fmt: skip

# by name: the changes, and what is said of the fold there and back
FOLDED: dict[str, tuple[Changes, str, str]] = {
    "no position of the class token": (
        [NO_ROW, *_patches_only()], r"pos_embedding\[:, 0:1\]: added to class_token",
        r"pos_embedding\[:, 0:1\]: filled with zeros",
    ),
    "row of the class token not used": (
        _patches_only("[:, 1:]"), r"pos_embedding\[:, 0:1\]: added to class_token",
        r"pos_embedding\[:, 0:1\]: filled with zeros",
    ),
    "class token of zeros": (
        [("self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))", "self.dim = embed_dim"),
         ("nn.init.trunc_normal_(self.cls_token, std=0.02)", "pass"),
         ("self.cls_token.expand(x.shape[0], -1, -1)", "x.new_zeros(len(x), 1, self.dim)")],
        r"class_token: added to encoder\.pos_embedding\[:, 0:1\]", r"class_token: filled with zeros",
    ),
    "positions transposed": (
        [("x + self.pos_embed)", f"x + torch.cat((self.pos_embed[:, :1], {GRID}), 1))")],
        r"pos_embedding: put where it is used", r"pos_embedding: put where it is used",
    ),
    "fixed positions": (
        [("self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 1, embed_dim))",
          "self.register_buffer('pos_embed', torch.randn(1, self.patch_embed.num_patches + 1, embed_dim))"),
         ("nn.init.trunc_normal_(self.pos_embed, std=0.02)", "pass")],
        r"pos_embed: filled with encoder\.pos_embedding", r"encoder\.pos_embedding: filled with pos_embed",
    ),
    "no bias of the patches": (
        [("patch_size, patch_size)", "patch_size, patch_size, bias=False)")],
        r"conv_proj\.bias: added to encoder\.pos_embedding\[:, 1:17\]", r"conv_proj\.bias: filled with zeros",
    ),
    "images normalised inside": (
        [("self.proj(x).flatten", "self.proj(2 * x - 1).flatten")], r"conv_proj\.weight .*2 x - 1",
        r"conv_proj\.weight .*2 x - 1",
    ),
    "no value bias": (
        _without("value"), r"in_proj_bias\[96:144\] .*: folded into the bias of the projection that follows",
        r"in_proj_bias\[96:144\] \(2 tensors\): filled with zeros",
    ),
    "no attention scale": (
        [("(q * self.scale)", "q")], r"in_proj_weight\[0:48\] .*rescaled, for attention scale 1 \(none\)",
        r"in_proj_weight\[0:48\] .*rescaled, for attention scale 1 \(none\)",
    ),
    "another attention scale": (
        [("(dim // num_heads) ** -0.5", "0.2345")], r"in_proj_weight\[0:48\] .*rescaled, for attention scale 0\.2345",
        r"in_proj_weight\[0:48\] .*rescaled, for attention scale 0\.2345",
    ),
    "a learned attention scale": (
        [("self.scale = (dim // num_heads) ** -0.5", "self.scale = nn.Parameter(torch.ones(()))")],
        r"attn\.scale \(2 tensors\): filled with attention's scale", r"attn\.scale \(2 tensors\): multiplied into",
    ),
    "a branch halved": (
        [("x = x + self.attn", "x = x + 0.5 * self.attn")], r"out_proj\.weight .*rescaled, for .*times 0\.5",
        r"out_proj\.weight .*rescaled, for .*times 0\.5",
    ),
    "LayerScale": (
        _extra(LAYER_SCALE, "self.gain * self.attn(self.norm1(x))"),
        r"gain \(2 tensors\): filled with ones", r"gain \(2 tensors\): folded into the projection before",
    ),
    "an affine behind attention": (
        _extra(f"{LAYER_SCALE}; self.shift = nn.Parameter(torch.ones(dim))",
               "(self.gain * self.attn(self.norm1(x)) + self.shift)"),
        r"gain .* and .*shift .*: filled with ones and zeros", r"gain .* and .*shift .*: folded into the projection",
    ),
    "one number per branch": (
        _extra("self.alpha = nn.Parameter(torch.zeros(1))", "self.alpha * self.attn(self.norm1(x))"),
        r"alpha \(2 tensors\): filled with ones", r"alpha \(2 tensors\): multiplied into blocks\.\{i\}\.attn\.proj",
    ),
    "another projection": (
        _extra("self.again = nn.Linear(dim, dim)", "self.again(self.attn(self.norm1(x)))"),
        r"weight .*: filled with the identity and zeros", r"weight .*: multiplied into the projection that follows",
    ),
    "norms without scale and bias": (
        [NO_AFFINE], r"ln_1\.weight .*: folded into the projection that follows",
        r"ln_1\.weight .*: filled with ones and zeros",
    ),
    "a norm for each of query, key and value": (
        THREE_NORMS, r"norm1\.0\.weight .*: filled with a copy of blocks\.\{i\}\.norm1\.2\.weight",
        r"norm1\.0\.weight .*: the same as blocks\.\{i\}\.norm1\.2\.weight",
    ),
}  # fmt: skip

# what looks like one of them, and is another function: there, and back
WRONG: dict[str, tuple[Changes, bool, bool]] = {
    "tanh GELU": ([TANH], True, True),
    "no position of the class token, tanh GELU": ([NO_ROW, *_patches_only(), TANH], True, True),
    "positions twice": ([("x + self.pos_embed)", "(x + self.pos_embed) * self.pos_embed)")], True, True),
    "no query bias": (_without("query"), True, False),
    "no bias of the output projection": ([("nn.Linear(dim, dim)", "nn.Linear(dim, dim, bias=False)")], True, False),
    "no attention scale, tanh GELU": ([("(q * self.scale)", "q"), TANH], True, True),
    "LayerScale through a tanh": (
        _extra(LAYER_SCALE, "self.gain.tanh() * self.attn(self.norm1(x))"), True, True
    ),
    "another projection behind an activation": (
        _extra("self.again = nn.Linear(dim, dim)", "self.again(self.attn(self.norm1(x)).relu())"), True, True
    ),
    "norms without scale and bias, another eps": ([(NO_AFFINE[0], NO_AFFINE[1].replace("1e-6", "1e-5"))], True, True),
    "an extra norm": (_extra("self.again = nn.LayerNorm(dim)", "self.again(self.attn(self.norm1(x)))"), True, True),
    "a norm for each of query, key and value, of other weights": (THREE_NORMS, False, True),
}  # fmt: skip


def _written(folder: Path, changes: Changes) -> str:
    """Writes a candidate to a file, and returns how it is called."""
    text = (CANDIDATES / "fused_qkv.py").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "candidate.py").write_text(text)
    return f"{folder / 'candidate.py'}:VisionTransformer"


def _built(name: str) -> nn.Module:
    return resolve_candidate(name, CONFIG).build().eval()


def _own_weights(module: nn.Module, file: Path) -> State:
    state = module.state_dict() | synthetic(module, 7, only=dict(module.named_parameters()).keys())
    torch.save(state, file)
    return state


def _reference_weights(file: Path) -> State:
    state = synthetic(build_reference(CONFIG), 3)
    torch.save(state, file)
    return state


def _apart(reference_state: State, candidate: nn.Module, candidate_state: State) -> float:
    """Returns how far apart the logits of both models are in float64, relative."""
    reference = build_reference(CONFIG).to_empty(device="cpu").eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = []
    for model, state in ((reference, reference_state), (candidate, candidate_state)):
        model.load_state_dict(state)
        with torch.no_grad():
            logits.append(model.double()(images))
    return float((logits[0] - logits[1]).norm() / logits[0].norm())


@pytest.mark.parametrize(
    "name",
    ["class_token_last", "fused_qkv", "head_modules", "interleaved_h3d", "linear_patches_ppc", "raw_parameters",
     "separate_qkv", "split_positions", "stacked_parameters"],
)  # fmt: skip
def test_there_and_back_are_the_same_bits(name: str, run: Command, tmp_path: Path) -> None:
    candidate = f"{CANDIDATES / name}.py:{RIGHT[name]}"
    state = _reference_weights(tmp_path / "weights.pth")
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    status, out, err = run("convert", candidate, *OPTIONS, f"--weights={tmp_path}/weights.pth", "-o", there)
    assert (status, err) == (0, "")
    assert re.fullmatch(r"read back: logits of both models agree to \de-1[5-9]|.* agree to 0", out.splitlines()[-1])
    assert _apart(state, _built(candidate), load_file(there)) < 1e-12
    assert run("convert", candidate, *OPTIONS, f"--weights={there}", "--reverse", "-o", back)[0] == 0
    again = load_file(back)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize("what", FOLDED)
def test_what_is_left_over_is_folded_and_that_is_said(what: str, run: Command, tmp_path: Path) -> None:
    changes, there, back = FOLDED[what]
    candidate, output = _written(tmp_path, changes), tmp_path / "out.safetensors"
    state = _reference_weights(tmp_path / "weights.pth")
    own = _own_weights(_built(candidate), tmp_path / "own.pth")
    if changes is THREE_NORMS:
        own |= {name: own[re.sub(r"norm1\.\d", "norm1.2", name)] for name in own}
        torch.save(own, tmp_path / "own.pth")
    for arguments, sentence in (
        ((f"--weights={tmp_path}/weights.pth",), there),
        ((f"--weights={tmp_path}/own.pth", "--reverse"), back),
    ):
        status, out, err = run("convert", candidate, *OPTIONS, *arguments, "-o", output)
        assert status == 0, err
        folds = [line for line in out.splitlines() if line.startswith("folded: ")]
        assert any(re.search(sentence, line) for line in folds), out
        assert re.search(r"proof: the same function with \d folds?: in float64 .* agree to \S+e-1[4-9]", out)
        assert re.match(r"read back: logits of both models agree to \S+e-(0[7-9]|1\d)", out.splitlines()[-1])
        moved = load_file(output)
        pair = (moved, own) if "--reverse" in arguments else (state, moved)
        assert _apart(pair[0], _built(candidate), pair[1]) < ROUNDED


@pytest.mark.parametrize("changes", [_without("key"), BEIT], ids=["no key bias", "biases by themselves"])
def test_keys_bias_has_no_effect_and_needs_no_fold(changes: Changes, run: Command, tmp_path: Path) -> None:
    candidate, output = _written(tmp_path, changes), tmp_path / "out.safetensors"
    state = _reference_weights(tmp_path / "weights.pth")
    own = _own_weights(_built(candidate), tmp_path / "own.pth")
    for arguments in ((f"--weights={tmp_path}/weights.pth",), (f"--weights={tmp_path}/own.pth", "--reverse")):
        status, out, err = run("convert", candidate, *OPTIONS, *arguments, "-o", output)
        assert status == 0, err
        assert re.match(r"read back: logits of both models agree to \S+e-(0[7-9]|1\d)", out.splitlines()[-1])
        moved = load_file(output)
        pair = (moved, own) if "--reverse" in arguments else (state, moved)
        assert _apart(pair[0], _built(candidate), pair[1]) < ROUNDED


@pytest.mark.parametrize("what", WRONG)
def test_what_only_looks_foldable_is_refused(what: str, run: Command, tmp_path: Path) -> None:
    changes, *refused = WRONG[what]
    candidate, output = _written(tmp_path, changes), tmp_path / "out.safetensors"
    _reference_weights(tmp_path / "weights.pth")
    _own_weights(_built(candidate), tmp_path / "own.pth")
    given = [f"--weights={tmp_path}/weights.pth"], [f"--weights={tmp_path}/own.pth", "--reverse"]
    for arguments, is_refused in zip(given, refused, strict=True):
        status, out, err = run("convert", candidate, *OPTIONS, *arguments, "-o", output)
        assert (status == 2) == is_refused, out + err
        if is_refused:
            assert "the map is not proved, since the models are divergent" in err
            assert len(err.splitlines()) == 1
            assert not output.exists()
        output.unlink(missing_ok=True)


def test_bias_that_is_zero_may_be_missing_and_no_other(run: Command, tmp_path: Path) -> None:
    candidate = _written(tmp_path, [("nn.Linear(dim, dim)", "nn.Linear(dim, dim, bias=False)")])
    state = _reference_weights(tmp_path / "weights.pth")
    names = [name for name in state if name.endswith("out_proj.bias")]
    arguments = "convert", candidate, *OPTIONS, f"--weights={tmp_path}/weights.pth", "-o", tmp_path / "out.safetensors"
    status, _, err = run(*arguments)
    assert status == 2
    assert re.search(r"no other weights can take over what \S+out_proj\.bias \(2 tensors\) does", err)
    torch.save(state | {name: torch.zeros(48) for name in names}, tmp_path / "weights.pth")
    status, out, _ = run(*arguments)
    assert status == 0
    assert re.search(r"out_proj\.bias \(2 tensors\): does nothing with these weights, and left out", out)


def test_force_says_what_is_not_proved(run: Command, tmp_path: Path) -> None:
    candidate = _written(tmp_path, [NO_ROW, *_patches_only(), TANH])
    for arguments in (["--weights=synthetic"], [f"--weights={tmp_path}/own.pth", "--reverse"]):
        _own_weights(_built(candidate), tmp_path / "own.pth")
        output = tmp_path / "out.safetensors"
        status, out, err = run("convert", candidate, *OPTIONS, *arguments, "--force", "-o", output)
        assert status == 0
        assert "proof: not proved, since the models are divergent: " in out
        assert re.fullmatch(
            r"read back: logits of both models differ by \d\S*, and .* not proved", out.splitlines()[-1]
        )
        assert "no position of the class token" in err
        with safe_open(output, "pt") as file:
            assert file.metadata()["proof"].startswith("not proved")


def test_file_says_where_it_comes_from_and_why_it_is_right(run: Command, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    candidate = _written(tmp_path, [NO_ROW, *_patches_only()])
    assert run("convert", candidate, *OPTIONS, "--weights=synthetic", "-o", output)[0] == 0
    with safe_open(output, "pt") as file:
        about = file.metadata()
    assert (about["format"], about["source"]) == ("pt", "synthetic:0")
    assert about["proof"].startswith("the same function with 1 fold: ")
    assert about["folds"] == "encoder.pos_embedding[:, 0:1]: added to class_token"


TIED = [("self.head = nn.Linear(embed_dim, num_classes)", "self.fc = self.head = nn.Linear(embed_dim, num_classes)")]


def test_tensor_of_two_names_gets_its_values_under_both(run: Command, tmp_path: Path) -> None:
    candidate = _written(tmp_path, TIED)
    state = _reference_weights(tmp_path / "weights.pth")
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    assert run("convert", candidate, *OPTIONS, f"--weights={tmp_path}/weights.pth", "-o", there)[0] == 0
    own = load_file(there)
    assert torch.equal(own["fc.weight"], own["head.weight"])
    assert run("convert", candidate, *OPTIONS, f"--weights={there}", "--reverse", "-o", back)[0] == 0
    assert torch.equal(load_file(back)["heads.head.weight"], state["heads.head.weight"])
    torch.save(own | {"fc.weight": 2 * own["fc.weight"]}, tmp_path / "own.pth")
    back.unlink()
    status, _, err = run("convert", candidate, *OPTIONS, f"--weights={tmp_path}/own.pth", "--reverse", "-o", back)
    assert status == 2
    assert "fc.weight and head.weight are one tensor in the candidate, and differ in" in err
    assert not back.exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (LOADED_OTHERWISE, r"what the candidate's own code makes of the weights .* something else: cls_token, "),
        # before torch 2.1 nothing is assigned as it is loaded
        (COPIED_OTHERWISE, r"(read back into the candidate, .* differ from the reference's by \d|what .* makes of)"),
        (NOT_LOADED, r"the candidate cannot load the weights, KeyError: 'pre_logits'"),
        (IN_HALF, r"head\.weight is bfloat16 in the candidate, which cannot hold the weights exactly"),
    ],
    ids=["other values loaded", "other values copied", "not loaded", "too few digits"],
)
def test_nothing_is_written_that_the_model_would_not_hold(
    more: str, message: str, run: Command, tmp_path: Path
) -> None:
    candidate, output = _written(tmp_path, [(DRAWN, DRAWN + more)]), tmp_path / "out.safetensors"
    output.write_bytes(b"old")
    status, out, err = run("convert", candidate, *OPTIONS, "--weights=synthetic", "-o", output)
    assert (status, out) == (2, "")
    assert re.search(f"nothing is written: {message}", err), err
    assert output.read_bytes() == b"old"
    assert {file.name for file in tmp_path.iterdir()} <= {"candidate.py", "out.safetensors", "__pycache__"}


def test_constant_of_the_candidates_own_may_be_infinite(run: Command, tmp_path: Path) -> None:
    made = "self.register_buffer('mask', torch.full((3, 3), -torch.inf))"
    candidate = _written(tmp_path, [("self.pos_drop = nn", f"{made}; self.pos_drop = nn")])
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    assert run("convert", candidate, *OPTIONS, "--weights=synthetic", "-o", there)[0] == 0
    assert bool(torch.isinf(load_file(there)["mask"]).all())
    assert run("convert", candidate, *OPTIONS, f"--weights={there}", "--reverse", "-o", back)[0] == 0
    other = load_file(there)
    torch.save(other | {"mask": torch.full((3, 3), torch.inf)}, tmp_path / "own.pth")
    status, _, err = run("convert", candidate, *OPTIONS, f"--weights={tmp_path}/own.pth", "--reverse", "-o", back)
    assert status == 2
    assert "the tensor mask in" in err


def test_logits_that_show_nothing_are_no_agreement(run: Command, tmp_path: Path) -> None:
    state = _reference_weights(tmp_path / "weights.pth")
    torch.save({name: torch.zeros_like(tensor) for name, tensor in state.items()}, tmp_path / "weights.pth")
    output = tmp_path / "out.safetensors"
    status, out, _ = run("convert", *OPTIONS, f"--weights={tmp_path}/weights.pth", "-o", output)
    assert status == 0
    assert out.splitlines()[-1].endswith(
        "agree to 0, but they are all exactly 0 whatever the images, which shows little"
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), ParityError("no")])
def test_whatever_happens_as_it_is_written_the_old_file_is_whole(
    error: BaseException, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.safetensors"
    output.write_bytes(b"old")

    def interrupted(_: Converted, path: Path) -> str:
        path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(Converted, "write", interrupted)
    arguments = "convert", *OPTIONS, "--weights=synthetic", "-o", output
    assert run(*arguments)[0] == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert [file.name for file in tmp_path.iterdir()] == ["out.safetensors"]
    assert output.read_bytes() == b"old"


def test_terminated_process_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom parity.writing import whole\n"
        "with whole(Path(sys.argv[1])) as file:\n"
        "    file.write_text('half of it')\n    os.kill(os.getpid(), signal.SIGTERM)\n    file.write_text('all')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out.txt")], check=False)  # noqa: S603
    assert done.returncode == -signal.SIGTERM
    assert not list(tmp_path.iterdir())
