"""Is my ViT torchvision's? Candidate and reference stand in pyproject.toml, everything else in markers and calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from my_vit import ViT

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity import Report

SMALL = {"image_size": 32, "num_layers": 2, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 32, "num_classes": 5}


def test_two_blocks_at_full_width(assert_parity: Callable[..., Report]) -> None:
    """ViT-B/16 but for its depth."""
    assert_parity(overrides={"num_layers": 2}, modes=["eval"])


@pytest.mark.parity(overrides=SMALL)
class TestSmall:
    """A ViT of a few thousand parameters, in every mode; it takes a second."""

    @pytest.mark.parametrize("batch", [1, 3])
    def test_batches(self, assert_parity: Callable[..., Report], batch: int) -> None:
        """A batch of one would hide a mix-up of images and tokens."""
        assert_parity(batch=batch)

    def test_bfloat16(self, assert_parity: Callable[..., Report]) -> None:
        """As accurate as torchvision's in another dtype."""
        assert_parity(dtype="bfloat16", modes=["eval"])

    def test_map_is_complete(self, assert_parity: Callable[..., Report]) -> None:
        """Every tensor of torchvision's has its place in mine, so official weights can move in."""
        mapping = assert_parity(modes=["eval"]).mapping
        assert mapping is not None
        assert mapping.is_complete

    def test_forgotten_eps_is_caught(self, assert_parity: Callable[..., Report]) -> None:
        """Guards the tests above: PyTorch's default eps, in a model that is built already, is seen and placed."""
        mine = ViT(image_size=32, depth=2, heads=3, dim=24, mlp_dim=32, num_classes=5, eps=1e-5)
        with pytest.raises(AssertionError, match=r"it begins in encoder.layers.encoder_layer_0.ln_1"):
            assert_parity(mine)
