"""Dataclasses that work out some of their fields: after the others, or from the defaults when the class is made."""

from dataclasses import dataclass, field

from common import Block, Head, LinearEmbedding, Stack, Whole


@dataclass
class AfterTheOthers:
    num_heads: int = 8
    dim_per_head: int = 16
    emb_dim: int = field(init=False)
    num_layers: int = 2
    mlp_factor: float = 4.0
    mlp_dim: int = field(default=None)
    img_size: int = 28
    patch_size: int = 7
    channels: int = 1
    num_classes: int = 10

    def __post_init__(self):
        self.emb_dim = self.num_heads * self.dim_per_head
        self.mlp_dim = self.mlp_dim or int(self.emb_dim * self.mlp_factor)


class ViT(Whole):
    def __init__(self, config: AfterTheOthers):
        super().__init__(
            config.img_size, config.patch_size, config.channels, config.emb_dim, config.num_layers, config.num_heads,
            config.mlp_dim, config.num_classes,
        )  # fmt: skip


@dataclass
class FromTheDefaults:
    img_size: int = 224
    patch_size: int = 16
    num_patches: int = (img_size // patch_size) ** 2
    sequence_len: int = num_patches + 1
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    n_hidden: int = 4 * n_embd
    n_class: int = 1000


class Stale(Stack):
    def __init__(self, config: FromTheDefaults):
        super().__init__(
            LinearEmbedding(config.num_patches, config.patch_size, 3, config.n_embd, tokens=config.sequence_len),
            [Block(config.n_embd, config.n_head, config.n_hidden) for _ in range(config.n_layer)],
            Head(config.n_embd, config.n_class),
        )
