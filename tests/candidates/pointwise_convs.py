"""Channels first throughout, (B, D, N): each Linear is a pointwise Conv1d."""

import torch
import torch.nn.functional as F
from torch import nn


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over dim 1"""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def pointwise(c_in, c_out):
    return nn.Conv1d(c_in, c_out, kernel_size=1)


class ConvAttention(nn.Module):
    def __init__(self, ch, heads):
        super().__init__()
        self.heads = heads
        self.qkv = pointwise(ch, 3 * ch)
        self.out = pointwise(ch, ch)

    def forward(self, x):
        b, c, n = x.shape
        q, k, v = self.qkv(x).view(b, 3, self.heads, c // self.heads, n).unbind(1)
        attn = F.softmax(torch.einsum("bhcn,bhcm->bhnm", q, k) * (c // self.heads) ** -0.5, dim=-1)
        return self.out(torch.einsum("bhnm,bhcm->bhcn", attn, v).reshape(b, c, n))


class ConvBlock(nn.Module):
    def __init__(self, ch, heads, hidden):
        super().__init__()
        self.norm1 = ChannelNorm(ch, eps=1e-6)
        self.attn = ConvAttention(ch, heads)
        self.norm2 = ChannelNorm(ch, eps=1e-6)
        self.pw1 = pointwise(ch, hidden)
        self.pw2 = pointwise(hidden, ch)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.pw2(F.gelu(self.pw1(self.norm2(x))))


class ConvViT(nn.Module):
    def __init__(self, img_size, patch_size, in_chans, width, depth, heads, mlp_width, n_classes):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, width, patch_size, patch_size)
        self.cls = nn.Parameter(torch.zeros(1, width, 1))
        self.pos = nn.Parameter(torch.zeros(1, width, 1 + (img_size // patch_size) ** 2))
        self.stages = nn.Sequential(*[ConvBlock(width, heads, mlp_width) for _ in range(depth)])
        self.norm = ChannelNorm(width, eps=1e-6)
        self.head = nn.Conv1d(width, n_classes, kernel_size=1)

    def forward(self, x):
        x = self.stem(x).flatten(2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=2) + self.pos
        x = self.norm(self.stages(x))
        return self.head(x[:, :, :1]).squeeze(2)
