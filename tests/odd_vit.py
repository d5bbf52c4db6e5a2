"""A small ViT in which something that nobody has a name for may be done at one place or several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    Tensor = torch.Tensor
    Traits = Mapping[str, Callable[..., Tensor]]


def plain(x: Tensor, *_: Tensor) -> Tensor:
    return x


class Norm(nn.Module):
    def __init__(self, eps: float, traits: Traits) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(48)), nn.Parameter(torch.zeros(48))
        self.eps = eps
        self.standardised = traits.get("standardised", self._standardised)

    def _standardised(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (48,), eps=self.eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.standardised(x) * self.weight + self.bias


class Block(nn.Module):
    def __init__(self, traits: Traits, eps: float) -> None:
        super().__init__()
        self.traits = traits
        self.norm_1, self.norm_2 = Norm(eps, traits), Norm(eps, {})
        self.qkv, self.proj = nn.Linear(48, 144), nn.Linear(48, 48)
        self.fc1, self.fc2 = nn.Linear(48, 96), nn.Linear(96, 48)

    def done(self, place: str, *tensors: Tensor, otherwise: Callable[..., Tensor] = plain) -> Tensor:
        return self.traits.get(place, otherwise)(*tensors)

    def attended(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 4, 12).permute(2, 0, 3, 1, 4)
        scores = self.done("scores", self.done("query", q) @ k.transpose(-2, -1) * 12**-0.5)
        weights = self.done("weights", scores.softmax(-1))
        attended: Tensor = self.proj((weights @ self.done("value", v)).transpose(1, 2).flatten(2))
        return attended

    def forward(self, x: Tensor) -> Tensor:
        x = self.done("entering", x)
        x = self.done("residual", x, self.attended(self.norm_1(x)), otherwise=torch.add)
        y = self.fc2(self.done("activation", self.fc1(self.norm_2(x)), otherwise=F.gelu))
        return x + self.done("branch", y)


class OddViT(nn.Module):
    """A right ViT, but for its traits, which the named blocks have, and for those with a name.

    Args:
        traits: what is done at each place.
        blocks: that have those traits that blocks may have.
        eps: of the norms.
        head_bias: whether the head has one.
    """

    def __init__(
        self, traits: Traits, blocks: Collection[int] = (0, 1), eps: float = 1e-6, *, head_bias: bool = True
    ) -> None:
        super().__init__()
        self.traits = traits
        self.patch = nn.Conv2d(3, 48, 8, 8)
        self.token, self.table = nn.Parameter(torch.zeros(1, 1, 48)), nn.Parameter(torch.zeros(1, 17, 48))
        self.blocks = nn.ModuleList(Block(traits if number in blocks else {}, eps) for number in range(2))
        self.norm, self.head = nn.LayerNorm(48, eps=eps), nn.Linear(48, 10, bias=head_bias)

    def done(self, place: str, *tensors: Any) -> Tensor:
        return self.traits.get(place, plain)(*tensors)

    def forward(self, images: Tensor) -> Tensor:
        x = self.done("patches", self.patch(images).flatten(2).transpose(1, 2))
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.done("positions", self.table)
        first = x
        for block in self.blocks:
            x = self.done("between", block(x), first)
        return self.done("logits", self.head(self.done("pooled", self.norm(x))[:, 0]))
