"""Whatever is done to both models in step, in whatever order, leaves them with the same bits."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from parity import build_pair, strategies
from parity.models import synthetic, uniform

if TYPE_CHECKING:
    from torch import nn

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
_MOST_STEPS = 12


class InStep(RuleBasedStateMachine):
    """Two models that everything is done to twice; after every step they are run and compared."""

    candidate: str  # the model under test

    def __init__(self) -> None:
        super().__init__()
        self.batch = 1
        self.dtype = torch.float32
        self.grad = False
        self.hooks: list[Any] = []
        self.passed = [0, 0]

    @initialize(config=strategies.configurations(max_layers=3), seed=strategies.seeds())
    def build(self, config: dict[str, Any], seed: int) -> None:
        self.pair = build_pair(self.candidate, overrides=config, seed=seed)
        self.size = config["image_size"]

    @property
    def models(self) -> tuple[nn.Module, nn.Module]:
        return self.pair.reference, self.pair.candidate

    @rule(train=st.booleans())
    def switch_mode(self, *, train: bool) -> None:
        for model in self.models:
            model.train(train)

    @rule(name=st.sampled_from(list(_DTYPES)))
    def move_to_dtype(self, name: str) -> None:
        self.dtype = _DTYPES[name]
        for model in self.models:
            model.to(self.dtype)

    @rule(batch=strategies.batches())
    def change_batch(self, batch: int) -> None:
        self.batch = batch

    @rule(grad=st.booleans())
    def record_gradients(self, *, grad: bool) -> None:
        self.grad = grad

    @rule(seed=strategies.seeds())
    def load_other_weights(self, seed: int) -> None:
        state = synthetic(self.pair.reference, seed)
        self.pair.reference.load_state_dict(state)
        self.pair.mapping.load(self.pair.candidate, state)

    @rule()
    def save_each_and_load_it_into_the_other(self) -> None:
        theirs, ours = (_through_a_file(model.state_dict()) for model in self.models)
        for model in self.models:
            for parameter in model.parameters():
                parameter.data.zero_()
        self.pair.reference.load_state_dict(self.pair.mapping.invert().apply(ours))
        self.pair.mapping.load(self.pair.candidate, theirs)

    @precondition(lambda self: not self.hooks)
    @rule()
    def put_hooks_on(self) -> None:
        for which, model in enumerate(self.models):
            self.hooks += [module.register_forward_hook(self._counter(which)) for module in model.modules()]

    @precondition(lambda self: self.hooks)
    @rule()
    def take_hooks_off(self) -> None:
        assert all(self.passed), "hooks that never fired show nothing"
        while self.hooks:
            self.hooks.pop().remove()

    @invariant()
    def both_have_the_same_bits(self) -> None:
        images = uniform("images", (self.batch, 3, self.size, self.size)).to(self.dtype)
        expected, found = (self._run(model, images) for model in self.models)
        assert found[0].dtype == expected[0].dtype == self.dtype
        assert torch.equal(found[0], expected[0]), "the logits differ"
        assert torch.equal(found[1], expected[1]), "one of the two has drawn more numbers"
        mapped = self.pair.mapping.apply(self.pair.reference.state_dict())
        ours = self.pair.candidate.state_dict()
        assert all(torch.equal(ours[name], tensor) for name, tensor in mapped.items()), "the weights differ"

    def _run(self, model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the logits, and the random generator's state afterwards."""
        with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(self.grad):
            torch.manual_seed(0)
            return model(images.clone()).detach(), torch.get_rng_state()

    def _counter(self, which: int) -> Any:
        def count(*_: object) -> None:
            self.passed[which] += 1

        return count


def _through_a_file(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
    return loaded


def test_both_models_stay_in_step(candidate: str) -> None:
    # a quarter of the profile's examples, since each one is a dozen steps
    few = settings(max_examples=max(1, settings().max_examples // 4), stateful_step_count=_MOST_STEPS)
    run_state_machine_as_test(type("OnCandidate", (InStep,), {"candidate": candidate}), settings=few)
