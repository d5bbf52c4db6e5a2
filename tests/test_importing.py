"""Importing a candidate as Python would: its project, notebooks and scripts, and what is said where that fails."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import inspect
import json
import os
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.utils import _device as default_device

import parity
import vit
from parity import check
from parity.errors import ParityError
from parity.models.candidate import resolve_candidate
from parity.models.importing import imported
from parity.models.reference import configuration
from tests.small import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "from torch import nn\nclass ViT(nn.Module):\n    marker = {marker!r}\n"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def notebook(*cells: str) -> str:
    code = [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": "# A ViT"}, *code]})


def refusal(spec: object) -> str:
    with pytest.raises(ParityError) as refused:
        imported(str(spec))
    assert "_candidate" not in str(refused.value)
    assert "\n" not in str(refused.value)
    return str(refused.value)


LAYOUTS = {
    "relative imports": (
        "net/model.py",
        {"net/__init__.py": "", "net/model.py": "from .parts import ViT", "net/parts.py": MODULE},
    ),
    "relative imports above a bare folder": (
        "net/vits/model.py",
        {"net/vits/model.py": "from ..parts.vit import ViT", "net/parts/vit.py": MODULE},
    ),
    "relative imports of a neighbour further up": (
        "net/vits/model.py",
        {"net/vits/model.py": "from .b import ViT", "net/vits/b.py": "from ..c import ViT", "net/c.py": MODULE},
    ),
    "a file named like its package": (
        "net/net.py",
        {"net/__init__.py": "", "net/net.py": "from net.parts import ViT", "net/parts.py": MODULE},
    ),
    "a file named like its bare folder": (
        "net/net.py",
        {"net/net.py": "from net.parts import ViT", "net/parts.py": MODULE},
    ),
    "a file beside a package of its name": (
        "net.py",
        {"net.py": "from net.parts import ViT", "net/__init__.py": "", "net/parts.py": MODULE},
    ),
    "a package called vit": (
        "vit/model.py",
        {"vit/__init__.py": "", "vit/model.py": "import vit.parts\nViT = vit.parts.ViT", "vit/parts.py": MODULE},
    ),
    "a package called parity": (
        "model.py",
        {"parity/__init__.py": "from parity.errors import ViT", "parity/errors.py": MODULE,
         "model.py": "from parity import ViT"},
    ),
    "a package that is the candidate": (
        "net/__init__.py",
        {"net/__init__.py": "from net.model import ViT", "net/model.py": MODULE},
    ),
    "a folder that is a package": ("net", {"net/__init__.py": "from .model import ViT", "net/model.py": MODULE}),
    "a neighbour called vit": ("model.py", {"model.py": "from vit import ViT", "vit.py": MODULE}),
    "a file called like a module of Python": ("types.py", {"types.py": f"import types\ntypes.ModuleType\n{MODULE}"}),
    "a neighbour called like a module of Python": (
        "vit.py",
        {"vit.py": f"import types\ntypes.ModuleType\n{MODULE}", "types.py": ""},
    ),
    "a file called like what it imports": ("einops.py", {"einops.py": f"import einops\neinops.rearrange\n{MODULE}"}),
    "a file called like what parity needs": ("torch.py", {"torch.py": MODULE}),
    "a file whose name is no name": ("01-vit.v2.py", {"01-vit.v2.py": "from parts import ViT", "parts.py": MODULE}),
    "a folder whose name is no name": (
        "vit.v2-final/model.py",
        {"vit.v2-final/model.py": "from .parts import ViT", "vit.v2-final/parts.py": MODULE},
    ),
    "absolute imports from the repository": (
        "src/models/vit.py",
        {"setup.py": "", "src/models/vit.py": "from src.models.parts import ViT", "src/models/parts.py": MODULE},
    ),
    "absolute imports from a folder that nothing marks": (
        "models/vit/vit.py",
        {"models/vit/vit.py": "from models.parts.vit import ViT", "models/parts/vit.py": MODULE},
    ),
    "src beside the file's folder": (
        "scripts/vit.py",
        {"pyproject.toml": "", "scripts/vit.py": "from net.vit import ViT", "src/net/vit.py": MODULE},
    ),
    "a folder that the file adds to the path": (
        "a/vit.py",
        {"a/vit.py": "import sys\nsys.path.append('../b')\nfrom parts import ViT", "b/parts.py": MODULE},
    ),
    "a module by its name in text": (
        "models/vit.py",
        {"models/vit.py": "import importlib\nViT = importlib.import_module('models.parts').ViT",
         "models/parts.py": MODULE},
    ),
    "modules that import each other": (
        "vit.py",
        {"vit.py": f"{MODULE}\nfrom blocks import Block", "blocks.py": "import vit\nBlock = vit.ViT"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_file_is_imported_as_a_member_of_its_project(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, files = LAYOUTS[layout]
    write(tmp_path, {name: text.replace("{marker!r}", repr(layout)) for name, text in files.items()})
    monkeypatch.chdir((tmp_path / file).parent)
    before = [*sys.path], [*sys.argv], sys.modules["vit"], sys.modules["parity"], sys.modules["types"]
    notes: list[str] = []
    assert imported(f"{tmp_path / file}:ViT", notes).marker == layout
    assert not any("fails" in note for note in notes)
    assert before == ([*sys.path], [*sys.argv], sys.modules["vit"], sys.modules["parity"], sys.modules["types"])
    assert (sys.modules["vit"], sys.modules["parity"]) == (vit, parity)
    assert not [*tmp_path.rglob("*.pyc")]


def test_projects_do_not_mix(tmp_path: Path) -> None:
    late = (
        "from torch import nn\n"
        "class ViT(nn.Module):\n"
        "    def __init__(self):\n"
        "        from utils import name\n"
        "        super().__init__()\n"
        "        self.built = name\n"
        "    def forward(self):\n"
        "        import importlib, utils.late\n"
        "        return self.built, utils.late.name, importlib.import_module('utils.later').name\n"
    )
    for name in "ab":
        parts = {"utils/__init__.py": f"name = {name!r}", "utils/late.py": f"name = {name!r}"}
        write(tmp_path / name, {"model.py": late, **parts, "utils/later.py": f"name = {name!r}"})
    classes = [imported(f"{tmp_path / name / 'model.py'}:ViT") for name in "ab"]
    models = [found() for found in classes]
    assert [model() for model in models] == [("a", "a", "a"), ("b", "b", "b")]


def test_what_looks_a_class_up_finds_it(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\n"
        "import dataclasses, pathlib, sys\n"
        "from torch import nn\n"
        "here = pathlib.Path(__file__).parent\n"
        "assert sys.modules[__name__].here is here and __name__ != '__main__'\n"
        "@dataclasses.dataclass\n"
        "class Config:\n"
        "    width: int = 48\n"
        "class ViT(nn.Module):\n"
        "    'mine'\n"
    )
    for name in ("a", "b"):
        write(tmp_path / name, {"model.py": text.replace("mine", name)})
    for name in ("a", "b"):
        found, config = (imported(f"{tmp_path / name / 'model.py'}:{what}") for what in ("ViT", "Config"))
        assert found.__module__ == config.__module__
        assert inspect.getsource(found) == f"class ViT(nn.Module):\n    {name!r}\n"
        assert inspect.getsourcefile(found) == str(tmp_path / name / "model.py")
        assert pickle.loads(pickle.dumps(found)) is found  # noqa: S301
        assert dataclasses.asdict(copy.deepcopy(config(7))) == {"width": 7}


def test_file_is_read_again_once_it_or_a_neighbour_has_changed(tmp_path: Path) -> None:
    write(tmp_path, {"model.py": "from parts import ViT", "parts.py": MODULE.format(marker=1)})
    first = imported(f"{tmp_path}/model.py:ViT")
    assert imported(f"{tmp_path}/model.py:ViT") is first
    write(tmp_path, {"parts.py": MODULE.format(marker=2)})
    assert (first.marker, imported(f"{tmp_path}/model.py:ViT").marker) == (1, 2)


def test_module_of_the_working_folder_wins_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"vit.py": MODULE.format(marker=1), "models/own.py": MODULE.format(marker=2)})
    monkeypatch.chdir(tmp_path)
    candidate = resolve_candidate("vit:ViT", {})
    assert isinstance(candidate.build(), imported(f"{tmp_path}/vit.py:ViT"))
    assert [note.startswith("vit is vit.py of the working folder, not of the vit") for note in candidate.notes] == [
        True
    ]
    assert resolve_candidate("models.own:ViT", {}).notes == []
    assert imported("models.own:ViT").marker == 2
    assert imported("vit.presets:PRESETS") is vit.PRESETS  # which the working folder has not


def test_module_that_is_imported_already_is_the_same_for_everybody() -> None:
    assert imported("vit:ViT") is vit.ViT
    assert imported("vit.model:ViT") is vit.ViT


def test_notebook_gives_its_definitions_and_runs_nothing_else(tmp_path: Path) -> None:
    cells = (
        "%matplotlib inline\n!pip install einops\nimport library_of_nobody as lib\nfrom torch import nn",
        "%%bash\nrm -r everything",
        "%%time\nWIDTH = 40\nHEADS: int = 4\nWIDTH += 8\nsizes = {}\nsizes['mlp'] = 96",
        "files = !ls\ndata = download()\nfor images in data:\n    x = images",
        "class Base(nn.Module):\n    def forward(self, x):\n        return helper(x), WIDTH, sizes",
        "class ViT(Base):\n    x = '''\n%no magic\n'''\n    def plot(self):\n        lib.plot()",
        "ViT.extra = HEADS",
        "this is no Python",
        "def helper(x):\n    return x\ndef train(model: ViT): ...\ntrain(ViT())",
        "class Other(Base):\n    def forward(self):\n        self.show()\n    def show(self):\n        lib.show()",
    )
    file = write(tmp_path, {"vit.ipynb": notebook(*cells)}) / "vit.ipynb"
    notes: list[str] = []
    found = imported(f"{file}:ViT", notes)
    assert found()(1) == (1, 48, {"mlp": 96})
    assert (found.extra, found.x) == (4, "\n%no magic\n")
    assert notes == [f"{file} is a notebook; no more than ViT needs is run"]
    assert inspect.getsource(found).startswith("class ViT(Base):\n    x = '''")
    assert "vit.ipynb, cell 2, line 3: there is no module library_of_nobody" in refusal(f"{file}:Other")
    offer = "has no attribute 'Vit'; did you mean 'ViT'? its modules are Base, ViT, Other; cell 9 is no Python: "
    assert offer in refusal(f"{file}:Vit")


SCRIPTS = {
    "a missing data set": ("images = open('nowhere/images.npy').read()\n", "FileNotFoundError"),
    "a required argument": (
        "from argparse import *\np = ArgumentParser()\np.add_argument('--data', required=True)\np.parse_args()\n",
        "SystemExit: 2",
    ),
    "a missing library": ("import os, wandb_of_nobody as wandb, sys\nwandb.init()\n", "ModuleNotFoundError"),
    "a missing library in another function": (
        "import plots_of_nobody as plt\ndef show(image: plt.Image): plt.show()\n",
        "ModuleNotFoundError",
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_that_cannot_be_run_gives_its_definitions(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, error = SCRIPTS[script]
    ran = "ran = [print('once')]\nran.append(1)\n"
    rest = (
        "from torch import nn\nclass Block(nn.Module): ...\nWIDTH = len(ran)\n"
        "class ViT(nn.Module):\n    def forward(self):\n        return Block, WIDTH, ran\n"
        "for _ in range(3): ran.append(2)\nif __name__ == '__main__': ran.append(3)\n"
    )
    file = write(tmp_path, {"train.py": ran + start + rest}) / "train.py"
    notes: list[str] = []
    found = imported(f"{file}:ViT", notes)
    assert found()()[1:] == (2, [None, 1])
    assert capsys.readouterr().out == "once\n"
    assert len(notes) == 1
    assert notes[0].startswith(f"{file}:")
    assert f"fails when the file is run ({error}" in notes[0]
    assert notes[0].endswith("of the rest no more than ViT needs is taken")


def test_module_that_is_missing_does_not_take_others_of_its_line_away(tmp_path: Path) -> None:
    write(tmp_path, {"vit.py": "import library_of_nobody, torch.nn as nn\nclass ViT(nn.Module): ...\n"})
    assert issubclass(imported(f"{tmp_path}/vit.py:ViT"), nn.Module)


def test_what_failed_in_a_file_is_told_with_what_is_asked_for(tmp_path: Path) -> None:
    text = (
        "import library_of_nobody\nfrom torch import nn\nclass ViT(nn.Module):\n    def __init__(self, foo): {}[foo]\n"
    )
    write(tmp_path, {"vit.py": text})
    with pytest.raises(ParityError, match=r"--candidate-arg foo=VALUE.*; before that, \S+vit.py:1 fails when"):
        resolve_candidate(f"{tmp_path}/vit.py:ViT", configuration("vit_b_16", {}))


@pytest.mark.parametrize("needs", ["class ViT(Encoder): ...", "class ViT(nn.Module):\n    act = QuickGELU()"])
def test_what_may_come_of_a_missing_module_is_one_sentence(needs: str, tmp_path: Path) -> None:
    write(tmp_path, {"vit.py": f"from library_of_nobody import *\nfrom torch import nn\n{needs}\n"})
    assert "vit.py:1: there is no module library_of_nobody; install it" in refusal(f"{tmp_path}/vit.py:ViT")


def test_model_that_lacks_what_a_missing_module_took_along_says_so(tmp_path: Path) -> None:
    text = (
        "from library_of_nobody import *\nfrom torch import nn\nclass Config: width = WIDTH\nclass ViT(nn.Module):\n"
        "    def __init__(self, config: Config = None):\n        Config().width\n"
    )
    write(tmp_path, {"vit.py": text.replace("        Config()", "        globals()['Config']()")})
    found = resolve_candidate(f"{tmp_path}/vit.py:ViT", configuration("vit_b_16", {}))
    with pytest.raises(ParityError, match=r"cannot be built: .*; before that, \S+vit.py:1 fails when the file is run"):
        found.build()


def test_name_that_cannot_be_had_does_not_take_others_of_its_import_away(tmp_path: Path) -> None:
    files = {
        "parts.py": "from os import path, no_such_name\nclass Block: ...\nclass Other: place = no_such_name\n",
        "vit.py": "from parts import Block, Other\nclass ViT: block = Block\nclass Rare: other = Other\n",
    }
    write(tmp_path, files)
    assert imported(f"{tmp_path}/vit.py:ViT").block.__name__ == "Block"
    for _ in range(2):
        with pytest.raises(ParityError, match=r"parts\.py:1: ImportError: cannot import name 'no_such_name'"):
            imported(f"{tmp_path}/vit.py:Rare")


def test_script_with_arguments_of_its_own_is_run_with_none(tmp_path: Path) -> None:
    text = "import argparse, os\nargs = argparse.ArgumentParser().parse_args()\nos.chdir('/')\n" + MODULE
    write(tmp_path, {"vit.py": text.format(marker=1)})
    folder, notes = Path.cwd(), list[str]()
    assert imported(f"{tmp_path}/vit.py:ViT", notes).marker == 1
    assert (Path.cwd(), notes) == (folder, [])


def test_neighbour_that_cannot_be_run_gives_what_is_wanted_of_it(tmp_path: Path) -> None:
    files = {
        "net/__init__.py": "from .swin import Swin\n",
        "net/swin.py": "import library_of_nobody\nclass Swin(library_of_nobody.Base): ...\n",
        "net/utils.py": "import library_of_nobody\nSCALE = 2\ndef pair(x): return x * SCALE\n"
        "def plot(): library_of_nobody.plot()\nraise RuntimeError\n",
        "net/vit.py": "from .utils import pair\nfrom torch import nn\nclass ViT(nn.Module):\n    two = pair(1)\n",
    }
    write(tmp_path, files)
    notes: list[str] = []
    assert imported(f"{tmp_path}/net/vit.py:ViT", notes).two == 2
    assert [note.partition(" fails")[0] for note in notes] == [
        f"{tmp_path}/net/__init__.py:1",
        f"{tmp_path}/net/utils.py:1",
    ]
    assert "net/swin.py:1: there is no module library_of_nobody" in refusal(f"{tmp_path}/net/swin.py:Swin")


def test_library_is_installed_by_the_name_that_it_is_published_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "cv2.dnn", None)
    write(tmp_path, {"vit.py": "from cv2.dnn import Net\nclass ViT(Net): ..."})
    assert "there is no module cv2.dnn; install it (pip install opencv-python)" in refusal(f"{tmp_path}/vit.py:ViT")


FAILURES: dict[str, tuple[dict[str, str], str]] = {
    "library": (
        {
            "vit.py": "import torch\n\nimport blocks",
            "blocks.py": "\nfrom library_of_nobody.x import y\nclass Block(y): ...",
        },
        "blocks.py:2: there is no module library_of_nobody; install it (pip install library_of_nobody)",
    ),
    "syntax": (
        {"vit.py": "import blocks", "blocks.py": "x = 1\nprint 'old'\n"},
        "blocks.py:2: SyntaxError: Missing paren",
    ),
    "tabs": ({"vit.py": "if 1:\n        x = 1\n\ty = 2\n"}, "vit.py:3: TabError: "),
    "attribute": (
        {"vit.py": "from blocks import Blok as ViT", "blocks.py": "class Block: ..."},
        "vit.py:1: ImportError: cannot import name 'Blok' from 'blocks'",
    ),
    "closest": (
        {"vit.py": "from blocks import Blok as ViT", "blocks.py": "class Block: ..."},
        "; did you mean 'Block'?",
    ),
    "circle": (
        {
            "vit.py": "from a import ViT",
            "a.py": "from b import Y\nViT = Y",
            "b.py": "from a import ViT\nclass Y(ViT): ...",
        },
        "b.py:1: ImportError: cannot import name 'ViT' from partially initialized module 'a'",
    ),
    "own module": (
        {"vit.py": "from .blocks import ViT"},
        "vit.py:1: the project has no module blocks",
    ),
    "module of another folder": (
        {"vit.py": "from .blocks import ViT", "parts/blocks.py": "class ViT: ..."},
        "vit.py:1: there is no module blocks where it is looked for; if parts/blocks.py is meant, correct the import",
    ),
    "module of a folder that is called otherwise elsewhere": (
        {"vit.py": "from mine.nets.parts.blocks import ViT", "parts/blocks.py": "class ViT: ..."},
        "vit.py:1: there is no module mine where it is looked for; if parts/blocks.py is meant, correct the import",
    ),
    "no such name": (
        {"vit.py": MODULE.replace("ViT", "Vit").replace("{marker!r}", "1 / 0")},
        "vit.py:3: ZeroDivisionError: division by zero; nor does it define ViT; did you mean 'Vit'?",
    ),
    "words": ({"vit.py": "class ViT:\n    raise ValueError('one\\ntwo')"}, "vit.py:2: ValueError: one"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_is_told_with_the_candidates_own_line(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, message = FAILURES[failure]
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    assert f"cannot be imported: {message}" in (told := refusal("vit.py:ViT")) or message[0] == ";"
    assert message in told


HELP = {
    "vit.py": "the candidate 'vit.py' must be package.module:callable or path/to/file.py:callable; give vit.py:ViT; "
    "vit.py has Block, ViT, make",
    "vit.py:": "; give vit.py:ViT; ",
    "net.vit": "; give net/vit.py:Net; net/vit.py has Net",
    "net": ", such as net/vit.py:Net",
    "net:Net": "net is a folder; give a file in it, such as net/vit.py:Net",
    "./net:Net": "./net is a folder; give a file in it, such as net/vit.py:Net",
    "vit.py:vit": "vit.py has no attribute 'vit'; did you mean 'ViT'? its modules are Block, ViT",
    "vti.py:ViT": "there is no file vti.py; did you mean vit.py?",
    "empty.py": "; empty.py has no class or function",
}


@pytest.mark.parametrize("spec", HELP)
def test_what_is_there_instead_is_offered(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "from torch import nn\nclass Block(nn.Module): ...\nclass ViT(nn.Module):\n    def __init__(self):\n"
        "        Block()\ndef make(): return ViT()\n"
    )
    write(
        tmp_path, {"vit.py": text, "net/vit.py": "import torch.nn as nn\nclass Net(nn.Module): ...\n", "empty.py": ""}
    )
    monkeypatch.chdir(tmp_path)
    assert HELP[spec] in refusal(spec)


def test_exit_of_the_process_is_a_refusal(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    write(tmp_path, {"vit.py": "import os\nos._exit(0)\n", "base.py": "class Stop(BaseException): ...\nraise Stop\n"})
    leave: Any = os._exit
    assert run("check", f"{tmp_path}/vit.py:ViT")[0] == 2
    assert "base.py:2: Stop" in run("check", f"{tmp_path}/base.py:ViT")[2]
    assert os._exit is leave


def test_project_is_no_module_of_anybody_else(tmp_path: Path) -> None:
    text = (
        "    def forward(self, x):\n        return two(x)\ndef two(x):\n    from parts import two\n    return two * x\n"
    )
    write(tmp_path, {"vit.py": MODULE.format(marker=1) + text, "parts.py": "two = 2"})
    model = imported(f"{tmp_path}/vit.py:ViT")()
    assert isinstance(model, nn.Module)
    assert model(3) == 6
    assert importlib.util.find_spec("parts") is None


def test_error_of_a_file_that_has_no_words_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "wordless.py").write_text(
        "class Wordless(Exception):\n    def __str__(self):\n        return 1 / 0\n\nraise Wordless\n"
    )
    with pytest.raises(ParityError, match="Wordless"):
        imported(f"{tmp_path / 'wordless.py'}:ViT", [])


@pytest.mark.parametrize(
    "line",
    [
        "torch.set_default_device('cpu')",
        "torch.set_default_device(torch.device('cuda' if torch.cuda.is_available() else 'cpu'))",
        "torch.set_default_dtype(torch.float64)",
        "torch.set_grad_enabled(False)",
        "torch.set_num_threads(1)",
    ],
)
def test_what_a_file_tells_torch_as_it_is_imported_is_its_own_business(line: str, tmp_path: Path) -> None:
    if "default_device" in line and not hasattr(default_device, "CURRENT_DEVICE"):
        pytest.skip("this torch cannot be asked for its default device")
    (tmp_path / "told.py").write_text(f"import torch\n{line}\nfrom vit import ViT\n")
    report = check(f"{tmp_path}/told.py:ViT", overrides=SMALL, modes=["eval"])
    assert report.verdict == "identical", report
    assert torch.get_default_dtype() == torch.float32
    assert torch.empty(1).device.type == "cpu"
    assert torch.is_grad_enabled()


def test_folder_that_lacks_what_is_imported_from_it_is_not_to_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"src/5_model/vit.py": "from src.embedding.patches import Patches"})
    monkeypatch.chdir(tmp_path)
    told = refusal("src/5_model/vit.py:ViT")
    assert "vit.py:1: src has nothing of what is imported from src; correct the import" in told
    assert "install" not in told
