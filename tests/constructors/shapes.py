"""The image and its patches as pairs, lists, sides or whole shapes."""

from typing import Tuple, Union

from common import Whole


class Pairs(Whole):
    def __init__(
        self, img_size: Tuple[int, int], patch_size: Tuple[int, int], n_channels: int, d_model: int, n_layers: int,
        n_heads: int, d_ff: int, n_classes: int,
    ):  # fmt: skip
        assert img_size[0] % patch_size[0] == 0 and img_size[1] % patch_size[1] == 0
        super().__init__(img_size, patch_size, n_channels, d_model, n_layers, n_heads, d_ff, n_classes)


class PairsByDefault(Whole):
    def __init__(
        self, image_size=(32, 32), patch_size=(4, 4), num_classes=10, dim=30, encoder_depth=6, heads=5, mlp_dim=60
    ):
        image_height, image_width = image_size
        patch_height, patch_width = patch_size
        super().__init__(
            (image_height, image_width), (patch_height, patch_width), 3, dim, encoder_depth, heads, mlp_dim, num_classes
        )


class PairOrInt(Whole):
    def __init__(
        self, image_size: Union[int, Tuple[int, int]] = 224, patch_size: Union[int, Tuple[int, int]] = 16,
        dim: int = 768, depth: int = 12, heads: int = 12, mlp_dim: int = 3072, num_classes: int = 1000,
    ):  # fmt: skip
        super().__init__(image_size, patch_size, 3, dim, depth, heads, mlp_dim, num_classes)


class Sides(Whole):
    def __init__(
        self, image_height, image_width, patch_height, patch_width, channels, hidden_dim, mlp_dim, num_heads,
        num_blocks, num_classes,
    ):  # fmt: skip
        super().__init__(
            (image_height, image_width), (patch_height, patch_width), channels, hidden_dim, num_blocks, num_heads,
            mlp_dim, num_classes,
        )  # fmt: skip


class SidesByDefault(Whole):
    def __init__(
        self, img_h=224, img_w=224, patch_h=16, patch_w=16, c=3, dim=768, blocks=12, heads=12, mlp=3072, classes=1000
    ):
        super().__init__((img_h, img_w), (patch_h, patch_w), c, dim, blocks, heads, mlp, classes)


class ChannelsFirst(Whole):
    def __init__(self, chw, patch_size, hidden_d, mlp_d, n_blocks, n_heads, out_d):
        channels, height, width = chw
        super().__init__((height, width), patch_size, channels, hidden_d, n_blocks, n_heads, mlp_d, out_d)


class ImageShape(Whole):
    def __init__(
        self, img_shape=(1, 28, 28), patch_size=7, embed_dim=16, n_blocks=2, n_heads=4, mlp_ratio=4, n_classes=10
    ):
        super().__init__(
            img_shape[1:], patch_size, img_shape[0], embed_dim, n_blocks, n_heads, mlp_ratio * embed_dim, n_classes
        )


class ChannelsLast(Whole):
    def __init__(
        self, input_shape=(224, 224, 3), patch_size=16, dim=768, depth=12, heads=12, mlp_dim=3072, n_classes=1000
    ):
        height, width, channels = input_shape
        assert channels < height, "the channels come last"
        super().__init__((height, width), patch_size, channels, dim, depth, heads, mlp_dim, n_classes)
