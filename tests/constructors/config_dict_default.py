"""A dictionary in the module is the default, and the example."""

from common import Whole

CONFIG = {
    "image_size": 224,
    "patch_size": 16,
    "hidden_dim": 768,
    "mlp_dim": 3072,
    "num_layers": 12,
    "num_heads": 12,
    "num_classes": 1000,
    "learning_rate": 1e-4,
}

TINY = {**CONFIG, "hidden_dim": 192, "mlp_dim": 768, "num_heads": 3}


def sizes(config):
    return [config[key] for key in ("hidden_dim", "num_layers", "num_heads", "mlp_dim", "num_classes")]


class ViT(Whole):
    def __init__(self, config=CONFIG):
        super().__init__(config["image_size"], config["patch_size"], 3, *sizes(config))


class TinyViT(Whole):
    def __init__(self, config=TINY):
        super().__init__(config["image_size"], config["patch_size"], 3, *sizes(config))


class Keywords(Whole):
    """Called as `Keywords(**CONFIG)`."""

    def __init__(self, image_size, patch_size, hidden_dim, mlp_dim, num_layers, num_heads, num_classes, learning_rate):
        super().__init__(image_size, patch_size, 3, hidden_dim, num_layers, num_heads, mlp_dim, num_classes)


class Read(Whole):
    """Takes no arguments."""

    def __init__(self):
        super().__init__(CONFIG["image_size"], CONFIG["patch_size"], 3, *sizes(CONFIG))
