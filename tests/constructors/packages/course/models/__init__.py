"""Takes the model up to the package."""

from .vit import ViT

__all__ = ["ViT"]
