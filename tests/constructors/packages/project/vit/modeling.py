"""The model, of torch's own encoder; its settings are a module further."""

import torch
from torch import nn

from .configuration import ViTConfig


class ViTForImageClassification(nn.Module):
    def __init__(self, config: ViTConfig):
        super().__init__()
        dim, patch = config.hidden_size, config.patch_size
        self.proj = nn.Conv2d(config.num_channels, dim, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (config.image_size // patch) ** 2 + 1, dim))
        layer = nn.TransformerEncoderLayer(
            dim,
            config.num_attention_heads,
            config.intermediate_size,
            0.0,
            "gelu",
            1e-6,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, config.num_hidden_layers, nn.LayerNorm(dim, eps=1e-6), enable_nested_tensor=False
        )
        self.classifier = nn.Linear(dim, config.num_labels)

    def forward(self, x):
        x = self.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        return self.classifier(self.encoder(x)[:, 0])
