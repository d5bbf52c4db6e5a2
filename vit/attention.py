"""Where a ViT looks: its attention weights, and what becomes of them through all blocks.

`python -m vit.attention IMAGE` draws, for each block, how much the class token attends to each patch, the mean of all
heads, and last the rollout.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from vit.model import ViT

PROG = "python -m vit.attention"

_SIDE, _GAP = 224, 8  # of a picture, and between two, in pixels


@torch.no_grad()
def attention_weights(model: ViT, images: torch.Tensor) -> torch.Tensor:
    """Returns the attention weights of all blocks: (L, B, H, N+1, N+1), each row over the keys with the sum 1.

    Args:
        model: in any mode; it is run in eval mode, and left as it was.
        images: (B, C, H, W).

    Raises:
        ValueError: its blocks keep their attention to themselves, as those of `FastViT` do.
    """
    found: list[torch.Tensor] = []

    def note(attention: nn.MultiheadAttention, arguments: tuple[torch.Tensor, ...], _: object) -> None:
        query, key, value = arguments
        # forward itself, so that no hook is called again
        _, weights = attention.forward(query, key, value, need_weights=True, average_attn_weights=False)
        assert weights is not None
        found.append(weights)

    was_training = model.training
    attentions = [module for module in model.modules() if isinstance(module, nn.MultiheadAttention)]
    handles = [attention.register_forward_hook(note) for attention in attentions]
    try:
        model.eval()(images)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError(f"{type(model).__name__} shows no attention weights; give the vit.ViT of the same weights")
    return torch.stack(found)


def rollout(weights: torch.Tensor) -> torch.Tensor:
    """Follows attention through all blocks, the residual streams counted as half of each: (B, N+1, N+1).

    Row i says from which tokens of the first block's input token i has come. From Abnar and Zuidema, "Quantifying
    Attention Flow in Transformers" (arXiv 2005.00928), with the mean of all heads.

    Args:
        weights: (L, B, H, N+1, N+1), as `attention_weights` returns them.
    """
    mean = weights.mean(2)
    with_stream = (mean + torch.eye(mean.shape[-1]).to(mean)) / 2
    followed: torch.Tensor = functools.reduce(lambda below, block: block @ below, with_stream)
    return followed


def on_patches(tokens: torch.Tensor) -> torch.Tensor:
    """Returns what the class token has of each patch as maps, brightest 1: (..., N+1, N+1) to (..., h, w)."""
    patches = tokens[..., 0, 1:] / tokens[..., 0, 1:].amax(-1, keepdim=True)
    maps: torch.Tensor = rearrange(patches, "... (h w) -> ... h w", h=math.isqrt(patches.shape[-1]))
    return maps


def drawn(picture: Image, maps: torch.Tensor) -> Image:
    """Returns a picture and, beside it, itself under each of some maps: bright where these are.

    Args:
        picture: of any size; it is cut square.
        maps: (K, h, w), between 0 and 1.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415

    square = ImageOps.fit(picture.convert("RGB"), (_SIDE, _SIDE))
    dark = Image.new("RGB", square.size)
    masks = [
        Image.fromarray((one * 255).byte().cpu().numpy()).resize(square.size, Image.Resampling.BICUBIC) for one in maps
    ]
    shown = [square, *(Image.composite(square, dark, mask) for mask in masks)]
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    sheet = Image.new("RGB", (columns * (_SIDE + _GAP) - _GAP, rows * (_SIDE + _GAP) - _GAP), "white")
    for number, one in enumerate(shown):
        row, column = divmod(number, columns)
        sheet.paste(one, (column * (_SIDE + _GAP), row * (_SIDE + _GAP)))
    return sheet


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the attention of a published ViT on a picture."""
    parser = argparse.ArgumentParser(prog=PROG, description="Draws where a ViT looks: every block, and all together.")
    parser.add_argument("image", type=Path, help="a picture")
    parser.add_argument("--name", default="vit_b_16", help="one of vit.PRESETS (default: vit_b_16)")
    parser.add_argument(
        "--weights", default="official", help="torchvision's, one of its enum's, or a file (default: official)"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("attention.png"), help="(default: attention.png)")
    options = parser.parse_args(arguments)

    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    from vit.weights import load  # noqa: PLC0415

    try:
        picture = Image.open(options.image).convert("RGB")
        model, transforms, _ = load(options.name, options.weights)
        weights = attention_weights(model, transforms(picture)[None])
        maps = [on_patches(block.mean(0)) for block in weights[:, 0]]
        drawn(picture, torch.stack([*maps, on_patches(rollout(weights)[0])])).save(options.output)
    except (OSError, ValueError, UnidentifiedImageError) as error:
        print(f"{PROG}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(f"{options.output}: the picture, {len(maps)} blocks, and the rollout")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
