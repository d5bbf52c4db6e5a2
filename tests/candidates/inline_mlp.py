"""Blocks without inner modules for attention or MLP: all their layers lie side by side."""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, emb_dim, nheads, ffn_dim):
        super().__init__()
        self.nheads = nheads
        self.ln1 = nn.LayerNorm(emb_dim, eps=1e-6)
        self.wqkv = nn.Linear(emb_dim, 3 * emb_dim)
        self.wo = nn.Linear(emb_dim, emb_dim)
        self.ln2 = nn.LayerNorm(emb_dim, eps=1e-6)
        self.w1 = nn.Linear(emb_dim, ffn_dim)
        self.w2 = nn.Linear(ffn_dim, emb_dim)

    def forward(self, x):
        bs, seqlen, dim = x.shape
        head_dim = dim // self.nheads

        # attention
        xq, xk, xv = self.wqkv(self.ln1(x)).split([dim, dim, dim], dim=-1)
        xq = xq.view(bs, seqlen, self.nheads, head_dim).transpose(1, 2)
        xk = xk.view(bs, seqlen, self.nheads, head_dim).permute(0, 2, 3, 1)
        xv = xv.view(bs, seqlen, self.nheads, head_dim).transpose(1, 2)
        probs = ((xq @ xk) / head_dim**0.5).softmax(-1)
        out = (probs @ xv).transpose(1, 2).reshape(bs, seqlen, dim)
        x = x + self.wo(out)

        # feed-forward
        return x + self.w2(F.gelu(self.w1(self.ln2(x))))


class VisionEncoder(nn.Module):
    def __init__(self, image_dim, patch_dim, emb_dim, n_blocks, nheads, ffn_dim, num_labels, in_ch=3):
        super().__init__()
        self.patch_dim = patch_dim
        self.conv = nn.Conv2d(in_ch, emb_dim, patch_dim, patch_dim)
        self.cls = nn.Parameter(torch.zeros(emb_dim))
        self.pos = nn.Parameter(torch.randn((image_dim // patch_dim) ** 2 + 1, emb_dim) * 0.02)
        self.blocks = nn.ModuleList([Block(emb_dim, nheads, ffn_dim) for _ in range(n_blocks)])
        self.ln = nn.LayerNorm(emb_dim, eps=1e-6)
        self.out = nn.Linear(emb_dim, num_labels)

    def forward(self, x):
        x = self.conv(x)
        x = x.reshape(x.shape[0], x.shape[1], -1).swapaxes(1, 2)
        cls = self.cls[None, None].repeat(x.shape[0], 1, 1)
        x = torch.cat([cls, x], 1) + self.pos[None]
        for block in self.blocks:
            x = block(x)
        return self.out(self.ln(x[:, 0]))
