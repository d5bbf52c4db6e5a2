"""Several causes between the same two compared points: each is told with lines of its own, the one that asks first."""

from __future__ import annotations

import inspect

import torch
from torch import nn
from torch.nn import functional as F

from parity import check

Tensor = torch.Tensor
_SIZES = {"image_size": 16, "patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24,
          "num_classes": 5}  # fmt: skip
_SHAPES = {"patch": (192, 16), "first": (16,), "table": (5, 16), "up": (16, 24), "down": (24, 16), "classes": (16, 5)}


class _OneFunction(nn.Module):
    """A ViT without modules: whatever is wrong in it lies between the images and the logits."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {**_SHAPES, **dict.fromkeys(("query", "key", "value", "out"), (16, 16))}
        shapes |= {f"{name}_shift": shape[1:] for name, shape in shapes.items() if name not in ("first", "table")}
        shapes |= {f"{norm}_{end}": (16,) for norm in ("norm_1", "norm_2", "norm_3") for end in ("gain", "shift")}
        self.of = nn.ParameterDict({name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()})

    def linear(self, x: Tensor, name: str) -> Tensor:
        return torch.addmm(self.of[f"{name}_shift"], x.flatten(0, -2), self.of[name]).view(*x.shape[:-1], -1)

    def norm(self, x: Tensor, name: str) -> Tensor:
        spread = x.std(-1, keepdim=True)
        x = (x - x.mean(-1, keepdim=True)) / (spread + 1e-6)
        return torch.addcmul(self.of[f"{name}_shift"], x, self.of[f"{name}_gain"])

    def forward(self, images: Tensor) -> Tensor:
        x = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(len(images), 4, 192)
        x = torch.cat([self.of["first"].view(1, 1, 16).repeat(len(images), 1, 1), self.linear(x, "patch")], 1)
        x = x + self.of["table"]
        y = self.norm(x, "norm_1")
        q, k, v = (self.linear(y, name).view(len(x), 5, 2, 8).transpose(1, 2) for name in ("query", "key", "value"))
        scores = q @ k.transpose(-2, -1) / 8**0.5
        weights = scores.softmax(-2)
        x = x + self.linear((weights @ v).transpose(1, 2).flatten(2), "out")
        x = x + self.linear(F.gelu(self.linear(self.norm(x, "norm_2"), "up")), "down")
        return self.linear(self.norm(x, "norm_3")[:, 0], "classes")


def _line_of(text: str) -> int:
    source, start = inspect.getsourcelines(_OneFunction)
    return start + next(number for number, line in enumerate(source) if text in line)


def test_each_of_several_causes_is_told_with_the_line_that_asks_for_it() -> None:
    report = check(_OneFunction, overrides=_SIZES, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete
    first = {cause.id: int(cause.source.rpartition(":")[2].split(",")[0]) for cause in report.causes}
    assert first == {"softmax-axis": _line_of("softmax(-2)"), "layer-norm-std-eps": _line_of("x.std(")}
