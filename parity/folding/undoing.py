"""Undoing a change by other weights: a candidate that scales, reorders or shifts can still be the same function.

An explanation says which changes make the reference the candidate. Where a change is one of numbers, such as another
attention scale, of order, such as a transposed grid of positions, or of what happens to a pixel, there are weights
under which the changed model does what the unchanged one did. They are found by asking the change itself what it makes
of numbers that can be told apart; names and places are those of torchvision's ViT, as in `explanation.bent_vit`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from parity.explanation import cut_patches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from parity.explanation import Change
    from parity.folding.drafts import Draft

    State = Mapping[str, torch.Tensor]

# operations that hand on one tensor of the state dict, and which one, by the place
_TENSORS = {
    "tensor": "{}",
    "table": "{}",
    "token": "{}",
    "kernel": "{}.weight",
    "in_proj_weight": "{}.in_proj_weight",
    "in_proj_bias": "{}.in_proj_bias",
}
_PROJECTIONS = {"linear": "{}.", "projection": "{}.", "in_proj": "{}.in_proj_"}
_POSITIONS = "encoder.pos_embedding"
_BRANCHES = {"residual_1": "self_attention.out_proj", "residual_2": "mlp.3"}


class Effect(Protocol):
    """What a change does to weights, seen from the model without it."""

    @property
    def words(self) -> str:
        """What undoing it does to the tensors, in words."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """The tensors, or slices of tensors, that it changes."""
        ...

    @property
    def lost(self) -> tuple[str, ...]:
        """Those that the changed model doesn't use at all."""
        ...

    def seen(self, draft: Draft) -> None:
        """Turns the changed model's weights into those with which the unchanged one does the same."""
        ...

    def undone(self, draft: Draft) -> None:
        """Turns the unchanged model's weights into those with which the changed one does the same."""
        ...


@dataclass(frozen=True)
class _Factor:
    """The changed model acts as if these tensors were larger by a factor."""

    words: str
    parts: tuple[str, ...]
    factor: float
    lost: tuple[str, ...] = ()

    def seen(self, draft: Draft) -> None:
        for part in self.parts:
            draft[part] = draft[part] * self.factor

    def undone(self, draft: Draft) -> None:
        for part in self.parts:
            draft[part] = draft[part] / self.factor


@dataclass(frozen=True)
class _Order:
    """The changed model uses the values of a tensor in another order, and some, maybe, not at all.

    `index` has for each value that is used its place in the tensor, -1 for a zero.
    """

    phrase: str
    name: str
    index: torch.Tensor
    lost: tuple[str, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        is_kept = (self.index < 0) | (self.index == torch.arange(len(self.index)))
        return self.lost if self.lost and bool(is_kept.all()) else (self.name,)

    @property
    def words(self) -> str:
        return f"{'filled with zeros' if self.parts == self.lost else 'put where it is used'}, for {self.phrase}"

    def seen(self, draft: Draft) -> None:
        values = draft[self.name].flatten()[self.index.clamp(min=0)]
        draft[self.name] = torch.where(self.index < 0, torch.zeros_like(values), values)

    def undone(self, draft: Draft) -> None:
        values, used = draft[self.name].flatten(), self.index >= 0
        moved = torch.zeros_like(values)
        moved[self.index[used]] = values[used]
        draft[self.name] = moved


@dataclass(frozen=True)
class _Pixels:
    """The changed model takes a patch's pixels `x` as `matrix @ x + offset`."""

    words: str
    matrix: torch.Tensor
    offset: torch.Tensor
    parts: tuple[str, ...] = ("conv_proj.weight", "conv_proj.bias")
    lost: tuple[str, ...] = ()

    def seen(self, draft: Draft) -> None:
        kernel = draft["conv_proj.weight"].flatten(1)
        draft["conv_proj.bias"] = draft["conv_proj.bias"] + kernel @ self.offset.to(kernel)
        draft["conv_proj.weight"] = kernel @ self.matrix.to(kernel)

    def undone(self, draft: Draft) -> None:
        kernel = draft["conv_proj.weight"].flatten(1)
        kernel = torch.linalg.solve(self.matrix.to(kernel).T, kernel.T).T
        draft["conv_proj.weight"] = kernel
        draft["conv_proj.bias"] = draft["conv_proj.bias"] - kernel @ self.offset.to(kernel)


def effects_of(changes: Sequence[Change], config: Mapping[str, Any], state: State) -> list[Effect]:
    """Returns what the changes do to weights, as far as that is all they do, in the order in which it is undone.

    Args:
        changes: those of a complete explanation.
        config: torchvision's arguments of the reference.
        state: the reference's, of which names and shapes are used.
    """
    known = [change for change in changes if not (change.kind.by_place or change.kind.is_random)]
    operations = [
        (change, operation, change.kind.elsewhere.get(operation, change.place))
        for change in known
        for operation in change.kind.variants
    ]
    found: list[Effect] = []
    for change, operation, place in operations:
        variant = change.variant(operation)
        if operation in _TENSORS or operation in _PROJECTIONS:
            found += _orders(variant, operation, place, config, state, change.phrase)
        else:
            factors = _factors(variant, operation, place, config, state)
            found += [_Factor(f"rescaled, for {change.phrase}", parts, factor) for parts, factor in factors]
    return [*found, *_pixels(operations, state)]


def fixed_tables(changes: Sequence[Change], state: State) -> dict[str, torch.Tensor]:
    """Returns values of the reference's tensors that a candidate has computed, or holds where no state dict shows it.

    Args:
        changes: those of a complete explanation.
        state: the reference's, of which names and shapes are used.
    """
    return {
        change.place: change.value
        for change in changes
        if change.kind.fit is not None
        and "add" in change.kind.variants
        and isinstance(change.value, torch.Tensor)
        and change.place in state
        and change.value.shape == state[change.place].shape
    }


def _orders(
    variant: Callable[..., Any], operation: str, place: str, config: Mapping[str, Any], state: State, phrase: str
) -> Iterator[Effect]:
    """Yields what becomes of the tensors of an operation, if they only come in another order, or in part."""
    if operation in _TENSORS:
        names = [_TENSORS[operation].format(place)]
    else:
        names = [_PROJECTIONS[operation].format(place) + part for part in ("weight", "bias")]
    if not all(name in state for name in names):
        return
    numbers = [torch.arange(1, state[n].numel() + 1, dtype=torch.float64).view(state[n].shape) for n in names]
    if operation == "tensor":
        results: Any = [variant(lambda: numbers[0])]
    elif operation in _TENSORS:
        results = [variant(lambda x, *_: x, *numbers, config["image_size"] // config["patch_size"])][:1]
    else:
        results = variant(lambda _, *tensors: tensors, torch.zeros(1), *numbers)
    if not isinstance(results, (list, tuple)):
        return
    for name, own, result in zip(names, numbers, results, strict=True):
        if not isinstance(result, torch.Tensor) or result.shape != own.shape or torch.equal(result, own):
            continue
        index = result.flatten().round().long() - 1
        used = index[index >= 0]
        if torch.equal(result.flatten(), index.double() + 1) and len(set(used.tolist())) == len(used):
            yield _Order(phrase, name, index, _lost(name, result))


def _lost(name: str, result: torch.Tensor) -> tuple[str, ...]:
    """Names the slice of a tensor that a model has zeros instead of; none if that is no slice."""
    is_lost = result == 0
    places = is_lost.nonzero()
    if not len(places):
        return ()
    bounds = [(int(axis.min()), int(axis.max()) + 1) for axis in places.T]
    if math.prod(stop - start for start, stop in bounds) != len(places):
        return ()
    box = [":" if b == (0, n) else f"{b[0]}:{b[1]}" for b, n in zip(bounds, result.shape, strict=True)]
    while box and box[-1] == ":":
        box.pop()
    return (f"{name}[{', '.join(box)}]" if box else name,)


def _factors(
    variant: Callable[..., Any], operation: str, place: str, config: Mapping[str, Any], state: State
) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yields the tensors that a change acts on as a factor would, and the factor."""
    width = config["hidden_dim"]
    usual = 1 / math.sqrt(width // config["num_heads"])
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    rows = {"scale": slice(0, width), "mix": slice(2 * width, 3 * width)}
    tokens = ("class_token", "conv_proj.weight", "conv_proj.bias")
    found: list[tuple[tuple[str, ...], Any]] = []
    if operation in rows:
        part = f"[{rows[operation].start}:{rows[operation].stop}]"
        value = variant(lambda _: usual, one) / usual if operation == "scale" else variant(lambda _, x: x, one, one)
        found.append((tuple(f"{place}.in_proj_{kind}{part}" for kind in ("weight", "bias")), value))
    elif operation in _BRANCHES:
        stream = variant(None, one, one, zero, one)
        if bool((stream == 1).all()):
            branch = f"{place}.{_BRANCHES[operation]}"
            found.append(((f"{branch}.weight", f"{branch}.bias"), variant(None, zero, zero, one, zero)))
    elif place == _POSITIONS and operation == "add":
        found.append((tokens, variant(torch.add, one, zero)))
        found.append(((_POSITIONS,), variant(torch.add, zero, one)))
    elif place == _POSITIONS and operation == "output":
        found.append(((*tokens, _POSITIONS), variant(lambda x: x, one)))
    for parts, value in found:
        factor = float(value) if not isinstance(value, torch.Tensor) or value.numel() == 1 else 0.0
        held = tuple(part for part in parts if part.partition("[")[0] in state)
        if factor not in (0.0, 1.0) and math.isfinite(factor) and held:
            yield held, factor


def _pixels(operations: Sequence[tuple[Change, str, str]], state: State) -> Iterator[Effect]:
    """Yields what becomes of a patch's pixels on their way to the projection, found with one pixel lit at a time."""
    changes = {name: [c for c, operation, _ in operations if operation == name] for name in ("images", "pixels")}
    if not any(changes.values()) or not {"conv_proj.weight", "conv_proj.bias"} <= state.keys():
        return
    channels, side = state["conv_proj.weight"].shape[1:3]
    count = channels * side * side
    lit = torch.cat([torch.eye(count, dtype=torch.float64), torch.zeros(1, count, dtype=torch.float64)])
    images: Any = lit.view(-1, channels, side, side)
    for change in changes["images"]:
        images = change.variant("images")(_same, images)
    x = cut_patches(images, side)
    for change in changes["pixels"]:
        x = change.variant("pixels")(_same, x, side)
    offset = x[-1, 0]
    phrases = " and ".join(dict.fromkeys(change.phrase for each in changes.values() for change in each))
    yield _Pixels(f"changed for {phrases}", (x[:-1, 0] - offset).T, offset)


def _same(x: Any, *_: Any) -> Any:
    return x
