"""All layers' weights are stacked in tensors with a leading layer dimension, as a scan over layers wants them."""

import torch
import torch.nn.functional as F
from torch import nn


class ScannedViT(nn.Module):
    def __init__(
        self,
        image_size=224,
        patch_size=16,
        num_layers=12,
        num_heads=12,
        model_dim=768,
        d_ff=3072,
        num_classes=1000,
        num_channels=3,
    ):
        super().__init__()
        L, D, M = num_layers, model_dim, d_ff
        self.num_layers, self.num_heads = num_layers, num_heads
        self.patch_conv = nn.Conv2d(num_channels, D, patch_size, stride=patch_size)
        self.cls = nn.Parameter(torch.zeros(D))
        self.pos = nn.Parameter(torch.zeros((image_size // patch_size) ** 2 + 1, D))
        self.norm1_scale = nn.Parameter(torch.ones(L, D))
        self.norm1_shift = nn.Parameter(torch.zeros(L, D))
        self.qkv_weight = nn.Parameter(torch.empty(L, 3, D, D).normal_(std=0.02))
        self.qkv_bias = nn.Parameter(torch.zeros(L, 3, D))
        self.out_weight = nn.Parameter(torch.empty(L, D, D).normal_(std=0.02))
        self.out_bias = nn.Parameter(torch.zeros(L, D))
        self.norm2_scale = nn.Parameter(torch.ones(L, D))
        self.norm2_shift = nn.Parameter(torch.zeros(L, D))
        self.up_weight = nn.Parameter(torch.empty(L, M, D).normal_(std=0.02))
        self.up_bias = nn.Parameter(torch.zeros(L, M))
        self.down_weight = nn.Parameter(torch.empty(L, D, M).normal_(std=0.02))
        self.down_bias = nn.Parameter(torch.zeros(L, D))
        self.final_norm = nn.LayerNorm(D, eps=1e-6)
        self.logits = nn.Linear(D, num_classes)

    def attention(self, x, i):
        B, N, D = x.shape
        q, k, v = (
            F.linear(x, w, b).view(B, N, self.num_heads, -1).transpose(1, 2)
            for w, b in zip(self.qkv_weight[i], self.qkv_bias[i], strict=True)
        )
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, D)
        return F.linear(x, self.out_weight[i], self.out_bias[i])

    def mlp(self, x, i):
        x = F.gelu(F.linear(x, self.up_weight[i], self.up_bias[i]))
        return F.linear(x, self.down_weight[i], self.down_bias[i])

    def forward(self, images):
        x = self.patch_conv(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], 1, -1), x], dim=1) + self.pos
        width = (x.shape[-1],)
        for i in range(self.num_layers):
            x = x + self.attention(F.layer_norm(x, width, self.norm1_scale[i], self.norm1_shift[i], 1e-6), i)
            x = x + self.mlp(F.layer_norm(x, width, self.norm2_scale[i], self.norm2_shift[i], 1e-6), i)
        return self.logits(self.final_norm(x)[:, 0])
