"""What a GPU does otherwise, as far as a CPU can do it too: dropouts in one operation, float32 with fewer digits."""

from __future__ import annotations

import dataclasses
import json
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vit
from parity import check
from parity.tracing import BACKENDS, MODES
from tests.determinism import ROOT
from tests.gpu import NAME, page
from tests.small import OURS, SMALL
from tests.test_grafted_dropouts import RATE, checked

if TYPE_CHECKING:
    from collections.abc import Iterator

Tensor = torch.Tensor
_TRAIN = dataclasses.replace(MODES["train"], backward=True)
_RATE = 0.25


@pytest.fixture
def dropouts_in_one() -> Iterator[None]:
    """Has every dropout drawn and applied by one operation, as on a GPU, which torch's own attention does as well."""

    def dropout(x: Tensor, rate: float, train: bool) -> Tensor:  # noqa: FBT001  (aten::dropout's signature)
        return torch.native_dropout(x, rate, train=True)[0] if train and 0 < rate < 1 else x

    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    if not hasattr(library, "_destroy"):
        pytest.skip("this torch takes no kernel back")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that another kernel is overridden
        for key in ("AutogradCPU", "CPU"):
            library.impl("dropout", dropout, key)
    yield
    library._destroy()  # noqa: SLF001  (which nothing public does)


@pytest.mark.usefixtures("dropouts_in_one")
def test_dropouts_in_one_operation_fall_alike_in_another_layout() -> None:
    values = torch.ones(4, 6)
    with dataclasses.replace(_TRAIN, same_masks=True).active():
        one, other = (_dropped(laid) for laid in (values, values.T.contiguous().T))
    assert torch.equal(one, other)
    torch.testing.assert_close(torch.unique(one), torch.tensor([0.0, 1 / (1 - _RATE)]))


def _dropped(values: Tensor) -> Tensor:
    torch.manual_seed(0)
    return F.dropout(values, _RATE, training=True)


@pytest.mark.usefixtures("dropouts_in_one")
def test_dropouts_in_one_operation_keep_everything_where_nothing_is_to_be_dropped() -> None:
    values = torch.arange(8.0, requires_grad=True)
    with dataclasses.replace(_TRAIN, no_dropout=True).active():
        kept = F.dropout(values, _RATE, training=True)
        kept.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(kept, values)
    assert values.grad is not None
    assert torch.equal(values.grad, torch.ones(8))


class _WrittenOut(nn.Module):
    """torch's attention one step after the other."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.in_proj, self.out_proj, self.rate = nn.Linear(48, 144), nn.Linear(48, 48), rate

    def forward(self, x: Tensor, *_: Tensor, **__: Any) -> tuple[Tensor, None]:
        q, k, v = self.in_proj(x).unflatten(-1, (3, OURS["num_heads"], -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        dropped = F.dropout(weights, self.rate, self.training)
        return self.out_proj((dropped @ v).transpose(1, 2).flatten(2)), None


@pytest.mark.usefixtures("dropouts_in_one")
@pytest.mark.parametrize(("rate", "causes"), [(_RATE, []), (0.4, ["dropout-rate"])])
def test_attention_that_drops_in_one_operation_is_compared_in_train_mode(rate: float, causes: list[str]) -> None:
    def build() -> nn.Module:
        model = vit.ViT(**OURS)
        for block in model.attn_layers:
            block.attention = _WrittenOut(rate)
        return model

    report = check(build, overrides=SMALL | {"attention_dropout": _RATE}, modes=["eval", "train"])
    assert report.verdict == ("divergent" if causes else "equivalent"), report
    assert [cause.id for cause in report.causes] == causes


@pytest.mark.usefixtures("dropouts_in_one")
def test_dropouts_in_one_operation_stand_in_a_formula() -> None:
    explanation = checked(RATE).explanation
    assert explanation is not None
    assert explanation.complete
    assert not explanation.in_train_mode


class _FewDigits(nn.Linear):
    """Takes in float32 what has as many digits as TF32, unless torch is told to compute with all of them."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32 and _ON_CPU.reduced_to:
            scaled = x * (2**13 + 1)
            x = scaled - (scaled - x)
        return super().forward(x)


_ON_CPU = next(backend for backend in BACKENDS if backend.name == "mkldnn.matmul")


@pytest.mark.parametrize("is_reduced", [True, False])
def test_float32_with_fewer_digits_is_named(*, is_reduced: bool) -> None:
    def build() -> nn.Module:
        model = vit.ViT(**OURS)
        model.head = _FewDigits(48, 10)
        return model

    was = _ON_CPU.value
    if is_reduced:
        _ON_CPU.tell("high" if _ON_CPU.told.endswith("()") else "tf32")
    try:
        report = check(build, overrides=SMALL, modes=["eval"])
    finally:
        _ON_CPU.tell(was)
    assert report.verdict == ("divergent" if is_reduced else "identical"), report
    assert [cause.id for cause in report.causes] == ["reduced-float32"] * is_reduced
    if is_reduced:
        assert _ON_CPU.told in report.causes[0].statement
        assert "with all of them it is as accurate as the reference" in report.causes[0].statement
        assert report.causes[0].where == ("heads.head",)


def test_published_page_is_drawn_from_what_was_measured() -> None:
    published = json.loads((ROOT / "docs" / f"{NAME}.json").read_text())
    assert (ROOT / "docs" / f"{NAME}.md").read_text() == page(published), "python -m tests.gpu"
