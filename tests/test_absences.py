"""What stands for tensors that only the reference has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from parity import check
from parity.explanation.causes.absences import absences
from tests.candidates.catalogue import RIGHT
from tests.odd_vit import Block, OddViT
from tests.small import SMALL
from tests.test_candidates import FOLDER, SIZES

if TYPE_CHECKING:
    from parity.explanation.bending import Change

CONFIG = {**SIZES, "representation_size": None, "dropout": 0.0, "attention_dropout": 0.0}
ATTENTION = "encoder.layers.encoder_layer_1.self_attention"
BIAS = f"{ATTENTION}.in_proj_bias"


def _said(changes: list[Change]) -> list[tuple[str, str]]:
    return [(change.kind.id, change.kind.phrase) for change in changes]


def _slices(*bounds: tuple[int, int]) -> list[str]:
    return [f"{BIAS}[{start}:{stop}]" for start, stop in bounds]


@pytest.mark.parametrize(
    ("names", "phrases"),
    [
        ([BIAS], ["no bias of query, key and value"]),
        (_slices((0, 32), (32, 64), (64, 96)), ["no bias of query, key and value"]),
        (_slices(*((row, row + 8) for row in range(88, -8, -8))), ["no bias of query, key and value"]),
        (_slices((32, 64)), ["no bias of the key"]),
        (_slices((8, 16), (0, 8), (24, 32), (16, 24)), ["no bias of the query"]),
        (_slices((0, 32), (64, 96)), ["no bias of the query", "no bias of the value"]),
        (_slices((0, 64)), ["no bias of the query", "no bias of the key"]),
        (_slices((72, 80)), ["no bias of some rows of the value"]),
        (_slices((24, 40)), ["no bias of some rows of the query", "no bias of some rows of the key"]),
    ],
)
def test_slices_of_a_packed_projection_are_said_as_the_parts_that_they_make_up(
    names: list[str], phrases: list[str]
) -> None:
    assert _said(absences(names, CONFIG)) == [("qkv-bias", phrase) for phrase in phrases]


def test_tensor_that_no_vit_can_be_without_stands_for_nothing() -> None:
    assert not absences(["conv_proj.weight", "encoder.something.new"], CONFIG)


def test_heads_of_their_own_without_a_bias_are_one_cause(tmp_path: Path) -> None:
    source = (FOLDER / "head_modules.py").read_text()
    planted = source.replace("nn.Linear(n_embd, head_size)", "nn.Linear(n_embd, head_size, bias=False)")
    assert planted != source
    (tmp_path / "planted.py").write_text(planted)
    report = check(f"{tmp_path}/planted.py:{RIGHT['head_modules']}", overrides=SIZES, modes=["eval"])
    assert report.verdict == "divergent"
    assert [cause.id for cause in report.causes] == ["qkv-bias"]
    assert report.explanation is not None
    assert report.explanation.complete


class Unlisted(nn.Module):
    """Blocks whose parts are called one by one, so that the tokens first show at the first norm."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block({}, 1e-6) for _ in range(2))
        self.norm = nn.LayerNorm(48, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        block: Any
        for block in self.blocks:
            assert isinstance(block, Block)
            x = x + block.attended(block.norm_1(x))
            x = x + block.fc2(F.gelu(block.fc1(block.norm_2(x))))
        normed: torch.Tensor = self.norm(x)
        return normed


class WithoutToken(nn.Module):
    """A norm after the patches, no class token and a fixed table, with nothing to compare between them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 48, 8, 8), nn.LayerNorm(48)
        self.table = torch.sin(torch.arange(16 * 48.0)).view(16, 48)
        self.encoder, self.head = Unlisted(), nn.Linear(48, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.patch(images).flatten(2).transpose(1, 2))
        logits: torch.Tensor = self.head(self.encoder(x + self.table.to(x)).mean(1))
        return logits


def test_norm_no_class_token_and_fixed_positions_have_each_their_name() -> None:
    report = check(WithoutToken(), overrides=SMALL, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete, report
    assert {cause.id for cause in report.causes} == {"extra-norm", "class-token-missing", "position-fixed", "pooling"}


class WithRegisters(OddViT):
    """Tokens of its own come in behind a dropout, where both models have been compared."""

    def __init__(self, traits: dict[str, Any]) -> None:
        super().__init__(traits)
        self.dropout, self.registers = nn.Dropout(0.1), nn.Parameter(torch.zeros(1, 4, 48))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        x = self.dropout(torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.table)
        x = self.done("registers", torch.cat([x, self.registers.expand(len(x), -1, -1)], 1))
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(self.norm(x)[:, 0])
        return logits


@pytest.mark.parametrize(("traits", "id_"), [({}, "extra-tokens"), ({"registers": lambda x: x.roll(1, 1)}, "graft")])
def test_tokens_that_come_in_behind_the_dropout_are_explained(traits: dict[str, Any], id_: str) -> None:
    report = check(WithRegisters(traits), overrides=SMALL, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete, report
    assert [cause.id for cause in report.causes] == [id_], report


class PixelsAsTokens(OddViT):
    """A patch has as many pixels as a token has features."""

    def __init__(self) -> None:
        super().__init__({})
        del self.patch

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.unfold(images, 4, stride=4).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.table
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.head(self.norm(x)[:, 0])
        return logits


def test_patches_that_are_tokens_as_they_are_lack_their_projection() -> None:
    report = check(PixelsAsTokens(), overrides=SMALL | {"image_size": 16, "patch_size": 4}, modes=["eval"])
    assert report.explanation is not None
    assert report.explanation.complete, report
    assert [cause.id for cause in report.causes] == ["patch-projection-missing"], report


class _WithoutClassRow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = OddViT({})
        for block in self.inner.blocks:
            block.qkv = nn.Linear(48, 144, bias=False)
        self.inner.table = nn.Parameter(torch.zeros(1, 16, 48))

    def forward(self, images: torch.Tensor) -> Any:
        inner = self.inner
        x = inner.patch(images).flatten(2).transpose(1, 2) + inner.table
        x = torch.cat([inner.token.expand(len(x), -1, -1), x], 1)
        for block in inner.blocks:
            x = block(x)
        return inner.head(inner.norm(x)[:, 0])


def test_lines_of_what_is_absent_are_those_of_what_stands_beside_it() -> None:
    report = check(_WithoutClassRow, overrides=SMALL, modes=["eval"])
    lines = {cause.id: _lines(cause.source) for cause in report.causes}
    assert lines == {"position-of-class-token": ["+ inner.table"], "qkv-bias": ["self.qkv(x)"]}


def _lines(source: str) -> list[str]:
    """Returns what tells the lines of a place such as `odd_vit.py:48, 49`."""
    name, _, numbers = source.partition(":")
    text = (Path(__file__).parent / name).read_text("utf-8").splitlines()
    telling = ("+ inner.table", "self.qkv(x)")
    shown = [text[int(number) - 1] for number in numbers.split(",")]
    return [next((words for words in telling if words in line), line) for line in shown]
