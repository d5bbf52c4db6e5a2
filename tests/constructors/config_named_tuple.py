"""A named tuple, and a dictionary whose keys are typed."""

from typing import NamedTuple, TypedDict

from common import Whole


class Architecture(NamedTuple):
    image_size: int
    patch_size: int
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    classes: int = 1000


class ViT(Whole):
    def __init__(self, architecture: Architecture):
        image, patch, width, layers, heads, mlp, classes = architecture
        super().__init__(image, patch, 3, width, layers, heads, mlp, classes)


class Settings(TypedDict):
    img_size: int
    patch_size: int
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float
    num_classes: int


class Typed(Whole):
    def __init__(self, settings: Settings):
        dim = settings["embed_dim"]
        super().__init__(
            settings["img_size"], settings["patch_size"], 3, dim, settings["depth"], settings["num_heads"],
            int(settings["mlp_ratio"] * dim), settings["num_classes"],
        )  # fmt: skip
