"""The attention module returns concatenated heads; the output projection belongs to the block."""

import torch
from torch import nn


class QKVAttention(nn.Module):
    """Attention up to and including the concatenation of heads."""

    def __init__(self, width, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.to_qkv = nn.Linear(width, width * 3)

    def forward(self, x):
        bs, length, width = x.shape
        ch = width // self.n_heads
        q, k, v = self.to_qkv(x).chunk(3, dim=2)
        scale = ch**-0.25  # on both sides, which is more stable in half precision
        q = (q * scale).view(bs, length, self.n_heads, ch)
        k = (k * scale).view(bs, length, self.n_heads, ch)
        weight = torch.einsum("bthc,bshc->bhts", q, k).softmax(dim=-1)
        a = torch.einsum("bhts,bshc->bthc", weight, v.view(bs, length, self.n_heads, ch))
        return a.reshape(bs, length, -1)


class ResBlock(nn.Module):
    def __init__(self, width, n_heads, mlp_width):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = QKVAttention(width, n_heads)
        self.proj_out = nn.Linear(width, width)
        self.out_layers = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, mlp_width),
            nn.GELU(),
            nn.Linear(mlp_width, width),
        )

    def forward(self, x):
        h = self.attention(self.norm(x))
        h = self.proj_out(h)
        x = x + h
        return x + self.out_layers(x)


class ProjectedViT(nn.Module):
    def __init__(self, resolution, patch_size, width, n_blocks, n_heads, mlp_width, n_classes, n_channels=3):
        super().__init__()
        self.input_conv = nn.Conv2d(n_channels, width, patch_size, stride=patch_size)
        self.class_emb = nn.Parameter(torch.randn(1, 1, width))
        self.pos_emb = nn.Parameter(torch.randn(1, 1 + (resolution // patch_size) ** 2, width))
        self.input_blocks = nn.ModuleList()
        for _ in range(n_blocks):
            self.input_blocks.append(ResBlock(width, n_heads, mlp_width))
        self.out_norm = nn.LayerNorm(width, eps=1e-6)
        self.out = nn.Linear(width, n_classes)

    def forward(self, x):
        h = self.input_conv(x)
        h = h.reshape(h.shape[0], h.shape[1], h.shape[2] * h.shape[3]).transpose(1, 2)
        h = torch.cat([self.class_emb.expand(h.shape[0], -1, -1), h], dim=1)
        h = h + self.pos_emb
        for module in self.input_blocks:
            h = module(h)
        return self.out(self.out_norm(h)[:, 0])
