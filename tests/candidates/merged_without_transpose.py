"""Wrong: heads are merged by a plain reshape of (B, heads, N, d), so tokens and heads get mixed."""

import torch
import torch.nn.functional as F
from torch import nn


class MSA(nn.Module):
    def __init__(self, emb_dim, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = emb_dim // n_heads
        self.kqv = nn.ModuleDict({name: nn.Linear(emb_dim, emb_dim) for name in "kqv"})
        self.proj = nn.Linear(emb_dim, emb_dim)

    def forward(self, x):
        B, N, E = x.shape
        k, q, v = (
            layer(x).reshape(B, N, self.n_heads, self.head_dim).permute(0, 2, 1, 3) for layer in self.kqv.values()
        )
        att = F.softmax(q @ k.permute(0, 1, 3, 2) * self.head_dim**-0.5, dim=-1)
        return self.proj((att @ v).reshape(B, N, E))


class Encoder(nn.Module):
    def __init__(self, emb_dim, n_heads, mlp_hidden):
        super().__init__()
        self.ln_msa = nn.LayerNorm(emb_dim, eps=1e-6)
        self.msa = MSA(emb_dim, n_heads)
        self.ln_mlp = nn.LayerNorm(emb_dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(emb_dim, mlp_hidden), nn.GELU(), nn.Linear(mlp_hidden, emb_dim))

    def forward(self, x):
        x = self.msa(self.ln_msa(x)) + x
        return self.mlp(self.ln_mlp(x)) + x


class ReshapedViT(nn.Module):
    def __init__(
        self,
        image_size=224,
        patch=16,
        channels=3,
        emb_dim=768,
        n_layers=12,
        n_heads=12,
        mlp_hidden=3072,
        n_classes=1000,
    ):
        super().__init__()
        self.patch = patch
        self.embedding = nn.Linear(channels * patch * patch, emb_dim)
        self.cls = nn.Parameter(torch.rand(1, 1, emb_dim))
        self.pos = nn.Parameter(torch.rand(1, (image_size // patch) ** 2 + 1, emb_dim))
        self.encoders = nn.ModuleList([Encoder(emb_dim, n_heads, mlp_hidden) for _ in range(n_layers)])
        self.ln = nn.LayerNorm(emb_dim, eps=1e-6)
        self.fc = nn.Linear(emb_dim, n_classes)

    def forward(self, imgs):
        p = imgs.unfold(2, self.patch, self.patch).unfold(3, self.patch, self.patch)
        B, C, H, W = p.shape[:4]
        p = p.permute(0, 2, 3, 1, 4, 5).reshape(B, H * W, C * self.patch**2)
        x = torch.cat([self.cls.repeat(B, 1, 1), self.embedding(p)], dim=1) + self.pos
        for encoder in self.encoders:
            x = encoder(x)
        return self.fc(self.ln(x)[:, 0])
