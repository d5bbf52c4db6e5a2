"""The reference and the measure, themselves checked: torch computes what it did before anybody else's code ran.

A candidate lives in the same process. What its file does to torch (another `F.gelu`, a hook on every module), it does
to the reference as well, and two wrong models agree.
"""

from __future__ import annotations

import functools
import inspect
import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as hooks_of_all
from torchvision.models import vision_transformer

from parity.errors import listed
from parity.tracing import MODES, Mode, ambient_kept, compare, random_state_of


class Surroundings:
    """What torch computes with and gives, at one moment: bits of a small reference, functions, hooks and flags."""

    def __init__(self) -> None:
        self._functions = _functions()
        self._hooks = _hooks()
        self._flags = _flags()
        self._bits = _bits_of_a_small_model()

    def doubts(self) -> list[str]:
        """Returns what is no longer so and lets no measurement count, a sentence each."""
        wrong = _wrong_measurements()
        if not wrong and _bits_of_a_small_model() != self._bits:
            wrong = "torchvision's own ViT gives other numbers than before the candidate's code was imported"
        if not wrong:
            return []
        changed = self._changed()
        by = f" ({listed(changed)} {'is' if len(changed) == 1 else 'are'} another now)" if changed else ""
        return [f"{wrong}{by}; whatever was measured holds for that torch alone: take it out of the candidate's file"]

    def _changed(self) -> list[str]:
        now = _functions()
        changed = [
            name
            for name, known in self._functions.items()
            if now.get(name) is not known
            and getattr(now.get(name), "__module__", None) != "torch._dynamo.mutation_guard"  # torch.compile's own
        ]
        # nn.functional.gelu is torch._C._nn.gelu: named once, where people call it
        names = [name for name in changed if not name.startswith("torch._")] or changed
        hooks, flags = _hooks(), _flags()
        names += [f"{name} (a hook on every module)" for name, many in hooks.items() if many > self._hooks[name]]
        return [*names, *(name for name, value in flags.items() if value != self._flags[name])]


@functools.cache
def surroundings() -> Surroundings:
    """Returns how it was when this was first asked for, which is before a candidate is imported."""
    return Surroundings()


def _bits_of_a_small_model() -> list[bytes]:
    """Runs torchvision's ViT of one block in eval and in train mode, and backward."""
    bits = []
    with ambient_kept():
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(1)  # whose number decides on the order of sums
        torch.set_rng_state(random_state_of(0))
        try:
            model = vision_transformer.VisionTransformer(8, 4, 1, 2, 8, 16, 0.1, 0.1, num_classes=3)
            with torch.no_grad():
                for n, parameter in enumerate(model.parameters()):
                    parameter.copy_(_wave(parameter.numel(), n).view(parameter.shape))
            images = _wave(2 * 3 * 8 * 8, 1).view(2, 3, 8, 8)
            for mode in (MODES["eval"], Mode("train", train=True, grad=True, backward=True)):
                with mode.active(model):
                    logits = model(images)
                    bits.append(_bytes(logits))
            torch.autograd.backward(logits, torch.ones_like(logits))
            bits += [_bytes(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
        except Exception as error:  # noqa: BLE001  (whatever somebody's torch does)
            bits.append(repr(error).encode())
    return bits


def _wave(count: int, phase: int) -> torch.Tensor:
    return torch.tensor([math.sin(0.7 * n + phase) for n in range(count)], dtype=torch.float32)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().numpy().tobytes()


def _wrong_measurements() -> str:
    """Tries the measures on pairs whose distance is known."""
    one, other = torch.tensor([[1.0, -2.0, 3.0]]), torch.tensor([[1.0, -2.0, 3.5]])
    close = torch.tensor([[1.0, -2.0, 3.0 + 2**-21]])
    same, different, near = compare(one, one.clone()), compare(one, other), compare(one, close)
    expected = 0.5 / math.sqrt(1 + 4 + 9)
    if not (same.identical and same.same_function) or not torch.equal(one, one.clone()):
        return "equal tensors are found to be different"
    if different.identical or different.same_function or torch.equal(one, other):
        return "different tensors are found to be equal"
    if near.identical or not math.isclose(different.relative, expected, rel_tol=1e-5):
        return "the distance of two tensors is not measured right"
    return ""


def _functions() -> dict[str, Any]:
    """Returns the functions that models are made of, by name."""
    classes = {f"torch.nn.{name}": c for name, c in vars(nn).items() if inspect.isclass(c)}
    classes |= {f"torchvision's {name}": c for name, c in vars(vision_transformer).items() if inspect.isclass(c)}
    classes |= {"torch.Tensor": torch.Tensor}
    owners: dict[str, Any] = {"torch.nn.functional": F, "torch": torch, **classes}
    return {
        f"{owner}.{name}": value
        for owner, holder in owners.items()
        for name, value in list(vars(holder).items())
        if callable(value) or isinstance(value, property)
    }


def _hooks() -> dict[str, int]:
    return {
        name.removeprefix("_global_"): len(value)
        for name, value in vars(hooks_of_all).items()
        if name.startswith("_global_") and isinstance(value, dict)
    }


def _flags() -> dict[str, Any]:
    return {
        "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision(),
        "torch.are_deterministic_algorithms_enabled()": torch.are_deterministic_algorithms_enabled(),
        "torch.backends.mkldnn.enabled": torch.backends.mkldnn.enabled,
    }
