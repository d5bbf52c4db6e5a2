"""A ModuleList of nn.TransformerEncoderLayer, set up so that it is a ViT block."""

import torch
from torch import nn


class ViTFromTorchLayers(nn.Module):
    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        num_channels: int = 3,
        d_model: int = 768,
        nhead: int = 12,
        num_layers: int = 12,
        dim_feedforward: int = 3072,
        num_classes: int = 1000,
    ):
        super().__init__()
        self.patch_size = patch_size
        seq_len = (image_size // patch_size) ** 2 + 1

        self.stem = nn.Conv2d(num_channels, d_model, kernel_size=patch_size, stride=patch_size)
        self.cls_embedding = nn.Parameter(torch.empty(1, 1, d_model))
        self.pos_embedding = nn.Parameter(torch.empty(1, seq_len, d_model))

        # everything but the norm's place, the activation and eps is what PyTorch does anyway
        self.encoder_layers = nn.ModuleList()
        for _ in range(num_layers):
            layer = nn.TransformerEncoderLayer(
                d_model=d_model,
                nhead=nhead,
                dim_feedforward=dim_feedforward,
                dropout=0.0,
                activation="gelu",
                layer_norm_eps=1e-6,
                batch_first=True,
                norm_first=True,
            )
            self.encoder_layers.append(layer)

        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.fc = nn.Linear(d_model, num_classes)
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.normal_(self.cls_embedding, std=1e-6)
        nn.init.normal_(self.pos_embedding, std=0.02)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        patches = self.stem(x).flatten(2).transpose(1, 2)
        cls = self.cls_embedding.expand(patches.shape[0], -1, -1)
        out = torch.cat((cls, patches), dim=1) + self.pos_embedding
        for layer in self.encoder_layers:
            out = layer(out)
        out = self.norm(out)
        return self.fc(out[:, 0])
