"""A script that reads its command line while it is imported."""

import argparse

from common import Whole

parser = argparse.ArgumentParser()
parser.add_argument("--dim", type=int, default=768)
parser.add_argument("--depth", type=int, default=12)
parser.add_argument("--heads", type=int, default=12)
parser.add_argument("--lr", type=float, default=1e-3)
opt = parser.parse_args()


class ViT(Whole):
    def __init__(
        self,
        image_size=224,
        patch_size=16,
        dim=opt.dim,
        depth=opt.depth,
        heads=opt.heads,
        mlp_ratio=4,
        num_classes=1000,
    ):
        super().__init__(image_size, patch_size, 3, dim, depth, heads, dim * mlp_ratio, num_classes)
