"""Wrong: nothing between the last block and the head, though blocks are pre-norm."""

import torch
from torch import nn


class AttentionBlock(nn.Module):
    def __init__(self, embed_dim, hidden_dim, num_heads, dropout=0.0, attn_dropout=0.0):
        super().__init__()
        self.layer_norm_1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = nn.MultiheadAttention(embed_dim, num_heads, dropout=attn_dropout, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.layer_norm_2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.linear = nn.Sequential(
            nn.Linear(embed_dim, hidden_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, embed_dim),
            nn.Dropout(dropout),
        )

    def forward(self, x):
        inp_x = self.layer_norm_1(x)
        x = x + self.drop(self.attn(inp_x, inp_x, inp_x)[0])
        x = x + self.linear(self.layer_norm_2(x))
        return x


class VisionTransformer(nn.Module):
    def __init__(
        self,
        embed_dim,
        hidden_dim,
        num_channels,
        num_heads,
        num_layers,
        num_classes,
        patch_size,
        image_size,
        dropout=0.0,
        attn_dropout=0.0,
    ):
        super().__init__()
        num_patches = (image_size // patch_size) ** 2
        self.input_layer = nn.Conv2d(num_channels, embed_dim, patch_size, patch_size)
        self.transformer = nn.Sequential(
            *(AttentionBlock(embed_dim, hidden_dim, num_heads, dropout, attn_dropout) for _ in range(num_layers))
        )
        self.mlp_head = nn.Linear(embed_dim, num_classes)
        self.dropout = nn.Dropout(dropout)
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim))
        self.pos_embedding = nn.Parameter(torch.randn(1, 1 + num_patches, embed_dim))

    def forward(self, x):
        x = self.input_layer(x).flatten(2, 3).transpose(1, 2)
        B, T, _ = x.shape
        cls_token = self.cls_token.repeat(B, 1, 1)
        x = torch.cat([cls_token, x], dim=1)
        x = x + self.pos_embedding[:, : T + 1]
        x = self.dropout(x)
        x = self.transformer(x)
        cls = x[:, 0]
        return self.mlp_head(cls)
