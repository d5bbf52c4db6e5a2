"""Images that random ones are unlike, so that a branch which depends on values is taken as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from parity.models import uniform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# the range of a normalised picture's channels, from black to white: (0 - mean) / std to (1 - mean) / std of ImageNet
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# how many numbers are made large at least, where there are as many
_MOST_LARGE = 10**8


def unlike_random(shape: tuple[int, ...], seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields what a batch shows, in words, and the batch, in float32.

    The first batch has the checks' own shape, the third more images; these and the second differ by their layout in
    memory. The batches of one image follow each other, so that a model that remembers the one before gives itself away,
    and so that what depends on a whole batch is seen. The first of them comes back, in a copy.

    Args:
        shape: (B, C, H, W) of the batch that the checks have been made with.
        seed: of what is random in them.
    """
    channels = shape[1]
    black, white = _levels(channels)
    single, half = (1, *shape[1:]), shape[-1] // 2

    def random(what: str, size: tuple[int, ...]) -> torch.Tensor:
        return uniform(f"{seed}/{what}", size)

    yield "other images", random("other images", shape)
    unit = random("normalised", single) / 12**0.5 + 0.5
    ranging = torch.cat([black + (white - black) * unit.clamp(0, 1), torch.zeros(single)])
    yield (
        "a picture over the whole range of normalised ones and one of zeros",
        ranging.contiguous(memory_format=torch.channels_last),
    )
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
