"""The sizes stand in a file beside the code."""

import json
from pathlib import Path

from common import Whole


class ViT(Whole):
    def __init__(self, config_path=Path(__file__).with_name("config_file.json")):
        config = json.loads(Path(config_path).read_text())
        super().__init__(
            config["image_size"], config["patch_size"], 3, config["hidden_size"], config["num_hidden_layers"],
            config["num_attention_heads"], config["intermediate_size"], config["num_labels"],
        )  # fmt: skip
