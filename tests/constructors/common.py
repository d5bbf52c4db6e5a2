"""The ViT that the constructors here build, in parts; how it is asked for differs from file to file."""

import torch
from torch import nn


def pair(size):
    return tuple(size) if isinstance(size, (tuple, list)) else (size, size)


class Embedding(nn.Module):
    """Projects patches by a convolution; a class token comes before them, positions are added to all."""

    def __init__(self, image, patch, channels, width, rate=0.0):
        super().__init__()
        (height, length), (rows, columns) = pair(image), pair(patch)
        assert height % rows == 0 and length % columns == 0, "the image must be divisible by the patch size"
        self.proj = nn.Conv2d(channels, width, (rows, columns), (rows, columns))
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.pos = nn.Parameter(torch.zeros(1, 1 + (height // rows) * (length // columns), width))
        self.drop = nn.Dropout(rate)

    def forward(self, x):
        x = self.proj(x).flatten(2).mT
        return self.drop(torch.cat((self.cls.expand(len(x), -1, -1), x), 1) + self.pos)


class LinearEmbedding(nn.Module):
    """The same with a Linear over a patch's pixels."""

    def __init__(self, patches, patch, channels, width, tokens=None):
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(channels * patch * patch, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.pos = nn.Parameter(torch.zeros(1, tokens or patches + 1, width))

    def forward(self, x):
        x = nn.functional.unfold(x, self.patch, stride=self.patch).mT
        x = self.proj(x)
        return torch.cat((self.cls.expand(len(x), -1, -1), x), 1) + self.pos


class Attention(nn.Module):
    def __init__(self, width, num_heads, rate=0.0, head_width=None, bias=True):
        super().__init__()
        assert head_width or width % num_heads == 0, "the width must be divisible by the number of heads"
        self.num_heads = num_heads
        inner = num_heads * (head_width or width // num_heads)
        self.qkv = nn.Linear(width, 3 * inner, bias=bias)
        self.drop = nn.Dropout(rate)
        self.out = nn.Linear(inner, width)

    def forward(self, x):
        B, N, _ = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = self.drop((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1))
        return self.out((weights @ v).transpose(1, 2).reshape(B, N, -1))


class Block(nn.Module):
    def __init__(self, width, heads, mlp, rate=0.0, attention_rate=0.0, norm=None, act=nn.GELU, **attention):
        super().__init__()
        norm = norm or (lambda size: nn.LayerNorm(size, eps=1e-6))
        self.norm1, self.norm2 = norm(width), norm(width)
        self.attn = Attention(width, heads, attention_rate, **attention)
        self.drop = nn.Dropout(rate)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp), act(), nn.Dropout(rate), nn.Linear(mlp, width), nn.Dropout(rate)
        )

    def forward(self, x):
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.mlp(self.norm2(x))


class Head(nn.Module):
    def __init__(self, width, classes, norm=None):
        super().__init__()
        self.norm = norm(width) if norm else nn.LayerNorm(width, eps=1e-6)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(self.norm(x)[:, 0])


class Stack(nn.Module):
    """Puts an embedding, blocks and a head together."""

    def __init__(self, embedding, blocks, head):
        super().__init__()
        self.embedding = embedding
        self.blocks = nn.Sequential(*blocks)
        self.head = head

    def forward(self, x):
        return self.head(self.blocks(self.embedding(x)))


class Whole(Stack):
    """All of it, from numbers."""

    def __init__(self, image, patch, channels, width, depth, heads, mlp, classes, rate=0.0, norm=None, **block):
        super().__init__(
            Embedding(image, patch, channels, width, rate),
            [Block(width, heads, mlp, rate, norm=norm, **block) for _ in range(depth)],
            Head(width, classes, norm),
        )
