"""A Vision Transformer from scratch that is torchvision's, to the bit."""

from vit.fast import FastViT
from vit.model import AttentionBlock, CreatePatches, ViT
from vit.presets import PRESETS, Preset
from vit.resolution import resize_positions
from vit.weights import Pretrained, load

__all__ = [
    "PRESETS",
    "AttentionBlock",
    "CreatePatches",
    "FastViT",
    "Preset",
    "Pretrained",
    "ViT",
    "load",
    "resize_positions",
]
