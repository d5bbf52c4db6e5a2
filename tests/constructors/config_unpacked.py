"""Configs in configs, whose entries are handed on as they are: to a layer, to each part, by way of a copy."""

import functools

from common import Block, Embedding, Head
from torch import nn


class Layer(Block):
    def __init__(self, dim, num_heads, mlp_dim, dropout=0.0):
        super().__init__(dim, num_heads, mlp_dim, dropout)


class Layers(nn.Sequential):
    def __init__(self, depth, **layer):
        super().__init__(*(Layer(**layer) for _ in range(depth)))


class _ViT(nn.Module):
    def forward(self, x):
        return self.head(self.layers(self.embedding(x)))


class Entries(_ViT):
    def __init__(self, config):
        super().__init__()
        dim = config["layer"]["dim"]
        self.embedding = Embedding(config["image_size"], config["patch_size"], config["in_channels"], dim)
        self.layers = nn.Sequential(*[Layer(**config["layer"]) for _ in range(config["depth"])])
        self.head = Head(dim, config["num_classes"])


class Attributes(_ViT):
    def __init__(self, cfg):
        super().__init__()
        self.embedding = Embedding(**cfg.embedding)
        self.layers = Layers(**vars(cfg.encoder))
        self.head = Head(cfg.encoder.dim, cfg.num_classes)


class Copies(_ViT):
    def __init__(self, config):
        super().__init__()
        self.embedding = Embedding(**{**config["embedding"], "width": config["dim"]})
        settings = dict(config["block"])
        make = functools.partial(Layer, config["dim"], **settings)
        self.layers = nn.Sequential(*(make() for _ in range(config["depth"])))
        self.head = Head(config["dim"], **config["head"])


def made(kind, settings):
    return kind(**{name: value for name, value in settings.items() if value is not None})


class Elsewhere(_ViT):
    def __init__(self, config):
        super().__init__()
        self.embedding, self.layers = made(Embedding, config["embedding"]), made(Layers, config["encoder"])
        self.head = Head(**config["head"])
