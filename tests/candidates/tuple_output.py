"""Returns a tuple: logits and the encoded tokens."""

import torch
from torch import nn


class MLP(nn.Sequential):
    def __init__(self, width, hidden):
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Layer(nn.Module):
    def __init__(self, width, num_heads, hidden):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.ffn_norm = nn.LayerNorm(width, eps=1e-6)
        self.ffn = MLP(width, hidden)
        self.attn = nn.MultiheadAttention(embed_dim=width, num_heads=num_heads, batch_first=True)

    def forward(self, x):
        h = x
        x = self.attention_norm(x)
        x, weights = self.attn(x, x, x, need_weights=True, average_attn_weights=False)
        x = x + h

        h = x
        x = self.ffn_norm(x)
        x = self.ffn(x)
        x = x + h
        return x, weights


class Backbone(nn.Module):
    def __init__(self, resolution, patch, num_channels, width, depth, num_heads, hidden):
        super().__init__()
        self.patch_embeddings = nn.Conv2d(num_channels, width, kernel_size=patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, (resolution // patch) ** 2 + 1, width))
        self.layer = nn.ModuleList([Layer(width, num_heads, hidden) for _ in range(depth)])
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x):
        x = self.patch_embeddings(x).flatten(2).transpose(-1, -2)
        cls_tokens = self.cls_token.expand(x.shape[0], -1, -1)
        hidden_states = torch.cat((cls_tokens, x), dim=1) + self.position_embeddings
        for layer in self.layer:
            hidden_states, _ = layer(hidden_states)
        return self.encoder_norm(hidden_states)


class FeatureViT(nn.Module):
    def __init__(
        self,
        resolution=224,
        patch=16,
        num_channels=3,
        width=768,
        depth=12,
        num_heads=12,
        mlp_width=3072,
        num_classes=1000,
    ):
        super().__init__()
        self.transformer = Backbone(resolution, patch, num_channels, width, depth, num_heads, mlp_width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        features = self.transformer(x)
        logits = self.head(features[:, 0])
        return logits, features
