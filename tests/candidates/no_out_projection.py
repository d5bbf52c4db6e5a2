"""Wrong: heads of their own are concatenated, and no projection follows."""

import torch
from torch import nn


class MyMSA(nn.Module):
    def __init__(self, d, n_heads):
        super().__init__()
        assert d % n_heads == 0, f"can't divide dimension {d} into {n_heads} heads"
        self.d_head = d // n_heads
        self.q_mappings = nn.ModuleList([nn.Linear(d, self.d_head) for _ in range(n_heads)])
        self.k_mappings = nn.ModuleList([nn.Linear(d, self.d_head) for _ in range(n_heads)])
        self.v_mappings = nn.ModuleList([nn.Linear(d, self.d_head) for _ in range(n_heads)])
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, sequences):
        result = []
        for q_mapping, k_mapping, v_mapping in zip(self.q_mappings, self.k_mappings, self.v_mappings, strict=True):
            q, k, v = q_mapping(sequences), k_mapping(sequences), v_mapping(sequences)
            attention = self.softmax(q @ k.transpose(-2, -1) / self.d_head**0.5)
            result.append(attention @ v)
        return torch.cat(result, dim=-1)


class MyViTBlock(nn.Module):
    def __init__(self, hidden_d, n_heads, mlp_ratio):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden_d, eps=1e-6)
        self.mhsa = MyMSA(hidden_d, n_heads)
        self.norm2 = nn.LayerNorm(hidden_d, eps=1e-6)
        mlp_d = int(mlp_ratio * hidden_d)
        self.mlp = nn.Sequential(nn.Linear(hidden_d, mlp_d), nn.GELU(), nn.Linear(mlp_d, hidden_d))

    def forward(self, x):
        out = x + self.mhsa(self.norm1(x))
        out = out + self.mlp(self.norm2(out))
        return out


class MyViT(nn.Module):
    def __init__(self, image_dim, patch_size, in_ch, n_blocks, width, n_heads, out_dim, mlp_ratio=4):
        super().__init__()
        self.patch_size = patch_size
        self.linear_mapper = nn.Linear(in_ch * patch_size**2, width)
        self.class_token = nn.Parameter(torch.rand(1, width))
        self.positions = nn.Parameter(torch.rand((image_dim // patch_size) ** 2 + 1, width))
        self.blocks = nn.ModuleList([MyViTBlock(width, n_heads, mlp_ratio) for _ in range(n_blocks)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Linear(width, out_dim)

    def patchify(self, images):
        n = images.shape[0]
        patches = nn.functional.unfold(images, self.patch_size, stride=self.patch_size)
        return patches.transpose(1, 2).reshape(n, -1, self.linear_mapper.in_features)

    def forward(self, images):
        tokens = self.linear_mapper(self.patchify(images))
        tokens = torch.stack([torch.vstack((self.class_token, tokens[i])) for i in range(len(tokens))])
        out = tokens + self.positions
        for block in self.blocks:
            out = block(out)
        return self.mlp(self.norm(out)[:, 0])
