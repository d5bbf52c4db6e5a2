"""Entries for images and patches: what happens to the pixels on their way to the output of the patch projection."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange

from parity.explanation.bending import Kind
from parity.explanation.causes.variants import after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from parity.explanation.causes.variants import Activation

    Tensor = torch.Tensor

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# a table reads best with an entry's parts side by side
# fmt: off
def kinds(_: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for images and patches, the likeliest first."""
    for order in ("p q c", "q p c", "c q p", "p c q", "q c p"):
        yield Kind("patch-pixel-order", {"pixels": functools.partial(_pixels_in_order, order=order)},
                   f"the pixels of a patch in the order ({order})", "(c p q), as in the kernel",
                   "flatten a patch as the weights were: channels, rows, columns")
    yield Kind("patch-pixel-order",
               {"images": after(_rows_as_columns), "flatten": functools.partial(_on, change=_rows_as_columns)},
               "rows and columns of the patches' kernel exchanged", "as in the kernel",
               "don't transpose the kernel as you load it", at="conv_proj", elsewhere={"images": ""})
    yield Kind("image-transposed", {"images": after(_rows_as_columns)}, "rows and columns of the image exchanged",
               "as given", "images are (B, C, H, W)")
    for axis, words in ((-1, "left to right"), (-2, "upside down")):
        mirrored = functools.partial(torch.flip, dims=(axis,))
        yield Kind("patch-pixel-order", {"images": after(mirrored), "flatten": functools.partial(_on, change=mirrored)},
                   f"the patches' kernel mirrored {words}", "as in the kernel",
                   "don't mirror the kernel as you load it", at="conv_proj", elsewhere={"images": ""})
        yield Kind("image-mirrored", {"images": after(mirrored)}, f"the image mirrored {words}", "as given",
                   "leave that to the transforms")
    yield Kind("patch-channels", {"images": after(lambda images: images.flip(1))}, "the image's channels reversed",
               "RGB as given", "don't reverse the channels")
    yield Kind("patch-reshape", {"flatten": lambda _, x: x.reshape(len(x), -1, x.shape[1])},
               "the feature map (B, D, h, w) reshaped to (B, N, D)", "flattened and transposed",
               "x.flatten(2).transpose(1, 2)")
    yield Kind("patch-reshape",
               {"patches": lambda original, images, size: _reread(original(images, size).transpose(1, 2))},
               "unfolded patches (B, C P P, N) reshaped to (B, N, C P P)", "transposed",
               "F.unfold(...).transpose(1, 2)")
    yield Kind("patch-reshape", {"patches": lambda cut_, images, size: _unpermuted(images, size, cut_(images, size))},
               "unfolded patches (B, C, h, w, P, P) reshaped to (B, N, C P P)", "permuted first",
               "images.unfold(2, P, P).unfold(3, P, P).permute(0, 2, 3, 1, 4, 5)")
    yield Kind("patch-reshape", {"patches": lambda cut_, images, size: images.reshape(cut_(images, size).shape)},
               "the image reshaped to (B, N, C P P), which cuts no patches", "cut into patches",
               "F.unfold(images, P, stride=P).transpose(1, 2)")
    for words, change in _ORDERS.items():  # of the feature map, or of patches that are cut in that order
        for variants in ({"flatten": functools.partial(_on, change=change)}, {"as_map": after(change)}):
            yield Kind("patch-order", variants, f"patches {words}", "row by row", "x.flatten(2).transpose(1, 2)")
    yield Kind("patch-bias", {"projection": lambda original, x, weight, _: original(x, weight, None)},
               "no bias of the patch projection", "one", "nn.Conv2d(3, dim, P, stride=P, bias=True)")
    yield Kind("image-scale", {"images": lambda original, x: 2 * original(x) - 1}, "images taken as 2 x - 1",
               "as given", "leave that to the transforms")
    yield Kind("image-scale", {"images": after(_normalised)}, "images normalised inside the model", "as given",
               "leave that to the transforms")
    yield Kind("image-scale", {"images": lambda original, x, value: original(x) * value}, "images times {value}",
               "as given", "leave that to the transforms", start=(2.0, 1 / 255, 255.0, 0.5))


# fmt: on


def _pixels_in_order(original: Callable[..., Tensor], x: Tensor, size: int, *, order: str) -> Tensor:
    return rearrange(original(x, size), f"b n (c p q) -> b n ({order})", p=size, q=size)


def _rows_as_columns(x: Tensor) -> Tensor:
    return x.transpose(-2, -1)


def _on(original: Activation, x: Tensor, *, change: Activation) -> Tensor:
    return original(change(x))


def _back_and_forth(x: Tensor) -> Tensor:
    return torch.stack([row.flip(-1) if n % 2 else row for n, row in enumerate(x.unbind(2))], 2)


# of the feature map (B, D, h, w), what is then flattened row by row
_ORDERS: dict[str, Activation] = {
    "column by column": _rows_as_columns,
    "from the bottom row up": functools.partial(torch.flip, dims=(2,)),
    "from right to left in each row": functools.partial(torch.flip, dims=(3,)),
    "back to front": functools.partial(torch.flip, dims=(2, 3)),
    "row by row, every second row from right to left": _back_and_forth,
}


def _unpermuted(images: Tensor, size: int, like: Tensor) -> Tensor:
    return rearrange(images, "b c (h p) (w q) -> b (c h w p q)", p=size, q=size).reshape(like.shape)


def _reread(x: Tensor) -> Tensor:
    """(B, F, N) as (B, N, F), not transposed."""
    return x.reshape(len(x), x.shape[2], x.shape[1])


def _normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(numbers).to(images)[:, None, None] for numbers in _IMAGENET)
    return (images - mean) / std
