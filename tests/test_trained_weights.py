"""The same verdicts on weights that training on real images has made, which are not like random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from skimage import data
from torch import nn
from torchvision.models import VisionTransformer

from parity import check
from parity.conftest import SMALL
from parity.reference import configuration
from tests.corpus.cases import cases

if TYPE_CHECKING:
    from pathlib import Path

    from tests.corpus.cases import Case

SIDE = SMALL["image_size"]
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea")
# a fifth of what is planted in our own ViT, in all blocks and in single ones; its weight map fits any size
OURS = [
    case for case in cases() if case.host.name == "ours" and not case.bug.changes_parameters and not case.bug.settings
]
CONFIG = SMALL | {"num_classes": len(PHOTOGRAPHS)}


def _crops(
    photographs: list[torch.Tensor], count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cuts random squares out of the photographs; the label is the photograph."""
    labels = torch.randint(len(photographs), (count,), generator=generator)
    crops = []
    for label in labels.tolist():
        _, height, width = photographs[label].shape
        top, left = (int(torch.randint(size - SIDE, (), generator=generator)) for size in (height, width))
        crops.append(photographs[label][:, top : top + SIDE, left : left + SIDE])
    return torch.stack(crops), labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of torchvision's ViT after a short training: which photograph is this a piece of?"""
    photographs = [torch.from_numpy(getattr(data, name)()).permute(2, 0, 1) / 255 - 0.5 for name in PHOTOGRAPHS]
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = VisionTransformer(**configuration("vit_b_16", CONFIG))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(120):
        images, labels = _crops(photographs, 32, generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    images, labels = _crops(photographs, 300, generator)
    with torch.no_grad():
        accuracy = (model.eval()(images).argmax(-1) == labels).float().mean()
    assert accuracy > 0.6, "it must have learned something: guessing gives a third"
    file = tmp_path_factory.mktemp("trained") / "trained.pth"
    torch.save(model.state_dict(), file)
    return file


def test_scratch_vit_is_identical(trained: Path) -> None:
    assert check("vit:ViT", overrides=CONFIG, weights=str(trained)).verdict == "identical"


@pytest.mark.parametrize("case", OURS[::5], ids=lambda case: case.id)
def test_planted_bug_is_divergent_and_placed(case: Case, trained: Path, tmp_path: Path) -> None:
    report = check(case.write(tmp_path), overrides=CONFIG, weights=str(trained), modes=[case.bug.mode])
    assert report.verdict == "divergent", report
    assert report.origin is not None
    assert report.origin.reference in case.first_places, report
