"""Names that say the opposite: `key` makes the queries, `query` the keys, and `norm2` comes before `norm1`."""

import torch
from torch import nn


class AttentionModule(nn.Module):
    def __init__(self, emb_dim, num_heads):
        super().__init__()
        self.key = nn.Linear(emb_dim, emb_dim)
        self.query = nn.Linear(emb_dim, emb_dim)
        self.value = nn.Linear(emb_dim, emb_dim)
        self.proj = nn.Linear(emb_dim, emb_dim)
        self.num_heads = num_heads
        self.head_dim = emb_dim // num_heads

    def forward(self, x):
        b, n, _ = x.shape
        k = self.key(x).reshape(b, n, self.num_heads, self.head_dim).permute(0, 2, 1, 3)
        q = self.query(x).reshape(b, n, self.num_heads, self.head_dim).permute(0, 2, 1, 3)
        v = self.value(x).reshape(b, n, self.num_heads, self.head_dim).permute(0, 2, 1, 3)
        scores = torch.einsum("bhik,bhjk->bhij", k, q) * self.head_dim**-0.5
        out = torch.einsum("bhij,bhjk->bihk", scores.softmax(-1), v)
        return self.proj(out.reshape(b, n, -1))


class TransformerBlock(nn.Module):
    def __init__(self, emb_dim, num_heads, d_ff):
        super().__init__()
        self.norm1 = nn.LayerNorm(emb_dim, eps=1e-6)
        self.norm2 = nn.LayerNorm(emb_dim, eps=1e-6)
        self.attention = AttentionModule(emb_dim, num_heads)
        self.out_layer = nn.Linear(emb_dim, d_ff)
        self.in_layer = nn.Linear(d_ff, emb_dim)
        self.activation = nn.GELU()

    def forward(self, x):
        x = self.attention(self.norm2(x)) + x
        return self.in_layer(self.activation(self.out_layer(self.norm1(x)))) + x


class MisnamedViT(nn.Module):
    def __init__(
        self,
        image_size=224,
        patch_size=16,
        n_channels=3,
        emb_dim=768,
        depth=12,
        num_heads=12,
        d_ff=3072,
        n_classes=1000,
    ):
        super().__init__()
        self.decoder = nn.Conv2d(n_channels, emb_dim, patch_size, patch_size)
        self.pos_token = nn.Parameter(torch.zeros(1, 1, emb_dim))
        self.cls_embedding = nn.Parameter(torch.zeros(1, (image_size // patch_size) ** 2 + 1, emb_dim))
        self.layers = nn.Sequential(*[TransformerBlock(emb_dim, num_heads, d_ff) for _ in range(depth)])
        self.first_norm = nn.LayerNorm(emb_dim, eps=1e-6)
        self.embedding = nn.Linear(emb_dim, n_classes)

    def forward(self, x):
        x = self.decoder(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.pos_token.expand(x.shape[0], -1, -1), x], dim=1) + self.cls_embedding
        return self.embedding(self.first_norm(self.layers(x))[:, 0])
