"""Images that random ones are unlike, so that a branch which depends on values is taken as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from parity.models import uniform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# the range of a normalised picture's channels, from black to white: (0 - mean) / std to (1 - mean) / std of ImageNet
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# what a number that is a multiple of its inverse adds up to is the same in any order
_STEPS = 8

# how many numbers are made large at least, where there are as many
_MOST_LARGE = 10**8


def unlike_random(shown: torch.Tensor, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields what a batch shows, in words, and the batch, in float32.

    The first batch has the checks' own shape and begins with their first image, which is not all that a model may know
    a batch by; the next two have the same images, whose sum is the same to the bit, in two orders; then there are more
    of them. These differ by their layout in memory. The batches of one image follow each other, so that a model that
    remembers the one before gives itself away, and so that what depends on a whole batch is seen. The first of them
    comes back, in a copy.

    Args:
        shown: (B, C, H, W), the images that the checks have been made with.
        seed: of what is random in others.
    """
    shape = tuple(shown.shape)
    channels = shape[1]
    black, white = _levels(channels)
    single, half = (1, *shape[1:]), shape[-1] // 2

    def random(what: str, size: tuple[int, ...]) -> torch.Tensor:
        return uniform(f"{seed}/{what}", size)

    others = random("other images", shape)
    yield "other images", torch.cat([shown[:1].to(others), others[1:]]) if len(others) > 1 else others
    unit = random("normalised", single) / 12**0.5 + 0.5
    ranging = (_STEPS * (black + (white - black) * unit.clamp(0, 1))).round() / _STEPS
    pair = torch.cat([ranging, torch.zeros(single)])
    said = "a picture over the whole range of normalised ones and one of zeros"
    yield said, pair.contiguous(memory_format=torch.channels_last)
    yield f"{said}, the other way round", pair.flip(0)
    large = 10 * random("large", single)
    small = random("small", single) * torch.logspace(-1, -6, shape[-2])[:, None]
    spot = torch.zeros(single)
    spot[..., shape[-2] // 3, shape[-1] // 3] = white.flatten()
    of_all_sorts = torch.cat([large, small, spot, random("others", (2, *shape[1:]))])
    yield (
        "values ten times as large, others a tenth to a millionth as large, a bright pixel, and two other images",
        of_all_sorts.mT.contiguous().mT,
    )
    dark = black.expand(single).clone()
    yield "a black picture", dark
    yield "a white picture", white.expand(single).clone()
    blank = (random("half blank", (1, 1, *shape[2:])) / 12**0.5 + 0.5).clamp(0, 1).expand(single).clone()
    blank[..., half:] = 0
    yield "a picture of equal channels from 0 to 1 whose right half is zeros", blank
    yield "a black picture once more", dark.clone()


def _levels(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns black and white of normalised pictures, (1, C, 1, 1)."""
    mean, std = (
        torch.tensor([numbers[n % 3] for n in range(channels)])[None, :, None, None] for numbers in (_MEAN, _STD)
    )
    return (0 - mean) / std, (1 - mean) / std


def with_large_values(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns matrices that make activations large and attention sharp, as trained ones do.

    They are three times as large, and every seventh row, an outlier, twelve times. Of a large model it is only the
    first ones, so that it needs little memory.
    """
    large: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if tensor.dim() > 1 and tensor.is_floating_point() and sum(t.numel() for t in large.values()) < _MOST_LARGE:
            large[name] = 3 * tensor
            large[name][::7] *= 4
    return large
