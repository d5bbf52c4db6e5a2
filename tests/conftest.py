"""What the tests of the tools share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from examples import train_digits
from parity.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

# a ViT of a few thousand parameters, as `--set` options
SMALL_OPTIONS = [
    f"--set={setting}"
    for setting in ("image_size=48", "num_layers=3", "num_heads=4", "hidden_dim=64", "mlp_dim=96", "num_classes=10")
]


def as_published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gives the MLPs' layers the names that they had when torchvision's weights were written."""
    older = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
    return {re.sub(r"\.mlp\.[03]\.", lambda found: older[found[0]], name): tensor for name, tensor in state.items()}


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
