"""Arguments by name whose defaults are ViT-B/16's."""

from common import Whole


class TimmNames(Whole):
    def __init__(
        self, img_size=224, patch_size=16, in_chans=3, num_classes=1000, embed_dim=768, depth=12, num_heads=12,
        mlp_ratio=4.0, qkv_bias=True, drop_rate=0.0, attn_drop_rate=0.0,
    ):  # fmt: skip
        super().__init__(
            img_size, patch_size, in_chans, embed_dim, depth, num_heads, int(embed_dim * mlp_ratio), num_classes,
            drop_rate, attention_rate=attn_drop_rate, bias=qkv_bias,
        )  # fmt: skip


class CourseNames(Whole):
    def __init__(
        self,
        img_size: int = 224,
        in_channels: int = 3,
        patch_size: int = 16,
        num_transformer_layers: int = 12,
        embedding_dim: int = 768,
        mlp_size: int = 3072,
        num_heads: int = 12,
        attn_dropout: float = 0,
        mlp_dropout: float = 0.1,
        num_classes: int = 1000,
    ):
        super().__init__(
            img_size, patch_size, in_channels, embedding_dim, num_transformer_layers, num_heads, mlp_size, num_classes,
            mlp_dropout, attention_rate=attn_dropout,
        )  # fmt: skip


class HubNames(Whole):
    def __init__(
        self,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        image_size=224,
        patch_size=16,
        num_channels=3,
        num_labels=1000,
    ):
        super().__init__(
            image_size, patch_size, num_channels, hidden_size, num_hidden_layers, num_attention_heads,
            intermediate_size, num_labels, hidden_dropout_prob, attention_rate=attention_probs_dropout_prob,
        )  # fmt: skip


class FromLanguageModels(Whole):
    def __init__(self, n_layer=12, n_head=12, n_embd=768, n_inner=3072, resolution=224, patch=16, n_class=1000):
        super().__init__(resolution, patch, 3, n_embd, n_layer, n_head, n_inner, n_class)


class ManyHeadsOfManyNames(Whole):
    def __init__(
        self, input_resolution=224, patch_res=16, input_channels=3, emb_dims=768, num_encoder_layers=12,
        n_attention_heads=12, dim_mlp=3072, class_num=1000, drop_p=0.1,
    ):  # fmt: skip
        super().__init__(
            input_resolution, patch_res, input_channels, emb_dims, num_encoder_layers, n_attention_heads, dim_mlp,
            class_num, drop_p,
        )  # fmt: skip


class OutFeatures(Whole):
    def __init__(
        self, im_size=224, p_size=16, in_ch=3, width=768, layers=12, nheads=12, ffn_hidden=3072, out_features=1000
    ):
        super().__init__(im_size, p_size, in_ch, width, layers, nheads, ffn_hidden, out_features)


class WithATypo(Whole):
    def __init__(self, image_channels=3, image_size=224, path_size=16, embedd_dim=768, nheads=12, num_encoders=12,
                 dim_feedforward=3072, labels=1000):  # fmt: skip
        super().__init__(
            image_size, path_size, image_channels, embedd_dim, num_encoders, nheads, dim_feedforward, labels
        )
