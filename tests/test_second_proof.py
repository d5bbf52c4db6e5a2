"""What is said as a cause holds on weights and images that the search has not seen, whatever else stays unexplained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vit
from parity import check
from tests.odd_vit import OddViT
from tests.small import OURS, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.report import Report

    Tensor = torch.Tensor


def _explained(candidate: nn.Module, **options: Any) -> Report:
    report = check(candidate, **{"overrides": SMALL, "modes": ["eval"], **options})
    assert report.verdict == "divergent"
    assert report.explanation is not None
    return report


def _by_its_spread(x: Tensor) -> Tensor:
    return x * float(x.detach().std())


def _fitting_these_weights(table: Tensor) -> Tensor:
    return table * float(table.detach().std())


class Joined(vit.ViT):
    """Our ViT, in which the first tokens, positions and pooling are others, and which has no class token."""

    def __init__(self, joined: Callable[[Tensor, Tensor], Tensor], pooled: Callable[[Tensor], Tensor]) -> None:
        super().__init__(**OURS)
        del self.cls_token
        self.joined, self.pooled = joined, pooled

    def forward(self, images: Tensor) -> Tensor:
        x = self.joined(self.patches(images), self.pos_embedding)
        logits: Tensor = self.head(self.pooled(self.ln(self.attn_layers(x))))
        return logits


@pytest.mark.usefixtures("brief_search")
def test_cause_that_fits_these_weights_alone_is_not_said_beside_something_unexplained() -> None:
    traits = {"positions": _fitting_these_weights, "branch": _by_its_spread}
    report = _explained(OddViT(traits, eps=1e-5, head_bias=False))
    assert report.explanation is not None
    assert not report.explanation.complete
    assert {cause.id for cause in report.causes} == {"layer-norm-eps", "head-bias", "images-mix"}


@pytest.mark.usefixtures("brief_search")
def test_what_a_missing_tensor_stands_for_is_not_said_where_something_is_unexplained() -> None:
    joined = lambda x, table: torch.cat([_by_its_spread(x[:, :1]), x], 1) + table  # noqa: E731
    report = _explained(Joined(joined, lambda x: x[:, 0] + 1))
    assert report.explanation is not None
    assert not report.explanation.complete
    assert "class-token-zero" not in {cause.id for cause in report.causes}


def _random_token(x: Tensor, table: Tensor) -> Tensor:
    return torch.cat([torch.randn_like(x[:, :1]), x], 1) + table


def _random_registers(x: Tensor, table: Tensor) -> Tensor:
    return torch.cat([x[:, :1], x + table[:, 1:], torch.rand(1, 2, 48).to(x).expand(len(x), -1, -1)], 1)


@pytest.mark.parametrize("joined", [_random_token, _random_registers])
def test_tokens_drawn_in_the_forward_pass_are_random_numbers(joined: Callable[[Tensor, Tensor], Tensor]) -> None:
    report = _explained(Joined(joined, lambda x: x[:, 0]))
    assert report.explanation is not None
    assert report.explanation.complete
    (cause,) = report.causes
    assert cause.id == "random-numbers"
    assert "in eval mode (rand" in cause.statement
    assert "between the output of conv_proj and the input of encoder.layers" in cause.statement


def test_random_numbers_in_every_block_are_one_cause() -> None:
    report = _explained(OddViT({"scores": lambda s: s + torch.rand_like(s)}))
    assert [(cause.id, len(cause.where)) for cause in report.causes] == [("random-numbers", 2)]
    assert "in self_attention of all 2 blocks" in report.causes[0].statement


def _sines(x: Tensor) -> Tensor:
    return torch.arange(x[0].numel()).to(x).sin().view(1, *x.shape[1:])


@pytest.mark.parametrize(
    ("joined", "pooled", "ids"),
    [(lambda x, _: x + _sines(x), lambda x: x.mean(1), {"position-fixed", "pooling"}),
     (lambda x, _: x + _sines(x), lambda x: x.amax(1), {"position-fixed", "pooling"}),
     (lambda x, _: x + _sines(x), lambda x: x[:, 0], {"position-fixed"}),
     (lambda x, _: x, lambda x: x.mean(1), {"position-missing", "pooling"})],
)  # fmt: skip
def test_no_class_token_is_named_with_what_the_positions_are(
    joined: Callable[[Tensor, Tensor], Tensor], pooled: Callable[[Tensor], Tensor], ids: set[str]
) -> None:
    candidate = Joined(joined, pooled)
    del candidate.pos_embedding
    candidate.register_parameter("pos_embedding", None)
    report = _explained(candidate)
    assert report.explanation is not None
    assert report.explanation.complete
    assert {cause.id for cause in report.causes} == {"class-token-missing", *ids}


@pytest.mark.usefixtures("brief_search")
def test_buffer_is_carried_along_with_the_operations_that_take_it() -> None:
    class Bent(OddViT):
        def __init__(self) -> None:
            super().__init__({"positions": lambda table: table + self.bumps * table.sin()})
            self.register_buffer("bumps", torch.linspace(0, 1, 17)[:, None])

    report = _explained(Bent())
    assert report.explanation is not None
    assert report.explanation.complete
    assert [cause.id for cause in report.causes] == ["graft"]


def test_positions_that_are_computed_of_what_was_learned_are_no_fixed_table() -> None:
    class Computed(OddViT):
        def __init__(self) -> None:
            super().__init__({"positions": lambda _: self.places(torch.eye(17).to(self.places.weight))})
            self.places = nn.Linear(17, 48)
            del self.table
            self.register_parameter("table", None)

    report = _explained(Computed())
    assert report.explanation is not None
    assert report.explanation.complete
    assert "fixed" not in " ".join(cause.statement for cause in report.causes)
    assert "places" in " ".join(cause.statement for cause in report.causes)


def test_fixed_positions_are_named_beside_what_was_learned_for_something_else() -> None:
    class Scaled(OddViT):
        def __init__(self) -> None:
            super().__init__({"branch": lambda y: y * self.gain})
            self.gain = nn.Parameter(torch.ones(48))
            del self.table

        def forward(self, images: Tensor) -> Tensor:
            x = torch.cat([self.token.expand(len(images), -1, -1), self.patch(images).flatten(2).transpose(1, 2)], 1)
            x = x + _sines(x)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x)[:, 0])  # type: ignore[no-any-return]

    report = _explained(Scaled())
    assert report.explanation is not None
    assert report.explanation.complete
    assert {cause.id for cause in report.causes} == {"position-fixed", "extra-scale"}


@pytest.mark.parametrize(("count", "word"), [(2, "mean"), (1, "sum")])
@pytest.mark.parametrize("place", [1, -1])
def test_two_heads_on_two_tokens_are_named(count: int, word: str, place: int) -> None:
    first = place % 18

    class Distilled(OddViT):
        def __init__(self) -> None:
            super().__init__({})
            self.distilling, self.other_head = nn.Parameter(torch.zeros(1, 1, 48)), nn.Linear(48, 10)

        def forward(self, images: Tensor) -> Tensor:
            x = torch.cat([self.token.expand(len(images), -1, -1), self.patch(images).flatten(2).transpose(1, 2)], 1)
            x, own = x + self.table, self.distilling.expand(len(images), -1, -1)
            x = torch.cat([x[:, :first], own, x[:, first:]], 1)
            for block in self.blocks:
                x = block(x)
            x = self.norm(x)
            return (self.head(x[:, 0]) + self.other_head(x[:, place])) / count  # type: ignore[no-any-return]

    report = _explained(Distilled())
    assert report.explanation is not None
    assert report.explanation.complete
    assert [cause.id for cause in report.causes] == ["extra-tokens", "two-heads"]
    which = "second" if place == 1 else "last"
    assert report.explanation.phrases[1] == (
        f"the {word} of two heads' logits, head on the first token and other_head on the {which} token"
    )


def test_pooling_of_tokens_that_others_have_joined_is_told_by_their_number() -> None:
    report = _explained(Joined(lambda x, table: x + table[:, 1:], lambda x: x[:, 1:].mean(1)))
    assert report.explanation is not None
    assert "the mean of all tokens but the first goes to the head" in report.explanation.phrases


def test_dropout_that_fits_these_weights_and_images_alone_is_not_proved_in_train_mode() -> None:
    class Fickle(vit.ViT):
        def forward(self, images: Tensor) -> Tensor:
            x = self.patches(images)
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embedding
            rate = 0.1 if float(self.head.bias.detach()[0]) < 0 else 0.2
            x = self.attn_layers(F.dropout(x, rate, training=self.training))
            logits: Tensor = self.head(self.ln(x)[:, 0])
            return logits

    report = _explained(Fickle(**OURS), modes=["eval", "train"])
    assert report.explanation is not None
    assert not report.explanation.complete


class Stage(nn.Module):
    """A block of some width, after which only every fourth token is left, twice as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", 1e-6, True, True)
        self.merging = nn.Linear(4 * width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        merged: Tensor = self.merging(self.block(x).unflatten(1, (-1, 4)).flatten(2))
        return merged


def test_vit_of_stages_is_told_so_and_no_causes_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.stages = nn.Conv2d(3, 48, 8, 8), nn.Sequential(Stage(48), Stage(96))
            self.norm, self.head = nn.LayerNorm(192, eps=1e-6), nn.Linear(192, 10)

        def forward(self, images: Tensor) -> Tensor:
            x = self.stages(self.patches(images).flatten(2).transpose(1, 2))
            logits: Tensor = self.head(self.norm(x).mean(1))
            return logits

    monkeypatch.setattr("parity.explanation.search.Search.run", lambda *_, **__: pytest.fail("it searches"))
    report = check(Stages(), overrides=SMALL, modes=["eval"])
    assert report.verdict == "divergent"
    assert report.explanation is None
    assert "your model has attention of several widths (48 and 96), as a ViT of stages has" in report.reasons[0]
