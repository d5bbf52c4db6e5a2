"""Fused qkv whose rows are ordered (heads, head_dim, 3), built of Sequentials as in the well-known einops tutorial."""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from einops.layers.torch import Rearrange
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    def __init__(self, in_channels: int, patch_size: int, emb_size: int, img_size: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.Conv2d(in_channels, emb_size, kernel_size=patch_size, stride=patch_size),
            Rearrange("b e (h) (w) -> b (h w) e"),
        )
        self.cls_token = nn.Parameter(torch.randn(1, 1, emb_size))
        self.positions = nn.Parameter(torch.randn((img_size // patch_size) ** 2 + 1, emb_size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.projection(x)
        cls_tokens = repeat(self.cls_token, "() n e -> b n e", b=x.shape[0])
        return torch.cat([cls_tokens, x], dim=1) + self.positions


class MultiHeadAttention(nn.Module):
    def __init__(self, emb_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scaling = (emb_size // num_heads) ** 0.5
        self.qkv = nn.Linear(emb_size, emb_size * 3)
        self.projection = nn.Linear(emb_size, emb_size)

    def forward(self, x: Tensor) -> Tensor:
        qkv = rearrange(self.qkv(x), "b n (h d qkv) -> (qkv) b h n d", h=self.num_heads, qkv=3)
        queries, keys, values = qkv[0], qkv[1], qkv[2]
        energy = torch.einsum("bhqd, bhkd -> bhqk", queries, keys)
        att = F.softmax(energy / self.scaling, dim=-1)
        out = torch.einsum("bhal, bhlv -> bhav", att, values)
        return self.projection(rearrange(out, "b h n d -> b n (h d)"))


class ResidualAdd(nn.Module):
    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


class TransformerEncoderBlock(nn.Sequential):
    def __init__(self, emb_size: int, num_heads: int, forward_expansion: float) -> None:
        hidden = int(forward_expansion * emb_size)
        super().__init__(
            ResidualAdd(nn.Sequential(nn.LayerNorm(emb_size, 1e-6), MultiHeadAttention(emb_size, num_heads))),
            ResidualAdd(
                nn.Sequential(
                    nn.LayerNorm(emb_size, 1e-6),
                    nn.Sequential(nn.Linear(emb_size, hidden), nn.GELU(), nn.Linear(hidden, emb_size)),
                )
            ),
        )


class ClassificationHead(nn.Sequential):
    def __init__(self, emb_size: int, n_classes: int) -> None:
        super().__init__(nn.LayerNorm(emb_size, 1e-6), nn.Linear(emb_size, n_classes))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, 0])


class ViT(nn.Sequential):
    def __init__(
        self,
        in_channels: int = 3,
        patch_size: int = 16,
        emb_size: int = 768,
        img_size: int = 224,
        depth: int = 12,
        num_heads: int = 12,
        forward_expansion: float = 4,
        n_classes: int = 1000,
    ) -> None:
        super().__init__(
            PatchEmbedding(in_channels, patch_size, emb_size, img_size),
            nn.Sequential(*[TransformerEncoderBlock(emb_size, num_heads, forward_expansion) for _ in range(depth)]),
            ClassificationHead(emb_size, n_classes),
        )
