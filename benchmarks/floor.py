"""The cost of a check without the check: builds both models and runs the forward passes that `parity check` runs.

    python -m benchmarks.floor [NAME [MODULE:CALLABLE]]

Without a callable the candidate is our own ViT, whose bits are the reference's. Where the bits differ, as another
implementation's do, a check also runs the reference in float64 beside every other dtype, both models once more in
float64 with the reference's tensors handed over, and in float64 on the other images.

Nothing is compared and nothing is watched, so this is the floor that the wall time of `parity check` is held against.
"""

from __future__ import annotations

import importlib
import sys

import torch
from torch import nn
from torchvision.models import get_model

from vit import PRESETS, ViT

FLOAT32, FLOAT64 = torch.float32, torch.float64


def main() -> None:
    name, spec = (*sys.argv[1:], "vit_b_16")[0], (*sys.argv[2:], "")[0]
    images = torch.randn(3, 3, 224, 224)
    reference = get_model(name, dropout=0.13, attention_dropout=0.21)
    if spec:
        module, _, attribute = spec.partition(":")
        candidate: nn.Module = getattr(importlib.import_module(module), attribute)()
    else:
        candidate = ViT(**PRESETS[name]._asdict(), dropout=0.13, attention_dropout=0.21)
    has_other_bits = bool(spec)
    run_once(reference, candidate, images, has_other_bits=has_other_bits)
    for model in (reference, candidate):
        for dtype in (FLOAT32, FLOAT64):
            run_modes(model, images, dtype)
    if has_other_bits:
        run_modes(reference, images, FLOAT64)  # the truth beside float32
        for model in (reference, candidate):
            with torch.no_grad():
                model(images.double())  # handed the reference's tensors


def run_once(reference: nn.Module, candidate: nn.Module, images: torch.Tensor, *, has_other_bits: bool) -> None:
    """Runs what is run once, whatever the number of checks."""
    for model in (reference, candidate):
        model.eval()
        with torch.no_grad():
            model(images)  # in which order are modules called?
            model(images)  # does watching them change the result?
            for dtype in (FLOAT32, FLOAT64) if has_other_bits else (FLOAT32,):
                model.to(dtype)
                for count in (1, 2, 3):  # and on other images?
                    model(images[:count].to(dtype))


def run_modes(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> None:
    """Runs a model in every mode of a check."""
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
