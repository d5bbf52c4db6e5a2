"""Wrong: a block has one LayerNorm and uses it twice."""

import torch
from torch import nn
from torch.nn import functional as F


class Attn(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.h = h
        self.in_proj = nn.Parameter(torch.randn(3, d, d) * d**-0.5)
        self.in_bias = nn.Parameter(torch.zeros(3, d))
        self.out_proj = nn.Linear(d, d)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = (
            torch.addmm(bias, x.reshape(-1, d), w).view(b, n, self.h, d // self.h).transpose(1, 2)
            for w, bias in zip(self.in_proj, self.in_bias, strict=True)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, d, h, d_ff):
        super().__init__()
        self.norm = nn.LayerNorm(d, eps=1e-6)
        self.attn = Attn(d, h)
        self.ff = nn.Sequential(nn.Linear(d, d_ff), nn.GELU(), nn.Linear(d_ff, d))

    def forward(self, x):
        x = self.attn(self.norm(x)) + x
        x = self.ff(self.norm(x)) + x
        return x


class OneNormViT(nn.Module):
    def __init__(
        self,
        input_size=224,
        patch=16,
        dim=768,
        depth=12,
        heads=12,
        d_ff=3072,
        num_labels=1000,
    ):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos = nn.Parameter(torch.zeros(1, (input_size // patch) ** 2 + 1, dim))
        self.net = nn.ModuleList([Block(dim, heads, d_ff) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_labels)

    def forward(self, x):
        x = self.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.size(0), -1, -1), x], dim=1) + self.pos
        for block in self.net:
            x = block(x)
        return self.head(self.norm(x[:, 0]))
