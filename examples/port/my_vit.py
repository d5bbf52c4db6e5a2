"""A Vision Transformer as one writes it: a Linear for the patches, one projection for query, key and value."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mixes the tokens."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        rate = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], dropout_p=rate)
        output: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return output


class Block(nn.Module):
    """A pre-norm block: (B, N, D) -> (B, N, D)."""

    def __init__(
        self, dim: int, heads: int, mlp_dim: int, dropout: float, attention_dropout: float, eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attention = Attention(dim, heads, attention_dropout)
        self.drop = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        widen, narrow = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)
        self.mlp = nn.Sequential(widen, nn.GELU(), nn.Dropout(dropout), narrow, nn.Dropout(dropout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds attention, then the MLP, to the residual stream."""
        x = x + self.drop(self.attention(self.norm1(x)))
        y: torch.Tensor = self.mlp(self.norm2(x))
        return x + y


class ViT(nn.Module):
    """Classifies images: (B, 3, H, W) -> (B, num_classes)."""

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_dim: int = 3072,
        num_classes: int = 1000,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.embed = nn.Linear(3 * patch_size**2, dim)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos = nn.Parameter(torch.randn(1, 1 + (image_size // patch_size) ** 2, dim) * 0.02)
        self.drop = nn.Dropout(dropout)
        blocks = (Block(dim, heads, mlp_dim, dropout, attention_dropout, eps) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        patches = F.unfold(images, self.patch_size, stride=self.patch_size).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(images), -1, -1), self.embed(patches)], dim=1)
        x = self.norm(self.blocks(self.drop(x + self.pos)))
        logits: torch.Tensor = self.head(x[:, 0])
        return logits
