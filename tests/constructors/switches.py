"""Beside the sizes: truth values, names of variants, classes and functions."""

from functools import partial
from typing import Callable, Optional, Type

from common import Attention, Block, Embedding, Head, Stack, Whole
from torch import nn


class Truths(Whole):
    def __init__(
        self, image_size=224, patch_size=16, num_layers=12, num_heads=12, hidden_dim=768, mlp_dim=3072,
        num_classes=1000, class_token=True, use_pos_embed=True, norm_first=True, qkv_bias=True, return_features=False,
        flash=False, pretrained=False, gradient_checkpointing=False,
    ):  # fmt: skip
        assert class_token and use_pos_embed and norm_first and not (return_features or flash or pretrained)
        super().__init__(
            image_size, patch_size, 3, hidden_dim, num_layers, num_heads, mlp_dim, num_classes, bias=qkv_bias
        )


class BiasOnRequest(Whole):
    """Query, key and value have no bias unless asked for."""

    def __init__(
        self,
        img_size=224,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        mlp_ratio=4.0,
        qkv_bias=False,
        num_classes=1000,
    ):
        super().__init__(
            img_size, patch_size, 3, embed_dim, depth, num_heads, int(mlp_ratio * embed_dim), num_classes, bias=qkv_bias
        )


class Words(Whole):
    def __init__(
        self, image_size=224, patch_size=16, dim=768, depth=12, heads=12, mlp_dim=3072, num_classes=1000, pool="cls",
        classifier="token", pos_embed_type="learnable", activation="gelu", norm_type="layernorm", padding="valid",
    ):  # fmt: skip
        assert (pool, classifier, pos_embed_type) == ("cls", "token", "learnable")
        super().__init__(
            image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes,
            act={"gelu": nn.GELU, "relu": nn.ReLU}[activation],
            norm={"layernorm": partial(nn.LayerNorm, eps=1e-6)}[norm_type],
        )  # fmt: skip


class NormAndActivation(Whole):
    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        norm_layer: Callable[..., nn.Module] = partial(nn.LayerNorm, eps=1e-6),
        act_layer: Type[nn.Module] = nn.GELU,
    ):
        super().__init__(
            img_size, patch_size, 3, embed_dim, depth, num_heads, int(embed_dim * mlp_ratio), num_classes,
            norm=norm_layer, act=act_layer,
        )  # fmt: skip


class NoneForTheUsual(Whole):
    def __init__(
        self, img_size=224, patch_size=16, embed_dim=768, depth=12, num_heads=12, mlp_ratio=4.0, num_classes=1000,
        representation_size=None, qk_scale=None, norm_layer: Optional[Callable] = None, act_layer=None, weight_init="",
    ):  # fmt: skip
        assert representation_size is None
        super().__init__(
            img_size, patch_size, 3, embed_dim, depth, num_heads, int(embed_dim * mlp_ratio), num_classes,
            norm=norm_layer or partial(nn.LayerNorm, eps=1e-6), act=act_layer or nn.GELU,
        )  # fmt: skip


class PartsAsClasses(Stack):
    def __init__(
        self,
        embedding=Embedding,
        block=Block,
        head=Head,
        embed_dim=16,
        n_blocks=2,
        n_heads=4,
        img_size=28,
        in_channels=1,
        patch_size=4,
        mlp_dim=64,
        n_classes=10,
    ):
        super().__init__(
            embedding(img_size, patch_size, in_channels, embed_dim),
            [block(embed_dim, n_heads, mlp_dim) for _ in range(n_blocks)],
            head(embed_dim, n_classes),
        )


class AttentionAsClass(Whole):
    def __init__(
        self, image_size, patch_size, dim, depth, num_heads, mlp_dim, num_classes, attn_cls: Type[nn.Module] = Attention
    ):
        super().__init__(image_size, patch_size, 3, dim, depth, num_heads, mlp_dim, num_classes)
        for block in self.blocks:
            block.attn = attn_cls(dim, num_heads)


class DeviceAndDtype(nn.Module):
    """Built of torch's own encoder; `device` and `dtype` are handed on to it."""

    def __init__(
        self,
        image_size,
        patch_size,
        d_model,
        nhead,
        num_encoder_layers,
        dim_feedforward=2048,
        dropout=0.1,
        num_classes=10,
        device=None,
        dtype=None,
    ):
        super().__init__()
        to = {"device": device, "dtype": dtype}
        self.embedding = Embedding(image_size, patch_size, 3, d_model, dropout).to(**to)
        layer = nn.TransformerEncoderLayer(
            d_model, nhead, dim_feedforward, dropout, "gelu", 1e-6, batch_first=True, norm_first=True, **to
        )
        self.encoder = nn.TransformerEncoder(layer, num_encoder_layers, enable_nested_tensor=False)
        self.head = Head(d_model, num_classes).to(**to)

    def forward(self, x):
        return self.head(self.encoder(self.embedding(x)))
