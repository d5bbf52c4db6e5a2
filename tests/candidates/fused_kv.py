"""A Linear for queries and a fused one for keys and values."""

import torch
from einops import rearrange
from torch import nn


class SRAttention(nn.Module):
    def __init__(self, dim, num_heads=8):
        super().__init__()
        assert dim % num_heads == 0, f"dim {dim} should be divided by num_heads {num_heads}."
        self.dim = dim
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, dim * 2)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        q = rearrange(self.q(x), "b n (h c) -> b h n c", h=self.num_heads)
        kv = rearrange(self.kv(x), "b n (t h c) -> t b h n c", t=2, h=self.num_heads)
        attn = (q @ kv[0].transpose(-2, -1)).mul(self.scale).softmax(dim=-1)
        return self.proj(rearrange(attn @ kv[1], "b h n c -> b n (h c)"))


class FeedForward(nn.Module):
    def __init__(self, dim, mult):
        super().__init__()
        self.fc1 = nn.Linear(dim, round(dim * mult))
        self.fc2 = nn.Linear(round(dim * mult), dim)
        self.act_layer = nn.GELU()

    def forward(self, x):
        return self.fc2(self.act_layer(self.fc1(x)))


class Stage(nn.Module):
    def __init__(self, dim, num_heads, mult):
        super().__init__()
        self.attn_norm = nn.LayerNorm(dim, eps=1e-6)
        self.attn = SRAttention(dim, num_heads)
        self.ff_norm = nn.LayerNorm(dim, eps=1e-6)
        self.ff = FeedForward(dim, mult)

    def forward(self, x):
        x = x + self.attn(self.attn_norm(x))
        x = x + self.ff(self.ff_norm(x))
        return x


class PlainPVT(nn.Module):
    def __init__(
        self,
        img_size: int,
        patch_size: int,
        num_classes: int,
        embedding_dim: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: float,
    ):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, embedding_dim, kernel_size=patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embedding_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (img_size // patch_size) ** 2 + 1, embedding_dim))
        for i in range(num_blocks):
            setattr(self, f"block{i + 1}", Stage(embedding_dim, num_heads, mlp_ratio))
        self.num_blocks = num_blocks
        self.norm = nn.LayerNorm(embedding_dim, eps=1e-6)
        self.head = nn.Linear(embedding_dim, num_classes)

    def forward(self, x):
        x = rearrange(self.patch_embed(x), "b c h w -> b (h w) c")
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self.pos_embed
        for i in range(self.num_blocks):
            x = getattr(self, f"block{i + 1}")(x)
        return self.head(self.norm(x)[:, 0])
