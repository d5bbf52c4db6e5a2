"""The class token is a vector (D,) and the positions a matrix (N + 1, D)."""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.in_proj(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = F.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(-2))


class Residual(nn.Module):
    def __init__(self, dim, inner):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.inner = inner

    def forward(self, x):
        return x + self.inner(self.norm(x))


class FlatViT(nn.Module):
    def __init__(self, img_size, patch, dim, depth, heads, mlp_dim, n_classes, in_chans=3):
        super().__init__()
        self.patch_embedding = nn.Conv2d(in_chans, dim, patch, patch)
        num_tokens = (img_size // patch) ** 2 + 1
        self.cls = nn.Parameter(torch.zeros(dim))
        self.pos = nn.Parameter(torch.zeros(num_tokens, dim))
        trunk = []
        for _ in range(depth):
            trunk += [
                Residual(dim, Attention(dim, heads)),
                Residual(dim, nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))),
            ]
        self.trunk = nn.Sequential(*trunk)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc = nn.Linear(dim, n_classes)

    def forward(self, x):
        x = self.patch_embedding(x).flatten(2).mT
        cls = self.cls.expand(x.shape[0], 1, -1)
        x = torch.hstack([cls, x])
        x = self.trunk(x + self.pos)
        return self.fc(self.norm(x)[:, 0])
