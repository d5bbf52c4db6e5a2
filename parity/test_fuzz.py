"""Any configuration is identical: image, patch, depth, heads, widths, classes, batch and dropout, by Hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from parity import check


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Draws a small configuration that torchvision accepts. A head is at least 4 wide, or its LayerNorm only signs."""
    patch_size = draw(st.integers(1, 8))
    num_heads = draw(st.integers(1, 5))
    rates = st.sampled_from([0.0, 0.1, 0.5])
    return {
        "patch_size": patch_size,
        "image_size": patch_size * draw(st.integers(1, 5)),
        "num_layers": draw(st.integers(1, 4)),
        "num_heads": num_heads,
        "hidden_dim": num_heads * draw(st.integers(4, 12)),
        "mlp_dim": draw(st.integers(1, 48)),
        "num_classes": draw(st.integers(2, 12)),
        "representation_size": draw(st.none() | st.integers(1, 16)),
        "dropout": draw(rates),
        "attention_dropout": draw(rates),
    }


@given(config=configurations(), batch=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_any_configuration_is_identical(candidate: str, config: dict[str, Any], batch: int, seed: int) -> None:
    event(f"{config['num_layers']} layers")
    event("odd number of heads" if config["num_heads"] % 2 else "even number of heads")
    report = check(candidate, overrides=config, batch=batch, seed=seed)
    assert report.verdict == "identical", report
