"""The final norm is part of the head, so it sees nothing but the class token."""

import torch
from torch import nn


class AttentionLayer(nn.Module):
    def __init__(self, embedding_dim, num_heads):
        super().__init__()
        self.layer_norm = nn.LayerNorm(normalized_shape=embedding_dim, eps=1e-6)
        self.multihead_attn = nn.MultiheadAttention(embed_dim=embedding_dim, num_heads=num_heads, batch_first=True)

    def forward(self, x):
        x = self.layer_norm(x)
        attn_output, _ = self.multihead_attn(query=x, key=x, value=x, need_weights=False)
        return attn_output


class MLPLayer(nn.Module):
    def __init__(self, embedding_dim, mlp_size):
        super().__init__()
        self.layer_norm = nn.LayerNorm(normalized_shape=embedding_dim, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(in_features=embedding_dim, out_features=mlp_size),
            nn.GELU(),
            nn.Linear(in_features=mlp_size, out_features=embedding_dim),
        )

    def forward(self, x):
        x = self.layer_norm(x)
        return self.mlp(x)


class TransformerEncoderBlock(nn.Module):
    def __init__(self, embedding_dim, num_heads, mlp_size):
        super().__init__()
        self.msa_block = AttentionLayer(embedding_dim, num_heads)
        self.mlp_block = MLPLayer(embedding_dim, mlp_size)

    def forward(self, x):
        x = self.msa_block(x) + x
        x = self.mlp_block(x) + x
        return x


class ViT(nn.Module):
    def __init__(
        self,
        img_size: int = 224,
        in_channels: int = 3,
        patch_size: int = 16,
        num_layers: int = 12,
        embedding_dim: int = 768,
        mlp_size: int = 3072,
        num_heads: int = 12,
        num_classes: int = 1000,
    ):
        super().__init__()
        self.num_patches = (img_size * img_size) // patch_size**2
        self.class_embedding = nn.Parameter(data=torch.randn(1, 1, embedding_dim), requires_grad=True)
        self.position_embedding = nn.Parameter(
            data=torch.randn(1, self.num_patches + 1, embedding_dim), requires_grad=True
        )
        self.patcher = nn.Conv2d(in_channels, embedding_dim, kernel_size=patch_size, stride=patch_size, padding=0)
        self.flatten = nn.Flatten(start_dim=2, end_dim=3)
        self.transformer_encoder = nn.Sequential(
            *[TransformerEncoderBlock(embedding_dim, num_heads, mlp_size) for _ in range(num_layers)]
        )
        self.classifier = nn.Sequential(
            nn.LayerNorm(normalized_shape=embedding_dim, eps=1e-6),
            nn.Linear(in_features=embedding_dim, out_features=num_classes),
        )

    def forward(self, x):
        batch_size = x.shape[0]
        class_token = self.class_embedding.expand(batch_size, -1, -1)
        x = self.flatten(self.patcher(x)).permute(0, 2, 1)
        x = torch.cat((class_token, x), dim=1)
        x = self.position_embedding + x
        x = self.transformer_encoder(x)
        return self.classifier(x[:, 0])
