"""The commands and the code that README and the pages show are run, where every model is small."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch
from PIL import Image

import parity
import vit
from parity.models import build_reference, configuration, synthetic
from tests.test_documentation import PAGES, ROOT, blocks, commands_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL = {"patch_size": 32, "num_layers": 2, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96}
PRESET = vit.Preset(patch_size=32, embed_dim=48, hidden_dim=96, num_heads=4, num_layers=2)
LEFT = (
    "--phases forward,backward,training",
    "--phases forward,conditions",
)  # which take long, and have tests of their own
PLACE = "parity check tests/candidates/"  # what these say is compared in `test_cli.py`

# what takes minutes, and has tests of its own: the command line is read, and that is all
MEASURING = {"benchmarks", "determinism", "gpu", "matrix", "tolerances", "train_digits", "wild"}
NAMED = {f"python -m {name}" for name in ("parity", "pytest", "vit.attention")}  # so, without an argument, in the text

MINE = """
import vit

class ViT(vit.ViT):
    def __init__(self, img_size=224, patch_size=32, embed_dim=48, hidden_dim=96, num_heads=4, num_layers=2,
                 num_classes=1000, dropout=0.0, pool="cls"):
        assert pool == "cls"
        super().__init__(img_size=img_size, patch_size=patch_size, embed_dim=embed_dim, hidden_dim=hidden_dim,
                         num_heads=num_heads, num_layers=num_layers, num_classes=num_classes, dropout=dropout)
"""
DINO = """
import vit

def build():
    return vit.ViT(img_size=32, patch_size=16, embed_dim=32, hidden_dim=64, num_heads=4, num_layers=1, num_classes=7)
"""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder as the pages suppose it, where torchvision's models, ours and the official weights are small."""
    with pytest.MonkeyPatch.context() as patched:
        published = configuration("vit_b_16", SMALL)
        patched.setattr("parity.models.reference._published", lambda _: published)
        for name in vit.PRESETS:
            patched.setitem(vit.PRESETS, name, PRESET)
        original = build_reference(configuration("vit_b_16"))
        state = synthetic(original, 1)
        patched.setattr("parity.models.weights.official", lambda _: state)
        patched.chdir(tmp_path_factory.mktemp("commands"))
        mapping = parity.infer_mapping(original, vit.ViT(**PRESET._asdict()))
        for name in ("port.pth", "original.pth"):
            torch.save(mapping.apply(state), name)
        safetensors.torch.save_file(mapping.apply(state), "mine.safetensors")
        Path("mymodel.py").write_text(MINE)
        Path("timm_dino.py").write_text(DINO)
        Path("photos").mkdir()
        Path("docs").mkdir()
        for name in ("photos/cat.png", "photo.jpg"):
            Image.effect_noise((80, 60), 60).save(name)
        for name in ("report.json", "old.json", "new.json"):
            Path(name).write_text(parity.check("vit:ViT", modes=["eval"]).to_json())
        yield


@pytest.mark.parametrize(
    "command",
    [
        c
        for c in commands_of("parity")
        if (".py" in c or "vit:" in c or ".json" in c)
        and not c.startswith(PLACE)
        and not any(left in c for left in LEFT)
    ],
)
def test_command_does_what_the_page_says(command: str, run: Callable[..., tuple[int, str, str]]) -> None:
    words = shlex.split(command, comments=True)[1:]
    quick = ["--modes", "eval"] if words[0] == "check" and "meta" not in words else []
    status, out, err = run(*words, *quick)
    assert status == (3 if "no proof" in command else 0), out + err
    for option, path in itertools.pairwise(words):
        if option in ("-o", "--html", "--json"):
            assert Path(path).stat().st_size > 0


class _ReadError(Exception):
    """A command line was read."""


def _main(word: str, name: str) -> Callable[[], Any]:
    """Returns what `python -m name`, or `python name`, calls."""
    module = importlib.import_module(name if word == "-m" else ".".join(Path(word).with_suffix("").parts))
    if hasattr(module, "__path__"):
        is_known = f"{name}.__main__" in sys.modules
        module = importlib.import_module(f"{name}.__main__")
        if not is_known:  # by whoever runs it as a module
            del sys.modules[f"{name}.__main__"]
    main: Callable[[], Any] = module.main
    return main


@pytest.mark.parametrize("command", [c for c in commands_of("python") if c not in NAMED])
def test_module_that_a_page_runs_does_what_it_says(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command, comments=True)[1:]
    main = _main(*words[:2]) if words[0] == "-m" else _main(words[0], "")
    monkeypatch.setattr(sys, "argv", words[1:] if words[0] == "-m" else words)
    monkeypatch.setattr("docs.screenshot.PICTURE", Path("divergent.svg").absolute())
    if words[0] == "docs/screenshot.py":
        monkeypatch.chdir(ROOT)
    if MEASURING & {*words[words[0] == "-m"].removesuffix(".py").replace("/", ".").split(".")}:
        read = argparse.ArgumentParser.parse_args

        def only_read(parser: argparse.ArgumentParser, *arguments: Any) -> None:
            read(parser, *arguments)
            raise _ReadError

        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_read)
        with pytest.raises(_ReadError):
            main()
        return
    assert not main()


_COLLECTED = """
import json, sys
import pytest

class Counted:
    found = 0

    def pytest_collectreport(self, report):
        self.found += report.skipped  # a file whose package is not installed

    def pytest_collection_finish(self, session):
        self.found += len(session.items)

for words in json.load(sys.stdin):
    counted = Counted()
    status = pytest.main([*words, "--collect-only", "-qq", "-n", "0", "-p", "no:cacheprovider"], plugins=[counted])
    assert status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and counted.found, (words, status)
"""


def test_tests_that_a_page_runs_are_there() -> None:
    commands = [shlex.split(c.replace(" -k ID", ""), comments=True)[1:] for c in commands_of("pytest")]
    asked = json.dumps([words for words in commands if "FILE::TEST" not in words])
    command = [sys.executable, "-c", _COLLECTED]
    done = subprocess.run(command, cwd=ROOT, input=asked, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr[-2000:]


def _resized(table: torch.Tensor, side: int) -> torch.Tensor:
    return vit.resize_positions({"pos_embedding": table}, side, 1)["pos_embedding"]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_code_of_a_page_runs(page: Path) -> None:
    original = build_reference(configuration("vit_b_16"))
    state = synthetic(original, 1)
    original.to_empty(device="cpu").load_state_dict(state)
    port = vit.ViT(**PRESET._asdict())
    port.load_state_dict(parity.infer_mapping(original, port).apply(state))
    names: dict[str, Any] = {"parity": parity, "pytest": pytest, "my_port": port, "my_model": port,
                             "original_model": original, "my_resize": _resized}  # fmt: skip
    for block in blocks(page, "python"):
        if not block.startswith("yield "):  # an entry of a catalogue
            exec(compile(textwrap.dedent(block), page.name, "exec"), names)  # noqa: S102  (ours)
    if "report" in names:
        assert names["report"].verdict in ("identical", "equivalent")
    if "test_port_is_the_original" in names:
        names["test_port_is_the_original"](lambda **options: parity.assert_parity("mymodel.py:ViT", **options))
