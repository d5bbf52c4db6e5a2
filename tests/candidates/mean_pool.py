"""Wrong: the head sees the mean of all tokens, not the class token."""

import torch
from torch import nn


class EncoderLayer(nn.Module):
    def __init__(self, width, heads, mlp_dim):
        super().__init__()
        self.mha = nn.MultiheadAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, width))
        self.norm_mha = nn.LayerNorm(width, eps=1e-6)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x):
        y = self.norm_mha(x)
        y, _ = self.mha(y, y, y)
        x = x + y
        return x + self.mlp(self.norm_mlp(x))


class PooledViT(nn.Module):
    def __init__(self, image_size, patch_size, in_channels, width, depth, heads, mlp_dim, num_classes):
        super().__init__()
        self.to_tokens = nn.Conv2d(in_channels, width, patch_size, patch_size)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        n_tokens = (image_size // patch_size) ** 2 + 1
        self.pos = nn.Parameter(torch.randn(n_tokens, 1, width) * 0.02)
        self.layers = nn.ModuleList([EncoderLayer(width, heads, mlp_dim) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        x = self.to_tokens(images).flatten(2).permute(2, 0, 1)  # (tokens, batch, width)
        x = torch.cat([self.cls.expand(-1, x.shape[1], -1), x])
        x = x + self.pos
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        x = x.mean(dim=0)  # average over tokens
        return self.head(x)
