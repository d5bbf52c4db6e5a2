"""Wrong twice: tanh GELU, and attention scaled by the model's width."""

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, n_embd, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.c_attn(x).split(C, dim=2)
        k = k.view(B, T, self.n_heads, C // self.n_heads).transpose(1, 2)
        q = q.view(B, T, self.n_heads, C // self.n_heads).transpose(1, 2)
        v = v.view(B, T, self.n_heads, C // self.n_heads).transpose(1, 2)
        wei = q @ k.transpose(-2, -1) * C**-0.5
        wei = torch.softmax(wei, dim=-1)
        y = (wei @ v).transpose(1, 2).contiguous().view(B, T, C)
        return self.c_proj(y)


class Block(nn.Module):
    def __init__(self, n_embd, n_heads, n_hidden):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd, eps=1e-6)
        self.attn = Attention(n_embd, n_heads)
        self.ln_2 = nn.LayerNorm(n_embd, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(n_embd, n_hidden),
                "act": nn.GELU(approximate="tanh"),
                "c_proj": nn.Linear(n_hidden, n_embd),
            }
        )

    def mlpf(self, x):
        m = self.mlp
        return m["c_proj"](m["act"](m["c_fc"](x)))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlpf(self.ln_2(x))
        return x


class MinViT(nn.Module):
    def __init__(
        self,
        image_size=224,
        patch_size=16,
        channels=3,
        n_layers=12,
        n_heads=12,
        hidden_size=768,
        intermediate_size=3072,
        classes=1000,
    ):
        super().__init__()
        block_size = (image_size // patch_size) ** 2 + 1
        self.wte = nn.Conv2d(channels, hidden_size, patch_size, patch_size)
        self.cls = nn.Parameter(torch.zeros(hidden_size))
        self.wpe = nn.Embedding(block_size, hidden_size)
        self.h = nn.ModuleList([Block(hidden_size, n_heads, intermediate_size) for _ in range(n_layers)])
        self.ln_f = nn.LayerNorm(hidden_size, eps=1e-6)
        self.lm_head = nn.Linear(hidden_size, classes)

    def forward(self, img):
        tok = self.wte(img).flatten(2).transpose(1, 2)
        tok = torch.cat([self.cls.expand(tok.shape[0], 1, -1), tok], dim=1)
        x = tok + self.wpe.weight
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x)[:, 0])
