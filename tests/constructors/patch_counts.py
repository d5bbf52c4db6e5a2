"""How many patches or tokens there are, instead of how large the image or a patch is."""

import math

from common import Block, Head, LinearEmbedding, Stack, Whole


class PatchesPerSide(Whole):
    """Its MLP is always four times as wide as the model."""

    def __init__(self, chw=(1, 28, 28), n_patches=7, n_blocks=2, hidden_d=8, n_heads=2, out_d=10):
        assert chw[1] % n_patches == 0, "Input shape not entirely divisible by number of patches"
        assert chw[2] % n_patches == 0, "Input shape not entirely divisible by number of patches"
        super().__init__(
            chw[1:],
            (chw[1] // n_patches, chw[2] // n_patches),
            chw[0],
            hidden_d,
            n_blocks,
            n_heads,
            4 * hidden_d,
            out_d,
        )


class PatchIsACount(Whole):
    """`patch` is the number of patches in a row."""

    def __init__(
        self,
        in_c=3,
        num_classes=10,
        img_size=32,
        patch=8,
        dropout=0.0,
        num_layers=7,
        hidden=384,
        mlp_hidden=384 * 4,
        head=8,
        is_cls_token=True,
    ):
        assert is_cls_token
        patch_size = img_size // patch
        super().__init__(img_size, patch_size, in_c, hidden, num_layers, head, mlp_hidden, num_classes, dropout)


class PatchesInARow(Whole):
    def __init__(self, img_size, num_patch_1d, hidden_dim, mlp_hidden_dim, num_enc_layers, num_head, num_classes):
        super().__init__(
            img_size, img_size // num_patch_1d, 3, hidden_dim, num_enc_layers, num_head, mlp_hidden_dim, num_classes
        )


class Grid(Whole):
    def __init__(
        self, grid_size=14, patch_size=16, embed_dim=768, depth=12, num_heads=12, mlp_dim=3072, num_classes=1000
    ):
        super().__init__(grid_size * patch_size, patch_size, 3, embed_dim, depth, num_heads, mlp_dim, num_classes)


class AllPatches(Stack):
    """Takes images of any size that gives as many patches."""

    def __init__(
        self,
        embed_dim,
        hidden_dim,
        num_channels,
        num_heads,
        num_layers,
        num_classes,
        patch_size,
        num_patches,
        dropout=0.0,
    ):
        super().__init__(
            LinearEmbedding(num_patches, patch_size, num_channels, embed_dim),
            [Block(embed_dim, num_heads, hidden_dim, dropout) for _ in range(num_layers)],
            Head(embed_dim, num_classes),
        )


class Sequence(Stack):
    """A patch is as many numbers, `patch_dim`, and there are `seq_len` of them."""

    def __init__(self, seq_len, patch_dim, latent_dim, n_layers, n_heads, ffn_dim, n_classes, in_channels=3):
        side = math.isqrt(patch_dim // in_channels)
        assert in_channels * side**2 == patch_dim, "a patch must be square"
        super().__init__(
            LinearEmbedding(seq_len, side, in_channels, latent_dim),
            [Block(latent_dim, n_heads, ffn_dim) for _ in range(n_layers)],
            Head(latent_dim, n_classes),
        )


class LongestSequence(Stack):
    """The class token counts as one of the tokens that get a position."""

    def __init__(self, patch_size=8, max_seq_len=17, d_model=48, n_layers=2, n_heads=4, d_ff=96, n_classes=10):
        super().__init__(
            LinearEmbedding(None, patch_size, 3, d_model, tokens=max_seq_len),
            [Block(d_model, n_heads, d_ff) for _ in range(n_layers)],
            Head(d_model, n_classes),
        )


class Projected(Stack):
    """Names of a well-known example for another library; each layer of the MLP has its width."""

    def __init__(
        self, patch_size, num_patches, projection_dim, num_heads, transformer_units, transformer_layers, num_classes
    ):
        hidden, last = transformer_units
        assert last == projection_dim
        super().__init__(
            LinearEmbedding(num_patches, patch_size, 3, projection_dim),
            [Block(projection_dim, num_heads, hidden) for _ in range(transformer_layers)],
            Head(projection_dim, num_classes),
        )


class Extent(Stack):
    """How large the image is goes by a name that says nothing; its MLP is always four times as wide as the model."""

    def __init__(self, patch_size=16, extent=224, dim=768, depth=12, heads=12, num_classes=1000):
        super().__init__(
            LinearEmbedding((extent // patch_size) ** 2, patch_size, 3, dim),
            [Block(dim, heads, 4 * dim) for _ in range(depth)],
            Head(dim, num_classes),
        )
