"""The class token is a buffer: saved and loaded with the model, but not trained."""

import torch
from torch import nn


class SelfAttentionBlock(nn.Module):
    def __init__(self, emb_size, n_heads):
        super().__init__()
        self.norm = nn.LayerNorm(emb_size, eps=1e-6)
        self.attention = nn.MultiheadAttention(emb_size, n_heads, dropout=0.0)

    def forward(self, x):
        y = self.norm(x).transpose(0, 1)
        y, _ = self.attention(y, y, y, need_weights=False)
        return x + y.transpose(0, 1)


class FeedForwardBlock(nn.Module):
    def __init__(self, emb_size, mlp_size):
        super().__init__()
        self.norm = nn.LayerNorm(emb_size, eps=1e-6)
        self.expand = nn.Linear(emb_size, mlp_size)
        self.gelu = nn.GELU()
        self.shrink = nn.Linear(mlp_size, emb_size)

    def forward(self, x):
        return x + self.shrink(self.gelu(self.expand(self.norm(x))))


class BufferViT(nn.Module):
    def __init__(self, image_dim, patch_size, emb_size, layers, n_heads, mlp_size, n_classes, in_ch=3):
        super().__init__()
        self.split_and_project = nn.Conv2d(in_ch, emb_size, kernel_size=patch_size, stride=patch_size)
        self.register_buffer("class_token", torch.zeros(1, 1, emb_size))
        self.position = nn.Parameter(torch.randn(1, (image_dim // patch_size) ** 2 + 1, emb_size))
        blocks = []
        for _ in range(layers):
            blocks.append(SelfAttentionBlock(emb_size, n_heads))
            blocks.append(FeedForwardBlock(emb_size, mlp_size))
        self.encoder = nn.Sequential(*blocks, nn.LayerNorm(emb_size, eps=1e-6))
        self.linear = nn.Linear(emb_size, n_classes)

    def forward(self, x):
        x = self.split_and_project(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.repeat(x.shape[0], 1, 1), x], dim=1)
        x = self.encoder(x + self.position)
        return self.linear(x[:, 0])
