"""A class of attributes is the configuration: itself, not an instance."""

from common import Block, Embedding, Head, Stack, Whole
from torch import nn


class Config:
    image_size = 32
    patch_size = 4
    n_channels = 3
    dim = 128
    depth = 6
    heads = 8
    mlp_dim = 256
    num_classes = 10
    # what the training reads
    lr = 1e-3
    epochs = 20


class ViT(Whole):
    def __init__(self, config=Config):
        super().__init__(
            config.image_size, config.patch_size, config.n_channels, config.dim, config.depth, config.heads,
            config.mlp_dim, config.num_classes,
        )  # fmt: skip


class ViTConfig:
    """An ordinary class with an ordinary constructor."""

    def __init__(
        self, hidden_size=768, num_layers=3, n_heads=8, image_size=224, patch_size=16, num_channels=3, num_labels=0,
        mlp_ratio=4,
    ):  # fmt: skip
        self.hidden_size = hidden_size
        self.intermediate_size = mlp_ratio * hidden_size
        self.num_layers = num_layers
        self.n_heads = n_heads
        self.image_size = image_size
        self.patch_size = patch_size
        self.num_channels = num_channels
        self.num_labels = num_labels


class FromObject(Whole):
    def __init__(self, config: ViTConfig):
        super().__init__(
            config.image_size, config.patch_size, config.num_channels, config.hidden_size, config.num_layers,
            config.n_heads, config.intermediate_size, config.num_labels,
        )  # fmt: skip


class HubConfig:
    """Takes any keyword, as those of a model hub do."""

    model_type = "vit"

    def __init__(self, hidden_size=768, image_size=224, patch_size=16, **kwargs):
        self.hidden_size = hidden_size
        self.image_size = image_size
        self.patch_size = patch_size
        for key, value in kwargs.items():
            setattr(self, key, value)


class FromHub(Whole):
    config_class = HubConfig

    def __init__(self, config: HubConfig):
        super().__init__(
            config.image_size, config.patch_size, 3, config.hidden_size, config.num_hidden_layers,
            config.num_attention_heads, config.intermediate_size, config.num_labels,
        )  # fmt: skip
        self.config = config


class Settings:
    """Both parts take these by default, and nobody hands others over."""

    image = 32
    patch = 4
    width = 96
    depth = 6
    heads = 8
    mlp = 192
    classes = 10


class Blocks(nn.Sequential):
    def __init__(self, config=Settings):
        super().__init__(*(Block(config.width, config.heads, config.mlp) for _ in range(config.depth)))


class Patches(Embedding):
    def __init__(self, config=Settings):
        super().__init__(config.image, config.patch, 3, config.width)


class OfParts(Stack):
    def __init__(self, config=Settings):
        super().__init__(Patches(), Blocks(), Head(config.width, config.classes))
