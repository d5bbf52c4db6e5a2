"""What the tests of the tools share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples import train_digits
from parity.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# a ViT of a few thousand parameters, as `--set` options
SMALL_OPTIONS = [
    f"--set={setting}"
    for setting in ("image_size=48", "num_layers=3", "num_heads=4", "hidden_dim=64", "mlp_dim=96", "num_classes=10")
]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process and returns its exit status, stdout and stderr."""

    def run_main(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run_main


@pytest.fixture
def brief_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends a search for causes soon that would find none, however long it took."""
    monkeypatch.setattr("parity.explanation.naming._LEAST_SECONDS", 1.0)


@pytest.fixture(scope="session")
def trained_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a shortened training of both models on digits has written to."""
    folder = tmp_path_factory.mktemp("digits")
    assert train_digits.main(["--steps", "500", "--output", str(folder)]) == 0
    return folder
