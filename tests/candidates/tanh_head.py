"""Wrong: a Linear and a tanh between the class token and the head, as for pre-training."""

import torch
from torch import nn


class Mlp(nn.Module):
    def __init__(self, width, mlp_width):
        super().__init__()
        self.lin1 = nn.Linear(width, mlp_width)
        self.gelu = nn.GELU()
        self.lin2 = nn.Linear(mlp_width, width)

    def forward(self, x):
        return self.lin2(self.gelu(self.lin1(x)))


class Block(nn.Module):
    def __init__(self, width, n_heads, mlp_width):
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.MultiheadAttention(width, n_heads, batch_first=True)
        self.norm_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, x):
        y = self.norm_1(x)
        x = x + self.attn(y, y, y)[0]
        return x + self.mlp(self.norm_2(x))


class Pooler(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = nn.Tanh()

    def forward(self, x):
        return self.activation(self.dense(x[:, 0]))


class PooledTokenViT(nn.Module):
    def __init__(
        self,
        img_size=224,
        patch_size=16,
        num_channels=3,
        width=768,
        num_layers=12,
        n_heads=12,
        mlp_width=3072,
        num_classes=1000,
    ):
        super().__init__()
        self.embed = nn.Conv2d(num_channels, width, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (img_size // patch_size) ** 2 + 1, width))
        self.blocks = nn.ModuleList([Block(width, n_heads, mlp_width) for _ in range(num_layers)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pooler = Pooler(width)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.pooler(self.norm(x)))
