"""Positions are an nn.Embedding that is asked for 0 ... N."""

import torch
from torch import nn


class PatchEncoder(nn.Module):
    def __init__(self, image_size, patch_size, channels, projection_dim):
        super().__init__()
        self.num_patches = (image_size // patch_size) ** 2
        self.projection = nn.Conv2d(channels, projection_dim, patch_size, stride=patch_size)
        self.class_embed = nn.Parameter(torch.zeros(1, 1, projection_dim))
        self.position_embedding = nn.Embedding(self.num_patches + 1, projection_dim)

    def forward(self, images):
        encoded = self.projection(images).flatten(2).transpose(1, 2)
        encoded = torch.cat([self.class_embed.expand(images.shape[0], -1, -1), encoded], dim=1)
        positions = torch.arange(self.num_patches + 1, device=images.device)
        return encoded + self.position_embedding(positions)


class MultiHeadAttention(nn.Module):
    def __init__(self, dim, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.key_dim = dim // n_heads
        self.wq = nn.Linear(dim, dim)
        self.wk = nn.Linear(dim, dim)
        self.wv = nn.Linear(dim, dim)
        self.combine = nn.Linear(dim, dim)

    def forward(self, x):
        outputs = []
        queries, keys, values = (w(x).split(self.key_dim, dim=-1) for w in (self.wq, self.wk, self.wv))
        for q, k, v in zip(queries, keys, values, strict=True):
            attention = torch.softmax(q @ k.transpose(1, 2) / self.key_dim**0.5, dim=-1)
            outputs.append(attention @ v)
        return self.combine(torch.cat(outputs, dim=-1))


class TransformerBlock(nn.Module):
    def __init__(self, dim, n_heads, d_ff):
        super().__init__()
        self.layer_norm_1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = MultiHeadAttention(dim, n_heads)
        self.layer_norm_2 = nn.LayerNorm(dim, eps=1e-6)
        self.dense_1 = nn.Linear(dim, d_ff)
        self.dense_2 = nn.Linear(d_ff, dim)

    def forward(self, encoded_patches):
        x1 = self.layer_norm_1(encoded_patches)
        x2 = self.attention(x1) + encoded_patches
        x3 = self.layer_norm_2(x2)
        x3 = self.dense_2(nn.functional.gelu(self.dense_1(x3)))
        return x3 + x2


class KerasLikeViT(nn.Module):
    def __init__(
        self,
        image_size=224,
        patch_size=16,
        channels=3,
        dim=768,
        n_layers=12,
        n_heads=12,
        d_ff=3072,
        num_classes=1000,
    ):
        super().__init__()
        self.patch_encoder = PatchEncoder(image_size, patch_size, channels, dim)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(dim, n_heads, d_ff) for _ in range(n_layers)])
        self.representation = nn.LayerNorm(dim, eps=1e-6)
        self.logits = nn.Linear(dim, num_classes)

    def forward(self, inputs):
        encoded_patches = self.patch_encoder(inputs)
        for block in self.transformer_blocks:
            encoded_patches = block(encoded_patches)
        return self.logits(self.representation(encoded_patches)[:, 0])
