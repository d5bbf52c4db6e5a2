"""The sizes that a candidate has, whatever the reference's are."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from parity.errors import ParityError
from parity.mapping.images import fitting_batch, settings_of, shape_taken, takes
from parity.models import build_reference, said_image, shown_sizes, state_shapes, tensors_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

_SIZES = ("num_layers", "hidden_dim", "mlp_dim", "num_classes", "patch_size", "num_heads")


def own_sizes(module: nn.Module, config: Mapping[str, Any]) -> dict[str, int]:
    """Returns the settings of torchvision's ViT that a candidate has otherwise, as far as they are sure.

    A size counts if the tensors' shapes and the candidate's run don't contradict each other about it, and if a
    reference of these sizes has more nearly as many values as the candidate.

    Args:
        module: the candidate, with or without values.
        config: the reference's configuration; image and patch sizes in pixels.

    Returns:
        By the reference's names.
    """
    shown, side = shown_sizes(module), _side(module, config)
    if side == config["image_size"] and all(shown.get(setting) == config[setting] for setting in _SIZES):
        return {}
    pixels = side or config["image_size"]
    seen = settings_of(module, (3, pixels, pixels), trusting=False)
    if isinstance(seen.get("patch_size"), int) and pixels % seen["patch_size"]:
        seen.pop("patch_size")  # an attribute means something else by that name
    if "num_classes" not in shown:  # of a model without a head its features are no classes
        seen.pop("num_classes", None)
    if "num_heads" not in shown and seen.get("hidden_dim") == config["hidden_dim"]:  # a run may show something else
        seen.pop("num_heads", None)
    other = {
        setting: number
        for setting, number in {**seen, **shown}.items()
        if setting in _SIZES
        and isinstance(number, int)  # patches may be no squares
        and seen.get(setting, number) == number == shown.get(setting, number) != config[setting]
    }
    image = {} if side in (None, config["image_size"]) else {"image_size": side}
    return {**_if_nearer(module, {**config, **image}, other), **image}


def inner_width(module: nn.Module, config: Mapping[str, Any]) -> int | None:
    """Returns how many features query, key or value have over all heads, if these are others than a token has.

    Args:
        module: the candidate, with or without values.
        config: the reference's configuration; empty where nothing is known of it.
    """
    width, blocks = config.get("hidden_dim"), config.get("num_layers", 0)
    matrices = Counter(
        next(size for size in shape if size != width)
        for shape in state_shapes(module).values()
        if len(shape) == 2 and width in shape and shape != (width, width)
    )
    wanted = [inner for inner, count in matrices.items() if inner != config.get("mlp_dim") and count >= 4 * blocks]
    wanted += [inner for inner, count in matrices.items() if min(count, matrices[3 * inner]) >= blocks]
    return wanted[0] if blocks and len(wanted) == 1 else None


def _side(module: nn.Module, config: Mapping[str, Any]) -> int | None:
    """Returns height and width in pixels of the square images in three colours that a candidate is for, if known."""
    side: int = config["image_size"]
    said = said_image(module)
    if said and said != side and shown_sizes(module).get("image_size") == said and _takes(module, said):
        return said  # whatever it makes of images of another size
    if _takes(module, side):
        return side
    own = shape_taken(module)
    return own[1] if own and own[0] == 3 and own[1] == own[2] else None


def _takes(module: nn.Module, side: int) -> bool:
    images = torch.empty(2, 3, side, side)
    return takes(module, images) or fitting_batch(module, images) is not None


def _if_nearer(module: nn.Module, config: Mapping[str, Any], other: dict[str, int]) -> dict[str, int]:
    """Returns the other sizes, if a reference of these has more nearly as many values, or such tensors."""
    if other.keys() <= {"num_heads"}:  # which no tensor shows
        return other
    with_them, without = _built({**config, **other}), _built(config)
    if with_them is None:
        return {}
    if without is None:
        return other
    own, new, old = map(_sizes_of_tensors, (module, with_them, without))
    is_nearer = abs(_values_in(new) - _values_in(own)) < abs(_values_in(old) - _values_in(own))
    # an MLP in two halves has more tensors of half the size than one that is half as wide
    is_in_parts = any(own[size] > count > old[size] for size, count in new.items())
    return other if is_nearer or (_apart(new, own) < _apart(old, own) and not is_in_parts) else {}


def _built(config: Mapping[str, Any]) -> nn.Module | None:
    with contextlib.suppress(ParityError):
        return build_reference(dict(config))
    return None


def _sizes_of_tensors(module: nn.Module) -> Counter[int]:
    return Counter(tensor.numel() for tensor in tensors_of(module).values())


def _values_in(sizes: Counter[int]) -> int:
    return sum(size * count for size, count in sizes.items())


def _apart(one: Counter[int], other: Counter[int]) -> int:
    """Returns how many values are in tensors of sizes that the other model has not, or not so often."""
    return sum(size * abs(one[size] - other[size]) for size in one.keys() | other.keys())
