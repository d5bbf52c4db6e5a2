"""The command line's contract: exit statuses, one sentence for every mistake, results on stdout and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image
from torchvision.models import VisionTransformer

from parity.cli import main
from parity.models.reference import build_reference, configuration
from parity.models.weights import synthetic
from parity.suite.conftest import SMALL
from tests.conftest import SMALL_OPTIONS
from tests.corpus.equivalents import variant_of

if TYPE_CHECKING:
    from collections.abc import Callable

EVAL = ("--modes", "eval")


def test_verdict_is_the_last_line_and_status_0(run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = run("check", *SMALL_OPTIONS)
    assert status == 0
    assert out.splitlines()[-1] == "identical: vit:ViT and vit_b_16, 38 layers compared"
    assert err == ""


def test_quiet_prints_the_verdict_only(run: Callable[..., tuple[int, str, str]]) -> None:
    assert run("check", *SMALL_OPTIONS, *EVAL, "--quiet") == (0, "identical\n", "")


def test_all_layers_are_shown_when_asked_for(run: Callable[..., tuple[int, str, str]]) -> None:
    _, folded, _ = run("check", *SMALL_OPTIONS, *EVAL)
    _, unfolded, _ = run("check", *SMALL_OPTIONS, *EVAL, "--all-layers")
    assert "encoder.layers.encoder_layer_1" not in folded
    assert "encoder.layers.encoder_layer_1.mlp.3 " in unfolded
    assert "not compared (owns the same weights as heads.head, which is compared)" in unfolded


def test_json_on_stdout_is_alone_there(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    noisy = tmp_path / "noisy.py"
    noisy.write_text("from vit import ViT\nprint('imported')\ndef make(**k):\n    return ViT(**k)\n")
    status, out, err = run("check", f"{noisy}:make", *_arguments_of_small(), *SMALL_OPTIONS, *EVAL, "--json", "-")
    report = json.loads(out)
    assert (status, report["schema"], report["verdict"]) == (0, 1, "identical")
    assert "imported" in err


def _arguments_of_small() -> list[str]:
    names = {"image_size": "img_size", "hidden_dim": "embed_dim", "mlp_dim": "hidden_dim"}
    arguments = {names.get(key, key): value for key, value in SMALL.items()}
    return [f"--candidate-arg={key}={value}" for key, value in arguments.items()]


def test_json_file_has_the_contracts_keys(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    status, out, _ = run("check", *SMALL_OPTIONS, "--json", file)
    report: dict[str, Any] = json.loads(file.read_text())
    assert status == 0
    assert out.splitlines()[-1].startswith("identical")
    assert report.keys() >= {
        "schema", "verdict", "reasons", "reference", "candidate", "environment", "mapping", "checks", "layers",
        "origin", "causes", "explanation", "timings", "digests", "complete",
    }  # fmt: skip
    assert report["reference"]["name"] == "vit_b_16"
    assert report["reference"]["config"]["hidden_dim"] == 64
    assert report["reference"]["weights"] == "synthetic:0"
    assert report["environment"].keys() == {
        "torch", "torchvision", "python", "platform", "threads", "cpu_capability", "device", "reduced_float32",
        "reduced_precision_reductions", "attention_kernels", "onednn", "deterministic_algorithms",
    }  # fmt: skip
    assert report["digests"].keys() == {"weights", "map", "candidate", "environment", "report"}
    assert report["candidate"]["files"][0] == "vit/__init__.py"
    assert "vit/model.py" in report["candidate"]["files"]
    assert report["mapping"]["tensors"] == len(report["mapping"]["entries"]) == 44
    assert report["mapping"]["entries"][0] == {
        "reference": "class_token", "candidate": "cls_token", "layout": "identity",
    }  # fmt: skip
    assert report["checks"][0].keys() >= {"name", "verdict", "max_abs", "relative", "max_ulp", "identical"}
    assert report["layers"][0].keys() >= {
        "reference", "candidate", "identical", "max_ulp", "noise_ratio", "isolated", "accumulated", "status", "why",
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == [file]


def test_equivalent_is_0_and_1_where_identical_is_required(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    candidate = variant_of("norms-written-out").write(tmp_path)  # rounds otherwise than a kernel, on any processor
    assert run("check", candidate, *SMALL_OPTIONS, *EVAL)[0] == 0
    status, out, err = run("check", candidate, *SMALL_OPTIONS, *EVAL, "--require", "identical")
    assert status == 1
    assert out.splitlines()[-1].startswith("equivalent: ")
    assert "--require identical" in err


def test_fresh_torchvision_model_as_reference_is_inconclusive(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "fresh.pth"
    torch.save(VisionTransformer(**configuration("vit_b_16", SMALL)).state_dict(), file)
    status, out, _ = run("check", *SMALL_OPTIONS, "--weights", file)
    assert status == 3
    assert "the reference's logits are all exactly 0, so no comparison of them could have failed" in out
    assert "parameters of the reference have no effect on its logits" in out
    assert out.splitlines()[-1].startswith("inconclusive: ")


def test_tensor_without_counterpart_is_named_and_the_rest_compared(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "other.py"
    file.write_text(
        "from vit import ViT\n"
        "class Other(ViT):\n"
        "    def __init__(self, image_size, patch_size, dim, mlp_dim, heads, depth, classes):\n"
        "        super().__init__(image_size, 3, patch_size, dim, mlp_dim, heads, depth, 0., classes)\n"
        "        self.ln.bias = None\n"
    )
    report_file = tmp_path / "report.json"
    status, out, _ = run("check", f"{file}:Other", *SMALL_OPTIONS, "--json", report_file)
    assert status == 1
    assert "no shift: the candidate has no counterpart of encoder.ln.bias" in out
    report = json.loads(report_file.read_text())
    assert report["origin"]["reference"] == "encoder.ln"
    mapping = report["mapping"]
    assert (mapping["unmapped_reference"], mapping["unmapped_candidate"]) == (["encoder.ln.bias"], [])


def test_model_without_attention_is_inconclusive(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "other.py"
    file.write_text(
        "from torch import nn\n"
        "def build(image_size, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))\n"
    )
    report_file = tmp_path / "report.json"
    status, out, _ = run("check", f"{file}:build", *SMALL_OPTIONS, "--json", report_file)
    assert status == 3
    assert "no projections to query, key and value that correspond to the reference's" in out
    report = json.loads(report_file.read_text())
    assert report["mapping"]["unmapped_candidate"] == ["1.weight", "1.bias"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    from skimage import data

    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("astronaut", "coffee", "chelsea"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder


@pytest.mark.parametrize("picture", ["", "coffee.png"])
def test_photographs_give_the_same_bits_and_the_same_top_5(
    run: Callable[..., tuple[int, str, str]], photographs: Path, picture: str, tmp_path: Path
) -> None:
    report_file = tmp_path / "report.json"
    status, out, _ = run(
        "check", "--reference", "vit_b_32", "--set", "num_layers=3", *EVAL, "--input", photographs / picture,
        "--json", report_file,
    )  # fmt: skip
    assert status == 0
    report = json.loads(report_file.read_text())
    shown = ["coffee.png"] if picture else ["astronaut.png", "chelsea.png", "coffee.png"]
    assert [top["picture"] for top in report["top5"]] == shown
    for top in report["top5"]:
        assert f"top 5 of {top['picture']}" in out
        assert len(top["reference"]) == 5
        assert top["reference"] == top["candidate"]
    # a single picture is shown among random images, since a batch of one would hide a mix-up
    assert report["input"].endswith("3x3x224x224")


PRINTS_NOTHING = [
    (["--reference", "vit_b_17"], "unknown reference 'vit_b_17'; torchvision has vit_b_16, vit_b_32"),
    (["nowhere:ViT"], "the candidate nowhere:ViT cannot be imported: there is no module nowhere; install it"),
    (["nowhere.py:ViT"], "the candidate cannot be imported: there is no file nowhere.py"),
    (["vit:Vit"], "the candidate vit:Vit cannot be imported: vit has no attribute 'Vit'"),
    (["vit"], "the candidate 'vit' must be package.module:callable or path/to/file.py:callable"),
    (["vit:PRESETS"], "the candidate vit:PRESETS is a dict, expected a class or function"),
    (["--candidate-arg", "depth=3"], "the candidate vit:ViT takes no argument 'depth'; it takes img_size"),
    (["--candidate-arg", "num_heads=5"], "cannot be built: ValueError: embed_dim must be divisible by num_heads"),
    (["--candidate-arg", "num_heads"], "--candidate-arg num_heads: expected KEY=VALUE"),
    (["--set", "depth=3"], "--set has no key 'depth'; the keys are torchvision's: image_size, patch_size"),
    (["--set", "num_layer=3"], "--set has no key 'num_layer'; did you mean 'num_layers'?"),
    (["--set", "num_layers=three"], "--set num_layers='three': expected a positive whole number"),
    (["--set", "dropout=2"], "--set dropout=2: expected a probability"),
    (["--set", "image_size=225"], "torchvision refuses this configuration"),
    (["--weights", "nowhere.pth"], "there is no weights file nowhere.pth"),
    (["--weights", "imagenet"], "--weights imagenet: expected synthetic, official"),
    (["--mapping", "nowhere.toml"], "cannot read the weight map nowhere.toml"),
    (["--input", "nowhere.png"], "--input nowhere.png: there is no such picture or folder"),
    (["--batch", "0"], "--batch 0: expected at least 1"),
    (["--batch", "100000000"], "--batch 100000000: the images alone would need"),
    (["--set", "num_layers=100000000"], "parameters would need 11,469 GB of memory"),
    (["--set", "image_size=1" + "0" * 30], "GB of memory, and there are"),
    (["--dtype", "int8"], "--dtype int8: expected one of float32"),
    (["--modes", "evil"], "--modes evil: expected some of eval"),
    (["--device", "moon"], "--device moon: it has no float64 tensors"),
    (["--device", "meta", "--phases", "backward"], "--device meta: it has shapes and no values, which only"),
    (["--seed", "-1"], "--seed -1: expected a whole number from 0"),
    (["--json", "nowhere/report.json"], "there is no folder nowhere"),
    (["--json", "."], ". cannot be written: it is a folder"),
]


@pytest.mark.parametrize(("arguments", "message"), PRINTS_NOTHING, ids=[" ".join(a) for a, _ in PRINTS_NOTHING])
def test_bad_input_is_one_sentence_and_status_2(
    arguments: list[str], message: str, run: Callable[..., tuple[int, str, str]]
) -> None:
    status, out, err = run("check", *SMALL_OPTIONS, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("parity: ")
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_bad_files_are_one_sentence_and_status_2(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    picture, broken, empty = tmp_path / "picture.png", tmp_path / "broken.py", tmp_path / "empty"
    picture.write_text("no picture")
    broken.write_text("import nothing_of_this_name\n")
    empty.mkdir()
    weights = tmp_path / "weights.pth"
    torch.save(synthetic(build_reference(configuration("vit_b_32", {"num_layers": 1})), seed=0), weights)
    for arguments, message in (
        (["--input", picture], "picture.png cannot be read as a picture"),
        (["--input", empty], "the folder holds no pictures"),
        (
            [f"{broken}:ViT"],
            "broken.py:1: there is no module nothing_of_this_name; install it",
        ),
        (["--weights", weights], "don't fit the reference"),
    ):
        status, out, err = run("check", *SMALL_OPTIONS, *arguments)
        assert (status, out) == (2, ""), err
        assert message in err
        assert err.count("\n") == 1


def test_candidate_that_fails_in_its_forward_pass_names_the_module(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "failing.py"
    source = Path(sys.modules["vit.model"].__file__ or "").read_text()
    file.write_text(source.replace("        y = self.MLP(self.norm(x))", "        raise RuntimeError('out of luck')"))
    status, _, err = run("check", f"{file}:ViT", *SMALL_OPTIONS)
    assert status == 2
    assert "the candidate failed in attn_layers.0 on an input of shape (3, 3, 48, 48): RuntimeError: out of luck" in err


def test_traceback_is_shown_when_asked_for(run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = run("check", "--reference", "vit_b_17", "--traceback")
    assert (status, out) == (2, "")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("parity: unknown reference")


def test_candidate_that_ends_python_is_an_error(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    file = tmp_path / "script.py"
    file.write_text("import sys\nsys.exit(0)\n")
    status, out, err = run("check", f"{file}:ViT")
    assert (status, out) == (2, "")
    assert "script.py:2: SystemExit: 0" in err


@pytest.mark.usefixtures("faults_are_planted")
def test_bug_of_our_own_is_no_verdict(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parity.mapping.placing.align_with_portions", None)
    status, out, err = run("check", *SMALL_OPTIONS)
    assert (status, out) == (2, "")
    assert err.startswith("parity: a bug in parity itself, TypeError: 'NoneType' object is not callable in placing.py")
    assert "Traceback" in run("check", *SMALL_OPTIONS, "--traceback")[2]


def test_verdict_stays_on_the_last_line_however_long_the_name(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    folder = tmp_path / ("a" * 120) / ("b" * 120)
    folder.mkdir(parents=True)
    _, out, _ = run("check", variant_of("second-sum-in-place").write(folder), *SMALL_OPTIONS, *EVAL)
    assert out.splitlines()[-1].startswith("identical: ")
    assert out.splitlines()[-1].endswith("layers compared")


def test_report_goes_through_a_link_and_into_a_pipe(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    link, file = tmp_path / "link.json", tmp_path / "file.json"
    link.symlink_to(file)
    assert run("check", *SMALL_OPTIONS, *EVAL, "--json", link)[0] == 0
    assert link.is_symlink()
    assert json.loads(file.read_text())["complete"] is True
    assert run("check", *SMALL_OPTIONS, *EVAL, "--json", "/dev/null")[0] == 0
    assert not Path("/dev/null").is_file()


def test_links_in_a_circle_are_no_files(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(link)
    for arguments, said in (
        (["check", "--json", link], "cannot be written: Too many levels of symbolic links"),
        (["check", "--json", tmp_path / ("x" * 300)], "cannot be written: File name too long"),
        (["convert", "--weights=synthetic", "-o", link], "cannot be written: Too many levels of symbolic links"),
        (["check", "--weights", link], "there is no weights file"),
        (["check", "--mapping", link], "cannot read the weight map"),
        (["check", "--input", link], "there is no such picture or folder"),
    ):
        status, out, err = run(*arguments, *SMALL_OPTIONS)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert said in err


def test_wrong_option_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "--no-such-option"])
    assert ended.value.code == 2
    assert "--no-such-option" in capsys.readouterr().err


_WRONG_USAGE = {
    "chek": "did you mean check?",
    "check mymodel.py MyViT": "did you mean mymodel.py:MyViT?",
    "check --bacth 3": "did you mean --batch?",
    "check vit:ViT --set num_layers=2 num_heads=4": "did you mean --set num_heads=4?",
    "check --batch three": "invalid int value: 'three'; parity check --help lists what there is",
    "check --timeout nan": "--timeout: expected a positive number, got 'nan'",
    "check --require identicl": "did you mean identical?",
    "convert vit:ViT": "required: --weights, -o/--output",
    "check --modes=": "--modes is empty: give it a value, or leave it out",
    "check --mapping= vit:ViT": "--mapping is empty",
    "map vit:ViT --candidate-weights=": "--candidate-weights is empty",
}


@pytest.mark.parametrize("line", _WRONG_USAGE)
def test_wrong_usage_is_one_sentence(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("parity: ")
    assert said.count("\n") == 1
    assert _WRONG_USAGE[line] in said


def test_version_is_that_of_all_that_decides(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert f"torch {torch.__version__.partition('+')[0]}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["--version"]])
def test_help_does_not_import_torch(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom parity.cli import main\n"
        f"try:\n    main({arguments!r})\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'rich'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)  # noqa: S603
    assert result.returncode == 0, result.stderr
    assert "usage: parity" in result.stdout or arguments == ["--version"]


def test_python_m_parity_is_the_console_script() -> None:
    command = [sys.executable, "-m", "parity", "check", "--reference", "vit_b_17"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert result.returncode == 2
    assert result.stderr.startswith("parity: unknown reference")


CANDIDATES = Path(__file__).parent / "candidates"


def test_convert_of_another_file_type_is_refused(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    status, _, err = run("convert", *SMALL_OPTIONS, "--weights", "official", "-o", tmp_path / "out.pth")
    assert status == 2
    assert "give it a name that ends in .safetensors" in err


def test_map_that_was_found_is_written_and_used(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    name, file = f"{CANDIDATES}/interleaved_hd3.py:ViT", tmp_path / "map.toml"
    status, out, err = run("map", name, *SMALL_OPTIONS, "-o", file)
    assert (status, out) == (0, "")
    assert "unique by proof" in err
    assert run("map", name, *SMALL_OPTIONS)[1] == file.read_text()
    assert "encoder_layer_{i}.mlp.0.weight" in file.read_text()
    status, out, _ = run("check", name, *SMALL_OPTIONS, "--mapping", file, "--modes", "eval")
    assert status == 0
    assert f"(map {file})" in out


def test_map_that_is_not_whole_says_so(run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = run("map", f"{CANDIDATES}/patch_norm.py:ViT", *SMALL_OPTIONS)
    assert status == 3
    assert "without counterpart: an extra norm: the reference has none of to_patch_embedding.2.weight" in err
    assert "[unmapped]" in out


def test_what_a_candidate_prints_when_python_exits_is_no_result(tmp_path: Path) -> None:
    file = tmp_path / "loud.py"
    file.write_text("import atexit\nfrom vit import ViT\natexit.register(print, 'goodbye')\n")
    command = [sys.executable, "-m", "parity", "check", f"{file}:ViT", *SMALL_OPTIONS, "--modes", "eval", "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  (our own command)
    assert json.loads(done.stdout)["verdict"] == "identical"
    assert "goodbye" in done.stderr
