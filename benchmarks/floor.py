"""The cost of a check without the check: builds both models and runs the forward passes that `parity check` runs.

    python benchmarks/floor.py [NAME]

Nothing is compared and nothing is watched, so this is the floor that the wall time of `parity check` is held against.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torchvision.models import get_model

from vit import PRESETS, ViT


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "vit_b_16"
    images = torch.randn(3, 3, 224, 224)
    models: list[nn.Module] = [
        get_model(name, dropout=0.13, attention_dropout=0.21),
        ViT(**PRESETS[name]._asdict(), dropout=0.13, attention_dropout=0.21),
    ]
    for model in models:
        model.eval()
        with torch.no_grad():
            model(images)  # in which order are modules called?
            model(images)  # does watching them change the result?
            for count in (1, 2, 3):  # and on other images?
                model(images[:count])
        for dtype in (torch.float32, torch.float64):
            model.to(dtype)
            batch = images.to(dtype)
            with torch.no_grad():
                model(batch)
                torch.backends.mha.set_fastpath_enabled(False)
                model(batch)
                torch.backends.mha.set_fastpath_enabled(True)
            model(batch)
            model.train()(batch)
            model.eval()


if __name__ == "__main__":
    main()
