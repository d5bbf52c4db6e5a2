"""Entries with a tensor that is solved for: whatever was done to the positions, to the channels, to the classes.

What is found is a constant of the function. That it is one, and no accident of these weights and images, is proved on
others.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from parity.explanation.bending import Kind
from parity.explanation.bent_vit import standardised
from parity.explanation.causes.places import INSERTED
from parity.explanation.causes.variants import after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Tensor = torch.Tensor

# what a fit may leave, relative, in float64, and how near to a round number a solved one is that number
_FITS, _ROUND = 1e-9, 1e-10


# a table reads best with an entry's parts side by side
# fmt: off
def positions(_: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entries for what is done to the learned table before it is added."""
    yield Kind("position-normalised", {"table": after(functools.partial(F.normalize, dim=-1))},
               "positions brought to length 1", "as they are", "x + pos_embedding")
    for eps in (1e-6, 1e-5):
        yield Kind("position-normalised", {"table": after(functools.partial(standardised, eps=eps))},
                   f"a LayerNorm without parameters over the positions, eps {eps:g},", "none there",
                   "x + pos_embedding")
    for id_, is_one, words, phrase, instead, hint in (
        ("position-scale", _is_factor, lambda rows: f"{float(rows[0, 0]):.8g}", "positions times {value}",
         "as they are", "x + pos_embedding"),
        ("position-order", _is_order, _order_in_words, "positions {value}", "each in its place", "x + pos_embedding"),
        ("position-resampled", _is_resampled, _mix_in_words, "positions resampled at their own size ({value})",
         "as they are", "resize the table only for another grid, and by size=, not by scale_factor="),
        ("position-mixed", _is_any, _mix_in_words, "positions mixed ({value})", "each in its place",
         "x + pos_embedding"),
    ):
        yield Kind(id_, {"add": lambda original, x, table, value: original(x, value @ table)}, phrase, instead, hint,
                   fit=functools.partial(_rows, is_one=is_one), words=words)


def channels(_: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entry for a normalisation inside the model."""
    yield Kind("image-scale", {"images": lambda original, x, value: original(x) * value[0] + value[1]},
               "images taken as {value}", "as given", "leave that to the transforms", fit=_per_channel,
               words=_normalisation_in_words)


def classes(_: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entry for logits in another order."""
    yield Kind("class-order", {"output": lambda original, x, value: original(x)[..., value]}, "classes {value}",
               "in the head's order", "take the head's output as it is", only="^(heads)?$", fit=_columns,
               words=_classes_in_words)


def features(_: Mapping[str, Any]) -> Iterator[Kind]:
    """Yields the entry for constants that features are multiplied by and that are added to them."""
    for operation in ("output", "leave", "input"):
        yield Kind("feature-scale", {operation: lambda original, x, value: original(x) * value[0] + value[1]},
                   "features {value}", "as they are", "take the constants away", only=f"{INSERTED}|^(heads)?$",
                   fit=_per_feature, words=_affine_in_words)


# fmt: on


def _rows(wanted: Tensor, x: Tensor, table: Tensor | None, *, is_one: Callable[[Tensor], bool]) -> Tensor | None:
    """Returns the matrix (N, N) that gives the rows that were added, if the learned table gives them by one."""
    if table is None:
        return None
    each = wanted - x
    added, table = each.mean(0), table[0]
    if not _agree(each, added.expand_as(each)):
        return None  # no table: it depends on the image
    rows = _matched(added, table)
    if rows is None and table.shape[1] > len(table):
        rows = torch.linalg.lstsq(table.T, added.T).solution.T
    if rows is None or not _agree(rows @ table, added):
        return None
    rows = torch.where((rows - rows.round(decimals=6)).abs() < _ROUND, rows.round(decimals=6), rows)
    return rows if is_one(rows) else None


def _matched(added: Tensor, table: Tensor) -> Tensor | None:
    """Returns the matrix where each row that was added is a row of the table, times a number."""
    likeness = F.normalize(added, dim=1) @ F.normalize(table, dim=1).T
    best = likeness.abs().argmax(1)
    factors = (added * table[best]).sum(1) / (table[best] * table[best]).sum(1)
    rows = torch.zeros(len(added), len(table), dtype=table.dtype, device=table.device)
    rows[torch.arange(len(added)), best] = factors
    return rows if _agree(rows @ table, added) else None


def _agree(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and float((one - other).norm()) <= _FITS * float(other.norm())


def _is_any(_: Tensor) -> bool:
    return True


def _is_factor(rows: Tensor) -> bool:
    return _agree(rows, rows[0, 0] * torch.eye(len(rows)).to(rows))


def _is_order(rows: Tensor) -> bool:
    return bool(((rows == 0) | (rows == 1)).all() and (rows.sum(1) <= 1).all())


def _is_resampled(rows: Tensor) -> bool:
    """Whether each is a mean of those around it: along rows and columns of the grid alike, or along the table."""
    if not _agree(rows.sum(1), torch.ones(len(rows)).to(rows)):
        return False
    side = math.isqrt(len(rows))
    first = len(rows) - side**2
    if first in (0, 1):
        grid = rows[first:, first:]
        along = grid.view(side, side, side, side)[:, 0].sum(-1)
        if _agree(grid, torch.kron(along, along)) and _agree(rows[:first, :first], torch.eye(first).to(rows)):
            return True
    near = [row.abs().gt(_FITS).nonzero().flatten() for row in rows]
    return all(len(taken) == int(taken[-1] - taken[0]) + 1 for taken in near)


def _order_in_words(rows: Tensor) -> str:
    """Says which row of the table stands where: the class token's first, if there is one, then the grid's."""
    taken = rows.argmax(1)
    empty = (rows.sum(1) == 0).nonzero().flatten().tolist()
    if empty:
        return f"of which {_few(empty)} are zeros"
    side = math.isqrt(len(rows))
    first = len(rows) - side**2 if len(rows) - side**2 in (0, 1) else 0
    own = torch.arange(len(rows), device=rows.device)
    grid = own[first:].view(side, side) if len(own[first:]) == side**2 else own[first:].view(1, -1)
    named = {
        "mirrored left to right": grid.flip(1), "mirrored top to bottom": grid.flip(0),
        "back to front": grid.flip(0, 1),
        "of which rows and columns are exchanged": grid.T, "turned by a quarter": grid.rot90(1),
        "turned by a quarter the other way": grid.rot90(-1),
    }  # fmt: skip
    for words, order in named.items():
        if torch.equal(taken, torch.cat([own[:first], order.flatten()])):
            return words
    for steps in range(1, len(rows)):
        if torch.equal(taken, own.roll(steps)):
            return f"shifted by {_signed(steps, len(rows))}"
        if torch.equal(taken, torch.cat([own[:first], own[first:].roll(steps)])):
            return f"of the patches shifted by {_signed(steps, len(rows) - first)}"
    moved = (taken != own).nonzero().flatten().tolist()
    some = _few([f"{taken[n]} at {n}" for n in moved])
    return f"of which some are used twice: {some}" if len({*taken.tolist()}) < len(rows) else f"exchanged: {some}"


def _mix_in_words(rows: Tensor) -> str:
    most = int(((rows.abs() > _FITS).sum(1)).max())
    return f"each one a sum of up to {most} of them"


def _signed(steps: int, count: int) -> int:
    return steps if 2 * steps <= count else steps - count


def _few(values: list[Any], most: int = 4) -> str:
    return ", ".join(map(str, values[:most])) + f" and {len(values) - most} more" * (len(values) > most)


def _per_channel(wanted: Tensor, images: Tensor) -> Tensor | None:
    """Returns factor and shift (2, C, 1, 1) of each channel of (B, C, H, W)."""
    if wanted.dim() != 4 or wanted.shape != images.shape:
        return None
    found = _affine(wanted.transpose(0, 1).flatten(1), images.transpose(0, 1).flatten(1))
    return None if found is None else found[..., None, None]


def _per_feature(wanted: Tensor, x: Tensor, *_: Any) -> Tensor | None:
    """Returns factor and shift (2, D) of each feature of (..., D)."""
    if wanted.shape != x.shape or wanted.numel() < 3 * wanted.shape[-1]:
        return None
    return _affine(wanted.flatten(0, -2).T, x.flatten(0, -2).T)


def _affine(wanted: Tensor, x: Tensor) -> Tensor | None:
    """Returns factor and shift (2, n) that make the rows of `x` (n, samples) those of `wanted`."""
    means = wanted.mean(1, keepdim=True), x.mean(1, keepdim=True)
    spread = ((x - means[1]) ** 2).sum(1)
    if bool((spread == 0).any()):
        return None
    factor = ((wanted - means[0]) * (x - means[1])).sum(1) / spread
    shift = means[0][:, 0] - factor * means[1][:, 0]
    factor = torch.where((factor - 1).abs() < _ROUND, torch.ones_like(factor), factor)
    shift = torch.where(shift.abs() < _ROUND, torch.zeros_like(shift), shift)
    return torch.stack([factor, shift]) if _agree(factor[:, None] * x + shift[:, None], wanted) else None


def _normalisation_in_words(value: Tensor) -> str:
    factor, shift = value[..., 0, 0]
    mean, std = (_numbers(numbers) for numbers in (-shift / factor, 1 / factor))
    return f"(x - mean) / std with mean {mean} and std {std}"


def _affine_in_words(value: Tensor) -> str:
    factor, shift = value
    parts = [f"times {_numbers(factor)}"] * bool((factor != 1).any()) + [f"plus {_numbers(shift)}"] * bool(shift.any())
    return " ".join(parts)


def _numbers(values: Tensor) -> str:
    """Returns one number where all are alike, or the first ones."""
    rounded = [f"{value:.6g}" for value in values.tolist()]
    return rounded[0] if len({*rounded}) == 1 else f"({_few(rounded, 3)})"


def _columns(wanted: Tensor, x: Tensor) -> Tensor | None:
    """Returns which column of (B, classes) stands where."""
    if wanted.shape != x.shape or wanted.dim() != 2:
        return None
    order = torch.cdist(wanted.T, x.T).argmin(1)
    return order if _agree(x[:, order], wanted) else None


def _classes_in_words(order: Tensor) -> str:
    own = torch.arange(len(order), device=order.device)
    if torch.equal(order, own.flip(0)):
        return "back to front"
    for steps in range(1, len(order)):
        if torch.equal(order, own.roll(steps)):
            return f"shifted by {_signed(steps, len(order))}"
    moved = (order != own).nonzero().flatten().tolist()
    return f"exchanged: {_few([f'{order[n]} at {n}' for n in moved])}"
