"""Tokens come first throughout: (N, B, D) with nn.MultiheadAttention's own default layout."""

import torch
from torch import nn


class ResidualAttentionBlock(nn.Module):
    def __init__(self, width, heads, mlp_width):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, mlp_width))
        self.mlp.add_module("gelu", nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(mlp_width, width))
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)

    def attention(self, x):
        return self.attn(x, x, x, need_weights=False)[0]

    def forward(self, x):
        x = x + self.attention(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class Transformer(nn.Module):
    def __init__(self, width, layers, heads, mlp_width):
        super().__init__()
        self.resblocks = nn.Sequential(*[ResidualAttentionBlock(width, heads, mlp_width) for _ in range(layers)])

    def forward(self, x):
        return self.resblocks(x)


class VisualTransformer(nn.Module):
    def __init__(
        self,
        input_size=224,
        patch_size=16,
        width=768,
        layers=12,
        heads=12,
        mlp_width=3072,
        num_classes=1000,
        in_channels=3,
    ):
        super().__init__()
        grid = input_size // patch_size
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)
        scale = width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(grid**2 + 1, width))
        self.transformer = Transformer(width, layers, heads, mlp_width)
        self.ln_post = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.conv1(x).flatten(2).permute(2, 0, 1)  # tokens, batch, width
        first = self.class_embedding.expand(1, x.shape[1], -1)
        x = torch.cat([first, x], dim=0)
        x = x + self.positional_embedding.unsqueeze(1)
        x = self.transformer(x)
        return self.head(self.ln_post(x[0]))
