"""Every attention head is a module of its own with three narrow Linears; their outputs are concatenated."""

import torch
from torch import nn
from torch.nn import functional as F


class Head(nn.Module):
    """one head of self-attention"""

    def __init__(self, n_embd, head_size):
        super().__init__()
        self.key = nn.Linear(n_embd, head_size)
        self.query = nn.Linear(n_embd, head_size)
        self.value = nn.Linear(n_embd, head_size)

    def forward(self, x):
        k = self.key(x)
        q = self.query(x)
        wei = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
        wei = F.softmax(wei, dim=-1)
        return wei @ self.value(x)


class MultiHead(nn.Module):
    """several heads side by side"""

    def __init__(self, n_embd, n_heads):
        super().__init__()
        self.heads = nn.ModuleList([Head(n_embd, n_embd // n_heads) for _ in range(n_heads)])
        self.proj = nn.Linear(n_embd, n_embd)

    def forward(self, x):
        out = torch.cat([h(x) for h in self.heads], dim=-1)
        return self.proj(out)


class FeedForward(nn.Module):
    def __init__(self, n_embd, n_hidden):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_embd, n_hidden), nn.GELU(), nn.Linear(n_hidden, n_embd))

    def forward(self, x):
        return self.net(x)


class Block(nn.Module):
    """communication followed by computation"""

    def __init__(self, n_embd, n_heads, n_hidden):
        super().__init__()
        self.sa = MultiHead(n_embd, n_heads)
        self.ffwd = FeedForward(n_embd, n_hidden)
        self.ln1 = nn.LayerNorm(n_embd, eps=1e-6)
        self.ln2 = nn.LayerNorm(n_embd, eps=1e-6)

    def forward(self, x):
        x = x + self.sa(self.ln1(x))
        x = x + self.ffwd(self.ln2(x))
        return x


class TinyViT(nn.Module):
    def __init__(self, image_size, patch_size, in_ch, width, n_layers, n_heads, mlp_width, n_classes):
        super().__init__()
        self.patchify = nn.Conv2d(in_ch, width, patch_size, stride=patch_size)
        n_tokens = 1 + (image_size // patch_size) ** 2
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.wpe = nn.Parameter(torch.randn(1, n_tokens, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, n_heads, mlp_width) for _ in range(n_layers)])
        self.ln_f = nn.LayerNorm(width, eps=1e-6)
        self.lm_head = nn.Linear(width, n_classes)

    def forward(self, img):
        tok = self.patchify(img).flatten(2).mT
        x = torch.cat([self.cls.expand(tok.size(0), -1, -1), tok], dim=1) + self.wpe
        x = self.ln_f(self.blocks(x))
        return self.lm_head(x[:, 0])
