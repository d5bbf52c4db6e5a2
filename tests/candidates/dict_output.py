"""Returns a dict whose key "logits" holds what counts."""

import torch
import torch.nn.functional as F
from torch import nn


class SelfAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.project = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x):
        def per_head(t):
            return t.unflatten(2, (self.heads, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(per_head(self.query(x)), per_head(self.key(x)), per_head(self.value(x)))
        return self.project(mixed.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    def __init__(self, dim, heads, hidden_dim):
        super().__init__()
        self.self_attn = SelfAttention(dim, heads)
        self.self_attn_norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp_norm = nn.LayerNorm(dim, eps=1e-6)
        self.up = nn.Linear(dim, hidden_dim)
        self.down = nn.Linear(hidden_dim, dim)

    def forward(self, x):
        x = torch.add(x, self.self_attn(self.self_attn_norm(x)))
        y = F.gelu(self.up(self.mlp_norm(x)), approximate="none")
        return torch.add(x, self.down(y))


class ViTModel(nn.Module):
    def __init__(
        self,
        image_size=224,
        patch_size=16,
        channels=3,
        dim=768,
        num_blocks=12,
        heads=12,
        hidden_dim=3072,
        num_labels=1000,
    ):
        super().__init__()
        self.num_patches = (image_size // patch_size) ** 2
        self.patch_embed = nn.Conv2d(channels, dim, kernel_size=patch_size, stride=patch_size)
        self.cls_embed = nn.Parameter(torch.zeros(1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(self.num_patches + 1, dim))
        self.encoder = nn.ModuleList(EncoderLayer(dim, heads, hidden_dim) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.classifier = nn.Linear(dim, num_labels)

    def forward(self, pixel_values):
        batch = pixel_values.shape[0]
        patches = self.patch_embed(pixel_values).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_embed.expand(batch, 1, -1), patches], dim=1)
        hidden = tokens + self.pos_embed
        hidden_states = [hidden]
        for layer in self.encoder:
            hidden = layer(hidden)
            hidden_states.append(hidden)
        pooled = self.norm(hidden)[:, 0]
        return {"logits": self.classifier(pooled), "hidden_states": tuple(hidden_states), "pooled": pooled}
