"""The reference and the measure, themselves checked: torch computes what it did before anybody else's code ran.

A candidate lives in the same process. What its file does to torch (another `F.gelu`, a hook on every module), it does
to the reference as well, and two wrong models agree.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as hooks_of_all
from torchvision.models import vision_transformer

from parity.errors import ParityError, listed
from parity.tracing import BACKENDS, MODES, Ambient, Mode, ambient_kept, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _First:
    """What torch gives before any candidate's code has run: bits of a small reference, functions, hooks, settings."""

    def __init__(self, device: str) -> None:
        self.functions = _functions()
        self.hooks = _hooks()
        self.settings = _settings()
        self.bits = _bits_of_a_small_model(device)


class Surroundings:
    """What torch computes with as a check begins: as it did at first, and as the user has told it since."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._first = _first(device)
        self._settings = _settings()

    def doubts(self) -> list[str]:
        """Returns what is no longer so and lets no measurement count, a sentence each."""
        wrong = _wrong_measurements()
        if not wrong and (self._bits_under(self._first.settings) != self._first.bits or self._is_told_otherwise()):
            wrong = "torchvision's own ViT gives other numbers than before the candidate's code was imported"
        if not wrong:
            return []
        changed = self._changed()
        by = f" ({_are_others(changed)})" if changed else ""
        return [f"{wrong}{by}; whatever was measured holds for that torch alone: take it out of the candidate's file"]

    def _is_told_otherwise(self) -> bool:
        """Whether settings that the candidate's code has changed give other bits than the user's."""
        return _settings() != self._settings and self._bits_under(self._settings) != _bits_of_a_small_model(
            self._device
        )

    def _bits_under(self, settings: dict[str, Any]) -> list[bytes]:
        """Returns the bits of the small model where torch is told these settings, and tells it its own again."""
        own = _settings()
        _tell(settings, own)
        try:
            return _bits_of_a_small_model(self._device)
        finally:
            _tell(own, settings)

    def blamed(self, error: ParityError) -> ParityError:
        """Returns an error with what is no longer so, since it may come of that."""
        changed = self._changed()
        if not changed:
            return error
        return ParityError(f"{error}; that may be since {_are_others(changed)}: take it out of the candidate's file")

    def _changed(self) -> list[str]:
        now = _functions()
        changed = [
            name
            for name, known in self._first.functions.items()
            if now.get(name) is not known
            and getattr(now.get(name), "__module__", None) != "torch._dynamo.mutation_guard"  # torch.compile's own
        ]
        # nn.functional.gelu is torch._C._nn.gelu: named once, where people call it
        names = [name for name in changed if not name.startswith("torch._")] or changed
        hooks, settings = _hooks(), _settings()
        names += [f"{name} (a hook on every module)" for name, many in hooks.items() if many > self._first.hooks[name]]
        return [*names, *(name for name, value in settings.items() if value != self._settings[name])]


def surroundings(device: str = "cpu") -> Surroundings:
    """Returns how it is as a check on a device begins, before its candidate is imported."""
    return Surroundings("cpu" if device == "meta" else device)


@functools.cache
def _first(device: str) -> _First:
    return _First(device)


def _tell(settings: dict[str, Any], before: dict[str, Any]) -> None:
    for name, value in settings.items():
        if value != before[name]:
            _SETTINGS[name][1](value)


def _are_others(names: list[str]) -> str:
    return f"{listed(names)} {'is' if len(names) == 1 else 'are'} another now"


def _bits_of_a_small_model(device: str) -> list[bytes]:
    """Runs torchvision's ViT of one block in eval and in train mode, and backward."""
    bits = []
    with ambient_kept(), _no_trying():
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(1)  # whose number decides on the order of sums
        try:
            model = vision_transformer.VisionTransformer(8, 4, 1, 2, 8, 16, 0.1, 0.1, num_classes=3).to(device)
            Ambient.now().seeded(0).restore()  # of a GPU that is in use as of now as well
            with torch.no_grad():
                for n, parameter in enumerate(model.parameters()):
                    parameter.copy_(_wave(parameter.numel(), n).view(parameter.shape))
            images = _wave(2 * 3 * 8 * 8, 1).view(2, 3, 8, 8).to(device)
            for mode in (MODES["eval"], Mode("train", train=True, grad=True, backward=True)):
                with mode.active(model):
                    logits = model(images)
                    bits.append(_bytes(logits))
            torch.autograd.backward(logits, torch.ones_like(logits))
            bits += [_bytes(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
        except Exception as error:  # noqa: BLE001  (whatever somebody's torch does)
            bits.append(repr(error).encode())
    return bits


@contextlib.contextmanager
def _no_trying() -> Iterator[None]:
    """Keeps cuDNN from picking its algorithms by which of them is fastest at the moment."""
    was = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = was


def _wave(count: int, phase: int) -> torch.Tensor:
    return torch.tensor([math.sin(0.7 * n + phase) for n in range(count)], dtype=torch.float32)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().numpy().tobytes()


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


def _settings() -> dict[str, Any]:
    return {name: ask() for name, (ask, _) in _SETTINGS.items()}


def _deterministic(value: bool) -> None:  # noqa: FBT001
    torch.use_deterministic_algorithms(value, warn_only=torch.is_deterministic_algorithms_warn_only_enabled())


def _onednn(value: bool) -> None:  # noqa: FBT001
    torch._C._set_mkldnn_enabled(value)  # noqa: SLF001  (as torch.backends.mkldnn does, and nothing beside it)


# what a user may tell torch between two checks, and a candidate's code must not: how it is asked, and told
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    **{backend.told: (functools.partial(getattr, backend, "value"), backend.tell) for backend in BACKENDS},
    "torch.are_deterministic_algorithms_enabled()": (torch.are_deterministic_algorithms_enabled, _deterministic),
    "torch.backends.mkldnn.enabled": (lambda: torch.backends.mkldnn.enabled, _onednn),
    "torch.backends.cuda.flash_sdp_enabled()": (
        torch.backends.cuda.flash_sdp_enabled,
        torch.backends.cuda.enable_flash_sdp,
    ),
    "torch.get_default_dtype()": (torch.get_default_dtype, torch.set_default_dtype),
}
