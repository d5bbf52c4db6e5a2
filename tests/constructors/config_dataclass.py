"""A dataclass with ViT-B/16's sizes as defaults, named in the annotation."""

from dataclasses import dataclass

from common import Whole


@dataclass
class ViTConfig:
    image_size: int = 224
    patch_size: int = 16
    embed_dim: int = 768
    ff_dim: int = 768 * 4
    num_heads: int = 12
    layers: int = 12
    num_classes: int = 1000
    dropout: float = 0.0


class ViT(Whole):
    def __init__(self, config: ViTConfig):
        super().__init__(
            config.image_size, config.patch_size, 3, config.embed_dim, config.layers, config.num_heads, config.ff_dim,
            config.num_classes, config.dropout,
        )  # fmt: skip


class Optional(ViT):
    def __init__(self, config: "ViTConfig | None" = None):
        super().__init__(config or ViTConfig())


class WithArguments(Whole):
    """What the dataclass says, but for the image and the classes."""

    def __init__(self, config: ViTConfig, img_size=224, num_classes=21843, zero_head=False, vis=False):
        super().__init__(
            img_size, config.patch_size, 3, config.embed_dim, config.layers, config.num_heads, config.ff_dim,
            num_classes, config.dropout,
        )  # fmt: skip


def build_model(cfg: ViTConfig) -> ViT:
    return ViT(cfg)
