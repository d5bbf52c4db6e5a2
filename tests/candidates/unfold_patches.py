"""nn.Unfold cuts the patches, a Linear projects them."""

import torch
from torch import nn


class LinearEmbedding(nn.Module):
    def __init__(self, image_dim, patch, in_channels, dim):
        super().__init__()
        self.unfold = nn.Unfold(kernel_size=patch, stride=patch)
        self.flatten_to_dim = nn.Linear(in_channels * patch * patch, dim)
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos = nn.Parameter(torch.randn(1, (image_dim // patch) ** 2 + 1, dim))

    def forward(self, image):
        columns = self.unfold(image)
        embedded = self.flatten_to_dim(columns.transpose(1, 2))
        token = self.token.expand(image.size(0), -1, -1)
        return torch.cat((token, embedded), dim=1) + self.pos


class SelfAttention(nn.Module):
    def __init__(self, dim, n_heads):
        super().__init__()
        self.n_heads, self.size = n_heads, dim // n_heads
        self.keys = nn.Linear(dim, dim)
        self.queries = nn.Linear(dim, dim)
        self.values = nn.Linear(dim, dim)
        self.unify = nn.Linear(dim, dim)

    def forward(self, x):
        b, t, e = x.size()
        h, s = self.n_heads, self.size
        # fold the heads into the batch; a quarter root each, which saves memory
        keys = self.keys(x).view(b, t, h, s).transpose(1, 2).reshape(b * h, t, s) / s ** (1 / 4)
        queries = self.queries(x).view(b, t, h, s).transpose(1, 2).reshape(b * h, t, s) / s ** (1 / 4)
        values = self.values(x).view(b, t, h, s).transpose(1, 2).reshape(b * h, t, s)
        dot = torch.softmax(torch.bmm(queries, keys.transpose(1, 2)), dim=2)
        out = torch.bmm(dot, values).view(b, h, t, s)
        return self.unify(out.transpose(1, 2).reshape(b, t, e))


class Layer(nn.Module):
    def __init__(self, dim, n_heads, expansion):
        super().__init__()
        inner = round(dim * expansion)
        self.before_attention = nn.LayerNorm(dim, eps=1e-6)
        self.attention = SelfAttention(dim, n_heads)
        self.before_ff = nn.LayerNorm(dim, eps=1e-6)
        self.ff = nn.Sequential(nn.Linear(dim, inner), nn.GELU(), nn.Linear(inner, dim))

    def forward(self, x):
        x = self.attention(self.before_attention(x)) + x
        return self.ff(self.before_ff(x)) + x


class UnfoldViT(nn.Module):
    def __init__(self, image_dim, n_classes, patch=16, in_channels=3, dim=768, n_blocks=12, n_heads=12, expansion=4):
        super().__init__()
        self.embed = LinearEmbedding(image_dim, patch, in_channels, dim)
        self.body = nn.Sequential(*(Layer(dim, n_heads, expansion) for _ in range(n_blocks)))
        self.final_norm = nn.LayerNorm(dim, eps=1e-6)
        self.final = nn.Linear(dim, n_classes)

    def forward(self, image):
        hidden = self.final_norm(self.body(self.embed(image)))
        return self.final(hidden[:, 0])
