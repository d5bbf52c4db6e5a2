"""Attention as torch.einsum over kernels of shape (width, heads, head_dim) and (heads, head_dim, width), as in Flax."""

import torch
from torch import nn


def glorot(*shape):
    return nn.Parameter(torch.randn(*shape) * shape[0] ** -0.5)


class MultiHeadDotProductAttention(nn.Module):
    def __init__(self, features, num_heads):
        super().__init__()
        head_dim = features // num_heads
        self.q_kernel = glorot(features, num_heads, head_dim)
        self.q_bias = nn.Parameter(torch.zeros(num_heads, head_dim))
        self.k_kernel = glorot(features, num_heads, head_dim)
        self.k_bias = nn.Parameter(torch.zeros(num_heads, head_dim))
        self.v_kernel = glorot(features, num_heads, head_dim)
        self.v_bias = nn.Parameter(torch.zeros(num_heads, head_dim))
        self.out_kernel = glorot(num_heads, head_dim, features)
        self.out_bias = nn.Parameter(torch.zeros(features))

    def forward(self, x):
        q = torch.einsum("btd,dhk->bthk", x, self.q_kernel) + self.q_bias
        k = torch.einsum("btd,dhk->bthk", x, self.k_kernel) + self.k_bias
        v = torch.einsum("btd,dhk->bthk", x, self.v_kernel) + self.v_bias
        q = q / q.shape[-1] ** 0.5
        weights = torch.einsum("bqhk,bshk->bhqs", q, k).softmax(-1)
        y = torch.einsum("bhqs,bshk->bqhk", weights, v)
        return torch.einsum("bqhk,hkd->bqd", y, self.out_kernel) + self.out_bias


class MlpBlock(nn.Module):
    def __init__(self, features, mlp_dim):
        super().__init__()
        self.Dense_0 = nn.Linear(features, mlp_dim)
        self.Dense_1 = nn.Linear(mlp_dim, features)

    def forward(self, x):
        return self.Dense_1(nn.functional.gelu(self.Dense_0(x)))


class Encoder1DBlock(nn.Module):
    def __init__(self, features, num_heads, mlp_dim):
        super().__init__()
        self.LayerNorm_0 = nn.LayerNorm(features, eps=1e-6)
        self.MultiHeadDotProductAttention_1 = MultiHeadDotProductAttention(features, num_heads)
        self.LayerNorm_2 = nn.LayerNorm(features, eps=1e-6)
        self.MlpBlock_3 = MlpBlock(features, mlp_dim)

    def forward(self, inputs):
        x = self.MultiHeadDotProductAttention_1(self.LayerNorm_0(inputs)) + inputs
        y = self.MlpBlock_3(self.LayerNorm_2(x))
        return x + y


class FlaxStyleViT(nn.Module):
    def __init__(
        self,
        resolution=224,
        patch=16,
        hidden_size=768,
        num_layers=12,
        num_heads=12,
        mlp_dim=3072,
        num_classes=1000,
        channels=3,
    ):
        super().__init__()
        self.embedding = nn.Conv2d(channels, hidden_size, patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, hidden_size))
        self.posembed_input = nn.Parameter(torch.randn(1, (resolution // patch) ** 2 + 1, hidden_size) * 0.02)
        for lyr in range(num_layers):
            self.add_module(f"encoderblock_{lyr}", Encoder1DBlock(hidden_size, num_heads, mlp_dim))
        self.num_layers = num_layers
        self.encoder_norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.head = nn.Linear(hidden_size, num_classes)

    def forward(self, inputs):
        x = torch.permute(self.embedding(inputs), (0, 2, 3, 1))
        n, h, w, c = x.shape
        x = x.reshape(n, h * w, c)
        x = torch.concatenate([torch.tile(self.cls, (n, 1, 1)), x], dim=1)
        x = x + self.posembed_input
        for lyr in range(self.num_layers):
            x = getattr(self, f"encoderblock_{lyr}")(x)
        return self.head(self.encoder_norm(x)[:, 0])
