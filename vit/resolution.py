"""Another resolution: the position embedding of one grid of patches, resized to another grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping


def resize_positions(state: Mapping[str, torch.Tensor], image_size: int, patch_size: int) -> dict[str, torch.Tensor]:
    """Returns a state dict of `vit.ViT` for images of another size.

    The rule is torchvision's (`interpolate_embeddings`), to the bit. The class token's position, the first row, is kept
    as it is. The others are laid out as they lie in the image, row by row, on a square grid of G x G positions, and
    sampled at H x H points, H = image_size / patch_size, which are spread evenly from corner to corner: the point
    (i, j) of the new grid lies at (i, j) * (G - 1) / (H - 1) of the old one, so that the four corners keep their
    values (`align_corners=True`; H = 1 takes the top left corner). Between the old positions the value is Keys' cubic
    convolution with a = -0.75 over the nearest 4 x 4 of them, of which those beyond the edge repeat the edge
    (`mode="bicubic"`). Nothing is smoothed before shrinking (`antialias=False`). Where H = G the table itself is kept.

    Args:
        state: tensors by their names in `vit.ViT`; only `pos_embedding`, (1, 1 + G * G, D), is read.
        image_size: new height and width of the images, in pixels.
        patch_size: height and width of a patch, in pixels.

    Returns:
        The same tensors but for `pos_embedding`, which is (1, 1 + H * H, D).

    Raises:
        ValueError: no such tensor or another shape, a grid that is not square, or sizes that don't fit together.
    """
    if "pos_embedding" not in state:
        raise ValueError("the state dict has no pos_embedding; is it under the names of vit.ViT?")
    table = state["pos_embedding"]
    if table.ndim != 3 or len(table) != 1 or table.shape[1] < 2:
        raise ValueError(f"expected pos_embedding of shape (1, 1 + patches, width), got {tuple(table.shape)}")
    if min(image_size, patch_size) < 1 or image_size % patch_size:
        raise ValueError(f"image_size must be a positive multiple of patch_size, got {image_size} and {patch_size}")
    patches = table.shape[1] - 1
    old, new = math.isqrt(patches), image_size // patch_size
    if old * old != patches:
        raise ValueError(f"pos_embedding has {patches} positions beside the class token's, which form no square grid")
    if new == old:
        return dict(state)
    grid = table[:, 1:].transpose(1, 2).reshape(1, -1, old, old)  # (1, D, G, G)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=True)
    positions = grid.flatten(2).transpose(1, 2)  # (1, H * H, D)
    return {**state, "pos_embedding": torch.cat([table[:, :1], positions], dim=1)}
