"""The sizes are attributes of the class."""

from common import Whole


class ViT(Whole):
    image_size = 224
    patch_size = 16
    hidden_dim = 768
    num_layers = 12
    num_heads = 12
    mlp_dim = 3072
    num_classes = 1000

    def __init__(self):
        super().__init__(
            self.image_size, self.patch_size, 3, self.hidden_dim, self.num_layers, self.num_heads, self.mlp_dim,
            self.num_classes,
        )  # fmt: skip


class ViTLarge(ViT):
    hidden_dim = 1024
    num_layers = 24
    num_heads = 16
    mlp_dim = 4096


class ViTBase(ViTLarge):
    hidden_dim = 768
    num_layers = 12
    num_heads = 12
    mlp_dim = 3072


class Tiny(ViT):
    image_size = 32
    patch_size = 8
    hidden_dim = 48
    num_layers = 2
    num_heads = 4
    mlp_dim = 96
    num_classes = 10
