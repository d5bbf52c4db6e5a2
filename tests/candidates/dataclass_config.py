"""A dataclass is the constructor's only argument, nanoGPT fashion."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class ViTConfig:
    img_size: int = 224
    patch_size: int = 16
    in_chans: int = 3
    n_layers: int = 12
    n_heads: int = 12
    d_model: int = 768
    d_ff: int = 3072
    n_classes: int = 1000


class SelfAttention(nn.Module):
    def __init__(self, config: ViTConfig):
        super().__init__()
        assert config.d_model % config.n_heads == 0
        # query, key and value of all heads, in one batch
        self.c_attn = nn.Linear(config.d_model, 3 * config.d_model)
        self.c_proj = nn.Linear(config.d_model, config.d_model)
        self.n_heads = config.n_heads

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        k = k.view(B, T, self.n_heads, C // self.n_heads).transpose(1, 2)
        q = q.view(B, T, self.n_heads, C // self.n_heads).transpose(1, 2)
        v = v.view(B, T, self.n_heads, C // self.n_heads).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0.0, is_causal=False)
        y = y.transpose(1, 2).contiguous().view(B, T, C)
        return self.c_proj(y)


class MLP(nn.Module):
    def __init__(self, config: ViTConfig):
        super().__init__()
        self.c_fc = nn.Linear(config.d_model, config.d_ff)
        self.gelu = nn.GELU()
        self.c_proj = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x):
        return self.c_proj(self.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, config: ViTConfig):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.d_model, eps=1e-6)
        self.attn = SelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.d_model, eps=1e-6)
        self.mlp = MLP(config)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        x = x + self.mlp(self.ln_2(x))
        return x


class NanoViT(nn.Module):
    def __init__(self, config: ViTConfig):
        super().__init__()
        self.config = config
        n_patches = (config.img_size // config.patch_size) ** 2
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Conv2d(config.in_chans, config.d_model, config.patch_size, config.patch_size),
                "h": nn.ModuleList([Block(config) for _ in range(config.n_layers)]),
                "ln_f": nn.LayerNorm(config.d_model, eps=1e-6),
            }
        )
        self.cls = nn.Parameter(torch.zeros(1, 1, config.d_model))
        self.wpe = nn.Parameter(torch.zeros(1, 1 + n_patches, config.d_model))
        self.head = nn.Linear(config.d_model, config.n_classes)
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
            nn.init.zeros_(module.bias)

    def forward(self, img):
        tok = self.transformer["wte"](img).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls.expand(tok.size(0), -1, -1), tok), dim=1) + self.wpe
        for block in self.transformer["h"]:
            x = block(x)
        x = self.transformer["ln_f"](x)
        return self.head(x[:, 0])
