"""The model."""

from torch import nn

from .layers import PatchEmbedding, encoder


class ViT(nn.Module):
    def __init__(self, img_size=28, patch_size=7, in_c=1, embed_dim=64, hidden=128, depth=4, heads=4, n_classes=10):
        super().__init__()
        self.patch_embed = PatchEmbedding(img_size, patch_size, in_c, embed_dim)
        self.encoder = encoder(embed_dim, heads, hidden, depth)
        self.head = nn.Linear(embed_dim, n_classes)

    def forward(self, x):
        return self.head(self.encoder(self.patch_embed(x))[:, 0])
