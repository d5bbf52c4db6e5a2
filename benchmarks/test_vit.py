"""The scratch ViT beside torchvision's and others: one group per model, batch and kind of work.

A round runs every implementation once, in an order of its own, and what counts is the ratio within a round, so that a
machine's moods cancel; torchvision's is run twice, which shows what is left of them. What was timed is checked: ours
must have given torchvision's bits, and everybody else's logits must agree with them within 1e-4.

    pytest --benchmark-only                 three groups, of ViT-B/16: at most ten minutes on two slow cores
    pytest --benchmark-only --all-groups    what docs/performance.md shows, about an hour (`python -m benchmarks speed`)

Of all groups three are our default path's own, of many rounds, since it should take just as long.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import random
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from benchmarks.implementations import (
    BASELINE,
    CANDIDATES,
    Forward,
    compiled,
    deployed,
    forward_of,
    models,
    multiplications,
)
from benchmarks.performance import CEILING
from parity.models import uniform
from parity.tracing import compare

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from pytest_benchmark.fixture import BenchmarkFixture

# two right implementations differ by some 1e-6 in float32, one in half precision by 1e-3
AGREES = 1e-4
COMPILED = ("torchvision", "ours", "timm", "transformers")

ONCE_MORE = f"{BASELINE}, once more"

EVERYBODY, PEERS, OURS, DEFAULT = "everybody", "peers", "ours", "default"


class Groups(NamedTuple):
    """What is timed, a group each.

    Attributes:
        forward: model, batch, rounds, and whose.
        training: model, batch and rounds.
    """

    forward: list[tuple[str, int, int, str]]
    training: list[tuple[str, int, int]]


# some five minutes where ViT-B/16 takes 2 s for eight images and 6 s to learn from them
FEW = Groups([("vit_b_16", 1, 11, PEERS), ("vit_b_16", 8, 5, PEERS)], [("vit_b_16", 8, 3)])
# the larger the model, the fewer rounds
ALL = Groups(
    [
        ("vit_b_16", 1, 61, DEFAULT), ("vit_b_16", 8, 31, DEFAULT), ("vit_l_16", 1, 21, DEFAULT),
        ("vit_b_16", 1, 21, EVERYBODY), ("vit_b_16", 8, 11, EVERYBODY), ("vit_b_16", 32, 3, PEERS),
        ("vit_l_16", 1, 11, PEERS), ("vit_l_16", 8, 5, PEERS),
        ("vit_h_14", 1, 7, PEERS), ("vit_h_14", 8, 3, OURS),
    ],
    [("vit_b_16", 8, 7), ("vit_l_16", 8, 3)],
)  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # `pytest .` reads the conftest that knows the option too late to have it
    groups = ALL if metafunc.config.getoption("--all-groups", default=False) else FEW
    if "whose" in metafunc.fixturenames:
        metafunc.parametrize(("name", "batch", "rounds", "whose"), groups.forward, ids=str)
    else:
        metafunc.parametrize(("name", "batch", "rounds"), groups.training, ids=str)


def group_of(name: str, batch: int, whose: str | None = None) -> str:
    """Returns how a group is called on the page: of somebody's forward pass, or of a training step."""
    work = "training step" if whose is None else f"forward{', default path' if whose == DEFAULT else ''}"
    return f"{name}, {work}, batch {batch}"


def _is_there(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)


def _wanted() -> set[str]:
    return {name for name in CANDIDATES if name.startswith("ours") or _is_there(name)}


def _in_turn(benchmark: BenchmarkFixture, runs: dict[str, Callable[[], object]], rounds: int) -> None:
    """Times all of `runs` in every round; their seconds go into the benchmark's extra information."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    chance = random.Random(0)  # noqa: S311  (an order, no secret)

    def one_round() -> None:
        for name in chance.sample(list(runs), len(runs)):
            began = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - began)

    benchmark.pedantic(one_round, rounds=rounds, warmup_rounds=1)  # type: ignore[no-untyped-call]
    benchmark.extra_info |= {"baseline": BASELINE, "seconds": {name: times[1:] for name, times in seconds.items()}}


def test_forward(benchmark: BenchmarkFixture, name: str, batch: int, rounds: int, whose: str) -> None:
    benchmark.group = group_of(name, batch, whose)
    built = models(name, {OURS: {"ours", "ours, fast"}, DEFAULT: {"ours"}}.get(whose) or _wanted())
    size = built[BASELINE].image_size
    assert isinstance(size, int)
    images = uniform("images", (batch, 3, size, size))
    runs: dict[str, Forward] = {key: forward_of(model) for key, model in built.items()}
    expected = runs[BASELINE](images)
    assert torch.equal(runs["ours"](images), expected), "the default path must have torchvision's bits"
    with contextlib.ExitStack() as stack:
        if whose == EVERYBODY:
            stack.callback(torch.compiler.reset)
            runs |= {f"{key}, compiled": compiled(built[key]) for key in COMPILED if key in built}
        if whose == EVERYBODY and _is_there("onnxruntime", "onnxscript", "openvino"):
            runs |= stack.enter_context(deployed(built[BASELINE], images))
        for key, run in runs.items():
            error = compare(expected, run(images)).relative
            assert error < AGREES, f"{key} is off by {error}"
        runs[ONCE_MORE] = runs[BASELINE]
        if whose != DEFAULT:
            runs[CEILING], operations = multiplications(built[BASELINE], batch)
            benchmark.extra_info["operations"] = operations
        _in_turn(benchmark, {key: _on(run, images) for key, run in runs.items()}, rounds)


def _on(run: Forward, images: torch.Tensor) -> Callable[[], object]:
    return lambda: run(images)


def test_training_step(benchmark: BenchmarkFixture, name: str, batch: int, rounds: int) -> None:
    benchmark.group = group_of(name, batch)
    built = models(name, _wanted() - {"ours, fast"}, shared=False)
    built[ONCE_MORE] = copy.deepcopy(built[BASELINE])
    size: Any = built[BASELINE].image_size
    images, labels = uniform("images", (batch, 3, size, size)), torch.arange(batch)
    losses: dict[str, list[float]] = {key: [] for key in built}

    def step_of(key: str, model: nn.Module) -> Callable[[], object]:
        optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3)

        def step() -> None:
            output = model(images)
            loss = nn.functional.cross_entropy(getattr(output, "logits", output), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()  # so that one model at a time has gradients
            losses[key].append(loss.item())

        return step

    _in_turn(benchmark, {key: step_of(key, model) for key, model in built.items()}, rounds)
    for key in ("ours", ONCE_MORE):
        assert losses[key] == losses[BASELINE], f"{key}: the losses must be torchvision's to the bit"
    assert losses[BASELINE][-1] < losses[BASELINE][0], "the steps on the same batch must have lowered the loss"
    for key, values in losses.items():
        assert abs(values[0] / losses[BASELINE][0] - 1) < AGREES, key
