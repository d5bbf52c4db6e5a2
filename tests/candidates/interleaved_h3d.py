"""Fused query_key_value Linear with rows ordered (heads, 3, head_dim), as language models of the Megatron family."""

import torch
from torch import nn


class SelfAttention(nn.Module):
    def __init__(self, hidden_size, num_attention_heads):
        super().__init__()
        self.num_attention_heads = num_attention_heads
        self.head_size = hidden_size // num_attention_heads
        self.norm_factor = 1.0 / self.head_size**0.5
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states):
        bsz, seq, width = hidden_states.shape
        mixed = self.query_key_value(hidden_states)
        mixed = mixed.view(bsz, seq, self.num_attention_heads, 3 * self.head_size).transpose(1, 2)
        query, key, value = torch.split(mixed, self.head_size, dim=-1)
        flat = (bsz * self.num_attention_heads, seq, self.head_size)
        scores = torch.bmm(query.reshape(flat), key.reshape(flat).transpose(1, 2)) * self.norm_factor
        context = torch.bmm(torch.softmax(scores, dim=2), value.reshape(flat))
        context = context.view(bsz, self.num_attention_heads, seq, self.head_size).permute(0, 2, 1, 3)
        return self.dense(context.reshape(bsz, seq, width))


class TransformerLayer(nn.Module):
    def __init__(self, hidden_size, num_attention_heads, ffn_dim, layernorm_epsilon):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(hidden_size, eps=layernorm_epsilon)
        self.attention = SelfAttention(hidden_size, num_attention_heads)
        self.post_attention_layernorm = nn.LayerNorm(hidden_size, eps=layernorm_epsilon)
        self.mlp = nn.ModuleDict(
            {
                "dense_h_to_4h": nn.Linear(hidden_size, ffn_dim),
                "act": nn.GELU(),
                "dense_4h_to_h": nn.Linear(ffn_dim, hidden_size),
            }
        )

    def forward(self, hidden_states):
        hidden_states = hidden_states + self.attention(self.input_layernorm(hidden_states))
        mlp_output = self.post_attention_layernorm(hidden_states)
        for layer in self.mlp.values():
            mlp_output = layer(mlp_output)
        return hidden_states + mlp_output


class VisionLM(nn.Module):
    def __init__(
        self,
        input_size=224,
        patch_size=16,
        num_channels=3,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        ffn_dim=3072,
        num_labels=1000,
        layernorm_epsilon=1e-6,
    ):
        super().__init__()
        side = input_size // patch_size
        self.patch_projection = nn.Conv2d(num_channels, hidden_size, (patch_size, patch_size), (patch_size, patch_size))
        self.class_embedding = nn.Parameter(torch.zeros(1, 1, hidden_size))
        self.position_embedding = nn.Parameter(torch.randn(1, side * side + 1, hidden_size) * 0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(hidden_size, num_attention_heads, ffn_dim, layernorm_epsilon)
            for _ in range(num_hidden_layers)
        )
        self.final_layernorm = nn.LayerNorm(hidden_size, eps=layernorm_epsilon)
        self.output_layer = nn.Linear(hidden_size, num_labels)

    def forward(self, pixel_values):
        patches = self.patch_projection(pixel_values)
        bsz, width = patches.shape[:2]
        patches = patches.view(bsz, width, -1).transpose(1, 2)
        hidden_states = torch.cat([self.class_embedding.expand(bsz, 1, width), patches], dim=1)
        hidden_states = hidden_states + self.position_embedding
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return self.output_layer(self.final_layernorm(hidden_states[:, 0]))
