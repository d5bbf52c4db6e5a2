"""LayerNorm written by hand from mean and biased variance, with gamma and beta."""

import torch
from torch import nn


class LayerNormalization(nn.Module):
    def __init__(self, features, eps=1e-6):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(features))
        self.beta = nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x):
        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)
        return self.gamma * (x - mean) / torch.sqrt(var + self.eps) + self.beta


class MultiHeadAttentionBlock(nn.Module):
    def __init__(self, d_model, h):
        super().__init__()
        self.h = h
        self.d_k = d_model // h
        self.w_q = nn.Linear(d_model, d_model)
        self.w_k = nn.Linear(d_model, d_model)
        self.w_v = nn.Linear(d_model, d_model)
        self.w_o = nn.Linear(d_model, d_model)

    @staticmethod
    def attention(query, key, value):
        d_k = query.shape[-1]
        attention_scores = (query @ key.transpose(-2, -1)) / d_k**0.5
        return attention_scores.softmax(dim=-1) @ value

    def forward(self, x):
        shape = (x.shape[0], x.shape[1], self.h, self.d_k)
        query = self.w_q(x).view(shape).transpose(1, 2)
        key = self.w_k(x).view(shape).transpose(1, 2)
        value = self.w_v(x).view(shape).transpose(1, 2)
        x = self.attention(query, key, value)
        x = x.transpose(1, 2).contiguous().view(x.shape[0], -1, self.h * self.d_k)
        return self.w_o(x)


class ResidualConnection(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.norm = LayerNormalization(features)

    def forward(self, x, sublayer):
        return x + sublayer(self.norm(x))


class EncoderBlock(nn.Module):
    def __init__(self, features, h, d_ff):
        super().__init__()
        self.self_attention_block = MultiHeadAttentionBlock(features, h)
        self.feed_forward_block = nn.Sequential(nn.Linear(features, d_ff), nn.GELU(), nn.Linear(d_ff, features))
        self.residual_connections = nn.ModuleList([ResidualConnection(features) for _ in range(2)])

    def forward(self, x):
        x = self.residual_connections[0](x, self.self_attention_block)
        return self.residual_connections[1](x, self.feed_forward_block)


class HandmadeViT(nn.Module):
    def __init__(self, img_size=224, patch_size=16, d_model=768, n_layers=12, n_heads=12, d_ff=3072, n_classes=1000):
        super().__init__()
        self.input_embedding = nn.Conv2d(3, d_model, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.pe = nn.Parameter(torch.randn(1, (img_size // patch_size) ** 2 + 1, d_model) * 0.02)
        self.layers = nn.ModuleList([EncoderBlock(d_model, n_heads, d_ff) for _ in range(n_layers)])
        self.norm = LayerNormalization(d_model)
        self.projection = nn.Linear(d_model, n_classes)

    def forward(self, x):
        x = self.input_embedding(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.pe
        for layer in self.layers:
            x = layer(x)
        return self.projection(self.norm(x)[:, 0])
