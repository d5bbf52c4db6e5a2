"""Wrong: batch_first is forgotten, so that tokens attend to the same place of the other images."""

import torch
from torch import nn


class TransformerBlock(nn.Module):
    def __init__(self, emb_dim, num_heads, mlp_dim):
        super().__init__()
        self.mha = nn.MultiheadAttention(emb_dim, num_heads)
        self.ln_attention = nn.LayerNorm(emb_dim, eps=1e-6)
        self.ln_mlp = nn.LayerNorm(emb_dim, eps=1e-6)
        self.fc1 = nn.Linear(emb_dim, mlp_dim)
        self.activation = nn.GELU()
        self.fc2 = nn.Linear(mlp_dim, emb_dim)

    def forward(self, x):
        norm_x = self.ln_attention(x)
        x = x + self.mha(norm_x, norm_x, norm_x)[0]
        hidden = self.fc2(self.activation(self.fc1(self.ln_mlp(x))))
        return x + hidden


class MixedViT(nn.Module):
    def __init__(self, image_dim, patch_size, emb_dim, num_heads, num_layers, mlp_dim, num_classes, in_chans=3):
        super().__init__()
        grid = image_dim // patch_size
        self.patches = nn.Sequential(
            nn.Unfold(kernel_size=patch_size, stride=patch_size),
        )
        self.project = nn.Linear(in_chans * patch_size**2, emb_dim)
        self.class_token = nn.Parameter(torch.randn(emb_dim))
        self.position = nn.Parameter(torch.randn(grid * grid + 1, emb_dim))
        self.blocks = nn.ModuleList([TransformerBlock(emb_dim, num_heads, mlp_dim) for _ in range(num_layers)])
        self.ln = nn.LayerNorm(emb_dim, eps=1e-6)
        self.head = nn.Linear(emb_dim, num_classes)

    def forward(self, x):
        x = self.project(self.patches(x).transpose(1, 2))
        x = torch.cat((self.class_token.repeat(x.shape[0], 1, 1), x), dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln(x)[:, 0])
