"""The cost of a check without the check: builds both models and runs the passes that `parity check` runs.

    python -m benchmarks.floor [NAME] [--modes LIST] [--backward] [--candidate MODULE:CALLABLE]

Our own ViT, whose bits are the reference's, holds the reference's tensors. Where the bits differ, as another
implementation's do, a check also runs the reference in float64 beside every other dtype, both models once more in
float64 with the reference's tensors handed over, and in float64 on one batch of other images.

Nothing is compared and nothing is watched, so this is the floor that the cost of `parity check` is held against.
"""

from __future__ import annotations

import argparse
import copy
import importlib
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchvision.models import VisionTransformer, get_model

from vit import ViT

if TYPE_CHECKING:
    from collections.abc import Collection

FLOAT32, FLOAT64 = torch.float32, torch.float64
MODES = ("eval", "eval-no-fastpath", "eval-grad", "train")
SAME = {"eval-no-fastpath", "eval-grad"}  # in which both models do the same operations


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="vit_b_16")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--candidate")
    options = parser.parse_args()
    images = torch.randn(options.batch, 3, 224, 224)
    reference = with_head(get_model(options.name, dropout=0.13, attention_dropout=0.21))
    candidate = sharing(reference) if options.candidate is None else named(options.candidate)
    has_other_bits = options.candidate is not None
    modes = ("eval-grad", "train") if options.backward else options.modes.split(",")
    run_forward(reference, candidate, images, modes, has_other_bits=has_other_bits)
    if has_other_bits:
        run_modes(reference, images, FLOAT64, modes)  # the truth beside float32
        for model in (reference, candidate):
            with torch.no_grad():
                held_in(model, FLOAT64)(images.double())  # handed the reference's tensors
    if options.backward:
        for _ in ("projection", "cross-entropy"):
            for model in (reference, candidate):
                for dtype in (FLOAT64, FLOAT32):
                    run_backward(model, images[: few(model)], dtype)


def run(configuration: dict[str, Any], modes: Collection[str]) -> None:
    """Builds torchvision's ViT and ours and runs the passes of a check in these modes."""
    reference = with_head(VisionTransformer(**configuration))
    images = torch.randn(3, 3, reference.image_size, reference.image_size)
    run_forward(reference, sharing(reference), images, modes, has_other_bits=False)


def with_head(reference: VisionTransformer) -> VisionTransformer:
    """Gives torchvision's fresh ViT a head that is not zero."""
    nn.init.normal_(reference.heads.head.weight, std=0.02)
    return reference


def named(spec: str) -> nn.Module:
    """Builds what `MODULE:CALLABLE` stands for."""
    module, _, attribute = spec.partition(":")
    model: nn.Module = getattr(importlib.import_module(module), attribute)()
    return model


def sharing(reference: VisionTransformer) -> nn.Module:
    """Builds our ViT around torchvision's tensors; but for the first two, both have them in one order."""
    with torch.device("meta"):
        model = ViT(
            img_size=reference.image_size,
            patch_size=reference.patch_size,
            embed_dim=reference.hidden_dim,
            hidden_dim=reference.mlp_dim,
            num_heads=reference.encoder.layers[0].num_heads,
            num_layers=len(reference.encoder.layers),
            num_classes=reference.num_classes,
            dropout=reference.dropout,
            attention_dropout=reference.attention_dropout,
            representation_size=reference.representation_size,
        )
    theirs = dict(reference.state_dict())
    first = [theirs.pop("class_token"), theirs.pop("encoder.pos_embedding")]
    model.load_state_dict(dict(zip(model.state_dict(), [*first, *theirs.values()], strict=True)), assign=True)
    return model


def held_in(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Returns the model itself in float32, and a copy in float64, which is let go after a pass."""
    if dtype == FLOAT32:
        return model
    tensors = {id(t): nn.Parameter(t.detach().to(dtype)) for t in model.parameters()}
    return copy.deepcopy(model, tensors)


def run_forward(
    reference: nn.Module, candidate: nn.Module, images: torch.Tensor, modes: Collection[str], *, has_other_bits: bool
) -> None:
    """Runs both models in both dtypes, and what a check runs once."""
    run_once(reference, candidate, images, modes, has_other_bits=has_other_bits)
    for model in (reference, candidate):
        for dtype in (FLOAT32, FLOAT64):
            run_modes(model, images, dtype, modes)


def run_once(
    reference: nn.Module, candidate: nn.Module, images: torch.Tensor, modes: Collection[str], *, has_other_bits: bool
) -> None:
    """Runs what is run once, whatever the number of checks."""
    for model in (reference, candidate):
        model.eval()
        with torch.no_grad():
            model(images)  # in which order are modules called?
            model(images)  # does watching them change the result?
            model(images[:1])  # where does it look?
            for count in (len(images), 2, 2, 5, *[1] * 5):  # and on other images, and with weights of large values?
                model(images[torch.arange(count) % len(images)])
            if has_other_bits:
                held_in(model, FLOAT64)(images.double())
            if SAME.issubset(modes):
                model(images)  # which operations are done in each of them?
                model(images)
    with torch.no_grad():
        candidate(images)  # is it the same at its first call?
        candidate.train()(images)  # does it set a seed?
        if "train" in modes:
            candidate(images)  # is it the same without gradients?
        candidate.eval()
    with torch.inference_mode():
        candidate(images[:1])


def run_modes(model: nn.Module, images: torch.Tensor, dtype: torch.dtype, modes: Collection[str]) -> None:
    """Runs a model in the modes of a check."""
    held, batch = held_in(model, dtype), images.to(dtype)
    with torch.no_grad():
        if "eval" in modes:
            held(batch)
        if "eval-no-fastpath" in modes:
            torch.backends.mha.set_fastpath_enabled(False)
            held(batch)
            torch.backends.mha.set_fastpath_enabled(True)
    if "eval-grad" in modes and not SAME.issubset(modes):
        held(batch)
    if "train" in modes:
        held.train()(batch)
        held.eval()


def few(model: nn.Module) -> int:
    """Returns for how many images a check compares gradients: as `parity.training.backward.few_images` does."""
    return 1 if 8 * sum(p.numel() for p in model.parameters()) > 4 * 2**30 else 2


def run_backward(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> None:
    """Computes all gradients of one loss and lets them go."""
    held = held_in(model, dtype)
    held(images.to(dtype).requires_grad_()).square().sum().backward()
    held.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
