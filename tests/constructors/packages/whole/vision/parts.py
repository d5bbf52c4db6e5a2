"""All but the head, of torch's own encoder."""

import torch
from torch import nn


class Body(nn.Module):
    def __init__(self, image_size, patch_size, width, layers, heads, mlp_dim):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.pos = nn.Parameter(torch.zeros(1, (image_size // patch_size) ** 2 + 1, width))
        layer = nn.TransformerEncoderLayer(width, heads, mlp_dim, 0.0, "gelu", 1e-6, True, True)
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width, eps=1e-6), enable_nested_tensor=False)

    def forward(self, x):
        x = self.proj(x).flatten(2).mT
        return self.encoder(torch.cat((self.cls.expand(len(x), -1, -1), x), 1) + self.pos)[:, 0]
