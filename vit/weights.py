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
    from parity.weights import resolve  # noqa: PLC0415

    if name not in PRESETS:
        raise ValueError(f"unknown model {name!r}; the presets are {', '.join(PRESETS)}")
    chosen = resolve(weights, name)
    config = reference.configuration(name, chosen.config)
    original = reference.build(config)
    sizes = {"img_size": config["image_size"], "num_classes": config["num_classes"]}
    with torch.device("meta"):
        model = ViT(**(PRESETS[name]._asdict() | sizes | arguments))
    mapping.by_name(original, model).load(model, chosen.state_dict(original), assign=True)
    return Pretrained(model.eval(), chosen.transforms(model.img_size), chosen.categories)
