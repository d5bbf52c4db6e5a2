"""Wrong twice: a second GELU follows the MLP's second Linear, and the final norm has eps 1e-5."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


class MLP(nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(i, o) for i, o in pairwise(dims)])

    def forward(self, x):
        for layer in self.layers:
            x = F.gelu(layer(x))
        return x


class ViTBlock(nn.Module):
    def __init__(self, num_hiddens, num_heads, mlp_num_hiddens):
        super().__init__()
        self.ln1 = nn.LayerNorm(num_hiddens, eps=1e-6)
        self.attention = nn.MultiheadAttention(num_hiddens, num_heads, batch_first=True)
        self.ln2 = nn.LayerNorm(num_hiddens, eps=1e-6)
        self.mlp = MLP([num_hiddens, mlp_num_hiddens, num_hiddens])

    def forward(self, X):
        Y = self.ln1(X)
        X = X + self.attention(Y, Y, Y, need_weights=False)[0]
        return X + self.mlp(self.ln2(X))


class D2lViT(nn.Module):
    def __init__(self, img_size, patch_size, hidden_size, mlp_size, num_heads, num_blocks, num_classes=10):
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, hidden_size, kernel_size=patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, hidden_size))
        self.pos_embedding = nn.Parameter(torch.randn(1, (img_size // patch_size) ** 2 + 1, hidden_size))
        self.blks = nn.Sequential()
        for i in range(num_blocks):
            self.blks.add_module(f"{i}", ViTBlock(hidden_size, num_heads, mlp_size))
        self.head = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, num_classes))

    def forward(self, X):
        X = self.patch_embedding(X).flatten(2).transpose(1, 2)
        X = torch.cat((self.cls_token.expand(X.shape[0], -1, -1), X), 1)
        X = X + self.pos_embedding
        for blk in self.blks:
            X = blk(X)
        return self.head(X[:, 0])
