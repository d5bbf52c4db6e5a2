"""Wrong: GELU by its tanh approximation, typed in from the original GPT-2 code."""

import math

import torch
from torch import nn


class NewGELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class PatchEmbeddings(nn.Module):
    def __init__(self, img_size, patch_size, num_channels, hidden_size):
        super().__init__()
        self.num_patches = (img_size // patch_size) ** 2
        self.projection = nn.Conv2d(num_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, x):
        return self.projection(x).flatten(2).transpose(1, 2)


class AttentionHead(nn.Module):
    def __init__(self, hidden_size, size):
        super().__init__()
        self.query = nn.Linear(hidden_size, size)
        self.key = nn.Linear(hidden_size, size)
        self.value = nn.Linear(hidden_size, size)

    def forward(self, x):
        scores = torch.matmul(self.query(x), self.key(x).transpose(-1, -2)) / math.sqrt(self.key.out_features)
        return torch.matmul(nn.functional.softmax(scores, dim=-1), self.value(x))


class MultiHeadAttention(nn.Module):
    def __init__(self, hidden_size, heads):
        super().__init__()
        self.heads = nn.ModuleList([AttentionHead(hidden_size, hidden_size // heads) for _ in range(heads)])
        self.output_projection = nn.Linear(hidden_size, hidden_size)

    def forward(self, x):
        return self.output_projection(torch.cat([head(x) for head in self.heads], dim=-1))


class MLP(nn.Module):
    def __init__(self, hidden_size, intermediate_size):
        super().__init__()
        self.dense_1 = nn.Linear(hidden_size, intermediate_size)
        self.activation = NewGELU()
        self.dense_2 = nn.Linear(intermediate_size, hidden_size)

    def forward(self, x):
        return self.dense_2(self.activation(self.dense_1(x)))


class Block(nn.Module):
    def __init__(self, hidden_size, heads, intermediate_size):
        super().__init__()
        self.attention = MultiHeadAttention(hidden_size, heads)
        self.layernorm_1 = nn.LayerNorm(hidden_size, eps=1e-6)
        self.mlp = MLP(hidden_size, intermediate_size)
        self.layernorm_2 = nn.LayerNorm(hidden_size, eps=1e-6)

    def forward(self, x):
        x = x + self.attention(self.layernorm_1(x))
        return x + self.mlp(self.layernorm_2(x))


class ScratchViT(nn.Module):
    def __init__(self, img_size, patch_size, n_channels, hidden_size, depth, heads, intermediate_size, num_classes):
        super().__init__()
        self.patch_embeddings = PatchEmbeddings(img_size, patch_size, n_channels, hidden_size)
        self.cls_token = nn.Parameter(torch.randn(1, 1, hidden_size))
        self.position_embeddings = nn.Parameter(torch.randn(1, self.patch_embeddings.num_patches + 1, hidden_size))
        self.blocks = nn.ModuleList([Block(hidden_size, heads, intermediate_size) for _ in range(depth)])
        self.layernorm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.classifier = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        x = self.patch_embeddings(x)
        x = torch.cat((self.cls_token.expand(x.size(0), -1, -1), x), dim=1) + self.position_embeddings
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.layernorm(x)[:, 0])
