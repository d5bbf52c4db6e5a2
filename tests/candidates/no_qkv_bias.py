"""Wrong: the Linears for queries, keys and values have no bias."""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, d_model, n_heads, bias):
        super().__init__()
        self.n_heads = n_heads
        self.Wq = nn.Linear(d_model, d_model, bias=bias)
        self.Wk = nn.Linear(d_model, d_model, bias=bias)
        self.Wv = nn.Linear(d_model, d_model, bias=bias)
        self.Wo = nn.Linear(d_model, d_model)

    def forward(self, x):
        B, T, D = x.shape
        q = self.Wq(x).view(B, T, self.n_heads, D // self.n_heads).transpose(1, 2)
        k = self.Wk(x).view(B, T, self.n_heads, D // self.n_heads).transpose(1, 2)
        v = self.Wv(x).view(B, T, self.n_heads, D // self.n_heads).transpose(1, 2)
        context = F.scaled_dot_product_attention(q, k, v)
        return self.Wo(context.transpose(1, 2).reshape(B, T, D))


class EncoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff):
        super().__init__()
        self.sublayers = nn.ModuleList(
            [
                Attention(d_model, n_heads, bias=False),
                nn.Sequential(nn.Linear(d_model, d_ff), nn.GELU(), nn.Linear(d_ff, d_model)),
            ]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(d_model, eps=1e-6) for _ in self.sublayers])

    def forward(self, x):
        for norm, sublayer in zip(self.norms, self.sublayers, strict=True):
            x = x + sublayer(norm(x))
        return x


class BiaslessViT(nn.Module):
    def __init__(
        self,
        img_size=224,
        patch_size=16,
        n_channels=3,
        d_model=768,
        n_layers=12,
        n_heads=12,
        d_ff=3072,
        n_classes=1000,
    ):
        super().__init__()
        self.patch_embed = nn.Conv2d(n_channels, d_model, patch_size, stride=patch_size)
        self.cls = nn.Parameter(torch.zeros(1, 1, d_model))
        self.pe = nn.Parameter(torch.zeros(1, (img_size // patch_size) ** 2 + 1, d_model))
        self.encoder = nn.ModuleList([EncoderLayer(d_model, n_heads, d_ff) for _ in range(n_layers)])
        self.ln = nn.LayerNorm(d_model, eps=1e-6)
        self.fc = nn.Linear(d_model, n_classes)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls.expand(len(x), -1, -1), x), 1) + self.pe
        for layer in self.encoder:
            x = layer(x)
        return self.fc(self.ln(x)[:, 0])
