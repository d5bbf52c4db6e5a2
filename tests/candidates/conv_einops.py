"""Patches by a convolution, its (B, D, h, w) flattened by einops; the rest is short and dense."""

import torch
from einops import rearrange, reduce, repeat
from torch import nn


def norm(d):
    return nn.LayerNorm(d, eps=1e-6)


class MHSA(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.h, self.s = heads, (d // heads) ** -0.5
        self.qkv, self.o = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x):
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.h)
        logits = self.s * q @ rearrange(k, "b h n d -> b h d n")
        stable = logits - reduce(logits, "b h i j -> b h i 1", "max")
        weights = stable.exp()
        weights = weights / reduce(weights, "b h i j -> b h i 1", "sum")
        return self.o(rearrange(weights @ v, "b h n d -> b n (h d)"))


class ViT(nn.Module):
    def __init__(self, img_size, patch_size, model_dim, n_layers, n_heads, mlp_hidden, num_classes, in_ch=3):
        super().__init__()
        d, n = model_dim, (img_size // patch_size) ** 2
        self.conv = nn.Conv2d(in_ch, d, patch_size, patch_size)
        self.cls, self.pos = nn.Parameter(torch.zeros(1, d)), nn.Parameter(torch.zeros(n + 1, d))
        self.norms_a = nn.ModuleList(norm(d) for _ in range(n_layers))
        self.attns = nn.ModuleList(MHSA(d, n_heads) for _ in range(n_layers))
        self.norms_m = nn.ModuleList(norm(d) for _ in range(n_layers))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(d, mlp_hidden), nn.GELU(), nn.Linear(mlp_hidden, d)) for _ in range(n_layers)
        )
        self.norm, self.head = norm(d), nn.Linear(d, num_classes)

    def forward(self, x):
        x = rearrange(self.conv(x), "b d h w -> b (h w) d")
        x = torch.cat([repeat(self.cls, "n d -> b n d", b=len(x)), x], dim=1) + self.pos
        for norm_a, attn, norm_m, mlp in zip(self.norms_a, self.attns, self.norms_m, self.mlps, strict=True):
            x = x + attn(norm_a(x))
            x = x + mlp(norm_m(x))
        return self.head(self.norm(x)[:, 0])
