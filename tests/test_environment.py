"""The environment is what it claims to be."""

from __future__ import annotations

import configparser
import os
import re
from pathlib import Path

import pytest
import torch
import torchvision

TOX = Path(__file__).parent.parent / "tox.ini"


def _pairs() -> dict[str, dict[str, str]]:
    """Reads factor -> package -> version out of tox.ini."""
    parser = configparser.ConfigParser()
    parser.read(TOX)
    pairs: dict[str, dict[str, str]] = {}
    for line in parser["testenv"]["deps"].splitlines():
        if match := re.fullmatch(r"(torch2\.\d+): (torch|torchvision)==([\d.]+)", line.strip()):
            pairs.setdefault(match[1], {})[match[2]] = match[3]
    return pairs


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
