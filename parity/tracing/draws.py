"""What a model draws at random in a forward pass, and where: its dropout sites, in order."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from parity.tracing.masks import COMPARISONS, UNIFORM, kept_by
from parity.tracing.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from parity.tracing.modes import Mode

DROPOUT, RANDOM, ACTIVATION = "dropout", "random numbers", "activation"

_aten = torch.ops.aten
_ACTIVATIONS = {
    _aten.gelu.default, _aten.relu.default, _aten.silu.default, _aten.tanh.default, _aten.erf.default,
    _aten.sigmoid.default, _aten.relu_.default, _aten.silu_.default,
}  # fmt: skip
_RANDOM = {
    _aten.rand.default, _aten.rand_like.default, _aten.randn.default, _aten.randn_like.default, _aten.uniform_.default,
    _aten.normal_.default, _aten.bernoulli.default, _aten.bernoulli.p, _aten.bernoulli_.Tensor, _aten.randint.default,
    _aten.randperm.default,
}  # fmt: skip
# so many numbers are hardly drawn alike twice
_MANY = 64

# what makes a mask of uniform numbers, which are rounded down, if not compared
_SUMS = {_aten.add.Tensor, _aten.add_.Tensor}


@dataclass(frozen=True)
class Site:
    """One event of a forward pass that says where dropout stands.

    Attributes:
        kind: `DROPOUT`, `RANDOM` for another way to draw, or `ACTIVATION`.
        rate: the probability to drop, of a dropout, or of numbers that are compared with it; otherwise 0.
        shape: of the mask or the numbers, or of what is activated.
        module: the innermost module in whose call it happens; empty for the model itself.
        digest: of what is drawn.
    """

    kind: str
    rate: float
    shape: tuple[int, ...]
    module: str
    digest: int = 0

    @property
    def size(self) -> int:
        """How many numbers are drawn."""
        return math.prod(self.shape)


class _Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every draw and every activation."""

    def __init__(self, module: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sites: list[Site] = []
        self.constant: set[int] = set()
        self._module = module
        self._uniform = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is _aten.bernoulli_.float:
            self._note(DROPOUT, result, 1 - kept_by(args))
        elif function is _aten.native_dropout.default:
            self._note(DROPOUT, result[1], args[1])
        elif function in _RANDOM:
            probabilities = function is _aten.bernoulli.default and bool(args[0].numel())
            self._note(RANDOM, result, round(1 - float(args[0].flatten()[0]), 6) if probabilities else 0.0)
            if function in UNIFORM:
                self._uniform[result] = len(self.sites) - 1
        elif function in _SUMS | COMPARISONS.keys() and args[0] in self._uniform and isinstance(args[1], (int, float)):
            number = self._uniform[args[0]]
            rate = 1 - args[1] if function in _SUMS else min(args[1], 1 - args[1])  # less is dropped than is kept
            self.sites[number] = dataclasses.replace(self.sites[number], rate=round(rate, 9))
            if function in COMPARISONS and rate <= 0:
                self.constant.add(number)
        elif function in _ACTIVATIONS:
            self._note(ACTIVATION, result, 0.0)
        return result

    def _note(self, kind: str, tensor: torch.Tensor, rate: float) -> None:
        digest = 0 if kind == ACTIVATION else hash(tensor.float().cpu().numpy().tobytes())
        self.sites.append(Site(kind, round(rate, 9), tuple(tensor.shape), self._module(), digest))


def sites_of(model: nn.Module, images: torch.Tensor, mode: Mode, seed: int, owner: str) -> list[Site]:
    """Runs a model once and returns its draws and activations, in order.

    Numbers of which all or none are taken, as by a dropout of rate 0, are none.

    Raises:
        ParityError: the model failed.
    """
    with mode.active(model), _innermost(model) as module:
        draws = _Draws(module)
        with draws:
            Run(model, images, set(), seed, owner).finish()
    return [site for number, site in enumerate(draws.sites) if number not in draws.constant]


def fixed_sites(model: nn.Module, images: torch.Tensor, mode: Mode, seed: int, owner: str) -> list[Site]:
    """Returns the draws that are the same under another seed, since the model seeds, keeps or makes them itself.

    Raises:
        ParityError: the model failed.
    """
    one, other = (sites_of(model, images, mode, seed + more, owner) for more in (0, 1))
    return [
        site
        for site, again in zip(one, other, strict=False)
        if site.kind != ACTIVATION and site.size >= _MANY and site.digest == again.digest
    ]


@contextlib.contextmanager
def _innermost(model: nn.Module) -> Iterator[Callable[[], str]]:
    """Yields a function that names the innermost module whose call has not ended."""
    stack: list[str] = []
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: stack.append(name)))
        handles.append(module.register_forward_hook(lambda *_: (stack.pop(), None)[1]))
    try:
        yield lambda: stack[-1] if stack else ""
    finally:
        for handle in handles:
            handle.remove()
