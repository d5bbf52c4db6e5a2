"""Constructors that hand on what they are given, or wrap another model."""

import functools
from dataclasses import dataclass

from common import Block, Embedding, Head, Stack, Whole
from torch import nn


class Base(Whole):
    def __init__(self, image_size, patch_size, embed_dim, depth, num_heads, mlp_dim, num_classes=10):
        super().__init__(image_size, patch_size, 3, embed_dim, depth, num_heads, mlp_dim, num_classes)


class Everything(Base):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.apply(self.init_weights)

    @staticmethod
    def init_weights(module):
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)


class Inherited(Everything):
    """Has no constructor of its own."""


class SomeOfIt(Base):
    def __init__(self, num_classes=1000, drop_head=False, **kwargs):
        super().__init__(num_classes=num_classes, **kwargs)
        assert not drop_head


class ToTheEncoder(Stack):
    """Depth and embedding are its own; what else there is goes to the blocks."""

    def __init__(self, in_channels=3, patch_size=16, emb_size=768, img_size=224, depth=12, n_classes=1000, **kwargs):
        super().__init__(
            Embedding(img_size, patch_size, in_channels, emb_size),
            encoder(depth, emb_size, **kwargs),
            Head(emb_size, n_classes),
        )


def encoder(depth, emb_size, num_heads=8, forward_expansion=4):
    return [Block(emb_size, num_heads, emb_size * forward_expansion) for _ in range(depth)]


class Popped(Whole):
    """Every argument is taken out of `kwargs`, some have a default."""

    def __init__(self, **kwargs):
        image_size = kwargs.pop("image_size", 224)
        patch_size = kwargs.pop("patch_size", 16)
        dim = kwargs.pop("dim")
        super().__init__(
            image_size, patch_size, kwargs.get("channels", 3), dim, kwargs["depth"], kwargs["heads"],
            kwargs.get("mlp_dim", 4 * dim), kwargs["num_classes"],
        )  # fmt: skip


def logged(function):
    @functools.wraps(function)
    def wrapper(self, *args, **kwargs):
        function(self, *args, **kwargs)
        self.hparams = kwargs

    return wrapper


class Decorated(Whole):
    @logged
    def __init__(self, img_size=32, patch_size=4, d_model=128, n_layers=4, n_heads=4, d_ff=256, num_classes=10):
        super().__init__(img_size, patch_size, 3, d_model, n_layers, n_heads, d_ff, num_classes)


@dataclass(eq=False)
class AsDataclass(nn.Module):
    latent_size: int
    mlp_size: int
    num_classes: int
    num_encoders: int
    num_heads: int
    image_size: int
    patch_size: int
    n_channels: int = 3

    def __post_init__(self):
        super().__init__()
        self.module = Whole(
            self.image_size, self.patch_size, self.n_channels, self.latent_size, self.num_encoders, self.num_heads,
            self.mlp_size, self.num_classes,
        )  # fmt: skip

    def forward(self, x):
        return self.module(x)


class Lit(nn.Module):
    """What a trainer's module looks like: the model's arguments in a dictionary, and its own beside it."""

    def __init__(self, model_kwargs, lr=3e-4, weight_decay=0.01):
        super().__init__()
        self.lr = lr
        self.weight_decay = weight_decay
        self.model = Base(**model_kwargs)

    def forward(self, x):
        return self.model(x)


class Chain(nn.Sequential):
    def __init__(self, in_channels: int = 3, patch_size: int = 16, emb_size: int = 768, img_size: int = 224,
                 depth: int = 12, heads: int = 12, mlp_dim: int = 3072, n_classes: int = 1000):  # fmt: skip
        super().__init__(
            Embedding(img_size, patch_size, in_channels, emb_size),
            *(Block(emb_size, heads, mlp_dim) for _ in range(depth)),
            Head(emb_size, n_classes),
        )


class Converted(Whole):
    """Its arguments come as they stand in a file of settings: as numbers or as strings of digits."""

    def __init__(
        self, img_size="224", patch_size="16", dim="768", depth="12", heads="12", mlp_dim="3072", num_classes="1000"
    ):
        sizes = map(int, (dim, depth, heads, mlp_dim, num_classes))
        super().__init__(int(img_size), int(patch_size), 3, *sizes)
