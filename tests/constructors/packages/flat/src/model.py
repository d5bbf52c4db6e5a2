"""A model whose folder is no package, and which imports a package of its parent's folder."""

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))

from utils import config


class ViT(nn.Module):
    def __init__(
        self,
        image_size=config.IMAGE_SIZE,
        patch_size=config.PATCH_SIZE,
        embed_dim=config.EMBED_DIM,
        depth=config.DEPTH,
        heads=config.HEADS,
        mlp_dim=config.MLP_DIM,
        classes=config.CLASSES,
    ):
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, patch_size, patch_size)
        self.cls = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos = nn.Parameter(torch.zeros(1, (image_size // patch_size) ** 2 + 1, embed_dim))
        layer = nn.TransformerEncoderLayer(embed_dim, heads, mlp_dim, 0.0, "gelu", 1e-6, True, True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, classes)

    def forward(self, x):
        x = self.proj(x).flatten(2).mT
        x = self.encoder(torch.cat((self.cls.expand(len(x), -1, -1), x), 1) + self.pos)
        return self.head(self.norm(x[:, 0]))
