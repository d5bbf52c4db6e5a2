"""A ViT of a few thousand parameters, with more than one block, head and patch."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96,
    "num_classes": 10,
}  # fmt: skip
# the same as arguments of `vit.ViT`
OURS: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "embed_dim": 48, "hidden_dim": 96,
    "num_classes": 10,
}  # fmt: skip
