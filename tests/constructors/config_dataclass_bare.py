"""A dataclass whose author forgot the annotations: it has no fields, only attributes of the class."""

from dataclasses import dataclass

from common import Whole


@dataclass
class VitConfig:
    embd_dim = 768
    mlp_dim = 3072
    num_layers = 12
    num_heads = 12
    num_classes = 1000
    img_size = 224
    patch_size = 16
    num_channels = 3


class ViT(Whole):
    def __init__(self, config: VitConfig):
        super().__init__(
            config.img_size, config.patch_size, config.num_channels, config.embd_dim, config.num_layers,
            config.num_heads, config.mlp_dim, config.num_classes,
        )  # fmt: skip
