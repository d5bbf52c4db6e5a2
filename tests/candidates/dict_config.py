"""The model takes a config dict without defaults; a function makes it from ordinary arguments."""

import math

import torch
from torch import nn


class ViTEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        patches = (config["image_size"] // config["patch_size"]) ** 2
        self.projection = nn.Conv2d(
            config["num_channels"], config["hidden_size"], config["patch_size"], config["patch_size"]
        )
        self.cls_token = nn.Parameter(torch.randn(1, 1, config["hidden_size"]))
        self.position_embeddings = nn.Parameter(torch.randn(1, patches + 1, config["hidden_size"]))

    def forward(self, x):
        x = self.projection(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.size(0), -1, -1), x), dim=1)
        return x + self.position_embeddings


class ViTSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config["num_attention_heads"]
        self.head_size = config["hidden_size"] // self.heads
        self.query = nn.Linear(config["hidden_size"], config["hidden_size"])
        self.key = nn.Linear(config["hidden_size"], config["hidden_size"])
        self.value = nn.Linear(config["hidden_size"], config["hidden_size"])
        self.dense = nn.Linear(config["hidden_size"], config["hidden_size"])

    def transpose_for_scores(self, x):
        return x.view(*x.shape[:-1], self.heads, self.head_size).permute(0, 2, 1, 3)

    def forward(self, hidden):
        q, k, v = map(self.transpose_for_scores, (self.query(hidden), self.key(hidden), self.value(hidden)))
        probs = nn.functional.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.head_size), dim=-1)
        context = (probs @ v).permute(0, 2, 1, 3).contiguous()
        return self.dense(context.view(*hidden.shape))


class ViTLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attention = ViTSelfAttention(config)
        self.intermediate = nn.Linear(config["hidden_size"], config["intermediate_size"])
        self.activation = nn.GELU()
        self.output = nn.Linear(config["intermediate_size"], config["hidden_size"])
        self.layernorm_before = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])
        self.layernorm_after = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])

    def forward(self, hidden):
        hidden = self.attention(self.layernorm_before(hidden)) + hidden
        return self.output(self.activation(self.intermediate(self.layernorm_after(hidden)))) + hidden


class ViTForClassification(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = ViTEmbeddings(config)
        self.encoder = nn.ModuleList([ViTLayer(config) for _ in range(config["num_hidden_layers"])])
        self.layernorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])
        self.classifier = nn.Linear(config["hidden_size"], config["num_classes"])

    def forward(self, x):
        x = self.embedding(x)
        for layer in self.encoder:
            x = layer(x)
        return self.classifier(self.layernorm(x)[:, 0, :])


def build(image_size, patch_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, num_classes):
    config = {
        "image_size": image_size,
        "patch_size": patch_size,
        "num_channels": 3,
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "intermediate_size": intermediate_size,
        "num_classes": num_classes,
        "layer_norm_eps": 1e-6,
    }
    return ViTForClassification(config)
