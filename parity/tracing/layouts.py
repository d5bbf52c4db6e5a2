"""Layout steps between the tensors of two models that hold the same values in another order of axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.tracing.alignment import Alignment
    from parity.tracing.run import Point


@dataclass(frozen=True)
class Step:
    """A layout step from the reference's tensor to the candidate's, and the way back.

    Attributes:
        there: rearranges the reference's tensor.
        back: takes the candidate's tensor, and the reference's for what the candidate's doesn't hold.
    """

    there: Callable[[torch.Tensor], torch.Tensor]
    back: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def steps_to(actual: torch.Size, expected: torch.Tensor, point: Point, alignment: Alignment) -> list[Step]:
    """Returns the steps from the reference's tensor at a point to a candidate's tensor of shape `actual`.

    Features rearranged by the weight map; feature maps (B, D, h, w) against (B, h, w, D) and tokens (B, N, D); tokens
    against (N, B, D), (B, D, N) and (B * N, D), and by heads against (B, N, H, d) and (B, H, N, d); where the
    candidate's class token is the last one, the tokens are turned as well. Where the candidate goes on with one token,
    (B, D), (B, 1, D) or (B, D, 1, 1), that is the class token. No step is returned that the shapes leave open.
    """
    steps = []
    order = alignment.features.get((point.module, point.moment))
    if order is not None and expected.shape[-1:] == order.shape:
        there, back = order.to(expected.device), order.argsort().to(expected.device)
        steps.append(Step(lambda x: x[..., there], lambda x, _: x[..., back]))
        expected = steps[-1].there(expected)
    if _is_one_token(actual, expected):
        steps.append(Step(
            lambda x: x[:, 0].reshape(actual) if x[:, 0].numel() == actual.numel() else x[:, 0],
            lambda x, like: torch.cat([x.reshape(len(x), 1, -1), like[:, 1:]], 1),
        ))  # fmt: skip
        expected = steps[-1].there(expected)
    if alignment.rolled and expected.ndim == 3 and expected.shape[1] == alignment.rolled:
        steps.append(Step(lambda x: x.roll(-1, 1), lambda x, _: x.roll(1, 1)))
        expected = steps[-1].there(expected)
    if expected.shape == actual:
        return steps
    return [*steps, *[step for step in _choices(expected, actual) if step.there(expected).shape == actual][:1]]


def _choices(expected: torch.Tensor, actual: torch.Size) -> list[Step]:
    rank, shape = len(actual), expected.shape
    if {expected.ndim, rank} == {2, 3}:  # the tokens of all images in one axis
        return [Step(lambda x: x.reshape(actual), lambda x, _: x.reshape(shape))] if _is_flat(shape, actual) else []
    if expected.ndim == 4 and rank in (3, 4):
        height = expected.shape[2]
        return [
            Step(lambda x: x.permute(0, 2, 3, 1), lambda x, _: x.permute(0, 3, 1, 2)),
            Step(lambda x: x.flatten(2).transpose(1, 2), lambda x, _: rearrange(x, "b (h w) d -> b d h w", h=height)),
            Step(lambda x: x.flatten(2), lambda x, _: rearrange(x, "b d (h w) -> b d h w", h=height)),
        ]
    if expected.ndim == 3 and rank == 4:
        heads, odd = divmod(shape[-1], actual[-1])
        if odd or heads == shape[1]:
            return []
        return [
            Step(lambda x: rearrange(x, "b n (h d) -> b n h d", h=heads), lambda x, _: x.flatten(2)),
            Step(
                lambda x: rearrange(x, "b n (h d) -> b h n d", h=heads),
                lambda x, _: rearrange(x, "b h n d -> b n (h d)"),
            ),
        ]
    if expected.ndim == rank == 3:
        return [
            Step(lambda x: x.transpose(0, 1), lambda x, _: x.transpose(0, 1)),
            Step(lambda x: x.transpose(1, 2), lambda x, _: x.transpose(1, 2)),
        ]
    return []


def _is_one_token(actual: torch.Size, expected: torch.Tensor) -> bool:
    """Whether tokens (B, N, D) stand against one of each image: (B, D), (B, 1, D) or a map of one."""
    if expected.ndim != 3 or len(actual) < 2 or actual[0] != len(expected):
        return False
    one = (len(expected), expected.shape[-1])
    return len(actual) == 2 or tuple(actual) in ((one[0], 1, one[1]), (*one, 1, 1), (one[0], 1, 1, one[1]))


def _is_flat(one: torch.Size, other: torch.Size) -> bool:
    """Whether one of two shapes is (B * N, D) and the other (B, N, D)."""
    return one.numel() == other.numel() and one[-1] == other[-1]


def in_layout_of(actual: torch.Tensor, expected: torch.Tensor, point: Point, alignment: Alignment) -> torch.Tensor:
    """Rearranges the reference's tensor as the candidate's is, if the shapes leave but one way to do so."""
    for step in steps_to(actual.shape, expected, point, alignment):
        expected = step.there(expected)
    return expected


def in_layout_of_reference(
    actual: torch.Tensor, expected: torch.Tensor, point: Point, alignment: Alignment
) -> torch.Tensor:
    """Rearranges the candidate's tensor as the reference's is; what it doesn't hold is taken from the reference's."""
    steps, likes = steps_to(actual.shape, expected, point, alignment), [expected]
    for step in steps:
        likes.append(step.there(likes[-1]))
    for step, like in zip(reversed(steps), reversed(likes[:-1]), strict=True):
        actual = step.back(actual, like)
    return actual
