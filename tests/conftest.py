"""What the tests of the tools share."""

from __future__ import annotations

import http.server
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from examples import train_digits
from parity.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch
    from torchvision.models import WeightsEnum

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


class _Handler(http.server.SimpleHTTPRequestHandler):
    cut_off = False

    def log_message(self, *_: object) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Sends the file, or only its beginning, although the header has promised all of it."""
        content = source.read()
        outputfile.write(content[: len(content) // 2] if self.cut_off else content)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch.hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hub" / "checkpoints"


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Serves a file of the given name for the URL of a weights entry of torchvision's, and returns that name."""
    folder = tmp_path / "server"
    folder.mkdir()
    servers = []

    def start(entry: WeightsEnum, name: str, content: bytes | Path, *, cut_off: bool = False) -> str:
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            content.rename(folder / name)
        handler = type("Handler", (_Handler,), {"cut_off": cut_off})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: handler(*args, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(entry.value, "url", f"http://127.0.0.1:{server.server_port}/{name}")
        return name

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
