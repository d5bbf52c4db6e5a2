"""A dictionary whose keys are attributes too, and functions that return one for each architecture."""

from common import Whole


class ConfigDict(dict):
    def __getattr__(self, key):
        try:
            return self[key]
        except KeyError as error:
            raise AttributeError(key) from error

    __setattr__ = dict.__setitem__


def get_b16_config():
    config = ConfigDict()
    config.patches = ConfigDict({"size": (16, 16)})
    config.hidden_size = 768
    config.transformer = ConfigDict()
    config.transformer.mlp_dim = 3072
    config.transformer.num_heads = 12
    config.transformer.num_layers = 12
    config.transformer.attention_dropout_rate = 0.0
    config.transformer.dropout_rate = 0.1
    config.classifier = "token"
    config.representation_size = None
    return config


def get_l16_config():
    config = get_b16_config()
    config.hidden_size = 1024
    config.transformer.mlp_dim = 4096
    config.transformer.num_heads = 16
    config.transformer.num_layers = 24
    return config


CONFIGS = {"ViT-B_16": get_b16_config(), "ViT-L_16": get_l16_config()}


class VisionTransformer(Whole):
    def __init__(self, config, img_size=224, num_classes=21843, zero_head=False, vis=False):
        rate = config.transformer["attention_dropout_rate"]
        super().__init__(
            img_size, config.patches["size"], 3, config.hidden_size, config.transformer["num_layers"],
            config.transformer["num_heads"], config.transformer["mlp_dim"], num_classes,
            config.transformer["dropout_rate"], attention_rate=rate,
        )  # fmt: skip
        assert config.classifier == "token"
