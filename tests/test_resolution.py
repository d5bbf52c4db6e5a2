"""Our resizing of position embeddings is torchvision's, to the bit, and no other rule is."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import interpolate_embeddings

import vit
from parity.models.reference import configuration
from parity.models.weights import synthetic, uniform
from parity.tracing.measuring import compare
from parity.training.resizing import RULES, Rule

TORCHVISIONS = Rule("bicubic", align_corners=True)

# old and new side of the grid: published ones, growing and shrinking, by whole and fractional ratios, one position
GRIDS = [(14, 24), (24, 14), (16, 37), (7, 12), (12, 7), (4, 8), (8, 4), (5, 6), (6, 5), (3, 1), (1, 3), (2, 2)]


def _table(side: int, width: int = 24, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return uniform(f"table of {side}", (1, 1 + side * side, width)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_bits_are_torchvisions(old: int, new: int, dtype: torch.dtype) -> None:
    table = _table(old, dtype=dtype)
    theirs = interpolate_embeddings(16 * new, 16, OrderedDict({"encoder.pos_embedding": table.clone()}))
    ours = vit.resize_positions({"pos_embedding": table}, 16 * new, 16)["pos_embedding"]
    assert ours.dtype == dtype
    assert torch.equal(ours, theirs["encoder.pos_embedding"])
    assert torch.equal(table, _table(old, dtype=dtype)), "the table that was given must be left alone"


def test_whole_model_at_another_size_has_torchvisions_bits() -> None:
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24, "num_classes": 5}
    small, large = (configuration("vit_b_16", sizes | {"image_size": size}) for size in (48, 80))
    state = synthetic(VisionTransformer(**small), 0)
    theirs = VisionTransformer(**large)
    theirs.load_state_dict(interpolate_embeddings(80, 16, OrderedDict(state)))
    ours = vit.ViT(80, 3, 16, 16, 24, 2, 2, num_classes=5)
    names = zip(ours.state_dict(), sorted_like_ours(state), strict=True)
    ours.load_state_dict(vit.resize_positions({name: state[other] for name, other in names}, 80, 16))
    images = uniform("images", (2, 3, 80, 80))
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


def sorted_like_ours(state: dict[str, torch.Tensor]) -> list[str]:
    """Our state dict begins with the class token and the positions, and is in torchvision's order from there on."""
    first = ["class_token", "encoder.pos_embedding"]
    return first + [name for name in state if name not in first]


@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 7), (4, 8), (8, 4)])
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != TORCHVISIONS], ids=str)
def test_no_other_rule_gives_the_same(rule: Rule, old: int, new: int) -> None:
    table = _table(old, dtype=torch.float64)
    ours = vit.resize_positions({"pos_embedding": table}, new, 1)["pos_embedding"]
    assert compare(ours, rule.apply(table, new)).relative > 0.05


def test_corners_keep_their_values_and_the_class_token_its_own() -> None:
    table = _table(6)
    resized = vit.resize_positions({"pos_embedding": table}, 11, 1)["pos_embedding"]
    assert torch.equal(resized[:, 0], table[:, 0])
    old, new = table[0, 1:].view(6, 6, -1), resized[0, 1:].view(11, 11, -1)
    torch.testing.assert_close(new[::10, ::10], old[::5, ::5])  # the four corners
    torch.testing.assert_close(new[::2, ::2], old)  # every other point lies on an old one


def test_rule_is_the_one_that_is_written_down() -> None:
    """Computed anew, point by point, from the docstring's words."""

    def cubic(x: float, a: float = -0.75) -> float:
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    for old, new in [(5, 8), (8, 5), (3, 1)]:
        table = _table(old, width=2, dtype=torch.float64)
        step = (old - 1) / (new - 1) if new > 1 else 0.0
        weights = torch.zeros(new, old, dtype=torch.float64)
        for i in range(new):
            base = int(i * step)
            for k in range(base - 1, base + 3):
                weights[i, min(max(k, 0), old - 1)] += cubic(i * step - k)
        expected = torch.einsum("ip,jq,pqd->ijd", weights, weights, table[0, 1:].view(old, old, 2))
        resized = vit.resize_positions({"pos_embedding": table}, new, 1)["pos_embedding"]
        assert compare(expected.reshape(1, new * new, 2), resized[:, 1:]).relative < 1e-14


def test_same_size_keeps_the_very_tensor() -> None:
    state = {"pos_embedding": _table(3), "head.bias": torch.zeros(2)}
    resized = vit.resize_positions(state, 48, 16)
    assert resized.keys() == state.keys()
    assert all(resized[name] is state[name] for name in state)


@pytest.mark.parametrize(
    ("state", "sizes", "message"),
    [
        ({}, (32, 16), "has no pos_embedding; is it under the names of vit.ViT"),
        ({"pos_embedding": torch.zeros(2, 5, 4)}, (32, 16), r"of shape \(1, 1 \+ patches, width\), got \(2, 5, 4\)"),
        ({"pos_embedding": torch.zeros(5, 4)}, (32, 16), r"got \(5, 4\)"),
        ({"pos_embedding": torch.zeros(1, 1, 4)}, (32, 16), r"got \(1, 1, 4\)"),
        ({"pos_embedding": torch.zeros(1, 7, 4)}, (32, 16), "has 6 positions beside .* which form no square grid"),
        ({"pos_embedding": torch.zeros(1, 5, 4)}, (33, 16), "a positive multiple of patch_size, got 33 and 16"),
        ({"pos_embedding": torch.zeros(1, 5, 4)}, (0, 16), "a positive multiple of patch_size, got 0 and 16"),
        ({"pos_embedding": torch.zeros(1, 5, 4)}, (32, 0), "a positive multiple of patch_size, got 32 and 0"),
    ],
)
def test_what_cannot_be_resized_is_refused(
    state: dict[str, torch.Tensor], sizes: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        vit.resize_positions(state, *sizes)
