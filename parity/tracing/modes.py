"""How torch stands while a model runs: the modes of a forward pass, and the state that a model may change."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _device as default_device

from parity.errors import described
from parity.tracing.attention_weights import attention_written_out
from parity.tracing.masks import DropoutMasks, MasksBySize, MasksByValue, NoDropout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from torch import nn

    Autocast: TypeAlias = dict[str, tuple[bool, torch.dtype]]


@dataclass(frozen=True)
class Mode:
    """How a forward pass is run.

    Attributes:
        name: as in the report.
        train: train mode, with dropout.
        grad: with autograd recording.
        fastpath: whether `nn.MultiheadAttention` may use its native kernel, which it does in eval mode without grad.
        same_masks: give equal masks to dropouts of equal shape, whatever their tensors' layout in memory.
        by_size: let how many numbers are drawn alone decide which, so that neither order nor other draws count.
        by_value: let what is dropped alone decide, so that the order of tokens, heads and images doesn't count either.
        no_dropout: let dropouts keep everything.
        backward: keep what a backward pass needs.
    """

    name: str
    train: bool = False
    grad: bool = False
    fastpath: bool = True
    same_masks: bool = False
    by_size: bool = False
    by_value: bool = False
    no_dropout: bool = False
    backward: bool = False

    @property
    def has_own_masks(self) -> bool:
        """Whether dropouts draw their masks as torch does."""
        return not (self.same_masks or self.by_size or self.by_value or self.no_dropout)

    @contextlib.contextmanager
    def active(self, *models: nn.Module) -> Iterator[None]:
        """Puts torch and `models` into this mode for as long as the context lasts.

        A GPU's kernels of attention drop inside, where nobody sees or shares their masks: in train mode it is written
        out there.
        """
        flag = getattr(torch.backends, "mha", None)
        was_enabled = flag.get_fastpath_enabled() if flag else True
        try:
            if flag:
                flag.set_fastpath_enabled(self.fastpath)
            masks: Any = DropoutMasks() if self.same_masks else contextlib.nullcontext()  # type: ignore[no-untyped-call]
            masks = MasksBySize() if self.by_size else masks
            masks = MasksByValue() if self.by_value else masks
            masks = NoDropout() if self.no_dropout else masks  # type: ignore[no-untyped-call]
            saved: Any = contextlib.nullcontext() if self.backward else _no_saved_tensors()
            is_hidden = self.train and any(parameter.is_cuda for m in models for parameter in islice(m.parameters(), 1))
            dropping: Any = attention_written_out() if is_hidden else contextlib.nullcontext()
            with in_mode(*models, train=self.train), torch.set_grad_enabled(self.grad), saved, dropping, masks:
                yield
        finally:
            if flag:
                flag.set_fastpath_enabled(was_enabled)


@contextlib.contextmanager
def in_mode(*models: nn.Module, train: bool) -> Iterator[None]:
    """Puts `models` into train or eval mode for as long as the context lasts."""
    before = [(module, module.training) for model in models for module in model.modules()]
    try:
        if any(was_training != train for _, was_training in before):
            for model in models:
                switch(model, train=train)
        yield
    finally:
        for module, was_training in before:
            if module.training != was_training:
                _set_flag(module, train=was_training)


def switch(model: nn.Module, *, train: bool) -> None:
    """Puts a model into train or eval mode; where its own `train` refuses, by its modules' flags, as torch's does."""
    try:
        model.train(train)
    except (Exception, SystemExit):  # noqa: BLE001  (whatever somebody's code does)
        for module in model.modules():
            _set_flag(module, train=train)


def _set_flag(module: nn.Module, *, train: bool) -> None:
    try:
        module.training = train
    except Exception:  # noqa: BLE001  (of a class that lets nobody set anything)
        vars(module)["training"] = train


def refusal_of_modes(model: nn.Module) -> str | None:
    """Returns what `model.train()` or `model.eval()` raises, in words, or None; the model is left as it was."""
    with in_mode(model, train=model.training):
        try:
            model.train(not model.training)
            model.train(not model.training)
        except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever somebody's code does)
            return described(error)
    return None


MODES = {
    mode.name: mode
    for mode in (
        Mode("eval"),
        Mode("eval-no-fastpath", fastpath=False),
        Mode("eval-grad", grad=True),
        Mode("train", train=True, grad=True),
    )
}


def can_switch_fastpath() -> bool:
    """Returns whether this torch release has the switch of the native attention kernel (since 2.3)."""
    return hasattr(torch.backends, "mha")


def _no_saved_tensors() -> torch.autograd.graph.saved_tensors_hooks:
    """Drops what a backward pass would need: the code path of grad mode without its memory."""
    nothing = torch.empty(0)
    return torch.autograd.graph.saved_tensors_hooks(lambda _: nothing, lambda packed: packed)


def random_state_of(seed: int) -> torch.Tensor:
    """Returns a state of torch's generator for a seed; it is that of no `torch.manual_seed` that people call."""
    return torch.Generator().manual_seed(_own_seed(seed)).get_state()


def _own_seed(seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"parity/{seed}".encode(), digest_size=7).digest(), "little")


@dataclass(frozen=True)
class Ambient:
    """What torch computes with besides a call's arguments, and a model may change."""

    grad: bool
    random: torch.Tensor
    default_dtype: torch.dtype
    autocast: Autocast
    random_of_gpus: tuple[torch.Tensor, ...] = ()

    @classmethod
    def now(cls) -> Ambient:
        """Returns the state of this moment."""
        random = torch.default_generator.get_state()
        return cls(torch.is_grad_enabled(), random, torch.get_default_dtype(), _autocast(), _random_of_gpus())

    def seeded(self, seed: int) -> Ambient:
        """Returns this state with all generators as they are at the beginning of a run."""
        gpus = self.random_of_gpus
        if gpus:
            torch.cuda.manual_seed_all(_own_seed(seed))
            gpus = _random_of_gpus()
            torch.cuda.set_rng_state_all(self.random_of_gpus)
        return replace(self, random=random_state_of(seed), random_of_gpus=gpus)

    def restore(self) -> None:
        """Puts torch into this state."""
        torch.default_generator.set_state(self.random)
        if self.random_of_gpus:
            torch.cuda.set_rng_state_all(self.random_of_gpus)
        # most often nothing else has changed, and asking is cheaper than telling
        if torch.is_grad_enabled() != self.grad:
            torch.set_grad_enabled(self.grad)
        if torch.get_default_dtype() != self.default_dtype:
            torch.set_default_dtype(self.default_dtype)
        if _autocast() != self.autocast:
            for device, told in self.autocast.items():
                _set_autocast(device, *told)


def _random_of_gpus() -> tuple[torch.Tensor, ...]:
    """Returns the states of the generators that dropouts on GPUs draw from; of GPUs that nobody uses, none."""
    return tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]


_HAS_AUTOCAST_BY_DEVICE = hasattr(torch, "get_autocast_dtype")  # since torch 2.4


def _autocast() -> Autocast:
    """Returns what autocast is told, by kind of device; of GPUs that nobody uses, nothing."""
    devices = ("cpu", "cuda") if torch.cuda.is_initialized() else ("cpu",)  # type: ignore[no-untyped-call]
    return {device: _told_autocast(device) for device in devices}


def _told_autocast(device: str) -> tuple[bool, torch.dtype]:
    if _HAS_AUTOCAST_BY_DEVICE:
        return torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    if device == "cpu":
        return torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    return torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()


def _set_autocast(device: str, enabled: bool, dtype: torch.dtype) -> None:  # noqa: FBT001
    if _HAS_AUTOCAST_BY_DEVICE:
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
    elif device == "cpu":
        torch.set_autocast_cpu_enabled(enabled)
        torch.set_autocast_cpu_dtype(dtype)
    else:
        torch.set_autocast_enabled(enabled)
        torch.set_autocast_gpu_dtype(dtype)


def _default_device() -> torch.device | None:
    """Returns the device that torch is told to make tensors on; None where it is told none, or cannot be asked."""
    return getattr(default_device, "CURRENT_DEVICE", None)  # torch 2.0 has none


@contextlib.contextmanager
def ambient_kept() -> Iterator[None]:
    """Puts back what a candidate's constructor or forward pass may change for everybody."""
    ambient, threads, device = Ambient.now(), torch.get_num_threads(), _default_device()
    try:
        yield
    finally:
        ambient.restore()
        if device != _default_device():
            # while torch is told any, the CPU as well, it takes other kernels
            torch.set_default_device(device)
        torch.set_num_threads(threads)
