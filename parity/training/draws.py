"""What a model draws at random in a forward pass, and where: its dropout sites, in order."""

from __future__ import annotations

import contextlib
import difflib
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from parity.tracing import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from parity.tracing import Mode

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


@dataclass(frozen=True)
class Site:
    """One event of a forward pass that says where dropout stands.

    Attributes:
        kind: `DROPOUT`, `RANDOM` for another way to draw, or `ACTIVATION`.
        rate: the probability to drop, of a dropout.
        shape: of the mask or the numbers, or of what is activated.
        module: the innermost module in whose call it happens; empty for the model itself.
    """

    kind: str
    rate: float
    shape: tuple[int, ...]
    module: str

    @property
    def size(self) -> int:
        """How many numbers are drawn."""
        return math.prod(self.shape)


class _Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every draw and every activation."""

    def __init__(self, module: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sites: list[Site] = []
        self._module = module

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is _aten.bernoulli_.float:
            self._note(DROPOUT, result, 1 - args[1])
        elif function is _aten.native_dropout.default:
            self._note(DROPOUT, result[1], args[1])
        elif function in _RANDOM:
            self._note(RANDOM, result, 0.0)
        elif function in _ACTIVATIONS:
            self._note(ACTIVATION, result, 0.0)
        return result

    def _note(self, kind: str, tensor: torch.Tensor, rate: float) -> None:
        self.sites.append(Site(kind, round(rate, 9), tuple(tensor.shape), self._module()))


def sites_of(model: nn.Module, images: torch.Tensor, mode: Mode, seed: int, owner: str) -> list[Site]:
    """Runs a model once and returns its draws and activations, in order.

    Raises:
        ParityError: the model failed.
    """
    with mode.active(model), _innermost(model) as module:
        draws = _Draws(module)
        with draws:
            Run(model, images, set(), seed, owner).finish()
    return draws.sites


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


@dataclass(frozen=True)
class Difference:
    """One way in which two models draw differently.

    Attributes:
        cause: the id of the cause.
        statement: what is different.
        reference: the module of the reference where it is, or that is closest.
        candidate: the module of the candidate where it is, or empty.
    """

    cause: str
    statement: str
    reference: str
    candidate: str = ""


def differences(reference: list[Site], candidate: list[Site]) -> list[Difference]:
    """Returns how the candidate's dropout sites differ from the reference's; nothing if they are the same.

    Args:
        reference: draws and activations of the reference, in order.
        candidate: the candidate's.
    """
    ours, theirs = _draws(reference), _draws(candidate)
    if [(s.kind, s.rate, s.size) for s in ours] == [(s.kind, s.rate, s.size) for s in theirs]:
        return _order_among_activations(reference, candidate)
    if _merged(ours) == _merged(theirs):  # head by head, for example
        return []
    if sorted((s.rate, s.size) for s in ours) == sorted((s.rate, s.size) for s in theirs):
        first = next(
            n for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if (a.rate, a.size) != (b.rate, b.size)
        )
        statement = (
            f"dropout masks are drawn in another order: the {_ordinal(first)} one is drawn in {_place(theirs[first])} "
            f"with rate {theirs[first].rate:g}, the reference's in {_place(ours[first])} with {ours[first].rate:g}"
        )
        return [Difference("dropout-order", statement, ours[first].module, theirs[first].module)]
    return list(_site_by_site(ours, theirs))


def _site_by_site(ours: list[Site], theirs: list[Site]) -> Iterator[Difference]:
    matcher = difflib.SequenceMatcher(None, [s.size for s in ours], [s.size for s in theirs], autojunk=False)
    for _, i, i_end, j, j_end in matcher.get_opcodes():
        paired = list(zip(ours[i:i_end], theirs[j:j_end], strict=False))
        for own, other in paired:
            if _is_of_branches(other) and own.size != other.size:
                yield _stochastic_depth(other, own)
            elif own.rate != other.rate:
                statement = f"the dropout in {_place(other)} has rate {other.rate:g}, the reference's {own.rate:g}"
                yield Difference("dropout-rate", statement, own.module, other.module)
            elif own.size != other.size:
                statement = (
                    f"the dropout in {_place(other)} has masks of shape {other.shape}, the reference's {own.shape}"
                )
                yield Difference("dropout-shape", statement, own.module, other.module)
        for own in ours[i + len(paired) : i_end]:
            statement = f"the candidate lacks the dropout in {_place(own)} with rate {own.rate:g}"
            yield Difference("dropout-missing", statement, own.module)
        for other in theirs[j + len(paired) : j_end]:
            near = ours[max(i - 1, 0)].module if ours else ""
            if _is_of_branches(other):
                yield _stochastic_depth(other, None, near)
            else:
                what = f"{other.kind} of rate {other.rate:g}"
                statement = f"the candidate draws in {_place(other)}, {what}; the reference doesn't"
                yield Difference("dropout-extra", statement, near, other.module)


def _is_of_branches(site: Site) -> bool:
    """Whether a mask is shared by whole tokens or samples, as those of stochastic depth are."""
    return len(site.shape) >= 2 and site.shape[-1] == 1


def _stochastic_depth(site: Site, own: Site | None, near: str = "") -> Difference:
    per_token = len(site.shape) >= 2 and any(length > 1 for length in site.shape[1:-1])
    whole = "per token" if per_token else "per sample"
    instead = f"the reference drops with masks of shape {own.shape}" if own else "the reference has none"
    hint = "; it should drop whole branches of a sample, a mask of shape (batch, 1, 1)" if per_token else ""
    statement = f"stochastic depth in {_place(site)} draws {whole}, masks of shape {site.shape}; {instead}{hint}"
    return Difference("stochastic-depth", statement, own.module if own else near, site.module)


def _order_among_activations(reference: list[Site], candidate: list[Site]) -> list[Difference]:
    """Returns where a dropout stands on the other side of an activation."""
    if [s.kind for s in reference if s.kind == ACTIVATION] != [s.kind for s in candidate if s.kind == ACTIVATION]:
        return []  # activations that are not recognised; the forward pass compares them
    for own, other in zip(reference, candidate, strict=True):
        if own.kind != other.kind:
            mine, theirs = ("after", "before") if own.kind == ACTIVATION else ("before", "after")
            where = _place(own if other.kind == ACTIVATION else other)
            statement = f"the dropout in {where} stands {theirs} the activation, the reference's {mine} it"
            return [Difference("dropout-order", statement, own.module, other.module)]
    return []


def _draws(sites: list[Site]) -> list[Site]:
    return [site for site in sites if site.kind != ACTIVATION]


def _merged(sites: list[Site]) -> list[tuple[float, int]]:
    """Returns rates and sizes, neighbours of one rate as one."""
    return [(rate, sum(s.size for s in group)) for rate, group in itertools.groupby(sites, lambda s: s.rate)]


def _place(site: Site) -> str:
    return site.module or "the model itself"


def _ordinal(position: int) -> str:
    return f"{position + 1}" + {0: "st", 1: "nd", 2: "rd"}.get(position, "th")
