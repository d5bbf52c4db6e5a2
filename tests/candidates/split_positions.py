"""Positions are added to the patches before the class token joins them; it has a position of its own."""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, dim, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.Wqkv = nn.Linear(dim, 3 * dim)
        self.Wo = nn.Linear(dim, dim)

    def forward(self, x):
        B, S, D = x.shape
        qkv = self.Wqkv(x).view(B, S, 3, self.n_heads, D // self.n_heads)
        q, k, v = (t.squeeze(2).transpose(1, 2) for t in qkv.split(1, dim=2))
        x = F.scaled_dot_product_attention(q, k, v)
        return self.Wo(x.transpose(1, 2).contiguous().view(B, S, D))


class Block(nn.Module):
    def __init__(self, dim, n_heads, d_ff):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.mixer = Attention(dim, n_heads)
        self.mlp = nn.Sequential(nn.Linear(dim, d_ff), nn.GELU(), nn.Linear(d_ff, dim))

    def forward(self, x):
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class SplitPositionViT(nn.Module):
    def __init__(self, image_dim, patch_size, n_classes, dim, n_layers, n_heads, d_ff, in_chans=3):
        super().__init__()
        self.grid = image_dim // patch_size
        self.patch_embed = nn.Conv2d(in_chans, dim, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.cls_pos = nn.Parameter(torch.zeros(1, 1, dim))
        self.patch_pos = nn.Parameter(torch.zeros(1, dim, self.grid, self.grid))  # an image itself
        self.blocks = nn.ModuleList([Block(dim, n_heads, d_ff) for _ in range(n_layers)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, n_classes)

    def forward(self, x):
        x = self.patch_embed(x) + self.patch_pos
        x = x.flatten(2).transpose(1, 2)
        cls = (self.cls_token + self.cls_pos).expand(x.shape[0], -1, -1)
        x = torch.cat((cls, x), dim=1)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
