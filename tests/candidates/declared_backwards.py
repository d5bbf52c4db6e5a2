"""Everything is declared in another order than it is run in: the head first, the patches last."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, hidden_size, heads, intermediate_size):
        super().__init__()
        self.fc2 = nn.Linear(intermediate_size, hidden_size)
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.norm2 = nn.LayerNorm(hidden_size, eps=1e-6)
        self.out = nn.Linear(hidden_size, hidden_size)
        self.v = nn.Linear(hidden_size, hidden_size)
        self.k = nn.Linear(hidden_size, hidden_size)
        self.q = nn.Linear(hidden_size, hidden_size)
        self.norm1 = nn.LayerNorm(hidden_size, eps=1e-6)
        self.activation = nn.GELU()
        self.heads = heads

    def heads_first(self, t):
        return t.unflatten(-1, (self.heads, t.shape[-1] // self.heads)).movedim(2, 1)

    def forward(self, x):
        y = self.norm1(x)
        v = self.heads_first(self.v(y))
        k = self.heads_first(self.k(y))
        q = self.heads_first(self.q(y))
        similarity = torch.matmul(k, q.transpose(2, 3)) / v.shape[-1] ** 0.5  # keys by queries
        y = torch.matmul(similarity.softmax(dim=2).transpose(2, 3), v)
        x = x + self.out(y.movedim(1, 2).flatten(2))
        return x + self.fc2(self.activation(self.fc1(self.norm2(x))))


class BackwardsViT(nn.Module):
    def __init__(
        self,
        num_classes=1000,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        heads=12,
        patch_size=16,
        input_size=224,
        num_channels=3,
    ):
        super().__init__()
        self.head = nn.Linear(hidden_size, num_classes)
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.blocks = nn.ModuleList(Block(hidden_size, heads, intermediate_size) for _ in range(num_hidden_layers))
        self.pos_embed = nn.Parameter(torch.zeros(1, (input_size // patch_size) ** 2 + 1, hidden_size))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, hidden_size))
        self.patch_embed = nn.Conv2d(num_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x += self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))
