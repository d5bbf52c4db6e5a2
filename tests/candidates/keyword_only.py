"""Every constructor takes keyword-only arguments."""

from __future__ import annotations

import torch
from torch import nn


class TransformerLayer(nn.Module):
    def __init__(self, *, width: int, heads: int, mlp_width: int, rate: float) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleDict(
            {"attention": nn.LayerNorm(width, eps=1e-6), "perceptron": nn.LayerNorm(width, eps=1e-6)}
        )
        self.projections = nn.ModuleDict({name: nn.Linear(width, width) for name in ("q", "k", "v", "o")})
        self.perceptron = nn.Sequential(
            nn.Linear(width, mlp_width),
            nn.GELU(),
            nn.Dropout(rate),
            nn.Linear(mlp_width, width),
            nn.Dropout(rate),
        )
        self.dropout = nn.Dropout(rate)

    def attend(self, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            torch.stack(self.projections[name](tokens).chunk(self.heads, dim=-1), dim=1) for name in ("q", "k", "v")
        )
        scores = q.matmul(k.transpose(-2, -1)).div(q.shape[-1] ** 0.5)
        mixed = scores.softmax(dim=-1).matmul(v)
        return self.projections["o"](torch.cat(mixed.unbind(dim=1), dim=-1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.dropout(self.attend(self.norms["attention"](tokens)))
        return tokens + self.perceptron(self.norms["perceptron"](tokens))


class KeywordViT(nn.Module):
    def __init__(
        self,
        *,
        resolution: int = 224,
        patch: int = 16,
        n_channels: int = 3,
        width: int = 768,
        n_blocks: int = 12,
        heads: int = 12,
        mlp_width: int = 3072,
        classes: int = 1000,
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels=n_channels, out_channels=width, kernel_size=patch, stride=patch)
        self.embeddings = nn.ParameterDict(
            {
                "token": nn.Parameter(torch.zeros(1, 1, width)),
                "position": nn.Parameter(torch.zeros(1, (resolution // patch) ** 2 + 1, width)),
            }
        )
        self.dropout = nn.Dropout(dropout_rate)
        self.layers = nn.Sequential(
            *(
                TransformerLayer(width=width, heads=heads, mlp_width=mlp_width, rate=dropout_rate)
                for _ in range(n_blocks)
            )
        )
        self.readout = nn.ModuleDict({"norm": nn.LayerNorm(width, eps=1e-6), "linear": nn.Linear(width, classes)})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patches(images).flatten(start_dim=2).transpose(1, 2)
        token = self.embeddings["token"].expand(len(images), -1, -1)
        tokens = self.dropout(torch.cat([token, patches], dim=1) + self.embeddings["position"])
        tokens = self.layers(tokens)
        return self.readout["linear"](self.readout["norm"](tokens)[:, 0])
