"""Three Linears for queries, keys and values, and every head cut out by view."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class MultiHeadSelfAttention(nn.Module):
    def __init__(self, d_model, n_heads, attn_dropout):
        super().__init__()
        assert d_model % n_heads == 0, "d_model must be divisible by n_heads"
        self.n_heads = n_heads
        self.d_head = d_model // n_heads
        self.w_q = nn.Linear(d_model, d_model)
        self.w_k = nn.Linear(d_model, d_model)
        self.w_v = nn.Linear(d_model, d_model)
        self.w_o = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(attn_dropout)

    def split(self, t):
        batch, seq, _ = t.size()
        return t.view(batch, seq, self.n_heads, self.d_head).transpose(1, 2)

    def forward(self, x):
        batch, seq, d_model = x.size()
        queries, keys, values = self.split(self.w_q(x)), self.split(self.w_k(x)), self.split(self.w_v(x))
        scores = torch.matmul(queries, keys.transpose(-1, -2)) / math.sqrt(self.d_head)
        weights = self.dropout(F.softmax(scores, dim=-1))
        context = torch.matmul(weights, values).transpose(1, 2).contiguous().view(batch, seq, d_model)
        return self.w_o(context)


class EncoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_ff, dropout, attn_dropout):
        super().__init__()
        self.ln_attn = nn.LayerNorm(d_model, eps=1e-6)
        self.mha = MultiHeadSelfAttention(d_model, n_heads, attn_dropout)
        self.ln_ff = nn.LayerNorm(d_model, eps=1e-6)
        self.ff_in = nn.Linear(d_model, d_ff)
        self.ff_out = nn.Linear(d_ff, d_model)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        x = x + self.drop(self.mha(self.ln_attn(x)))
        hidden = self.drop(F.gelu(self.ff_in(self.ln_ff(x))))
        return x + self.drop(self.ff_out(hidden))


class ViTClassifier(nn.Module):
    def __init__(
        self,
        image_size,
        patch_size,
        n_classes,
        d_model=768,
        n_layers=12,
        n_heads=12,
        d_ff=3072,
        dropout=0.0,
        attn_dropout=0.0,
        n_channels=3,
    ):
        super().__init__()
        n_patches = (image_size // patch_size) ** 2
        self.to_patches = nn.Conv2d(n_channels, d_model, kernel_size=patch_size, stride=patch_size)
        self.cls = nn.Parameter(torch.randn(1, 1, d_model))
        self.positions = nn.Parameter(torch.randn(1, n_patches + 1, d_model) * 0.02)
        self.drop = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            [EncoderLayer(d_model, n_heads, d_ff, dropout, attn_dropout) for _ in range(n_layers)]
        )
        self.ln_final = nn.LayerNorm(d_model, eps=1e-6)
        self.classifier = nn.Linear(d_model, n_classes)

    def forward(self, images):
        x = self.to_patches(images)
        x = x.flatten(start_dim=2).permute(0, 2, 1)
        cls = self.cls.repeat(images.size(0), 1, 1)
        x = self.drop(torch.cat([cls, x], dim=1) + self.positions)
        for layer in self.layers:
            x = layer(x)
        return self.classifier(self.ln_final(x)[:, 0, :])
