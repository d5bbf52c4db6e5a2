"""What `nn.MultiheadAttention` computes without calling a module: query, key, value and the heads' output.

Its projections are functions of its own parameters, its native kernel is one operation, and hooks on its `out_proj`
never fire. Another implementation has modules there, whose outputs want something to be compared with. So these tensors
are computed beside the module, from what enters it, in the same dtype; the module itself runs undisturbed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = ("query", "key", "value")
STEPS = ("in_proj", *PARTS, "out_proj")


def can_be_opened(module: nn.Module) -> bool:
    """Returns whether `module` is an attention whose three projections are one matrix."""
    return isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None


def opened(
    module: nn.MultiheadAttention, tensors: list[torch.Tensor]
) -> Iterator[tuple[str, Literal["enter", "leave"], torch.Tensor]]:
    """Yields what the module is about to compute, up to the input of its output projection.

    Args:
        module: the attention.
        tensors: those that enter it, each once; more than one is not self-attention, and nothing is yielded.

    Yields:
        A name of `STEPS`, the moment, and the tensor: (B, N, 3 D) for all projections, (B, N, D) for each of them and
        for the heads' output, which is random and left out where attention weights are dropped.
    """
    if len(tensors) != 1 or tensors[0].ndim != 3:
        return
    projected = F.linear(tensors[0], module.in_proj_weight, module.in_proj_bias)
    yield "in_proj", "leave", projected
    parts = projected.chunk(3, -1)
    for name, part in zip(PARTS, parts, strict=True):
        yield name, "leave", part
    if module.training and module.dropout:
        return
    batch_first = [(part if module.batch_first else part.transpose(0, 1)).contiguous() for part in parts]
    query, key, value = (part.view(*part.shape[:2], module.num_heads, -1).transpose(1, 2) for part in batch_first)
    merged = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    yield "out_proj", "enter", merged if module.batch_first else merged.transpose(0, 1)
