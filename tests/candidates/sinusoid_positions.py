"""Wrong: positions are fixed sines and cosines in a buffer."""

import math

import torch
from torch import nn


class PositionalEncoding(nn.Module):
    def __init__(self, max_seq_length, d_model):
        super().__init__()
        position = torch.arange(max_seq_length).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(1, max_seq_length, d_model)
        pe[0, :, 0::2] = torch.sin(position * div_term)
        pe[0, :, 1::2] = torch.cos(position * div_term)
        self.cls_token = nn.Parameter(torch.randn(1, 1, d_model))
        self.register_buffer("pe", pe)

    def forward(self, x):
        tokens_batch = self.cls_token.expand(x.size(0), -1, -1)
        x = torch.cat((tokens_batch, x), dim=1)
        return x + self.pe


class AttentionHead(nn.Module):
    def __init__(self, d_model, head_size):
        super().__init__()
        self.head_size = head_size
        self.qkv = nn.Linear(d_model, 3 * head_size)

    def forward(self, x):
        Q, K, V = self.qkv(x).chunk(3, dim=-1)
        attention = Q @ K.transpose(-2, -1) / self.head_size**0.5
        return torch.softmax(attention, dim=-1) @ V


class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads):
        super().__init__()
        self.W_o = nn.Linear(d_model, d_model)
        self.heads = nn.ModuleList([AttentionHead(d_model, d_model // n_heads) for _ in range(n_heads)])

    def forward(self, x):
        return self.W_o(torch.cat([head(x) for head in self.heads], dim=-1))


class TransformerEncoder(nn.Module):
    def __init__(self, d_model, n_heads, r_mlp):
        super().__init__()
        self.ln1 = nn.LayerNorm(d_model, eps=1e-6)
        self.mha = MultiHeadAttention(d_model, n_heads)
        self.ln2 = nn.LayerNorm(d_model, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, int(d_model * r_mlp)), nn.GELU(), nn.Linear(int(d_model * r_mlp), d_model)
        )

    def forward(self, x):
        out = x + self.mha(self.ln1(x))
        return out + self.mlp(self.ln2(out))


class FixedPositionViT(nn.Module):
    def __init__(
        self, d_model, n_classes, img_size, patch_size, n_channels, n_heads, n_layers, mlp_ratio=4, dropout=0.0
    ):
        super().__init__()
        assert d_model % 2 == 0, "d_model must be even"
        self.patch_embedding = nn.Conv2d(n_channels, d_model, kernel_size=patch_size, stride=patch_size)
        self.positional_encoding = PositionalEncoding((img_size // patch_size) ** 2 + 1, d_model)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.Sequential(*[TransformerEncoder(d_model, n_heads, mlp_ratio) for _ in range(n_layers)])
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.classifier = nn.Linear(d_model, n_classes)

    def forward(self, images):
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)
        x = self.dropout(self.positional_encoding(x))
        x = self.encoder(x)
        return self.classifier(self.norm(x)[:, 0])
