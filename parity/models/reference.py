"""The reference: the model taken as right, one of torchvision's Vision Transformers by name and configuration.

It is built on the meta device, so that no time goes into initial values that are overwritten at once.
Source: `torchvision/models/vision_transformer.py`.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from typing import TYPE_CHECKING, Any

from torch import nn
from torchvision.models import get_model, get_model_builder, list_models, vision_transformer

from parity.errors import ParityError, described, listed
from parity.models.state import without_initial_values
from parity.models.weight_maps.entries import split
from parity.room import require_room

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from parity.models.weight_maps.weight_map import WeightMap

# Rates that make every dropout site visible in train mode and leave most of the signal alone. They are unequal, and
# nobody's default, so that a rate that is hard-wired or goes to the wrong site shows.
CHECKED_DROPOUT = {"dropout": 0.13, "attention_dropout": 0.21}

_INTEGERS = (
    "image_size", "patch_size", "num_layers", "num_heads", "hidden_dim", "mlp_dim", "num_classes",
    "representation_size",
)  # fmt: skip
RATES = tuple(CHECKED_DROPOUT)


def reference_names() -> list[str]:
    """Returns the names of torchvision's Vision Transformers."""
    return [name for name in list_models() if get_model_builder(name).__module__ == vision_transformer.__name__]


def configuration(name: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Reads the configuration of `torchvision.models.<name>` off the model and applies `overrides`.

    Args:
        name: one of `names()`.
        overrides: arguments of torchvision's `VisionTransformer` to replace, such as `{"image_size": 384}`.

    Returns:
        Keyword arguments of `torchvision.models.VisionTransformer`; sizes in pixels, tokens and features.

    Raises:
        ParityError: an unknown name, an unknown key, or a value of the wrong type.
    """
    if name not in reference_names():
        raise ParityError(
            f"unknown reference {name!r}; torchvision has {listed(reference_names())}; another library's model goes by "
            "timm:NAME or transformers:CLASS, one of yours by file.py:CALLABLE"
        )
    config = {**_published(name)}
    for key, value in (overrides or {}).items():
        _check_override(key, value, config)
        config[key] = value
    return config


@functools.cache
def _published(name: str) -> dict[str, Any]:
    with without_initial_values():
        return configuration_of(get_model(name))


def configuration_of(module: nn.Module) -> dict[str, Any]:
    """Reads the configuration off a built `VisionTransformer`; of any other module nothing is known.

    Returns:
        As `configuration`, or an empty dictionary.
    """
    if not isinstance(module, vision_transformer.VisionTransformer):
        return {}
    return {
        "image_size": module.image_size,
        "patch_size": module.patch_size,
        "num_layers": len(module.encoder.layers),
        "num_heads": module.encoder.layers[0].num_heads,
        "hidden_dim": module.hidden_dim,
        "mlp_dim": module.mlp_dim,
        "num_classes": module.num_classes,
        "representation_size": module.representation_size,
        "dropout": module.dropout,
        "attention_dropout": module.attention_dropout,
    }


def configuration_of_state(state: Mapping[str, torch.Tensor], overrides: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads the configuration of torchvision's `VisionTransformer` off tensors of its names.

    Args:
        state: tensors by name, behind a prefix or not, in the names of today or of the published files.
        overrides: settings that win, such as the number of heads, which no tensor shows.

    Returns:
        As `configuration`; None if these are no such names.

    Raises:
        ParityError: the width is none of torchvision's and no multiple of 64, so that nobody knows the number of heads.
    """
    position = next((name for name in state if name.endswith("encoder.pos_embedding")), None)
    prefix = (position or "").removesuffix("encoder.pos_embedding")
    kernel = state.get(f"{prefix}conv_proj.weight")
    blocks = {match[1] for name in state if (match := re.match(re.escape(prefix) + r"encoder\.layers\.(\w+)\.", name))}
    widened = [state[name] for name in state if re.search(r"encoder_layer_0\.mlp\.(0|linear_1)\.weight$", name)]
    head = state.get(f"{prefix}heads.head.weight")
    if position is None or kernel is None or head is None or not widened:
        return None
    hidden_dim, patch_size = kernel.shape[0], kernel.shape[-1]
    heads = {config["hidden_dim"]: config["num_heads"] for config in map(_published, reference_names())}
    num_heads = overrides.get("num_heads", heads.get(hidden_dim, hidden_dim // 64 if hidden_dim % 64 == 0 else None))
    if num_heads is None:
        raise ParityError(f"no tensor shows how many heads a model of width {hidden_dim} has; say --set num_heads=N")
    return {
        "image_size": math.isqrt(state[position].shape[1] - 1) * patch_size,
        "patch_size": patch_size,
        "num_layers": len(blocks),
        "num_heads": num_heads,
        "hidden_dim": hidden_dim,
        "mlp_dim": len(widened[0]),
        "num_classes": len(head),
        "representation_size": head.shape[1] if f"{prefix}heads.pre_logits.weight" in state else None,
        **overrides,
    }


def build_reference(config: dict[str, Any]) -> nn.Module:
    """Builds torchvision's `VisionTransformer` on the meta device: names and shapes, no values.

    Raises:
        ParityError: the configuration is one that torchvision refuses, or that no memory holds.
    """
    width, tokens = config["hidden_dim"], (config["image_size"] // (config["patch_size"] or 1)) ** 2
    numbers = config["num_layers"] * (4 * width + 2 * config["mlp_dim"]) * width
    numbers += width * (tokens + config["num_classes"] + 3 * config["patch_size"] ** 2)
    require_room(f"the reference of {numbers:,} parameters", 4 * numbers)
    try:
        with without_initial_values():
            model: nn.Module = vision_transformer.VisionTransformer(**config)
    except (AssertionError, ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise ParityError(
            f"torchvision refuses this configuration ({described(error)}); "
            f"change it with --set: {', '.join(f'{key}={value}' for key, value in config.items())}"
        ) from error
    return model


def build_reference_with_values(config: dict[str, Any]) -> nn.Module:
    """Builds torchvision's `VisionTransformer` with the initial values that it draws from torch's random state."""
    model: nn.Module = vision_transformer.VisionTransformer(**config)
    return model


def _check_override(key: str, value: object, config: dict[str, Any]) -> None:
    if key not in config:
        close = difflib.get_close_matches(key, config, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ParityError(f"--set has no key {key!r}; {hint}the keys are torchvision's: {', '.join(config)}")
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if key in _INTEGERS and not ((is_integer and value > 0) or (key == "representation_size" and value is None)):  # type: ignore[operator]
        raise ParityError(f"--set {key}={value!r}: expected a positive whole number")
    if key in RATES and not (isinstance(value, (int, float)) and 0 <= value < 1):
        raise ParityError(f"--set {key}={value!r}: expected a probability of at least 0 and below 1")


def unverifiable(module: nn.Module, found: WeightMap) -> tuple[str, ...]:
    """Returns the mapped tensors, or slices of them, that cannot change the output whatever they hold.

    A bias of the key adds the same number to all of a query's scores, and the softmax takes it away again.
    """
    left_out = {split(name)[0] for name in found.unmapped_reference}
    return tuple(
        f"{name}.in_proj_bias[{inner.embed_dim}:{2 * inner.embed_dim}]"
        for name, inner in module.named_modules()
        if isinstance(inner, nn.MultiheadAttention)
        and inner.in_proj_bias is not None
        and f"{name}.in_proj_bias" not in left_out
    )
