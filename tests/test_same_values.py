"""What both models compute needs no formula, however the candidate computes it and in whichever layout."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parity import check
from parity.explanation.formulas.recording import Recording
from parity.explanation.formulas.unifying import same_values
from tests.odd_vit import Block, OddViT
from tests.small import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.findings import Cause
    from parity.report import Report

    Tensor = torch.Tensor

X = torch.randn(2, 5, 12, dtype=torch.float64)


@pytest.mark.parametrize(
    ("layout", "is_same"),
    [
        (lambda x: x.view(2, 5, 3, 4), True),
        (lambda x: x.view(2, 5, 3, 4).transpose(1, 2), True),
        (lambda x: x.view(2, 5, 3, 4).transpose(1, 2).reshape(6, 5, 4), True),
        (lambda x: x.transpose(0, 1), True),
        (lambda x: x.transpose(1, 2), False),
        (lambda x: x.view(2, 5, 4, 3).transpose(2, 3), False),
        (lambda x: x.roll(1, 1), False),
        (lambda x: x.flip(0), False),
        (lambda x: x * (1 + 1e-7), False),
    ],
)
def test_layout_is_no_difference_and_the_order_of_features_is(
    layout: Callable[[Tensor], Tensor],
    is_same: bool,  # noqa: FBT001
) -> None:
    recording = Recording({})
    with recording:
        ours, theirs = X.exp(), layout(X.view(2, 5, 3, 4).flatten(2)).contiguous().exp()
    first, *_, last = (operation for operation in recording.operations if operation.name == "exp")
    found = same_values({last.made: theirs}, {first.made: ours})
    assert found == ({last.made: first.made} if is_same else {})


class Model(OddViT):
    """A right one with blocks of another kind."""

    def __init__(self, kind: type[Block]) -> None:
        super().__init__({})
        self.blocks = nn.ModuleList(kind({}, 1e-6) for _ in range(2))


def _explained(model: nn.Module, **sizes: int) -> Report:
    report = check(model, overrides=SMALL | sizes, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.explanation is not None
    assert report.explanation.complete, report
    return report


def _code(cause: Cause) -> list[str]:
    return [line.text for line in cause.candidate_code]


class ByEinsum(Block):
    """Projects with a tensor for each head, and takes the mean over the heads off the scores."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        del self.qkv
        self.rows = nn.ParameterList(nn.Parameter(torch.zeros(4, 48, 12)) for _ in range(3))
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(4, 12)) for _ in range(3))

    def attended(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("bnd,hdk->bnhk", x, w) + b for w, b in zip(self.rows, self.shifts, strict=True))
        scores = torch.einsum("bqhk,bmhk->bhqm", q, k) / 12**0.5
        scores = scores - scores.mean(1, keepdim=True)
        attended: Tensor = self.proj(torch.einsum("bhqm,bmhk->bqhk", scores.softmax(-1), v).flatten(2))
        return attended


def test_projections_by_einsum_are_the_references() -> None:
    (cause,) = _explained(Model(ByEinsum)).causes
    assert "q @ k^T / sqrt(12) - mean(q @ k^T / sqrt(12) as (3, 4, 17, 17), axis -3)" in cause.statement
    assert cause.statement.endswith("; the reference: q @ k^T / sqrt(12)")
    assert _code(cause) == ["scores = scores - scores.mean(1, keepdim=True)"]


class Deep(OddViT):
    """Its head is given a mixture of what every block makes of the class token."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.table
        seen = []
        for block in self.blocks:
            x = block(x)
            seen.append(x[:, 0])
        x = 0.25 * seen[0] + 0.75 * seen[1]
        logits: Tensor = self.head(self.norm(x))
        return logits


def test_what_earlier_blocks_make_is_no_difference() -> None:
    (cause,) = _explained(Deep({})).causes
    assert "x[:, 0] / 4 + 0.75 * y[:, 0]" in cause.statement
    assert "where x is the output of encoder.layers.encoder_layer_0 and y is " in cause.statement
    assert _code(cause) == ["x = 0.25 * seen[0] + 0.75 * seen[1]"]


class FirstValues(Block):
    """Goes on with the mean of its own values and those of the first block."""

    first: Tensor | None = None

    def attended(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 4, 12).permute(2, 0, 3, 1, 4)
        if FirstValues.first is None:
            FirstValues.first = v
        else:
            v, FirstValues.first = (v + FirstValues.first) / 2, None
        attended: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return attended


def test_value_of_another_block_has_its_number() -> None:
    (cause,) = _explained(Model(FirstValues)).causes
    assert "softmax(q @ k^T / sqrt(12)) @ (v + v_0) / 2" in cause.statement
    assert cause.statement.endswith(
        "; the reference: softmax(q @ k^T / sqrt(12)) @ v, where v_0 is the value of block 0"
    )


class ByHeads(Block):
    """A head's result is added to the values of the next one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        del self.qkv
        self.heads = nn.ModuleList(nn.ModuleList(nn.Linear(48, 12) for _ in range(3)) for _ in range(4))

    def attended(self, x: Tensor) -> Tensor:
        last, made = torch.zeros(()), []
        for head in self.heads:
            q, k, v = (project(x) for project in head)  # type: ignore[attr-defined]
            weights = (q @ k.transpose(1, 2) / 12**0.5).softmax(-1)
            last = weights @ (v + last)
            made.append(last)
        attended: Tensor = self.proj(torch.cat(made, -1))
        return attended


def test_lines_that_do_what_the_reference_does_elsewhere_are_left_out() -> None:
    (cause,) = _explained(Model(ByHeads)).causes
    assert "last = weights @ (v + last)" in _code(cause)
    assert not any("softmax" in line or "project" in line for line in _code(cause)), _code(cause)


class InPlace(Block):
    """Means the query alone, and scales what the key and value are made of as well."""

    def attended(self, x: Tensor) -> Tensor:
        query = x
        query *= 12**-0.5
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 4, 12).permute(2, 0, 3, 1, 4)
        attended: Tensor = self.proj(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2))
        return attended


def test_line_of_a_factor_that_a_product_takes_in_is_told() -> None:
    causes = [cause for cause in _explained(Model(InPlace)).causes if cause.id == "graft"]
    assert causes
    assert all("query *= 12**-0.5" in _code(cause) for cause in causes)


def _added(x: Tensor, y: Tensor) -> Tensor:
    y = torch.tanh(y)
    y = y * 0.375
    return x + y


def test_line_of_a_factor_that_a_sum_takes_in_is_told() -> None:
    (cause,) = _explained(OddViT({"residual": _added})).causes
    first = inspect.getsourcelines(_added)[1]
    assert cause.source == f"test_same_values.py:{first + 1}, {first + 2}, {first + 3}"


class Functional(nn.Module):
    """Has parameters and no modules; its norms divide by one deviation for each image."""

    def __init__(self) -> None:
        super().__init__()
        model = OddViT({})
        model.blocks.append(Block({}, 1e-6))
        self.names = {name: name.replace(".", "_") for name, _ in model.named_parameters()}
        self.all = nn.ParameterDict({self.names[name]: p for name, p in model.named_parameters()})

    def weights(self, name: str) -> tuple[Any, Any]:
        return self.all[f"{name}_weight"], self.all[f"{name}_bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights(name)
        x = x - x.mean(-1, keepdim=True)
        variance = x.square().mean((1, 2), keepdim=True)
        normed: Tensor = x / (variance + 1e-6).sqrt() * weight + bias
        return normed

    def forward(self, images: Tensor) -> Tensor:
        x = F.conv2d(images, *self.weights("patch"), stride=8).flatten(2).transpose(1, 2)
        x = torch.cat([self.all["token"].expand(len(x), -1, -1), x], 1) + self.all["table"]
        for block in ("blocks_0", "blocks_1", "blocks_2"):
            y = F.linear(self.norm(f"{block}_norm_1", x), *self.weights(f"{block}_qkv"))
            q, k, v = y.reshape(*x.shape[:2], 3, 4, 12).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + F.linear(y, *self.weights(f"{block}_proj"))
            y = F.gelu(F.linear(self.norm(f"{block}_norm_2", x), *self.weights(f"{block}_fc1")))
            x = x + F.linear(y, *self.weights(f"{block}_fc2"))
        return F.linear(self.norm("norm", x)[:, 0], *self.weights("head"))


def test_one_line_in_a_model_without_modules_is_one_cause() -> None:
    (cause,) = _explained(Functional(), num_layers=3).causes
    assert _code(cause) == ["variance = x.square().mean((1, 2), keepdim=True)"]


class TwoLists(OddViT):
    """Right; its norms lie in two lists whose names differ by a number."""

    def __init__(self) -> None:
        super().__init__({})
        self.ln1 = nn.ModuleList(nn.LayerNorm(48, eps=1e-6) for _ in self.blocks)
        self.ln2 = nn.ModuleList(nn.LayerNorm(48, eps=1e-6) for _ in self.blocks)
        for block, first, second in zip(self.blocks, self.ln1, self.ln2, strict=True):
            del block.norm_1, block.norm_2
            object.__setattr__(block, "norm_1", first)
            object.__setattr__(block, "norm_2", second)


def test_numbers_of_lists_and_of_their_items_are_read_apart() -> None:
    report = check(TwoLists(), overrides=SMALL, modes=["eval"])
    assert report.verdict == "equivalent"
    assert report.mapping is not None
    assert not any("whatever their numbers say" in warning for warning in report.mapping.warnings)
