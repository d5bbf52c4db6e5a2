"""A dictionary without an example: its keys are those that the constructor reads."""

from common import Whole


class ViT(Whole):
    def __init__(self, config):
        super().__init__(
            config["image_size"], config["patch_size"], config["num_channels"], config["hidden_size"],
            config["num_hidden_layers"], config["num_attention_heads"], config["intermediate_size"],
            config["num_classes"], config["hidden_dropout_prob"], attention_rate=config["attention_probs_dropout_prob"],
            bias=config["qkv_bias"],
        )  # fmt: skip
        self.config = config


class WithDefaults(Whole):
    def __init__(self, cfg: dict):
        dim = cfg.get("d_model", 192)
        super().__init__(
            cfg.get("image_size", 32), cfg.get("patch_size", 4), cfg.get("channels", 3), dim, cfg.get("n_layers", 6),
            cfg.get("n_heads", 3), cfg.get("d_ff", 4 * dim), cfg.get("n_classes", 10),
        )  # fmt: skip


class Nested(Whole):
    def __init__(self, config):
        image, encoder = config["image"], config["encoder"]
        super().__init__(
            image["size"], image["patch_size"], image["channels"], encoder["hidden_dim"], encoder["num_layers"],
            encoder["num_heads"], encoder["mlp_dim"], config["head"]["num_classes"],
        )  # fmt: skip


class Groups(Whole):
    def __init__(self, embedding_cfg: dict, encoder_cfg: dict, head_cfg: dict):
        super().__init__(
            embedding_cfg["img_size"], embedding_cfg["patch_size"], embedding_cfg["in_chans"], encoder_cfg["embed_dim"],
            encoder_cfg["depth"], encoder_cfg["num_heads"], int(encoder_cfg["mlp_ratio"] * encoder_cfg["embed_dim"]),
            head_cfg["num_classes"],
        )  # fmt: skip


class AsKeywords(Whole):
    def __init__(self, **config):
        super().__init__(
            config["image_size"], config["patch_size"], config["channels"], config["dim"], config["depth"],
            config["heads"], config["mlp_dim"], config["num_classes"],
        )  # fmt: skip


class WithClasses(Whole):
    def __init__(self, hparams, num_classes):
        super().__init__(
            hparams["resolution"], hparams["patch"], 3, hparams["width"], hparams["layers"], hparams["heads"],
            hparams["mlp_width"], num_classes,
        )  # fmt: skip


class AskedFor(Whole):
    """What may be there is asked for first."""

    def __init__(self, config):
        dim = config["emb_dim"]
        mlp = config["ff_dim"] if "ff_dim" in config else 4 * dim
        super().__init__(
            config["image_height"], config["patch_height"], config["im_channels"], dim, config["n_layers"],
            config["n_heads"], mlp, config["num_classes"],
        )  # fmt: skip
