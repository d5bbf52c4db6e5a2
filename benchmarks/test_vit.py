"""The scratch ViT beside torchvision's: forward at batch 1 and 8, and one training step, ViT-B/16 at 224 pixels.

Both models share their weights, and what was timed is checked: ours must have given torchvision's bits.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from parity.weights import uniform

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from parity.setup import Pair

IMPLEMENTATIONS = ["reference", "candidate"]


def _images(batch: int) -> torch.Tensor:
    return uniform("images", (batch, 3, 224, 224))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=["torchvision", "ours"])
@pytest.mark.parametrize("batch", [1, 8])
def test_forward(benchmark: BenchmarkFixture, b16: Pair, batch: int, implementation: str) -> None:
    benchmark.group = f"forward, batch {batch}"
    model: nn.Module = getattr(b16, implementation)
    images = _images(batch)
    with torch.no_grad():
        logits = benchmark.pedantic(model, (images,), rounds=10, warmup_rounds=2)  # type: ignore[no-untyped-call]
        assert torch.equal(logits, b16.reference(images))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=["torchvision", "ours"])
def test_training_step(benchmark: BenchmarkFixture, b16: Pair, implementation: str) -> None:
    benchmark.group = "training step, batch 8"
    model = copy.deepcopy(getattr(b16, implementation)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    images, labels = _images(8), torch.arange(8)

    def step() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.item()

    loss = benchmark.pedantic(step, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    with torch.enable_grad():
        first = nn.functional.cross_entropy(b16.reference(images), labels).item()
    assert loss < first, "six steps on the same batch must have lowered the loss"
