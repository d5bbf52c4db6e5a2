"""What is alive while a check runs. Memory of the process is the machine's affair; which tensors exist is ours."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from parity import check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Two other implementations, whose bits differ, so that the third model, the reference in float64, runs too. The blocks
# of one are no members of a list; the fused projection of the other is entered, which that of the reference never is.
CANDIDATES = Path(__file__).parent / "candidates"
OTHER_BITS = f"{CANDIDATES / 'einsum_parameters.py'}:FlaxStyleViT"
FUSED = f"{CANDIDATES / 'fused_qkv.py'}:VisionTransformer"
SIZES = {"image_size": 24, "patch_size": 8, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 48, "num_classes": 11}
BATCH = 3


@pytest.fixture
def tensors_since() -> Iterator[Callable[[], list[torch.Tensor]]]:
    """Returns the tensors with values that are alive and were made since the test began."""
    gc.collect()
    gc.freeze()
    try:
        yield lambda: [t for t in gc.get_objects() if type(t) in (torch.Tensor, nn.Parameter) and not t.is_meta]
    finally:
        gc.unfreeze()


def test_one_block_of_each_model_is_alive_in_float64(tensors_since: Callable[[], list[torch.Tensor]]) -> None:
    most: Counter[str] = Counter()

    def count(what: str, *_: int) -> None:
        shape = {SIZES["mlp_dim"], SIZES["hidden_dim"]}
        wide = {t.data_ptr() for t in tensors_since() if t.dtype == torch.float64 and {*t.shape} == shape}
        most[what] = max(most[what], len(wide))

    modes = ["eval", "eval-grad"]
    report = check(OTHER_BITS, overrides=SIZES | {"num_layers": 4}, batch=BATCH, modes=modes, progress=count)
    assert report.verdict == "equivalent"
    # A block's MLP has two matrices of this shape. In float64 reference and candidate stand in a block each; in float32
    # only the twin does.
    assert {name: number for name, number in most.items() if name.startswith("forward")} == {
        f"forward/{mode}/{dtype}": number for mode in modes for dtype, number in (("float64", 4), ("float32", 2))
    }


def test_no_more_tensors_are_alive_in_a_deeper_model(tensors_since: Callable[[], list[torch.Tensor]]) -> None:
    def most(depth: int) -> int:
        numbers = []

        def count(*_: object) -> None:
            numbers.append(len({t.data_ptr() for t in tensors_since() if t.ndim == 3 and len(t) == BATCH}))

        overrides = SIZES | {"num_layers": depth}
        report = check(FUSED, overrides=overrides, batch=BATCH, modes=["eval-grad"], progress=count)
        assert report.verdict == "equivalent"
        return max(numbers)

    assert most(2) == most(5) > 0


def test_nothing_is_alive_after_a_check(tensors_since: Callable[[], list[torch.Tensor]]) -> None:
    """Not even until the next garbage collection, which may come after the next model."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        report = check(OTHER_BITS, overrides=SIZES | {"num_layers": 1}, batch=BATCH, modes=["eval"])
        outputs = [
            output.data_ptr()
            for made in report.checks
            for shown in (getattr(made, "free", None), getattr(made, "forced", None))
            if shown
            for output in (shown.reference_output, shown.candidate_output)
        ]
        assert outputs
        assert not [tuple(t.shape) for t in tensors_since() if t.data_ptr() not in outputs]
    finally:
        if was_enabled:
            gc.enable()
