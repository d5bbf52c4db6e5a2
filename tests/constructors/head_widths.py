"""How wide a head is, beside or instead of how wide the model is or how many heads it has."""

from common import Whole


class BesideBoth(Whole):
    def __init__(
        self, *, image_size, patch_size, num_classes, dim, depth, heads, mlp_dim, channels=3, dim_head=64, dropout=0.0,
        emb_dropout=0.0,
    ):  # fmt: skip
        super().__init__(
            image_size, patch_size, channels, dim, depth, heads, mlp_dim, num_classes, dropout + emb_dropout,
            head_width=dim_head,
        )  # fmt: skip


class InsteadOfTheWidth(Whole):
    def __init__(
        self,
        image_size=224,
        patch_size=16,
        num_heads=12,
        dim_per_head=64,
        num_layers=12,
        mlp_dim=3072,
        num_classes=1000,
    ):
        super().__init__(
            image_size, patch_size, 3, num_heads * dim_per_head, num_layers, num_heads, mlp_dim, num_classes
        )


class InsteadOfTheHeads(Whole):
    def __init__(self, image_size, patch_size, embed_dim, head_dim, depth, mlp_dim, num_classes):
        assert embed_dim % head_dim == 0
        super().__init__(image_size, patch_size, 3, embed_dim, depth, embed_dim // head_dim, mlp_dim, num_classes)


class KeysAndValues(Whole):
    def __init__(self, image_size, patch_size, d_model, d_k, d_v, n_head, n_layers, d_inner, n_class):
        assert d_k == d_v
        super().__init__(image_size, patch_size, 3, d_model, n_layers, n_head, d_inner, n_class, head_width=d_k)


class KeysOfAllHeads(Whole):
    def __init__(self, image_size, patch_size, d_model, keys_dim, values_dim, n_head, n_layers, d_inner, n_class):
        assert keys_dim == values_dim
        super().__init__(
            image_size, patch_size, 3, d_model, n_layers, n_head, d_inner, n_class, head_width=keys_dim // n_head
        )


class HeadsUnlessSaid(Whole):
    """64 features to a head unless the number of heads is given."""

    def __init__(
        self, image_size=224, patch_size=16, dim=768, depth=12, num_heads=None, mlp_dim=None, num_classes=1000
    ):
        super().__init__(image_size, patch_size, 3, dim, depth, num_heads or dim // 64, mlp_dim or 4 * dim, num_classes)
