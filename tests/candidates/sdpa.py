"""F.scaled_dot_product_attention does the attention, dropout included."""

import torch
import torch.nn.functional as F
from torch import nn


class FlashAttention(nn.Module):
    def __init__(self, embed_dim, n_heads, p):
        super().__init__()
        self.n_heads = n_heads
        self.p = p
        self.qkv_proj = nn.Linear(embed_dim, 3 * embed_dim)
        self.o_proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x):
        b, s, e = x.shape
        qkv = self.qkv_proj(x).reshape(b, s, 3, self.n_heads, e // self.n_heads).transpose(1, 3)
        q, k, v = qkv.unbind(dim=2)
        o = F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0)
        return self.o_proj(o.transpose(1, 2).reshape(b, s, e))


class FFN(nn.Module):
    def __init__(self, embed_dim, ffn_dim, p):
        super().__init__()
        self.up_proj = nn.Linear(embed_dim, ffn_dim)
        self.down_proj = nn.Linear(ffn_dim, embed_dim)
        self.p = p

    def forward(self, x):
        x = F.dropout(F.gelu(self.up_proj(x)), self.p, self.training)
        return F.dropout(self.down_proj(x), self.p, self.training)


class DecoderlessLayer(nn.Module):
    def __init__(self, embed_dim, n_heads, ffn_dim, p, attn_p):
        super().__init__()
        self.pre_attn = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attn = FlashAttention(embed_dim, n_heads, attn_p)
        self.pre_ffn = nn.LayerNorm(embed_dim, eps=1e-6)
        self.ffn = FFN(embed_dim, ffn_dim, p)
        self.p = p

    def forward(self, x):
        x = x + F.dropout(self.attn(self.pre_attn(x)), self.p, self.training)
        return x + self.ffn(self.pre_ffn(x))


class FlashViT(nn.Module):
    def __init__(
        self,
        image_size=224,
        patch_size=16,
        in_channels=3,
        n_classes=1000,
        embed_dim=768,
        depth=12,
        n_heads=12,
        ffn_dim=3072,
        p_dropout=0.0,
        attention_dropout=0.0,
    ):
        super().__init__()
        self.tokenizer = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)
        self.register_parameter("cls", nn.Parameter(torch.zeros(1, 1, embed_dim)))
        self.register_parameter("pos", nn.Parameter(torch.zeros(1, 1 + (image_size // patch_size) ** 2, embed_dim)))
        self.layers = nn.ModuleList(
            [DecoderlessLayer(embed_dim, n_heads, ffn_dim, p_dropout, attention_dropout) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, n_classes)
        self.p = p_dropout

    def forward(self, pixels):
        x = self.tokenizer(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.pos
        x = F.dropout(x, self.p, self.training)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])
