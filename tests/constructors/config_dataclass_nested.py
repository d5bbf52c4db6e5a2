"""A dataclass of dataclasses, and groups of settings that are passed one by one."""

from dataclasses import dataclass, field

from common import Block, Embedding, Head, Stack


@dataclass
class EmbedConfig:
    img_size: int = 224
    patch_size: int = 16
    in_channels: int = 3
    out_channels: int = 768


@dataclass
class EncoderConfig:
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072


@dataclass
class HeadConfig:
    in_features: int = 768
    num_classes: int = 1000


@dataclass
class ModelConfig:
    name: str = "vit"
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)


class Grouped(Stack):
    def __init__(self, embed: EmbedConfig, encoder: EncoderConfig, head: HeadConfig):
        super().__init__(
            Embedding(embed.img_size, embed.patch_size, embed.in_channels, embed.out_channels),
            [Block(encoder.embed_dim, encoder.num_heads, encoder.mlp_dim) for _ in range(encoder.num_layers)],
            Head(head.in_features, head.num_classes),
        )


class ViT(Grouped):
    def __init__(self, config: ModelConfig):
        super().__init__(config.embed, config.encoder, config.head)
