"""A Vision Transformer from scratch, from image to logits, in reading order.

Shape letters:
    B  images in the batch          C  channels of an image       H, W  height and width of an image in pixels
    P  side of a patch in pixels    D  width of the model         N     patches of an image, (H / P) * (W / P)

The architecture is that of Dosovitskiy et al., "An Image is Worth 16x16 Words" (https://arxiv.org/abs/2010.11929),
Figure 1 and Equations 1 to 4. Every choice that the paper leaves open (norm eps, where dropout sits, how tensors are
initialised and in which order) is the one of `torchvision/models/vision_transformer.py`, so that the two are the same
model to the bit: in their initial weights under one seed, in their logits, and in train mode under one RNG state.
"""

from __future__ import annotations

import math

import torch
from torch import nn

LAYER_NORM_EPS = 1e-6  # PyTorch's own default is 1e-5; ViTs were trained with 1e-6


class CreatePatches(nn.Module):
    """Cuts an image into P x P patches and projects each one to a token: (B, C, H, W) -> (B, N, D).

    A convolution whose stride is its kernel's size is one Linear applied to every patch.
    """

    def __init__(self, in_channels: int, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(in_channels, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the patches' tokens, row by row from the top left, of shape (B, N, D)."""
        features: torch.Tensor = self.patch(images)  # (B, D, H/P, W/P)
        return features.flatten(2).transpose(1, 2)  # -> (B, D, N) -> (B, N, D)


class AttentionBlock(nn.Module):
    """One pre-norm Transformer encoder block (Equations 2 and 3 of the paper): (B, N+1, D) -> (B, N+1, D)."""

    def __init__(
        self, embed_dim: int, hidden_dim: int, num_heads: int, dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.attention = nn.MultiheadAttention(embed_dim, num_heads, dropout=attention_dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)

        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        widen, narrow = nn.Linear(embed_dim, hidden_dim), nn.Linear(hidden_dim, embed_dim)
        self.MLP = nn.Sequential(widen, nn.GELU(), nn.Dropout(dropout), narrow, nn.Dropout(dropout))
        for linear in (widen, narrow):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Adds attention over all tokens, then the MLP on each token, to the residual stream `x`."""
        y: torch.Tensor = self.pre_norm(x)
        # need_weights=True, the default, takes a slower path with other bits
        y, _ = self.attention(y, y, y, need_weights=False)
        x = x + self.dropout(y)
        y = self.MLP(self.norm(x))
        return x + y


class ViT(nn.Module):
    """Vision Transformer for image classification: (B, C, H, W) -> (B, num_classes).

    Without arguments it is ViT-B/16 at 224 pixels; `vit.PRESETS` holds the other published sizes.

    Args:
        img_size: height and width of the images, in pixels.
        in_channels: channels of the images.
        patch_size: height and width of a patch, in pixels.
        embed_dim: width D of the model.
        hidden_dim: width of the MLP's hidden layer.
        num_heads: attention heads of a block, each D / num_heads wide.
        num_layers: encoder blocks.
        dropout: dropout probability after the position embedding, after attention and twice in the MLP.
        num_classes: width of the logits.
        attention_dropout: dropout probability of the attention weights.
        representation_size: width of an extra Linear and tanh before the head (the paper's pre-training head),
            or None for none.

    Raises:
        ValueError: the sizes don't fit together.
    """

    def __init__(
        self,
        img_size: int = 224,
        in_channels: int = 3,
        patch_size: int = 16,
        embed_dim: int = 768,
        hidden_dim: int = 3072,
        num_heads: int = 12,
        num_layers: int = 12,
        dropout: float = 0.0,
        num_classes: int = 1000,
        *,
        attention_dropout: float = 0.0,
        representation_size: int | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(
            img_size=img_size, in_channels=in_channels, patch_size=patch_size, embed_dim=embed_dim,
            hidden_dim=hidden_dim, num_heads=num_heads, num_layers=num_layers, num_classes=num_classes,
            representation_size=representation_size,
        )  # fmt: skip
        self.img_size = img_size
        self.in_channels = in_channels
        num_patches = (img_size // patch_size) ** 2

        # Parameters are created, and so drawn from the random generator, in torchvision's order.
        self.patches = CreatePatches(in_channels, embed_dim, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embedding = nn.Parameter(torch.empty(1, num_patches + 1, embed_dim).normal_(std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.attn_layers = nn.Sequential(
            *(AttentionBlock(embed_dim, hidden_dim, num_heads, dropout, attention_dropout) for _ in range(num_layers))
        )
        self.ln = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.pre_logits = nn.Linear(embed_dim, representation_size) if representation_size else None
        self.head = nn.Linear(representation_size or embed_dim, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """Draws the patch projection and the pre-logits layer anew, and sets the head to zero."""
        projections: list[nn.Conv2d | nn.Linear] = [self.patches.patch]
        if self.pre_logits is not None:
            projections.append(self.pre_logits)
        for projection in projections:
            fan_in = projection.weight[0].numel()
            nn.init.trunc_normal_(projection.weight, std=math.sqrt(1 / fan_in))
        for layer in (*projections, self.head):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.head.weight)  # so a fresh model's logits are all 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Classifies a batch of images.

        Args:
            images: (B, in_channels, img_size, img_size), normalised as the weights expect.

        Returns:
            Logits of shape (B, num_classes).

        Raises:
            ValueError: the images' shape is another one.
        """
        self._check_images(images)
        x = self.patches(images)  # (B, N, D)
        cls_token = self.cls_token.expand(len(x), -1, -1)  # (B, 1, D)
        x = torch.cat([cls_token, x], dim=1)  # (B, N+1, D)
        x = self.dropout(x + self.pos_embedding)
        x = self.attn_layers(x)
        x = self.ln(x)
        x = x[:, 0]  # (B, D): the class token has gathered what the image shows
        if self.pre_logits is not None:
            x = torch.tanh(self.pre_logits(x))
        logits: torch.Tensor = self.head(x)
        return logits

    def _check_images(self, images: torch.Tensor) -> None:
        if images.ndim != 4:
            raise ValueError(
                f"expected images of rank 4, (batch, channels, height, width), got shape {tuple(images.shape)}"
            )
        expected = (self.in_channels, self.img_size, self.img_size)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"expected images of (channels, height, width) = {expected}, got {tuple(images.shape[1:])}; "
                "resize them, or build the model with another img_size or in_channels"
            )


def _check_sizes(
    *,
    img_size: int,
    patch_size: int,
    embed_dim: int,
    num_heads: int,
    representation_size: int | None,
    **others: int,
) -> None:
    sizes = {"img_size": img_size, "patch_size": patch_size, "embed_dim": embed_dim, "num_heads": num_heads}
    if representation_size is not None:
        sizes["representation_size"] = representation_size
    for name, size in (sizes | others).items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    if img_size % patch_size:
        raise ValueError(f"img_size must be divisible by patch_size, got {img_size} and {patch_size}")
    if embed_dim % num_heads:
        raise ValueError(f"embed_dim must be divisible by num_heads, got {embed_dim} and {num_heads}")
