"""Wrong: returns probabilities, though everything else is right."""

import torch
from torch import nn


class MSA(nn.Module):
    def __init__(self, dim, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)

    def forward(self, x):
        B, N, D = x.shape
        q, k, v = (f(x).view(B, N, self.n_heads, -1) for f in (self.q, self.k, self.v))
        attn = torch.einsum("bihd,bjhd->bhij", q, k) / (D / self.n_heads) ** 0.5
        return self.o(torch.einsum("bhij,bjhd->bihd", attn.softmax(dim=3), v).flatten(2))


class Encoder(nn.Module):
    def __init__(self, dim, n_heads, mlp_hidden_dim):
        super().__init__()
        self.norm_in = nn.LayerNorm(dim, eps=1e-6)
        self.msa = MSA(dim, n_heads)
        self.norm_out = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_hidden_dim), nn.GELU(), nn.Linear(mlp_hidden_dim, dim))

    def forward(self, x):
        x = x + self.msa(self.norm_in(x))
        return x + self.mlp(self.norm_out(x))


class ProbabilityViT(nn.Module):
    def __init__(
        self,
        resolution=224,
        patch_size=16,
        in_channels=3,
        dim=768,
        n_blocks=12,
        n_heads=12,
        mlp_hidden_dim=3072,
        n_classes=1000,
    ):
        super().__init__()
        self.patch_embed = nn.Conv2d(in_channels, dim, patch_size, patch_size)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos = nn.Parameter(torch.zeros(1, (resolution // patch_size) ** 2 + 1, dim))
        self.blocks = nn.Sequential(*[Encoder(dim, n_heads, mlp_hidden_dim) for _ in range(n_blocks)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp_head = nn.Sequential(nn.Linear(dim, n_classes), nn.Softmax(dim=-1))

    def forward(self, images):
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.pos
        x = self.norm(self.blocks(x))
        return self.mlp_head(x[:, 0])
