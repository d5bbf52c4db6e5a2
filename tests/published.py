"""Files of the published form at their true sizes: all five architectures, and the three that SWAG's weights are for.

Each is made, served from this machine under its published name, hash-checked and loaded by torchvision's own code. It
takes an hour or more, up to 20 GB of memory and 10 GB of disk, so nobody runs it by the way:

    pytest -n 0 tests/published.py
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import ViT_B_16_Weights, ViT_H_14_Weights, ViT_L_16_Weights, get_model, get_model_weights

import vit
from parity.models.reference import build_reference, configuration
from parity.models.weights import synthetic
from tests.conftest import as_published

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torchvision.models import WeightsEnum

ENTRIES = [
    *(get_model_weights(name).IMAGENET1K_V1 for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32")),
    ViT_H_14_Weights.IMAGENET1K_SWAG_LINEAR_V1,
    ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,
    ViT_L_16_Weights.IMAGENET1K_SWAG_E2E_V1,
    ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1,
]


def _published(entry: WeightsEnum, name: str, folder: Path) -> Path:
    """Writes a file such as torchvision publishes, under a name that has its hash."""
    sizes = {"image_size": entry.meta["min_size"][0], "num_classes": len(entry.meta["categories"])}
    file = folder / "weights.pth"
    torch.save(as_published(synthetic(build_reference(configuration(name, sizes)), seed=7)), file)
    return file.rename(folder / f"{name}-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth")


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_published_file(
    entry: WeightsEnum, serve: Callable[..., str], cache: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    name = str(entry).partition("_Weights")[0].lower()
    file = _published(entry, name, tmp_path)
    serve(entry, file.name, file)

    ours = vit.load(name, weights=entry.name).model
    original = get_model(name, weights=entry).eval()
    assert [cached.name for cached in cache.iterdir()] == [file.name]
    size = entry.meta["min_size"][0]
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(images), original(images))
    state = original.state_dict()
    del ours

    options = ["vit:ViT", f"--reference={name}", f"--weights={entry.name}"]
    status, output, errors = run("check", *options, "--modes=eval", "--batch=1")
    assert (status, output.splitlines()[-1].split(":")[0]) == (0, "identical"), errors
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    assert run("convert", *options, "-o", there)[0] == 0
    sizes = [f"--set=image_size={size}"]
    assert (
        run("convert", "vit:ViT", f"--reference={name}", *sizes, f"--weights={there}", "--reverse", "-o", back)[0] == 0
    )
    again = load_file(back)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)
