"""Wrong: norms come after the residual additions, as in the Transformer of 2017."""

import torch
from torch import nn


class ScaledDotProductAttention(nn.Module):
    def forward(self, q, k, v):
        scores = torch.matmul(q, k.transpose(-2, -1)) / (k.size(-1) ** 0.5)
        return torch.matmul(torch.softmax(scores, dim=-1), v)


class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_head):
        super().__init__()
        self.n_head = n_head
        self.attention = ScaledDotProductAttention()
        self.w_q = nn.Linear(d_model, d_model)
        self.w_k = nn.Linear(d_model, d_model)
        self.w_v = nn.Linear(d_model, d_model)
        self.w_concat = nn.Linear(d_model, d_model)

    def split(self, tensor):
        batch_size, length, d_model = tensor.size()
        return tensor.view(batch_size, length, self.n_head, d_model // self.n_head).transpose(1, 2)

    def forward(self, q, k, v):
        out = self.attention(self.split(self.w_q(q)), self.split(self.w_k(k)), self.split(self.w_v(v)))
        out = out.transpose(1, 2).contiguous()
        return self.w_concat(out.view(*out.shape[:2], -1))


class PositionwiseFeedForward(nn.Module):
    def __init__(self, d_model, hidden):
        super().__init__()
        self.linear1 = nn.Linear(d_model, hidden)
        self.linear2 = nn.Linear(hidden, d_model)
        self.gelu = nn.GELU()

    def forward(self, x):
        return self.linear2(self.gelu(self.linear1(x)))


class EncoderLayer(nn.Module):
    def __init__(self, d_model, ffn_hidden, n_head):
        super().__init__()
        self.attention = MultiHeadAttention(d_model, n_head)
        self.norm1 = nn.LayerNorm(d_model, eps=1e-6)
        self.ffn = PositionwiseFeedForward(d_model, ffn_hidden)
        self.norm2 = nn.LayerNorm(d_model, eps=1e-6)

    def forward(self, x):
        residual = x
        x = self.attention(q=x, k=x, v=x)
        x = self.norm1(x + residual)
        residual = x
        x = self.ffn(x)
        return self.norm2(x + residual)


class VisionTransformer2017(nn.Module):
    def __init__(
        self, image_size, patch_size, n_classes, d_model=768, n_layers=12, n_heads=12, ffn_dim=3072, channels=3
    ):
        super().__init__()
        self.patch_embedding = nn.Conv2d(channels, d_model, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, d_model))
        self.pos_embedding = nn.Parameter(torch.zeros(1, (image_size // patch_size) ** 2 + 1, d_model))
        self.layers = nn.ModuleList([EncoderLayer(d_model, ffn_dim, n_heads) for _ in range(n_layers)])
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.linear = nn.Linear(d_model, n_classes)

    def forward(self, x):
        x = self.patch_embedding(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.size(0), -1, -1), x], dim=1)
        x = x + self.pos_embedding
        for layer in self.layers:
            x = layer(x)
        return self.linear(self.norm(x)[:, 0])
