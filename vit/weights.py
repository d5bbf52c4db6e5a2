"""Official weights straight into the scratch model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from vit.model import ViT
from vit.presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Sequence


class Pretrained(NamedTuple):
    """A model with official weights and what belongs to them.

    Attributes:
        model: in eval mode.
        transforms: turns a PIL picture into the (3, img_size, img_size) tensor that the weights were trained on.
        categories: names of the classes, in the order of the logits.
    """

    model: ViT
    transforms: Any
    categories: Sequence[str]


def load(name: str, weights: str = "official", **arguments: Any) -> Pretrained:
    """Builds a published ViT with torchvision's weights, downloaded or from torch.hub's cache, hash checked.

    Args:
        name: one of `vit.PRESETS`.
        weights: a member of torchvision's weights enum for that model, such as `IMAGENET1K_V1`, or `official` for
            torchvision's default. They bring the image size and the number of classes.
        arguments: for `ViT`'s constructor, such as `dropout=0.1`.

    Raises:
        ValueError: an unknown name, unknown weights, or weights that cannot be had or don't fit `arguments`.
    """
    # the harness knows torchvision's names and files; the model itself doesn't need it
    from parity import mapping, reference  # noqa: PLC0415
    from parity.state import assigned  # noqa: PLC0415
    from parity.weights import resolve  # noqa: PLC0415

    if name not in PRESETS:
        raise ValueError(f"unknown model {name!r}; the presets are {', '.join(PRESETS)}")
    chosen = resolve(weights, name)
    original = reference.build(reference.configuration(name, chosen.config))
    sizes = {"img_size": chosen.config.get("image_size", 224), "num_classes": chosen.config.get("num_classes", 1000)}
    with torch.device("meta"):
        model = ViT(**(PRESETS[name]._asdict() | sizes | arguments))
    state = mapping.find(original, model).apply(chosen.state_dict(original))
    model.to_empty(device="cpu")
    model.load_state_dict(state)
    return Pretrained(model.eval(), chosen.transforms(model.img_size), chosen.categories)
