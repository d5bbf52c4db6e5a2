"""Imports what is not there."""

import flash_attention_nobody_has
from common import Whole


class ViT(Whole):
    def __init__(self, image_size, patch_size, dim, depth, heads, mlp_dim, num_classes):
        super().__init__(image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes)
        self.attention = flash_attention_nobody_has
