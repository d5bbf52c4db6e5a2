"""Arguments without defaults: by name, by place, and those that have no size."""

from common import Whole
from torch import nn


class KeywordOnly(Whole):
    def __init__(self, *, image_size, patch_size, num_classes, emb_dim, n_heads, n_blocks, mlp_dim, dropout):
        super().__init__(image_size, patch_size, 3, emb_dim, n_blocks, n_heads, mlp_dim, num_classes, dropout)


class PositionalOnly(Whole):
    def __init__(self, num_classes, num_heads, depth, width, patch_size, image_size, mlp_width, /):
        super().__init__(image_size, patch_size, 3, width, depth, num_heads, mlp_width, num_classes)


class Mixed(Whole):
    def __init__(self, img_size, patch_size, /, embed_size, num_layers, *, num_heads, ff_dim, in_channels, n_classes):
        super().__init__(img_size, patch_size, in_channels, embed_size, num_layers, num_heads, ff_dim, n_classes)


class HiddenIsTheMlp(Whole):
    """`hidden_dim` is the width of the MLP where `embed_dim` is the model's."""

    def __init__(self, embed_dim, hidden_dim, num_channels, num_heads, num_layers, num_classes, patch_size, image_size):
        super().__init__(
            image_size, patch_size, num_channels, embed_dim, num_layers, num_heads, hidden_dim, num_classes
        )


class HiddenIsTheWidth(Whole):
    """`hidden_dim` is the width of the model where `mlp_dim` is the MLP's."""

    def __init__(self, hidden_dim, mlp_dim, num_heads, num_layers, num_classes, patch_size, image_size):
        super().__init__(image_size, patch_size, 3, hidden_dim, num_layers, num_heads, mlp_dim, num_classes)


class LatentSize(Whole):
    def __init__(
        self, img_dim, n_channels, patch_dim, latent_size, num_encoders, num_heads, mlp_hidden_size, output_dim
    ):
        super().__init__(
            img_dim, patch_dim, n_channels, latent_size, num_encoders, num_heads, mlp_hidden_size, output_dim
        )


class EncoderPrefix(Whole):
    def __init__(
        self, image_size, in_channels, out_channels, patch_size, encoder_depth, encoder_embed_dim, encoder_num_heads,
        encoder_mlp_dim,
    ):  # fmt: skip
        super().__init__(
            image_size, patch_size, in_channels, encoder_embed_dim, encoder_depth, encoder_num_heads, encoder_mlp_dim,
            out_channels,
        )  # fmt: skip


class OrdinaryExtras(Whole):
    """What has no size has one sensible value each."""

    def __init__(
        self, image_size, patch_size, dim, depth, heads, mlp_dim, num_classes, qkv_bias, dropout, emb_dropout,
        attn_dropout, layer_norm_eps, device,
    ):  # fmt: skip
        super().__init__(
            image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes, max(dropout, emb_dropout),
            attention_rate=attn_dropout, bias=qkv_bias, norm=lambda size: nn.LayerNorm(size, eps=layer_norm_eps),
        )  # fmt: skip
        self.to(device)


class Pooling(Whole):
    def __init__(self, image_size, patch_size, num_classes, dim, depth, heads, mlp_dim, pool):
        assert pool in {"cls", "mean"}, "pool type must be either cls (cls token) or mean (mean pooling)"
        super().__init__(image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes)
        self.pool = pool

    def forward(self, x):
        x = self.blocks(self.embedding(x))
        return self.head(x if self.pool == "cls" else x.mean(1, keepdim=True))
