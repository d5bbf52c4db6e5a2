"""No view, transpose or cat: every shape is written as an einops pattern."""

import torch
from einops import einsum, pack, rearrange, repeat
from einops.layers.torch import Rearrange
from torch import nn


class Attend(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = (rearrange(to(x), "b n (h d) -> b h n d", h=self.heads) for to in (self.to_q, self.to_k, self.to_v))
        sim = einsum(q, k, "b h i d, b h j d -> b h i j") * self.scale
        out = einsum(sim.softmax(dim=-1), v, "b h i j, b h j d -> b h i d")
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


class PreNorm(nn.Module):
    def __init__(self, dim, fn):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fn = fn

    def forward(self, x):
        return self.fn(self.norm(x))


class EinopsViT(nn.Module):
    def __init__(self, image_size, patch_size, num_classes, dim, depth, heads, mlp_dim, channels=3):
        super().__init__()
        tokens = (image_size // patch_size) ** 2 + 1
        self.to_patch_embedding = nn.Sequential(
            nn.Conv2d(channels, dim, patch_size, patch_size),
            Rearrange("b d h w -> b (h w) d"),
        )
        self.cls_token = nn.Parameter(torch.randn(dim))
        self.pos_embedding = nn.Parameter(torch.randn(tokens, dim))
        self.layers = nn.ModuleList()
        for _ in range(depth):
            feed_forward = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))
            self.layers.append(nn.ModuleList([PreNorm(dim, Attend(dim, heads)), PreNorm(dim, feed_forward)]))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.to_logits = nn.Linear(dim, num_classes)

    def forward(self, img):
        x = self.to_patch_embedding(img)
        cls = repeat(self.cls_token, "d -> b d", b=x.shape[0])
        x, _ = pack([cls, x], "b * d")
        x = x + rearrange(self.pos_embedding, "n d -> 1 n d")
        for attend, feed_forward in self.layers:
            x = attend(x) + x
            x = feed_forward(x) + x
        return self.to_logits(self.norm(x)[:, 0])
