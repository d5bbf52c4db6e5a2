"""The model stands in the package's own `__init__.py`."""

from torch import nn

from .parts import Body


class ViT(nn.Module):
    def __init__(self, *, image_size, patch_size, num_classes, width, layers, heads, mlp_dim):
        super().__init__()
        self.body = Body(image_size, patch_size, width, layers, heads, mlp_dim)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.body(x))
