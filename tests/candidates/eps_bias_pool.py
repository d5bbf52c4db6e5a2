"""Wrong three times: eps 1e-5 in all norms, no qkv bias, and mean pooling."""

import torch
from einops import rearrange, reduce, repeat
from einops.layers.torch import Rearrange
from torch import nn


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.to_qkv = nn.Linear(dim, dim * 3, bias=False)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = rearrange(self.to_qkv(x), "b n (qkv h d) -> qkv b h n d", qkv=3, h=self.heads)
        attn = (torch.einsum("bhid,bhjd->bhij", q, k) * self.scale).softmax(dim=-1)
        return self.to_out(rearrange(attn @ v, "b h n d -> b n (h d)"))


class PreNormResidual(nn.Module):
    def __init__(self, dim, fn):
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(dim)

    def forward(self, x):
        return self.fn(self.norm(x)) + x


def encoder(dim, depth, heads, mlp_dim):
    layers = []
    for _ in range(depth):
        layers.append(PreNormResidual(dim, Attention(dim, heads)))
        layers.append(PreNormResidual(dim, nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))))
    return nn.Sequential(*layers)


class SmallViT(nn.Module):
    def __init__(self, *, image_size, patch_size, num_classes, dim, depth, heads, mlp_dim, channels=3):
        super().__init__()
        self.to_patch_embedding = nn.Sequential(
            nn.Conv2d(channels, dim, patch_size, patch_size),
            Rearrange("b d h w -> b (h w) d"),
        )
        self.pos_embedding = nn.Parameter(torch.randn(1, (image_size // patch_size) ** 2 + 1, dim))
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.transformer = encoder(dim, depth, heads, mlp_dim)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, img):
        x = self.to_patch_embedding(img)
        x = torch.cat((repeat(self.cls_token, "1 1 d -> b 1 d", b=len(x)), x), dim=1)
        x = self.norm(self.transformer(x + self.pos_embedding))
        return self.head(reduce(x, "b n d -> b d", "mean"))
