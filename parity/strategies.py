"""Hypothesis strategies: small ViTs, images and weights for them, and small changes to weights.

```python
from hypothesis import given
from parity import check, strategies

@given(config=strategies.configurations(), seed=strategies.seeds())
def test_my_vit(config, seed):
    assert check("mymodel:ViT", overrides=config, seed=seed).verdict == "identical", (
        strategies.command("mymodel:ViT", config, seed=seed)
    )
```

Hypothesis draws sizes and seeds, never tensors: values come from streams of their own that a seed and a name select,
the very ones of `parity check --seed`. So nothing depends on torch's random state, an example is small enough to print,
and everything shrinks towards the smallest ViT, the fewest images and seed 0.

The only part of the package that needs hypothesis.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from parity.errors import ParityError
from parity.models import build_reference, configuration, synthetic, uniform

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise ParityError("parity.strategies needs hypothesis: pip install hypothesis") from error

if TYPE_CHECKING:
    from collections.abc import Mapping

    State = dict[str, torch.Tensor]

__all__ = ["Perturbation", "batches", "command", "configurations", "inputs", "perturbations", "seeds", "weights"]

_HEAD = (4, 12)  # narrowest and widest head; below 4, a LayerNorm leaves little more than signs


@st.composite
def configurations(
    draw: st.DrawFn,
    *,
    max_patch_size: int = 8,
    max_grid: int = 5,
    max_layers: int = 4,
    max_heads: int = 5,
    max_mlp_dim: int = 48,
    max_classes: int = 12,
) -> dict[str, Any]:
    """Draws a small configuration of a ViT, in the words of torchvision's constructor and of `--set`.

    It shrinks to a single patch of one pixel, one block, one head that is 4 wide, an MLP that is 1 wide, two classes,
    and neither a pre-logits layer nor dropout.

    Args:
        draw: given by Hypothesis.
        max_patch_size: largest side of a patch, in pixels.
        max_grid: most patches in a row; images are at most `max_patch_size * max_grid` pixels high and wide.
        max_layers: most blocks.
        max_heads: most heads, of 4 to 12 values each.
        max_mlp_dim: largest width of the MLP, which may be narrower than the model.
        max_classes: most classes.
    """
    patch_size = draw(st.integers(1, max_patch_size))
    num_heads = draw(st.integers(1, max_heads))
    rates = st.sampled_from([0.0, 0.1, 0.5])
    return {
        "patch_size": patch_size,
        "image_size": patch_size * draw(st.integers(1, max_grid)),
        "num_layers": draw(st.integers(1, max_layers)),
        "num_heads": num_heads,
        "hidden_dim": num_heads * draw(st.integers(*_HEAD)),
        "mlp_dim": draw(st.integers(1, max_mlp_dim)),
        "num_classes": draw(st.integers(2, max_classes)),
        "representation_size": draw(st.none() | st.integers(1, 16)),
        "dropout": draw(rates),
        "attention_dropout": draw(rates),
    }


def batches(most: int = 5) -> st.SearchStrategy[int]:
    """Draws a number of images; it shrinks to 1."""
    return st.integers(1, most)


def seeds() -> st.SearchStrategy[int]:
    """Draws a seed of weights, images and dropout; it shrinks to 0."""
    return st.integers(0, 2**16)


def inputs(config: Mapping[str, Any], most: int = 5) -> st.SearchStrategy[torch.Tensor]:
    """Draws images (B, 3, H, W) in float32, of mean 0 and variance 1, all different: those of `parity check --seed`.

    Args:
        config: as `configurations` draws it; `image_size` is read.
        most: most images B.
    """
    size = config["image_size"]

    def images(seed: int, count: int) -> torch.Tensor:
        return torch.stack([uniform(f"{seed}/image {number}", (3, size, size)) for number in range(count)])

    return st.builds(images, seeds(), batches(most))


def weights(config: Mapping[str, Any]) -> st.SearchStrategy[State]:
    """Draws a state dict under torchvision's names, in float32, without a zero or constant tensor: as `--seed` does.

    Args:
        config: as `configurations` draws it, or any settings of ViT-B/16 to change.
    """
    model = build_reference(configuration("vit_b_16", config))
    return st.builds(lambda seed: synthetic(model, seed), seeds())


@dataclass(frozen=True)
class Perturbation:
    """A change to one value of one tensor.

    Attributes:
        tensor: its name in the state dict.
        index: of the value, one number per axis.
        relative: how much is added, as a part of the value; a value of 0 becomes this instead.
    """

    tensor: str
    index: tuple[int, ...]
    relative: float

    def apply(self, state: Mapping[str, torch.Tensor]) -> State:
        """Returns `state` with this value changed; the tensors of `state` are left alone."""
        changed = state[self.tensor].clone()
        value = changed[self.index]
        changed[self.index] = torch.where(
            value == 0, torch.full_like(value, self.relative), value * (1 + self.relative)
        )
        return {**state, self.tensor: changed}

    def __str__(self) -> str:
        return f"{self.tensor}[{', '.join(map(str, self.index))}] changed by {self.relative:g} of itself"


@st.composite
def perturbations(
    draw: st.DrawFn, state: Mapping[str, torch.Tensor], *, least: float = 1e-6, most: float = 1.0
) -> Perturbation:
    """Draws a change to one value of a state dict; it shrinks to the largest change of the first value.

    Args:
        draw: given by Hypothesis.
        state: whose tensors are changed, floating-point ones only.
        least: smallest change, as a part of the value; a power of ten is drawn down to it.
        most: largest change.
    """
    name = draw(st.sampled_from([name for name, tensor in state.items() if tensor.is_floating_point()]))
    index = tuple(draw(st.integers(0, side - 1)) for side in state[name].shape)
    steps = round(math.log10(most / least))
    return Perturbation(name, index, most * 10.0 ** -draw(st.integers(0, steps)))


def command(candidate: str, config: Mapping[str, Any], *, batch: int = 3, seed: int = 0) -> str:
    """Returns the line of a shell that shows an example again: `parity check CANDIDATE --set ...`.

    Args:
        candidate: as `parity check` takes it.
        config: the settings of the reference that were changed.
        batch: number of images.
        seed: of weights, images and dropout.
    """
    settings = [word for key, value in config.items() for word in ("--set", f"{key}={value}")]
    return shlex.join(["parity", "check", candidate, *settings, "--batch", str(batch), "--seed", str(seed)])
