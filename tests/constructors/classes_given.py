"""Constructors that are given the class that they make their parts of, and have no default for it."""

import torch
from common import Embedding, Stack
from common import Head as Top
from torch import nn


class Head(nn.Module):
    def __init__(self, width, size):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * size)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v


class Attention(nn.Module):
    def __init__(self, heads, width):
        super().__init__()
        self.num_heads, self.heads, self.out = len(heads), nn.ModuleList(heads), nn.Linear(width, width)

    def forward(self, x):
        return self.out(torch.cat([head(x) for head in self.heads], -1))


class Layer(nn.Module):
    def __init__(self, heads, width, mlp_dim):
        super().__init__()
        self.attention = Attention(heads, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def _layers(make, width, depth, heads, mlp_dim):
    return [Layer([make(width, width // heads) for _ in range(heads)], width, mlp_dim) for _ in range(depth)]


class Called(Stack):
    def __init__(self, head, image_size, patch_size, dim, depth, num_heads, mlp_dim, num_classes):
        assert isinstance(head(dim, dim // num_heads), nn.Module)
        super().__init__(
            Embedding(image_size, patch_size, 3, dim), _layers(head, dim, depth, num_heads, mlp_dim),
            Top(dim, num_classes),
        )  # fmt: skip


class Annotated(Stack):
    def __init__(self, image_size, patch_size, dim, depth, num_heads, mlp_dim, num_classes, *, made_of: type[Head]):
        super().__init__(
            Embedding(image_size, patch_size, 3, dim), _layers(made_of, dim, depth, num_heads, mlp_dim),
            Top(dim, num_classes),
        )  # fmt: skip
