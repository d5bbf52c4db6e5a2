"""Signals at any moment: no file is damaged, none is left over, and nobody sees a traceback."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch

import parity
from parity.models import read_map
from tests.fuzz import MOMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no such signals")

SIZES = ("image_size=8", "patch_size=4", "num_layers=1", "num_heads=2", "hidden_dim=8", "mlp_dim=12", "num_classes=3")
COMMANDS = {
    "check": ["--modes=eval", "--quiet", "--json", "report.json"],
    "convert": ["--weights=synthetic", "-o", "weights.safetensors"],
    "map": ["-o", "map.toml"],
}
STATUS = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (-signal.SIGTERM, 143), signal.SIGINT: (130,)}


class _Endings:
    """Runs a command and ends it."""

    def __init__(self, name: str, folder: Path) -> None:
        arguments = [name, "vit:ViT", *(f"--set={size}" for size in SIZES), *COMMANDS[name]]
        path = f"{Path(parity.__file__).parents[1]}"
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "tests.fuzz.ending", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": path},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.file = folder / COMMANDS[name][-1]

    def end(self, seconds: float, number: int) -> dict[str, Any]:
        """Runs the command, sends it a signal after that long, and returns what became of it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{seconds} {number}\n")
        self.process.stdin.flush()
        ended: dict[str, Any] = json.loads(self.process.stdout.readline())
        return ended

    def finish(self) -> float:
        """Runs the command to its end, which removes what others have left, and returns the seconds it takes."""
        ended = self.end(300, signal.SIGKILL)
        assert ended["status"] == 0, ended
        assert [entry.name for entry in self.file.parent.iterdir()] == [self.file.name]
        return float(ended["seconds"])


@pytest.fixture(params=COMMANDS)
def endings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_Endings]:
    made = _Endings(request.param, tmp_path)
    yield made
    made.process.communicate(timeout=60)


def _require_whole(file: Path) -> None:
    if file.suffix == ".json":
        report = json.loads(file.read_text())
        assert report["complete"] == (report["verdict"] == "identical")
    elif file.suffix == ".toml":
        assert read_map(file).rules
    else:
        assert len(safetensors.torch.load_file(file)) > 10


def test_signal_at_any_moment_damages_nothing(endings: _Endings) -> None:
    whole = endings.finish()
    moments = random.Random(20)  # noqa: S311
    for number, allowed in STATUS.items():
        for _ in range(MOMENTS):
            ended = endings.end(moments.uniform(0, whole), number)
            assert ended["status"] in (0, *allowed), ended
            assert "Traceback" not in ended["said"]
            assert ended["said"].count("\n") <= 2
            _require_whole(endings.file)
        endings.finish()
