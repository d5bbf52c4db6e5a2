"""Attention goes through the queries in chunks, with a running softmax over chunks of keys."""

import torch
from torch import nn


class ChunkedAttention(nn.Module):
    def __init__(self, dim, heads, chunk=4):
        super().__init__()
        self.heads, self.chunk = heads, chunk
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def one_chunk(self, q, k, v):
        """q: (b, h, c, d) against all keys, `self.chunk` of them at a time"""
        highest = q.new_full((*q.shape[:3], 1), float("-inf"))
        total, result = torch.zeros_like(highest), torch.zeros_like(q)
        for k_part, v_part in zip(k.split(self.chunk, dim=2), v.split(self.chunk, dim=2), strict=True):
            scores = q @ k_part.transpose(2, 3)
            new_highest = torch.maximum(highest, scores.amax(dim=-1, keepdim=True))
            shrink, weights = (highest - new_highest).exp(), (scores - new_highest).exp()
            total = total * shrink + weights.sum(dim=-1, keepdim=True)
            result = result * shrink + weights @ v_part
            highest = new_highest
        return result / total

    def forward(self, x):
        b, n, dim = x.shape
        q, k, v = (
            p(x).view(b, n, self.heads, dim // self.heads).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q = q * (dim // self.heads) ** -0.5
        y = torch.cat([self.one_chunk(part, k, v) for part in q.split(self.chunk, dim=2)], dim=2)
        return self.out_proj(y.transpose(1, 2).reshape(b, n, dim))


class Layer(nn.Module):
    def __init__(self, dim, heads, mlp_ratio):
        super().__init__()
        self.input_norm = nn.LayerNorm(dim, eps=1e-6)
        self.self_attn = ChunkedAttention(dim, heads)
        self.post_norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, int(dim * mlp_ratio)), nn.GELU(), nn.Linear(int(dim * mlp_ratio), dim))

    def forward(self, x):
        x = x + self.self_attn(self.input_norm(x))
        return x + self.mlp(self.post_norm(x))


class FrugalViT(nn.Module):
    def __init__(self, image_size, patch_size, num_labels, dim=768, depth=12, heads=12, mlp_ratio=4, in_ch=3):
        super().__init__()
        self.embed_tokens = nn.Conv2d(in_ch, dim, patch_size, patch_size)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos = nn.Parameter(torch.zeros(1, (image_size // patch_size) ** 2 + 1, dim))
        self.layers = nn.ModuleList([Layer(dim, heads, mlp_ratio) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.score = nn.Linear(dim, num_labels)

    def forward(self, x):
        x = self.embed_tokens(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.pos
        for layer in self.layers:
            x = layer(x)
        return self.score(self.norm(x)[:, 0])
