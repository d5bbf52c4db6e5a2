"""Arguments by name whose defaults are those of a training on MNIST or CIFAR."""

from common import Whole


class Mnist(Whole):
    def __init__(self, image_size=28, patch_size=4, num_classes=10, dim=64, depth=4, heads=8, mlp_dim=128, channels=1):
        super().__init__(image_size, patch_size, channels, dim, depth, heads, mlp_dim, num_classes)


class Cifar(Whole):
    def __init__(
        self, n_channels=3, embed_dim=192, n_layers=9, n_attention_heads=12, forward_mul=2, image_size=32, patch_size=4,
        n_classes=10, dropout=0.1,
    ):  # fmt: skip
        mlp = embed_dim * forward_mul
        super().__init__(
            image_size, patch_size, n_channels, embed_dim, n_layers, n_attention_heads, mlp, n_classes, dropout
        )


class Pets(Whole):
    """Its MLP is always four times as wide as the model."""

    def __init__(self, ch=3, img_size=144, patch_size=4, emb_dim=32, n_layers=6, out_dim=37, dropout=0.1, heads=2):
        super().__init__(img_size, patch_size, ch, emb_dim, n_layers, heads, 4 * emb_dim, out_dim, dropout)


class Features(Whole):
    """The number of classes is 0 for a model without head, and so by default."""

    def __init__(
        self,
        img_size=[224],
        patch_size=16,
        in_chans=3,
        num_classes=0,
        embed_dim=384,
        depth=6,
        num_heads=6,
        mlp_ratio=4.0,
    ):
        super().__init__(
            img_size[0], patch_size, in_chans, embed_dim, depth, num_heads, int(mlp_ratio * embed_dim), num_classes
        )


class Halves(Whole):
    def __init__(
        self, image_size=32, patch_size=4, embed_dim=256, inner_dim=512, num_attn_heads=4, num_attn_layers=4,
        num_classes=100, dropout=0.2, device="cpu",
    ):  # fmt: skip
        super().__init__(
            image_size, patch_size, 3, embed_dim, num_attn_layers, num_attn_heads, inner_dim, num_classes, dropout
        )
        self.to(device)
