"""How an error is spread over a tensor: how large it is in its values, and in which tokens and features it sits.

Both are summaries of a fixed size, so that one can be kept of every layer. Knows tensors only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from parity.tracing.measuring import in_order

# the share of values whose errors are at most as large as each quantile of `Sizes`
LEVELS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)

# so many values of a tensor, evenly spread over it, stand for all of them
_SAMPLED = 4096

# rows and columns of a map at most, those of leading tokens left out
_SIDE = 16
_MOST_LEADING = 8

# a part of a map: nothing, or from less than all others in steps of a factor of the square root of two to the largest
LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SIGNS = torch.tensor([*f".{LETTERS}".encode()], dtype=torch.uint8)


@dataclass(frozen=True)
class Sizes:
    """How large the errors of some thousand values of a tensor are.

    Attributes:
        ulps: how many of them are 0, 1, 2 to 3, 4 to 7 ... units of the last place apart; empty where the two tensors
            are of different dtypes.
        reference: quantiles, at `LEVELS`, of the reference's distance from its own values in float64.
        candidate: the same of the candidate's distance from these.
    """

    ulps: tuple[int, ...]
    reference: tuple[float, ...]
    candidate: tuple[float, ...]


@dataclass(frozen=True)
class Places:
    """Where in a tensor its error sits: the root mean square over all images, part by part.

    A map is a text for each row and a letter for each part of it: Z where the error is largest, Y where it is the
    square root of two times smaller, and so on by way of A and 9 to 1; 0 for less, and a dot for no error at all.

    Attributes:
        rows: what a row of the map is, `token` or `image`.
        leading: so many of the first rows are one token each, such as the class token; the others may be several.
        largest: the error of the largest part.
        cells: rows by features.
        patches: the same error, patch by patch as they lie in the image; empty where the tensor has no patches.
    """

    rows: str
    leading: int
    largest: float
    cells: tuple[str, ...]
    patches: tuple[str, ...]


def sizes_of(reference: torch.Tensor, candidate: torch.Tensor, truth: torch.Tensor) -> Sizes:
    """Returns how large the errors of both tensors are.

    Args:
        reference: the reference's tensor, in the dtype under test; finite, like the others.
        candidate: the candidate's, of the same shape.
        truth: the reference's, in float64.
    """
    one, other, exact = (_sample(tensor) for tensor in (reference, candidate, truth))
    ulps: tuple[int, ...] = ()
    if one.dtype == other.dtype:
        apart = (in_order(one).double() - in_order(other).double()).abs()
        ulps = tuple(torch.bincount(torch.frexp(apart).exponent).tolist())
    return Sizes(ulps, *(_quantiles((tensor.double() - exact.double()).abs()) for tensor in (one, other)))


def places_of(reference: torch.Tensor, candidate: torch.Tensor, pixels: tuple[int, int]) -> Places | None:
    """Returns where in a tensor the candidate's values differ from the reference's; None where nothing can be told.

    Args:
        reference: (B, N, D), (B, D, h, w) of patches, or (B, D); what has more axes is taken as (B, D).
        candidate: of the same shape.
        pixels: height and width of the images.
    """
    difference = candidate.detach().double() - reference.detach().double()
    # a part of the largest, since squares overflow
    largest = float(torch.linalg.vector_norm(difference, math.inf)) if difference.ndim > 1 else math.nan
    if not math.isfinite(largest):
        return None
    squares = difference.div_(largest or 1).square_()
    if squares.ndim == 4:
        grid: tuple[int, int] | None = (squares.shape[2], squares.shape[3])
        squares = squares.flatten(2).transpose(1, 2)
    else:
        grid = grid_of(squares.shape[1], pixels) if squares.ndim == 3 else None
    rows = "token" if squares.ndim == 3 else "image"
    squares = squares.mean(0) if squares.ndim == 3 else squares.reshape(len(squares), -1)
    leading = len(squares) - math.prod(grid) if grid else 0
    columns = min(_SIDE, squares.shape[1])
    parts = torch.cat([pooled(squares[:leading], leading, columns),
                       pooled(squares[leading:], min(_SIDE, len(squares) - leading), columns)])  # fmt: skip
    of_patches = squares[leading:].mean(1).reshape(grid) if grid else torch.zeros(0, 0)
    if grid:
        of_patches = pooled(of_patches, *(min(_SIDE, side) for side in grid))
    return Places(rows, leading, _rounded(largest * float(parts.max()) ** 0.5), _letters(parts), _letters(of_patches))


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """Returns some values of a tensor, of all its features in turn."""
    step = max(1, tensor.numel() // _SAMPLED)
    while math.gcd(step, tensor.shape[-1]) > 1:
        step += 1
    return tensor.detach().reshape(-1)[::step].contiguous()


def _quantiles(values: torch.Tensor) -> tuple[float, ...]:
    levels = torch.tensor(LEVELS, dtype=values.dtype, device=values.device)
    return tuple(map(_rounded, torch.quantile(values, levels).tolist()))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def grid_of(tokens: int, pixels: tuple[int, int]) -> tuple[int, int] | None:
    """Returns rows and columns of the patches among so many tokens: they have the image's proportions."""
    height, width = pixels
    for leading in range(min(_MOST_LEADING, tokens - 1) + 1):
        rows = math.isqrt((tokens - leading) * height // width)
        if rows and rows * rows * width == (tokens - leading) * height:
            return rows, (tokens - leading) // rows
    return None


def pooled(squares: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Returns the mean squares of so many rows and columns."""
    if not rows:
        return squares.new_zeros(0, columns)
    return F.adaptive_avg_pool2d(squares[None], (rows, columns))[0]


def _letters(squares: torch.Tensor) -> tuple[str, ...]:
    """Returns mean squares as letters; a step of the error is a factor of two in its square."""
    if not squares.numel():
        return ()
    largest = float(squares.max())
    steps = len(LETTERS) + torch.log2(squares / (largest or 1)).round()
    signs = _SIGNS[torch.where(squares > 0, steps.clamp(min=1), 0).long().cpu()]
    return tuple(bytes(row).decode() for row in signs.tolist())
