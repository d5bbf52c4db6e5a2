"""What a module says of its sizes: by its attributes, its first convolution and its table of positions.

Nothing is run here. What a module says may be untrue, so that whoever asks has to try it.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.models.state import REGISTRIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Pair = tuple[int, int]

# what implementations call the settings that a module may say
_NAMES = {
    "image_size": ("image_size", "img_size", "input_size", "img_dim", "image_dim", "resolution"),
    "patch_size": ("patch_size", "patch_dim", "patch"),
    "num_layers": ("num_layers", "n_layers", "depth", "num_blocks", "n_blocks", "num_hidden_layers", "layers"),
    "num_heads": ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "nheads", "heads"),
    "hidden_dim": ("embed_dim", "dim", "d_model", "hidden_size", "emb_dim", "embedding_dim", "emb_size", "model_dim"),
    "mlp_dim": ("mlp_dim", "intermediate_size", "mlp_size", "mlp_hidden_dim", "ffn_dim", "dim_feedforward", "d_ff"),
    "num_classes": ("num_classes", "n_classes", "classes", "num_labels", "out_dim"),
    "in_channels": ("in_channels", "channels", "in_chans", "num_channels", "n_channels", "in_ch"),
    "dropout": ("dropout", "drop_rate", "dropout_rate", "hidden_dropout_prob", "p_dropout"),
    "attention_dropout": (
        "attention_dropout", "attn_dropout", "attn_drop_rate", "attention_dropout_rate", "attention_probs_dropout_prob",
    ),
}  # fmt: skip

_HEIGHT_AND_WIDTH = (
    ("image_height", "image_width"),
    ("img_height", "img_width"),
    ("img_h", "img_w"),
    ("height", "width"),
)

# pixels of images that many models take, tried where a model says nothing
_USUAL = (224, 384, 256, 512, 518, 336, 448, 192, 160, 128, 112, 96, 80, 64, 56, 48, 40, 36, 32, 28, 24, 16)
_USUAL_CHANNELS = (3, 1, 4, 2)

_MOST_TOKENS = 16  # that stand beside the patches: class token, distillation token, registers
_MOST_PATCHES = 32  # in a row of a grid that is tried


@dataclass(frozen=True)
class _Cut:
    """How images are cut into patches: a window of `kernel` pixels moves by `stride` pixels."""

    channels: int
    kernel: Pair
    stride: Pair
    width: int | None = None  # features of a patch, where known

    def image(self, grid: Pair) -> Pair:
        """Returns height and width of the image that has so many patches."""
        height, width = ((n - 1) * s + k for n, s, k in zip(grid, self.stride, self.kernel, strict=True))
        return height, width


def possible_images(module: nn.Module) -> Iterator[tuple[int, int, int]]:
    """Yields channels, height and width of images that `module` may take, in pixels, the likeliest first.

    First the sizes that it says, then those of which its table of positions has a row for every patch, then some that
    are usual, all of them multiples of its patch.
    """
    yield from dict.fromkeys(_possible_images(module))


def _possible_images(module: nn.Module) -> Iterator[tuple[int, int, int]]:
    cuts = list(_cuts(module))
    channels = dict.fromkeys([*said_numbers(module, "in_channels"), *(cut.channels for cut in cuts), *_USUAL_CHANNELS])
    for size in said_sizes(module):
        yield from ((n, *size) for n in channels)
    grids = list(_grids(module, {cut.width for cut in cuts}))
    yield from ((cut.channels, *cut.image(grid)) for grid in grids for cut in cuts)
    for cut in cuts:
        yield from ((cut.channels, n, n) for n in _USUAL if not any(n % stride for stride in cut.stride))
        yield from ((cut.channels, *cut.image((n, n))) for n in range(1, _MOST_PATCHES + 1))
    if not cuts:
        yield from ((n, size, size) for n in channels for size in _USUAL)


def said_sizes(module: nn.Module) -> Iterator[Pair]:
    """Yields the image sizes that are among the attributes of `module`, as height and width in pixels."""
    yield from filter(None, map(_pair, _values(module, _NAMES["image_size"])))
    for names in _HEIGHT_AND_WIDTH:
        yield from filter(None, map(_pair, zip(*(_values(module, [name]) for name in names), strict=False)))


def said_image(module: nn.Module) -> int | None:
    """Returns height and width in pixels of the square images that are the first among the attributes of `module`."""
    height, width = next(said_sizes(module), (0, 1))
    return height if height == width else None


def said_patch(module: nn.Module) -> Pair | None:
    """Returns height and width of a patch in pixels, if they are among the attributes of `module`."""
    return next(filter(None, map(_pair, _values(module, _NAMES["patch_size"]))), None)


def said_rate(module: nn.Module, setting: str) -> float | None:
    """Returns the rate of a kind of dropout, if it is among the module's own attributes or its configuration's."""
    values = (_value(owner, name) for owner in _owners(module, inside=False) for name in _NAMES[setting])
    rates = (value.p if isinstance(value, nn.Dropout) else value for value in values)
    return next((float(rate) for rate in rates if isinstance(rate, (int, float)) and 0 <= rate < 1), None)


def said_numbers(module: nn.Module, setting: str) -> Iterator[int]:
    """Yields the numbers that a module, those inside it and their configurations have for a setting."""
    yield from (value for value in _values(module, _NAMES[setting]) if _is_size(value))


def _cuts(module: nn.Module) -> Iterator[_Cut]:
    """Yields the ways in which a module may cut its images into patches, the likeliest first."""
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    said = said_patch(module)
    if said and convolutions:
        yield _Cut(convolutions[0].in_channels, said, said, convolutions[0].out_channels)
    stride = (1, 1)
    for layer in convolutions[:4]:  # one after the other, their strides multiply
        stride = stride[0] * int(layer.stride[0]), stride[1] * int(layer.stride[1])
        kernel = stride if layer.kernel_size == layer.stride or stride != layer.stride else layer.kernel_size
        yield _Cut(convolutions[0].in_channels, (kernel[0], kernel[1]), stride, layer.out_channels)
    shapes = [tuple(parameter.shape) for parameter in module.parameters()]
    for shape in shapes:
        if len(shape) == 4 and shape[0] > 1:
            yield _Cut(shape[1], shape[2:], shape[2:], shape[0])
    for shape in [shape for shape in shapes if len(shape) == 2][:3]:
        for width, features in (shape, shape[::-1]):
            yield from _linear_cuts(width, features, said)


def _linear_cuts(width: int, features: int, said: Pair | None) -> Iterator[_Cut]:
    """Yields the patches of `features` pixels and channels together."""
    if said:
        if features % math.prod(said) == 0:
            yield _Cut(features // math.prod(said), said, said, width)
        return
    for channels in _USUAL_CHANNELS:
        side = math.isqrt(features // channels)
        if side and channels * side**2 == features:
            yield _Cut(channels, (side, side), (side, side), width)


def _grids(module: nn.Module, widths: set[int | None]) -> Iterator[Pair]:
    """Yields the numbers of patches, in rows and columns, that the module's tables of positions have room for."""
    yield from filter(None, map(_pair, _values(module, ["grid_size"])))
    shapes = [[n for n in shape if n != 1] for shape in _table_shapes(module)]
    yield from ((s[0], s[1]) if s[2] in widths else (s[1], s[2]) for s in shapes if len(s) == 3)
    tables = sorted((s for s in shapes if len(s) == 2), key=lambda s: not widths & {*s})
    rows = dict.fromkeys(s[1] if s[0] in widths and s[1] not in widths else s[0] for s in tables)
    counts = [*((n, 0) for n in _values(module, ["num_patches"]) if _is_size(n))]
    counts += [(n, extra) for n in rows for extra in (1, 0, *range(2, _MOST_TOKENS + 1)) if extra < n]
    for n, extra in counts:
        side = math.isqrt(n - extra)
        if side**2 == n - extra:
            yield side, side
    yield from itertools.product([n for n in rows if n <= _MOST_PATCHES], repeat=2)  # a table of rows, one of columns
    for n, extra in counts:
        for side in range(math.isqrt(n - extra), 0, -1):
            if (n - extra) % side == 0:
                yield side, (n - extra) // side
                yield (n - extra) // side, side


_NO_TABLES = (nn.Linear, nn.MultiheadAttention, nn.modules.conv._ConvNd)  # noqa: SLF001  (a convolution of any kind)


def _table_shapes(module: nn.Module) -> Iterator[tuple[int, ...]]:
    for layer in module.modules():
        if not isinstance(layer, _NO_TABLES):
            own = {key: value for key, value in vars(layer).items() if key not in REGISTRIES}
            held = (*layer._parameters.values(), *layer._buffers.values(), *own.values())  # noqa: SLF001
            yield from (tuple(value.shape) for value in held if isinstance(value, torch.Tensor))


# packages whose objects hold no settings
_NO_CONFIGURATIONS = ("builtins", "torch", "collections", "functools", "numpy")


def _values(module: nn.Module, names: Iterable[str]) -> Iterator[Any]:
    """Yields the attributes of a module, of those inside it and of their configurations that go by one of `names`."""
    names = list(names)
    for owner in _owners(module):
        is_torchs = type(owner).__module__.startswith("torch.nn.")  # whose `dim` is an axis, as a Softmax has one
        own = [name for name in names if name != "dim" or not is_torchs]
        values = (_value(owner, key) for name in own for key in (name, f"_{name}"))
        yield from (value for value in values if value is not None)


def _owners(module: nn.Module, *, inside: bool = True) -> Iterator[Any]:
    """Yields a module and those inside it, then the objects and dictionaries that are among their attributes."""
    layers = [*module.modules()] if inside else [module]
    yield from layers
    for layer in layers:
        for key, value in vars(layer).items():
            package = type(value).__module__.partition(".")[0]
            if not key.startswith("_") and (isinstance(value, dict) or package not in _NO_CONFIGURATIONS):
                yield value


def _value(owner: Any, name: str) -> Any:
    if isinstance(owner, dict):
        return owner.get(name)
    with contextlib.suppress(Exception):  # a property may do anything
        return getattr(owner, name, None)
    return None


def _pair(value: Any) -> Pair | None:
    """Reads a size as height and width: one number, two, or a number of channels and two."""
    if _is_size(value):
        return value, value
    if isinstance(value, (tuple, list)) and len(value) in (2, 3) and all(map(_is_size, value)):
        return value[-2], value[-1]
    return None


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
