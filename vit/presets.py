"""The five published sizes of the Vision Transformer that torchvision ships.

Width, depth, heads and MLP width are those of Table 1 of Dosovitskiy et al., "An Image is Worth 16x16 Words"
(https://arxiv.org/abs/2010.11929); the number behind the letter is the side of a patch in pixels.
"""

from __future__ import annotations

from typing import NamedTuple


class Preset(NamedTuple):
    """One row of the paper's table, in the words of `vit.ViT`'s constructor."""

    patch_size: int
    embed_dim: int
    hidden_dim: int
    num_heads: int
    num_layers: int


# fmt: off
PRESETS: dict[str, Preset] = {
    #                  patch  width   MLP  heads layers
    "vit_b_16": Preset(   16,   768, 3072,    12,   12),
    "vit_b_32": Preset(   32,   768, 3072,    12,   12),
    "vit_l_16": Preset(   16,  1024, 4096,    16,   24),
    "vit_l_32": Preset(   32,  1024, 4096,    16,   24),
    "vit_h_14": Preset(   14,  1280, 5120,    16,   32),
}
# fmt: on
