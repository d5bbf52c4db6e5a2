"""nn.TransformerEncoder does the whole encoder, its final norm included."""

from functools import partial

import torch
from torch import nn

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class Embeddings(nn.Module):
    def __init__(self, img_size, patch_size, in_channels, emb_dim):
        super().__init__()
        self.patcher = nn.Sequential(
            nn.Conv2d(in_channels, emb_dim, kernel_size=patch_size, stride=patch_size),
            nn.Flatten(2),
        )
        num_patches = (img_size // patch_size) ** 2
        self.cls_token = nn.Parameter(torch.randn(size=(1, 1, emb_dim)), requires_grad=True)
        self.position_embeddings = nn.Parameter(torch.randn(size=(1, num_patches + 1, emb_dim)), requires_grad=True)

    def forward(self, x):
        cls_token = self.cls_token.expand(x.shape[0], -1, -1)
        x = self.patcher(x).permute(0, 2, 1)
        x = torch.cat([cls_token, x], dim=1)
        return self.position_embeddings + x


class ViT(nn.Module):
    def __init__(self, img_size, patch_size, in_channels, num_classes, emb_dim, num_heads, num_layers, mlp_hidden_dim):
        super().__init__()
        self.embeddings_block = Embeddings(img_size, patch_size, in_channels, emb_dim)
        encoder_layer = nn.TransformerEncoderLayer(
            emb_dim,
            num_heads,
            mlp_hidden_dim,
            dropout=0.0,
            activation=nn.GELU(),
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
        )
        self.encoder_blocks = nn.TransformerEncoder(
            encoder_layer, num_layers=num_layers, norm=LayerNorm(emb_dim), enable_nested_tensor=False
        )
        self.mlp_head = nn.Linear(emb_dim, num_classes)

    def forward(self, x):
        x = self.embeddings_block(x)
        x = self.encoder_blocks(x)
        return self.mlp_head(x[:, 0, :])
