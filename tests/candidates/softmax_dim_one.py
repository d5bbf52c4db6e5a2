"""Wrong: softmax over dim 1, which is that of the heads here."""

import math

import torch
from torch import nn


class SelfAttention(nn.Module):
    def __init__(self, hidden_size, num_attention_heads):
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.attention_head_size = hidden_size // num_attention_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        self.softmax = nn.Softmax(dim=1)

    def split_heads(self, x):
        new_shape = (*x.size()[:-1], self.num_attention_heads, self.attention_head_size)
        return x.view(new_shape).permute(0, 2, 1, 3)

    def forward(self, x):
        q, k, v = self.split_heads(self.query(x)), self.split_heads(self.key(x)), self.split_heads(self.value(x))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.attention_head_size)
        context = torch.matmul(self.softmax(scores), v)
        context = context.permute(0, 2, 1, 3).contiguous()
        return self.out(context.view(*context.shape[:2], -1))


class FeedForward(nn.Module):
    def __init__(self, hidden_size, intermediate_size):
        super().__init__()
        self.dense1 = nn.Linear(hidden_size, intermediate_size)
        self.gelu = nn.GELU()
        self.dense2 = nn.Linear(intermediate_size, hidden_size)

    def forward(self, x):
        return self.dense2(self.gelu(self.dense1(x)))


class Layer(nn.Module):
    def __init__(self, hidden_size, num_attention_heads, intermediate_size):
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.attn = SelfAttention(hidden_size, num_attention_heads)
        self.ffn_norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.ffn = FeedForward(hidden_size, intermediate_size)

    def forward(self, x):
        x = x + self.attn(self.attention_norm(x))
        x = x + self.ffn(self.ffn_norm(x))
        return x


class ViTImageClassifier(nn.Module):
    def __init__(
        self,
        image_size,
        patch_size,
        num_labels,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        num_channels=3,
    ):
        super().__init__()
        self.patch_embeddings = nn.Conv2d(num_channels, hidden_size, kernel_size=patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, (image_size // patch_size) ** 2 + 1, hidden_size))
        self.layer = nn.ModuleList(
            [Layer(hidden_size, num_attention_heads, intermediate_size) for _ in range(num_hidden_layers)]
        )
        self.encoder_norm = nn.LayerNorm(hidden_size, eps=1e-6)
        self.head = nn.Linear(hidden_size, num_labels)

    def forward(self, x):
        x = self.patch_embeddings(x).flatten(2).transpose(-1, -2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self.position_embeddings
        for layer in self.layer:
            x = layer(x)
        return self.head(self.encoder_norm(x)[:, 0])
