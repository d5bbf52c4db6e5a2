"""Functions, partial functions, methods and variants that build a model."""

from functools import partial
from typing import Literal

from common import Whole


class VisionTransformer(Whole):
    def __init__(
        self,
        img_size=224,
        patch_size=16,
        in_chans=3,
        num_classes=1000,
        embed_dim=768,
        depth=12,
        num_heads=12,
        mlp_ratio=4.0,
    ):
        super().__init__(
            img_size, patch_size, in_chans, embed_dim, depth, num_heads, int(embed_dim * mlp_ratio), num_classes
        )

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    @classmethod
    def from_sizes(cls, image_size, patch_size, width, layers, heads, mlp_dim, num_classes):
        return cls(image_size, patch_size, 3, num_classes, width, layers, heads, mlp_dim / width)

    @staticmethod
    def base():
        return VisionTransformer()


_REGISTRY = {}


def register_model(function):
    _REGISTRY[function.__name__] = function
    return function


def vit(**kw):
    return VisionTransformer(**kw)


@register_model
def vit_base_patch16_224(pretrained=False, **kwargs):
    """Gives what ViT-B/16 has where the caller says nothing."""
    assert not pretrained
    return VisionTransformer(**dict({"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}, **kwargs))


def vit_with_positions(img_size, patch_size, *sizes):
    return VisionTransformer(img_size, patch_size, *sizes)


tiny = partial(VisionTransformer, img_size=32, patch_size=4, embed_dim=192, depth=9, num_heads=3)

with_base_sizes = partial(VisionTransformer, patch_size=16, embed_dim=768, depth=12, num_heads=12)

from_lambda = lambda image, patch, dim, depth, heads, mlp, classes: Whole(
    image, patch, 3, dim, depth, heads, mlp, classes
)


class Builder:
    """Called, it builds."""

    def __init__(self, model):
        self.model = model

    def __call__(self, image_size, patch_size, hidden, layers, heads, ratio, classes):
        return self.model(image_size, patch_size, 3, classes, hidden, layers, heads, ratio)


builder = Builder(VisionTransformer)


def b16():
    return VisionTransformer(224, 16, 3, 1000, 768, 12, 12)


VARIANTS = {
    "Ti": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "S": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "B": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "L": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}


def by_variant(variant="B/16", image_size=224, num_classes=1000):
    size, patch = variant.split("/")
    return VisionTransformer(image_size, int(patch), num_classes=num_classes, **VARIANTS[size])


def by_variant_and_more(variant="B/16", **overrides):
    size, patch = variant.split("/")
    return VisionTransformer(**{"patch_size": int(patch), **VARIANTS[size], **overrides})


def by_literal(
    size: Literal["Ti", "S", "B", "L"] = "Ti", patch_size: int = 16, image_size: int = 224, num_classes: int = 1000
):
    return VisionTransformer(image_size, patch_size, num_classes=num_classes, **VARIANTS[size])
