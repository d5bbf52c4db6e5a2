from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from parity.errors import ParityError
from parity.models.state import assigned, hold, lacks_values, replaced, without_initial_values
from parity.tracing.casting import cast
from parity.tracing.modes import MODES, Ambient, ambient_kept, can_switch_fastpath
from parity.tracing.nested import first_tensor, unique_tensors
from parity.tracing.passes import Follower
from parity.tracing.run import Point, Run, call_order

if TYPE_CHECKING:
    from collections.abc import Callable


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))


def _run(model: nn.Module, watched: set[str], seed: int = 0) -> Run:
    return Run(model, torch.ones(3, 4), watched, seed, "candidate")


def test_run_stops_at_every_enter_and_leave_in_order() -> None:
    run, points = _run(_model(), {"0", "1", "2"}), []
    while (event := run.advance()) is not None:
        points.append(event.point)
    assert points == [Point(name, 0, moment) for name in "012" for moment in ("enter", "leave")]
    assert run.output is not None
    assert run.output.shape == (3, 2)


def test_tensors_are_seen_before_an_in_place_operation_changes_them() -> None:
    model = _model()
    expected = model[0](torch.ones(3, 4))
    assert (expected < 0).any()
    run = _run(model, {"0"})
    run.advance()
    event = run.advance()
    assert event is not None
    assert torch.equal(event.tensors[0], expected)
    kept = event.tensors[0]
    run.finish()
    assert not torch.equal(kept, expected), "the ReLU works in place"


def test_forced_tensors_take_the_place_of_the_models_own() -> None:
    model, other = _model(), torch.full((3, 8), 0.5)
    run = _run(model, {"0"})
    run.advance()
    run.advance()
    assert run.advance(forced=[other]) is None
    assert run.output is not None
    assert torch.equal(run.output, model[2](torch.relu(other)))


def test_watched_run_has_the_bits_of_a_bare_one_and_leaves_no_hooks() -> None:
    model = _model()
    assert torch.equal(_run(model, {"0", "1", "2"}).finish(), model(torch.ones(3, 4)))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())  # noqa: SLF001


def test_run_that_is_given_up_leaves_no_hooks() -> None:
    model = _model()
    run = _run(model, {"0", "1"})
    run.advance()
    run.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())  # noqa: SLF001


def test_two_runs_in_turn_have_a_random_state_each() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout(), nn.Dropout())
    alone = _run(model, set(), seed=5).finish()
    one, two = (_run(copy.deepcopy(model), {"0", "1"}, seed=5) for _ in range(2))
    before = torch.get_rng_state()
    for _ in range(4):
        one.advance()
        two.advance()
    assert torch.equal(one.finish(), alone)
    assert torch.equal(two.finish(), alone)
    assert torch.equal(torch.get_rng_state(), before)


def test_calls_of_a_shared_module_are_told_apart() -> None:
    linear = nn.Linear(4, 4)
    points = call_order(nn.Sequential(linear, linear), torch.ones(1, 4), "candidate")
    assert [(point.call, point.moment) for point in points] == [(0, "enter"), (0, "leave"), (1, "enter"), (1, "leave")]


def test_failure_names_the_module_and_its_message() -> None:
    class Block(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(f"out of luck with {len(x)} images")

    run = _run(nn.Sequential(nn.Identity(), Block()), {"0", "1"})
    with pytest.raises(ParityError, match=r"the candidate failed in 1 on .* RuntimeError: out of luck with 3 images"):
        run.finish()


def test_model_without_a_tensor_output_is_refused() -> None:
    class Silent(nn.Module):
        def forward(self, x: torch.Tensor) -> None:
            del x

    with pytest.raises(ParityError, match="the candidate returned None, expected logits"):
        _run(Silent(), set()).finish()


def test_logits_are_found_in_any_output() -> None:
    class Output:
        logits = torch.ones(2)

    logits = torch.ones(2)
    for output in (logits, (logits, None), [logits], {"logits": logits}, Output):
        found = first_tensor(output)
        assert found is not None
        assert torch.equal(found, logits)
    assert first_tensor(None) is None


def test_a_tensor_that_enters_three_times_is_one() -> None:
    x, y = torch.ones(2), torch.zeros(2)
    assert [id(t) for t in unique_tensors(((x, x, x), {"mask": y, "index": torch.tensor(3)}))] == [id(x), id(y)]


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_mode_is_put_back(mode: object) -> None:
    from parity.tracing.modes import Mode

    assert isinstance(mode, Mode)
    model = _model()
    model[0].eval()
    enabled = torch.is_grad_enabled()
    with mode.active(model):
        assert model.training is model[0].training is mode.train
        assert torch.is_grad_enabled() is mode.grad
        if can_switch_fastpath():
            assert torch.backends.mha.get_fastpath_enabled() is mode.fastpath
    assert [module.training for module in model] == [False, True, True]
    assert torch.is_grad_enabled() is enabled
    if can_switch_fastpath():
        assert torch.backends.mha.get_fastpath_enabled()


def test_only_one_block_at_a_time_is_wide() -> None:
    blocks = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    first = nn.Linear(4, 4)
    model = nn.ModuleDict({"first": first, "blocks": blocks})
    wide_during_calls: list[list[bool]] = []

    def note(*_: object) -> None:
        wide_during_calls.append([block.weight.dtype == torch.float64 for block in blocks])

    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    with cast(model, torch.float64):
        for block in blocks:
            block.register_forward_pre_hook(note)
        assert first.weight.dtype == torch.float64
        output = blocks(first(torch.ones(1, 4, dtype=torch.float64)))
    assert output.dtype == torch.float64
    assert wide_during_calls == [[True, False, False], [False, True, False], [False, False, True]]
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values())


def test_units_that_are_widened_are_found_wherever_they_stand() -> None:
    def block() -> nn.Module:
        return nn.ModuleDict({"norm": nn.LayerNorm(4), "linear": nn.Linear(4, 4)})

    listed = nn.ModuleDict({"layers": nn.ModuleList([block(), block()])})
    attributes = nn.ModuleDict({"block1": block(), "block2": block(), "norm": nn.LayerNorm(4), "head": nn.Linear(4, 4)})
    in_sequence = nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"layers": nn.Sequential(block(), block())}))
    halves = nn.ModuleDict(
        {"layers": nn.ModuleList([nn.ModuleList([block(), nn.Identity()]), nn.ModuleList([block()])])}
    )
    wide_at_once = {"listed": 0, "attributes": 4, "in_sequence": 0, "halves": 0}
    for name, model in (
        ("listed", listed),
        ("attributes", attributes),
        ("in_sequence", in_sequence),
        ("halves", halves),
    ):
        with cast(model, torch.float64):
            assert sum(p.dtype == torch.float64 for p in model.parameters()) == wide_at_once[name], name


def test_widening_late_gives_the_bits_of_a_wide_model() -> None:
    inner, x = _model(), torch.ones(2, 4, dtype=torch.float64)
    with cast(nn.ModuleDict({"blocks": inner}), torch.float64):
        late = inner(x)
    assert torch.equal(late, inner.double()(x))


def test_narrowing_covers_the_whole_model_at_once() -> None:
    model = _model()
    with cast(model, torch.bfloat16):
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_shared_tensors_stay_shared_when_they_are_replaced() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with replaced(model, lambda _, tensor: tensor.detach().double()):
        assert model[1].weight is model[0].weight
        assert model[0].weight.dtype == torch.float64
    assert model[0].weight.dtype == torch.float32


def test_assigned_tensors_are_shared_and_taken_out_again() -> None:
    model = nn.Linear(4, 8)
    own = model.weight
    state = {"weight": torch.full((8, 4), 2.0)}
    with assigned(model, state):
        assert model.weight.data_ptr() == state["weight"].data_ptr()
        assert model.weight.requires_grad
    assert model.weight is own
    hold(model, state)
    assert model.weight.data_ptr() == state["weight"].data_ptr()


@pytest.mark.parametrize("hidden", ["parameter", "buffer", "attribute", "nested", "nowhere"])
def test_tensors_without_values_are_found_wherever_they_hide(hidden: str) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3))
    nowhere = torch.empty(3, device="meta")
    if hidden == "parameter":
        hold(model, {"1.bias": nowhere})
    elif hidden == "buffer":
        hold(model, {"0.running_var": nowhere})
    elif hidden == "attribute":
        vars(model[1])["scale"] = nowhere
    elif hidden == "nested":
        vars(model[1])["tables"] = {"positions": [nowhere]}
    assert lacks_values(model) is (hidden != "nowhere")


def test_tensors_that_nobody_asks_for_any_more_are_let_go() -> None:
    """Memory must not grow with depth, although one run goes ahead of the other."""
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)) for _ in range(20)))
    names = {name for name, _ in model.named_modules() if name}
    follower = Follower(Run(model, torch.ones(1, 4), names, seed=0, owner="reference"))
    for block in range(20):
        assert follower.until(Point(str(block), 0, "leave"))
        follower.leaves(Point(str(block), 0, "leave"))
        assert not follower.waiting  # not even what has entered the block, which nobody has asked for
        follower.passes(Point(str(block + 1), 0, "enter"))
    follower.run.close()


def test_point_that_was_passed_is_not_kept() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    follower = Follower(Run(model, torch.ones(1, 2), {"0", "1"}, seed=0, owner="reference"))
    for moment in ("enter", "leave"):
        follower.passes(Point("0", 0, moment))
    assert follower.until(Point("1", 0, "leave"))
    assert set(follower.waiting) == {Point("1", 0, "enter")}
    follower.run.close()


def test_enter_that_never_comes_is_not_looked_for_to_the_end() -> None:
    """`nn.MultiheadAttention` is seen to leave its projection and not to enter it."""
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    model = nn.Sequential(nn.Linear(4, 4), _SelfAttention(attention), *(nn.Linear(4, 4) for _ in range(5)))
    watched = {"1.attention.in_proj", *(str(n) for n in range(7))}
    follower = Follower(Run(model, torch.ones(1, 3, 4), watched, seed=0, owner="reference", inside=True))
    assert follower.until(Point("1.attention.in_proj", 0, "enter")) is None
    assert not any(point.module in "23456" for point in follower.waiting)
    assert follower.until(Point("1.attention.in_proj", 0, "leave"))
    follower.run.close()


def test_module_that_a_mode_does_not_call_is_not_looked_for_to_the_end() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.linear(x) if torch.is_grad_enabled() else x @ self.linear.weight.T + self.linear.bias
            return y

    model = nn.Sequential(*(Fused() for _ in range(5)))
    watched = {name for name, _ in model.named_modules() if name}
    with torch.no_grad():
        follower = Follower(Run(model, torch.ones(1, 4), watched, seed=0, owner="reference"))
        for block in "01234":
            for moment in ("enter", "leave"):
                assert follower.until(Point(f"{block}.linear", 0, moment)) is None
            assert set(follower.waiting) == {Point(block, 0, moment) for moment in ("enter", "leave")}
            assert follower.until(Point(block, 0, "leave"))
            follower.leaves(Point(block, 0, "leave"))
        follower.run.close()


def test_module_that_only_a_later_call_of_its_owner_calls_is_found() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, number: int) -> torch.Tensor:
            y: torch.Tensor = self.second(x) if number else self.first(x)
            return y

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Branching()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.block(self.block(x, 0), 1)
            return y

    model = Shared()
    watched = {"block", "block.first", "block.second"}
    follower = Follower(Run(model, torch.ones(1, 2), watched, seed=0, owner="reference"))
    other = Run(copy.deepcopy(model), torch.ones(1, 2), watched, seed=0, owner="candidate")
    while event := other.advance():
        assert follower.until(event.point), event.point
        follower.leaves(event.point)
    follower.run.close()


class _SelfAttention(nn.Module):
    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.attention(x, x, x, need_weights=False)[0]
        return y


def _without_gradients() -> None:
    torch.set_grad_enabled(False)


def _in_float64() -> None:
    torch.set_default_dtype(torch.float64)


def _under_autocast() -> None:
    dataclasses.replace(Ambient.now(), autocast={"cpu": (True, torch.bfloat16)}).restore()


def _with_other_random_numbers() -> None:
    torch.manual_seed(1)


@pytest.mark.parametrize(
    "change", [_without_gradients, _in_float64, _under_autocast, _with_other_random_numbers], ids=lambda f: f.__name__
)
def test_what_somebody_changes_for_everybody_is_put_back(change: Callable[[], None]) -> None:
    before = Ambient.now()
    with ambient_kept():
        change()
        assert not _is_same(Ambient.now(), before)
    assert _is_same(Ambient.now(), before)


def _is_same(one: Ambient, other: Ambient) -> bool:
    others = (one.grad, one.default_dtype, one.autocast) == (other.grad, other.default_dtype, other.autocast)
    return others and torch.equal(one.random, other.random)


def test_nothing_is_drawn_for_tensors_without_values_only() -> None:
    with without_initial_values():
        linear = nn.Linear(3, 2)
        real = torch.zeros(3, device="cpu")
        assert nn.init.normal_(real) is real
        real_method = torch.zeros(3, device="cpu").uniform_(1, 2)
    assert linear.weight.is_meta
    assert real.all()
    assert real_method.all()


@pytest.mark.parametrize("keys", [("logits", "features"), ("features", "logits"), ("features", "scores")])
def test_logits_of_a_dict_go_by_their_name_or_come_first(keys: tuple[str, str]) -> None:
    first, second = torch.zeros(2, 3), torch.ones(2, 5)
    chosen = first_tensor(dict(zip(keys, (first, second), strict=True)))
    assert chosen is (second if keys[1] == "logits" else first)
