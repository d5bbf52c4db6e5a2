"""A namespace without an example: its attributes are those that the constructor reads."""

import argparse
from enum import Enum
from types import SimpleNamespace

from common import Block, Embedding, Head, Stack, Whole
from torch import nn


class ViT(Whole):
    def __init__(self, cfg):
        super().__init__(
            cfg.img_size, cfg.patch_size, cfg.in_chans, cfg.dim, cfg.depth, cfg.heads, cfg.mlp_dim, cfg.num_classes
        )


class Simple(Whole):
    def __init__(self, config: SimpleNamespace):
        width = config.n_embd
        super().__init__(
            config.image_size, config.patch_size, 3, width, config.n_layer, config.n_head,
            int(config.mlp_ratio * width), config.n_classes,
        )  # fmt: skip


class Parsed(Whole):
    def __init__(self, args: argparse.Namespace):
        drop = getattr(args, "dropout", 0.0)
        super().__init__(
            args.img_size,
            args.patch,
            3,
            args.hidden,
            args.num_layers,
            args.head,
            args.mlp_hidden,
            args.num_classes,
            drop,
        )


class Nested(Whole):
    def __init__(self, config):
        vit = config.vit
        super().__init__(
            vit.embed.img_size, vit.embed.patch_size, vit.embed.in_channels, vit.embed.out_channels, vit.encoder.depth,
            vit.encoder.num_heads, vit.encoder.ff_dim, config.num_classes,
        )  # fmt: skip


class Upper(Whole):
    def __init__(self, cfg):
        super().__init__(
            cfg.DATA.IMG_SIZE, cfg.MODEL.PATCH_SIZE, cfg.MODEL.IN_CHANS, cfg.MODEL.EMBED_DIM, cfg.MODEL.DEPTH,
            cfg.MODEL.NUM_HEADS, int(cfg.MODEL.MLP_RATIO * cfg.MODEL.EMBED_DIM), cfg.MODEL.NUM_CLASSES,
        )  # fmt: skip


def build_model(cfg):
    return Upper(cfg)


class Task(Enum):
    CLASSIFICATION = "classification"
    FEATURES = "features"


class Enumerated(Stack):
    """What it is to do is the value of an enumeration's member; patches may overlap."""

    def __init__(self, cfg):
        model, data = cfg.model, cfg.data
        assert 1 <= model.stride <= model.patch_side_length, "patches overlap or touch"
        if model.task == Task.CLASSIFICATION.value:
            head = Head(model.embedding_dim, data.nb_classes)
        elif model.task == Task.FEATURES.value:
            head = nn.Identity()
        else:
            raise ValueError(f"unknown task {model.task!r}")
        size = data.image_height, data.image_width
        mlp = model.embedding_dim * model.mlp_expansion
        blocks = [Block(model.embedding_dim, model.nb_heads, mlp) for _ in range(model.nb_layers)]
        super().__init__(Embedding(size, model.patch_side_length, 3, model.embedding_dim), blocks, head)
        self.embedding.proj.stride = (model.stride, model.stride)
