"""The environment is what it claims to be."""

from __future__ import annotations

import configparser
import os
import re
from pathlib import Path

import pytest
import torch
import torchvision

ROOT = Path(__file__).parent.parent


def _tox(section: str, key: str) -> list[str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "tox.ini")
    return parser[section][key].strip().splitlines()


def _pairs() -> dict[str, dict[str, str]]:
    """Reads factor -> package -> version out of tox.ini."""
    pairs: dict[str, dict[str, str]] = {}
    for line in _tox("testenv", "deps"):
        if match := re.fullmatch(r"(torch2\.\d+): (torch|torchvision)==([\d.]+)", line.strip()):
            pairs.setdefault(match[1], {})[match[2]] = match[3]
    return pairs


def _workflow() -> dict[str, list[str]]:
    """Reads job -> Python version and commands out of GitHub's workflow; as text, since YAML would need a package."""
    text = (ROOT / ".github/workflows/ci.yml").read_text().partition("\njobs:\n")[2]
    _, *jobs = re.split(r"^  (\w+):\n", text, flags=re.MULTILINE)
    return {
        name: re.findall(r"^ +(?:python-version|- run): \"?(.+?)\"?$", steps, re.MULTILINE)
        for name, steps in zip(jobs[::2], jobs[1::2], strict=True)
    }


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split("+", maxsplit=1)[0].split(".")[:3]))


def test_tox_imports_the_pair_that_its_environment_names() -> None:
    name = os.environ.get("PARITY_EXPECTED_TORCH")
    if name is None:
        pytest.skip("not run by tox, so no pair is promised")
    assert {"torch": torch.__version__.split("+")[0], "torchvision": torchvision.__version__.split("+")[0]} == _pairs()[
        name
    ]


def test_every_pair_is_one_that_belongs_together() -> None:
    pairs = _pairs()
    assert [_release(pair["torch"])[1] for pair in pairs.values()] == list(range(15))
    for name, pair in pairs.items():
        assert name == "torch" + ".".join(map(str, _release(pair["torch"])[:2]))
        assert _release(pair["torchvision"])[1] == _release(pair["torch"])[1] + 15


def test_imported_pair_belongs_together() -> None:
    assert _release(torchvision.__version__)[1] == _release(torch.__version__)[1] + 15


def test_lint_is_the_same_wherever_it_runs() -> None:
    lint = _tox("testenv:lint", "commands")
    assert (ROOT / ".ci/run").read_text().partition("lint='\n")[2].partition("\n'\n")[0].splitlines() == lint
    hooks = re.findall(r"^ +entry: (.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    assert hooks == [command.replace("format --check", "format") for command in lint]
    assert _workflow()["lint"][-1] == "tox -e lint"


def test_workflow_does_what_continuous_integration_does() -> None:
    readme = (ROOT / "README.md").read_text().partition("\n## Quick start\n")[2]
    test_command = re.findall(r"^```bash\n(.+?)\n```$", readme, re.MULTILINE | re.DOTALL)[1]
    run = (ROOT / ".ci/run").read_text()
    jobs = _workflow()
    python, tests, *others = jobs["newest"]
    assert tests == test_command
    assert len(others) == 2
    assert all(other.split(" && ")[-1] in run.splitlines() for other in others)
    assert jobs["wheel"][-1] in run.splitlines()
    assert jobs["oldest"][-1] == f"tox -e {min(_pairs(), key=lambda name: _release(name.removeprefix('torch')))}"
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = ">={jobs["oldest"][0]}"' in pyproject
    assert f"Programming Language :: Python :: {python}" in pyproject
