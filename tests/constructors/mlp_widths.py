"""How wide the MLP is, as a factor under many names."""

from common import Whole
from torch import nn


class Expansion(Whole):
    def __init__(
        self,
        in_channels: int,
        patch_size: int,
        emb_size: int,
        img_size: int,
        depth: int,
        num_heads: int,
        forward_expansion: int,
        n_classes: int,
    ):
        super().__init__(
            img_size, patch_size, in_channels, emb_size, depth, num_heads, forward_expansion * emb_size, n_classes
        )


class MlpExpansion(Whole):
    def __init__(
        self, img_size=224, patch_size=16, embedding_size=768, depth=12, num_heads=12, mlp_expansion=4, num_classes=1000
    ):
        super().__init__(
            img_size, patch_size, 3, embedding_size, depth, num_heads, embedding_size * mlp_expansion, num_classes
        )


class Multiplier(Whole):
    def __init__(self, size, patch, dim, depth, heads, ff_mult, classes):
        super().__init__(size, patch, 3, dim, depth, heads, ff_mult * dim, classes)


class WideningFactor(Whole):
    def __init__(
        self, image_size=32, patch_size=4, d_model=128, num_blocks=4, num_heads=4, widening_factor=2.0, num_classes=10
    ):
        super().__init__(
            image_size, patch_size, 3, d_model, num_blocks, num_heads, round(widening_factor * d_model), num_classes
        )


class InAndOut(Whole):
    """Its MLP is told what it takes and what it gives, and is wrong for any other width of the model."""

    def __init__(
        self,
        pic_size=224,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        mlp_in=768,
        mlp_ratio=4,
        mlp_out=768,
        num_classes=1000,
    ):
        super().__init__(pic_size, patch_size, 3, embed_dim, depth, num_heads, int(mlp_in * mlp_ratio), num_classes)
        for block in self.blocks:
            block.mlp[0] = nn.Linear(mlp_in, int(mlp_in * mlp_ratio))
            block.mlp[3] = nn.Linear(int(mlp_in * mlp_ratio), mlp_out)


class FourTimes(Whole):
    """Its MLP is always four times as wide as the model."""

    def __init__(self, d_model, n_classes, img_size, patch_size, n_channels, n_heads, n_layers):
        assert img_size[0] % patch_size[0] == 0 and img_size[1] % patch_size[1] == 0
        super().__init__(img_size, patch_size, n_channels, d_model, n_layers, n_heads, 4 * d_model, n_classes)
