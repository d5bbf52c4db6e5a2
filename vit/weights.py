"""Official weights straight into the scratch model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from vit.fast import FastViT
from vit.model import ViT
from vit.presets import PRESETS
from vit.resolution import resize_positions

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


def load(name: str, weights: str = "official", *, fast: bool = False, **arguments: Any) -> Pretrained:
    """Builds a published ViT with torchvision's weights, downloaded or from torch.hub's cache, hash checked.

    Args:
        name: one of `vit.PRESETS`.
        weights: a member of torchvision's weights enum for that model, such as `IMAGENET1K_V1`, or `official` for
            torchvision's default. They bring the image size and the number of classes.
        fast: build a `FastViT`.
        arguments: for `ViT`'s constructor, such as `dropout=0.1`. With another `img_size` than the weights' own
            the position embedding is resized by the rule of `vit.resize_positions`, and pictures are made that size.

    Raises:
        ValueError: an unknown name, unknown weights, or weights that cannot be had or don't fit `arguments`.
    """
    # the harness knows torchvision's names and files; the model itself doesn't need it
    from parity.models import (  # noqa: PLC0415
        build_reference,
        by_name,
        configuration,
        hold,
        resolve_weights,
    )

    if name not in PRESETS:
        raise ValueError(f"unknown model {name!r}; the presets are {', '.join(PRESETS)}")
    chosen = resolve_weights(weights, name)
    config = configuration(name, chosen.config)
    original = build_reference(config)
    sizes = {"img_size": config["image_size"], "num_classes": config["num_classes"]}
    settings = PRESETS[name]._asdict() | sizes | arguments
    with torch.device("meta"):
        model = (FastViT if fast else ViT)(**settings)
        as_trained = ViT(**(settings | {"img_size": config["image_size"]}))
    state = by_name(original, as_trained).apply(chosen.state_dict(original))
    hold(model, resize_positions(state, model.img_size, settings["patch_size"]))
    transforms = chosen.transforms(config["image_size"])
    if model.img_size != config["image_size"]:
        scale = model.img_size / config["image_size"]
        for sides in (transforms.crop_size, transforms.resize_size):
            sides[:] = [round(side * scale) for side in sides]
    return Pretrained(model.eval(), transforms, chosen.categories)
