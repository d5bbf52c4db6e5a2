"""Wrong: attention is scaled by the square root of the model's width instead of a head's."""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    def __init__(self, in_channels: int, patch_size: int, emb_size: int, img_size: int):
        super().__init__()
        self.projection = nn.Conv2d(in_channels, emb_size, kernel_size=patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.randn(1, 1, emb_size))
        self.positions = nn.Parameter(torch.randn((img_size // patch_size) ** 2 + 1, emb_size))

    def forward(self, x: Tensor) -> Tensor:
        x = rearrange(self.projection(x), "b e h w -> b (h w) e")
        cls_tokens = repeat(self.cls_token, "() n e -> b n e", b=x.shape[0])
        x = torch.cat([cls_tokens, x], dim=1)
        x += self.positions
        return x


class MultiHeadAttention(nn.Module):
    def __init__(self, emb_size: int, num_heads: int):
        super().__init__()
        self.emb_size = emb_size
        self.num_heads = num_heads
        self.keys = nn.Linear(emb_size, emb_size)
        self.queries = nn.Linear(emb_size, emb_size)
        self.values = nn.Linear(emb_size, emb_size)
        self.projection = nn.Linear(emb_size, emb_size)

    def forward(self, x: Tensor) -> Tensor:
        queries = rearrange(self.queries(x), "b n (h d) -> b h n d", h=self.num_heads)
        keys = rearrange(self.keys(x), "b n (h d) -> b h n d", h=self.num_heads)
        values = rearrange(self.values(x), "b n (h d) -> b h n d", h=self.num_heads)
        energy = torch.einsum("bhqd, bhkd -> bhqk", queries, keys)
        scaling = self.emb_size ** (1 / 2)
        att = F.softmax(energy / scaling, dim=-1)
        out = torch.einsum("bhal, bhlv -> bhav ", att, values)
        return self.projection(rearrange(out, "b h n d -> b n (h d)"))


class TransformerEncoderBlock(nn.Module):
    def __init__(self, emb_size: int, num_heads: int, expansion: float):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(emb_size, eps=1e-6), nn.LayerNorm(emb_size, eps=1e-6)])
        self.attention = MultiHeadAttention(emb_size, num_heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(emb_size, int(expansion * emb_size)),
            nn.GELU(),
            nn.Linear(int(expansion * emb_size), emb_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        return x + self.feed_forward(self.norms[1](x))


class ViT(nn.Module):
    def __init__(
        self,
        in_channels: int = 3,
        patch_size: int = 16,
        emb_size: int = 768,
        img_size: int = 224,
        depth: int = 12,
        num_heads: int = 12,
        expansion: float = 4,
        n_classes: int = 1000,
    ):
        super().__init__()
        self.embedding = PatchEmbedding(in_channels, patch_size, emb_size, img_size)
        self.encoder = nn.ModuleList([TransformerEncoderBlock(emb_size, num_heads, expansion) for _ in range(depth)])
        self.norm = nn.LayerNorm(emb_size, eps=1e-6)
        self.head = nn.Linear(emb_size, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        for block in self.encoder:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
