"""Dataclasses without defaults: one frozen, one that only takes keywords, and one that is the default itself."""

from dataclasses import dataclass

from common import Whole


@dataclass(frozen=True)
class Hyperparameters:
    side: int
    patch: int
    channels: int
    dim: int
    blocks: int
    heads: int
    hidden: int
    classes: int


class ViT(Whole):
    def __init__(self, hp: Hyperparameters):
        super().__init__(hp.side, hp.patch, hp.channels, hp.dim, hp.blocks, hp.heads, hp.hidden, hp.classes)


@dataclass(kw_only=True)
class Sizes:
    image_size: int
    patch_size: int
    hidden_size: int
    mlp_ratio: float
    n_layers: int
    n_heads: int
    n_classes: int


BASE = Sizes(image_size=224, patch_size=16, hidden_size=768, mlp_ratio=4.0, n_layers=12, n_heads=12, n_classes=1000)


class ByDefault(Whole):
    def __init__(self, sizes: Sizes = BASE):
        super().__init__(
            sizes.image_size, sizes.patch_size, 3, sizes.hidden_size, sizes.n_layers, sizes.n_heads,
            int(sizes.hidden_size * sizes.mlp_ratio), sizes.n_classes,
        )  # fmt: skip
