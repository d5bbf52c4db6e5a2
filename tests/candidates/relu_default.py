"""Wrong: nn.TransformerEncoderLayer with everything set but its activation, which stays ReLU."""

import torch
from torch import nn


class TorchEncoderViT(nn.Module):
    def __init__(
        self,
        input_size,
        patch_size,
        num_classes,
        d_model=768,
        nhead=12,
        num_layers=12,
        dim_feedforward=3072,
        channels=3,
    ):
        super().__init__()
        assert input_size % patch_size == 0, "input_size must be divisible by patch_size"
        self.n_patches = (input_size // patch_size) ** 2
        self.patch = nn.Conv2d(channels, d_model, kernel_size=patch_size, stride=patch_size)
        self.cls = nn.Parameter(torch.randn(1, 1, d_model) * 0.02)
        self.pos = nn.Parameter(torch.randn(1, self.n_patches + 1, d_model) * 0.02)

        def make_layer():
            return nn.TransformerEncoderLayer(
                d_model,
                nhead,
                dim_feedforward,
                dropout=0.0,
                layer_norm_eps=1e-6,
                norm_first=True,
                batch_first=True,
            )

        self.encoder = nn.Sequential(*[make_layer() for _ in range(num_layers)])
        self.norm = nn.LayerNorm(d_model, eps=1e-6)
        self.classifier = nn.Linear(d_model, num_classes)

    def embed(self, images):
        x = self.patch(images)
        x = x.flatten(2).transpose(1, 2)
        cls = self.cls.expand(images.shape[0], -1, -1)
        return torch.cat([cls, x], dim=1) + self.pos

    def forward(self, images):
        x = self.embed(images)
        x = self.encoder(x)
        x = self.norm(x)
        return self.classifier(x[:, 0])
