"""A dataclass with CIFAR's sizes as defaults; the parameter has no annotation."""

import math
from dataclasses import dataclass

from common import Whole


@dataclass
class ViTConfig:
    img_size: int = 32
    patch_size: int = 4
    in_channels: int = 3
    num_classes: int = 10
    num_heads: int = 12
    num_layers: int = 9
    mlp_dim: int = 384
    dropout: float = 0.1
    bias: bool = True
    n_embd: int = 192


class PatchCounter:
    def __init__(self, config):
        self.side = math.ceil(config.img_size / config.patch_size)


class ViT(Whole):
    def __init__(self, config):
        super().__init__(
            config.img_size, config.patch_size, config.in_channels, config.n_embd, config.num_layers, config.num_heads,
            config.mlp_dim, config.num_classes, config.dropout, bias=config.bias,
        )  # fmt: skip
