"""Patches are cut by view and projected by a Linear whose columns run over (channel, row, column)."""

import torch
from torch import nn


def patchify(images, patch):
    n, c, h, w = images.shape
    rows, cols = h // patch, w // patch
    x = images.view(n, c, rows, patch, cols, patch)
    x = x.permute(0, 2, 4, 1, 3, 5)
    return x.reshape(n, rows * cols, c * patch * patch)


class MSA(nn.Module):
    def __init__(self, d, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv_map = nn.Linear(d, 3 * d)
        self.out_map = nn.Linear(d, d)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, seq):
        n, s, d = seq.shape
        q, k, v = (
            part.reshape(n, s, self.n_heads, d // self.n_heads).transpose(1, 2)
            for part in self.qkv_map(seq).chunk(3, dim=-1)
        )
        k = k * (d // self.n_heads) ** -0.5
        attention = self.softmax(q @ k.transpose(2, 3))
        return self.out_map((attention @ v).transpose(1, 2).flatten(2))


class ViTBlock(nn.Module):
    def __init__(self, hidden_d, n_heads, mlp_d):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_d, eps=1e-6)
        self.mhsa = MSA(hidden_d, n_heads)
        self.norm2 = nn.LayerNorm(hidden_d, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(hidden_d, mlp_d), nn.GELU(), nn.Linear(mlp_d, hidden_d))

    def forward(self, x):
        out = x + self.mhsa(self.norm1(x))
        return out + self.mlp(self.norm2(out))


class MyViT(nn.Module):
    def __init__(self, img_dim, patch_size, channels, n_blocks, hidden_dim, n_heads, mlp_dim, out_dim):
        super().__init__()
        assert img_dim % patch_size == 0, "the image must be a whole number of patches wide"
        self.patch_size = patch_size
        n_patches = (img_dim // patch_size) ** 2

        # 1) linear mapper
        self.linear_mapper = nn.Linear(channels * patch_size**2, hidden_dim)
        # 2) learnable classification token
        self.class_token = nn.Parameter(torch.rand(1, hidden_dim))
        # 3) positional embedding
        self.positional_embeddings = nn.Parameter(torch.rand(1, n_patches + 1, hidden_dim))
        # 4) encoder blocks
        self.blocks = nn.ModuleList([ViTBlock(hidden_dim, n_heads, mlp_dim) for _ in range(n_blocks)])
        # 5) norm and classifier
        self.norm = nn.LayerNorm(hidden_dim, eps=1e-6)
        self.classifier = nn.Linear(hidden_dim, out_dim)

    def forward(self, images):
        tokens = self.linear_mapper(patchify(images, self.patch_size))
        tokens = torch.cat((self.class_token.expand(len(tokens), 1, -1), tokens), dim=1)
        out = tokens + self.positional_embeddings
        for block in self.blocks:
            out = block(out)
        return self.classifier(self.norm(out[:, 0]))
