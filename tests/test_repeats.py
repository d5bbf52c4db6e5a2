"""Modes in which both models do the same operations as in another one are not run again, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import vit
from parity import check
from parity.tracing import MODES, Operations, bare_run, can_switch_fastpath
from tests.small import OURS, SMALL

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from parity.report import Report

EVAL = ("eval", "eval-no-fastpath", "eval-grad")

pytestmark = pytest.mark.skipif(not can_switch_fastpath(), reason="this torch has no switch for the native kernel")


class Around(nn.Module):
    """Our ViT with something done to its logits."""

    def __init__(self, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = vit.ViT(**OURS)
        self.after = after

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.model(images))


def _like(report: Report) -> dict[str, str | None]:
    return {check.name: getattr(check, "like", None) for check in report.checks}


def test_what_a_mode_repeats_has_the_results_of_the_mode_before() -> None:
    report = check("vit:ViT", overrides=SMALL)
    assert report.verdict == "identical"
    repeated = {f"forward/eval-grad/{dtype}": "eval-no-fastpath" for dtype in ("float64", "float32")}
    assert {name: like for name, like in _like(report).items() if like} == repeated
    assert "in all 6 checks that were made" in report.reasons[0]
    told = {row["name"]: row["why"] for row in report.to_dict()["checks"]}
    assert told["forward/eval-grad/float64"] == "as in eval-no-fastpath"
    assert told["forward/eval/float64"] is None


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "a factor": lambda y: 1.01 * y if torch.is_grad_enabled() else 1.0 * y,
    "a sign": lambda y: y.abs() if torch.is_grad_enabled() else y.neg(),
    "of large batches": lambda y: y + 1 if torch.is_grad_enabled() and len(y) > 2 else y,
    "a shuffle": lambda y: y[torch.arange(len(y)).flip(0)] if torch.is_grad_enabled() else y[torch.arange(len(y))],
    "another value of a constant": lambda y: y * torch.tensor(2.0 if torch.is_grad_enabled() else 1.0),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_in_one_mode_alone_is_found(what: str) -> None:
    report = check(Around(WRONG[what]), overrides=SMALL, modes=EVAL)
    assert report.verdict == "divergent", report
    assert not _like(report)["forward/eval-grad/float64"]


class Hiding(nn.Module):
    """Two layers of the same shapes, of which grad mode uses the other one."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        return (self.other if torch.is_grad_enabled() else self.one)(images)  # type: ignore[no-any-return]


def _operations(model: nn.Module, mode: str, images: Tensor) -> list[object]:
    made: list[Operations] = []

    def around(model: nn.Module) -> Operations:
        made.append(Operations(model))
        return made[-1]

    bare_run(model, images, MODES[mode], torch.float32, 0, "candidate", around=around)
    return made[0].done


def test_operations_are_the_same_only_on_the_same_tensors() -> None:
    images = torch.arange(12.0).view(3, 4)
    plain: dict[str, Any] = {mode: _operations(nn.Linear(4, 4), mode, images) for mode in EVAL}
    assert plain["eval"]
    assert plain["eval"] == plain["eval-no-fastpath"] == plain["eval-grad"]
    hiding = Hiding()
    assert _operations(hiding, "eval", images) == _operations(hiding, "eval-no-fastpath", images)
    assert _operations(hiding, "eval", images) != _operations(hiding, "eval-grad", images)
    assert _operations(hiding, "eval", images) != _operations(hiding, "eval", images + 1)


def test_what_cannot_be_written_down_is_like_nothing() -> None:
    class Sparse(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.to_sparse().to_dense()

    images = torch.arange(12.0).view(3, 4)
    assert _operations(Sparse(), "eval", images) != _operations(Sparse(), "eval", images)
