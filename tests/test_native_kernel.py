"""torch's native kernel of a whole `nn.TransformerEncoderLayer`, which hooks keep it from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from parity import check
from parity.tracing import can_switch_fastpath

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(not can_switch_fastpath(), reason="this torch has no switch for its native kernel")

_SIZES = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
_TOKENS = 17


class _Encoder(nn.Module):
    """A right ViT of torch's own encoder, but for the numbers that its mask adds to the scores."""

    def __init__(self, mask: torch.Tensor | None = None) -> None:
        super().__init__()
        self.to_patches = nn.Conv2d(3, 32, 8, 8)
        self.first = nn.Parameter(torch.zeros(1, 1, 32))
        self.places = nn.Parameter(torch.zeros(1, _TOKENS, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(32, eps=1e-6), enable_nested_tensor=False)
        self.classes = nn.Linear(32, 10)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.to_patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], dim=1) + self.places
        logits: torch.Tensor = self.classes(self.layers(x, mask=self.mask)[:, 0])
        return logits


def _distances() -> torch.Tensor:
    places = torch.arange(_TOKENS)
    return -0.1 * (places[:, None] - places).abs()


@pytest.mark.parametrize(
    ("mask", "size"),
    [(lambda: torch.ones(_TOKENS, _TOKENS).tril(), "not finite"), (_distances, "off by")],
    ids=["ones and zeros", "distances"],
)
def test_mask_of_numbers_is_another_function_in_the_kernel(mask: Callable[[], torch.Tensor], size: str) -> None:
    report = check(lambda: _Encoder(mask()), overrides=_SIZES | {"num_classes": 10}, modes=("eval", "eval-no-fastpath"))
    assert report.verdict == "divergent"
    kernel = [reason for reason in report.reasons if "native kernel" in reason]
    assert len(kernel) == 1
    assert f"in eval mode with nobody watching the logits are {size}" in kernel[0]


@pytest.mark.parametrize("modes", [("eval",), ("eval", "eval-no-fastpath")], ids=["alone", "both"])
def test_mask_of_zeros_is_right_with_the_kernel_and_without(modes: tuple[str, ...]) -> None:
    report = check(lambda: _Encoder(torch.zeros(_TOKENS, _TOKENS)), overrides=_SIZES | {"num_classes": 10}, modes=modes)
    assert report.verdict == "equivalent"


def test_encoder_without_a_mask_is_right() -> None:
    report = check(_Encoder, overrides=_SIZES | {"num_classes": 10}, modes=("eval",))
    assert report.verdict in {"identical", "equivalent"}


@pytest.mark.parametrize("off", [1e-4, 1e-8])
@pytest.mark.parametrize("modes", [("eval",), ("eval", "eval-no-fastpath")], ids=["alone", "both"])
def test_kernel_that_computes_otherwise_is_told(
    off: float, modes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where a whole layer is not what its parts are."""
    kernel = torch._transformer_encoder_layer_fwd  # noqa: SLF001  (torch's own, which its layers call)
    monkeypatch.setattr(torch, kernel.__name__, lambda *args: kernel(*args) * (1 + off))
    report = check(_Encoder, overrides=_SIZES | {"num_classes": 10}, modes=modes)
    if off < 1e-6:
        assert report.verdict in {"identical", "equivalent"}, report
    else:
        assert report.verdict == "divergent", report
        assert any("torch takes its native kernel, which hooks keep it from" in reason for reason in report.reasons)
