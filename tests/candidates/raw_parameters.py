"""No layers at all: raw parameters in x @ W orientation, (in, out), and functions of them."""

import math

import torch
from torch import nn
from torch.nn.functional import conv2d, gelu, layer_norm


def weight(*shape):
    return nn.Parameter(torch.randn(shape) / math.sqrt(shape[0]))


def zeros(*shape):
    return nn.Parameter(torch.zeros(shape))


def ones(*shape):
    return nn.Parameter(torch.ones(shape))


def norm(x, p, name):
    return layer_norm(x, x.shape[-1:], p[f"{name}_g"], p[f"{name}_b"], eps=1e-6)


def attention(x, p, heads):
    b, t, c = x.shape
    q = (x @ p["wq"] + p["bq"]).view(b, t, heads, c // heads).transpose(1, 2)
    k = (x @ p["wk"] + p["bk"]).view(b, t, heads, c // heads).transpose(1, 2)
    v = (x @ p["wv"] + p["bv"]).view(b, t, heads, c // heads).transpose(1, 2)
    a = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(c // heads), dim=3)
    return (a @ v).transpose(1, 2).reshape(b, t, c) @ p["wo"] + p["bo"]


def mlp(x, p):
    return gelu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]


def make_block(d, f):
    p = nn.ParameterDict()
    for name in ("q", "k", "v", "o"):
        p[f"w{name}"], p[f"b{name}"] = weight(d, d), zeros(d)
    p["w1"], p["b1"] = weight(d, f), zeros(f)
    p["w2"], p["b2"] = weight(f, d), zeros(d)
    for name in ("n1", "n2"):
        p[f"{name}_g"], p[f"{name}_b"] = ones(d), zeros(d)
    return p


class FunctionalViT(nn.Module):
    def __init__(self, img_size, patch_size, channels, d_model, n_layers, n_heads, d_ff, n_classes):
        super().__init__()
        self.n_heads = n_heads
        self.patch_size = patch_size
        self.filters = nn.Parameter(torch.randn(d_model, channels, patch_size, patch_size) * 0.02)
        self.filters_bias = zeros(d_model)
        self.cls = zeros(1, 1, d_model)
        self.pos = nn.Parameter(torch.randn(1, (img_size // patch_size) ** 2 + 1, d_model) * 0.02)
        self.blocks = nn.ModuleList([make_block(d_model, d_ff) for _ in range(n_layers)])
        self.top = nn.ParameterDict({"n_g": ones(d_model), "n_b": zeros(d_model)})
        self.w_out = weight(d_model, n_classes)
        self.b_out = zeros(n_classes)

    def forward(self, images):
        x = conv2d(images, self.filters, self.filters_bias, stride=self.patch_size)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], 1, x.shape[2]), x], dim=1) + self.pos
        for p in self.blocks:
            x = x + attention(norm(x, p, "n1"), p, self.n_heads)
            x = x + mlp(norm(x, p, "n2"), p)
        return norm(x[:, 0], self.top, "n") @ self.w_out + self.b_out
