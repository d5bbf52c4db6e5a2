"""The class token stands at the end of the sequence, and so does its row of the position embedding."""

import torch
from torch import nn


class EncoderBlock(nn.Module):
    def __init__(self, embed_dim, n_heads, mlp_dim):
        super().__init__()
        self.norm_a = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = nn.MultiheadAttention(embed_dim, n_heads, batch_first=True)
        self.norm_b = nn.LayerNorm(embed_dim, eps=1e-6)
        self.linear_1 = nn.Linear(embed_dim, mlp_dim)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(mlp_dim, embed_dim)

    def forward(self, z):
        normed = self.norm_a(z)
        attended, _ = self.attn(query=normed, key=normed, value=normed)
        z = z + attended
        return z + self.linear_2(self.act(self.linear_1(self.norm_b(z))))


class SuffixViT(nn.Module):
    def __init__(
        self,
        image_size=224,
        patch_size=16,
        channels=3,
        embed_dim=768,
        n_blocks=12,
        n_heads=12,
        mlp_dim=3072,
        classes=1000,
    ):
        super().__init__()
        per_side = image_size // patch_size
        self.embed = nn.Conv2d(channels, embed_dim, patch_size, patch_size)
        self.summary = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos = nn.Parameter(0.02 * torch.randn(1, per_side * per_side + 1, embed_dim))
        self.blocks = nn.ModuleList([EncoderBlock(embed_dim, n_heads, mlp_dim) for _ in range(n_blocks)])
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.out = nn.Linear(embed_dim, classes)

    def forward(self, images):
        z = self.embed(images).flatten(2).transpose(1, 2)
        z = torch.cat([z, self.summary.expand(z.shape[0], -1, -1)], dim=1)
        z = z + self.pos
        for block in self.blocks:
            z = block(z)
        z = self.norm(z)
        return self.out(z[:, -1])
