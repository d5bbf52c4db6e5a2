"""State dicts to change, and what the tensors in them do in a model."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from parity.models import Bounds, cut, put, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from parity.mapping import Operation, Uses, View

Kind = Literal["matrix", "bias", "scale", "shift", "free", "unused"]


class Role(NamedTuple):
    """What a tensor, or the tensor that a slice is of, does: its kind, and its operation's number in order of use."""

    kind: Kind
    at: int = -1


class Draft:
    """A state dict to change; the tensors of the one that it was made of stay as they are.

    Args:
        state: tensors by name.
    """

    def __init__(self, state: Mapping[str, torch.Tensor]) -> None:
        self.state = dict(state)

    def __getitem__(self, part: object) -> torch.Tensor:
        """Returns a tensor, or a slice of one, by the name that a weight map gives it."""
        name, box = split(f"{part}")
        return cut(self.state[name], box)

    def __setitem__(self, part: object, value: torch.Tensor) -> None:
        name, box = split(f"{part}")
        whole = self.state[name].clone()
        put(value.expand(cut(whole, box).shape) if value.ndim == 0 else value, whole, box)
        self.state[name] = whole

    def vector(self, view: View) -> torch.Tensor:
        """Returns a tensor's values in a row."""
        return self[view].flatten()

    def matrix(self, operation: Operation, number: int = 0) -> torch.Tensor:
        """Returns one of an operation's matrices as (output features, input features)."""
        matrix = operation.projections[number].matrix
        order = _order(matrix.view, matrix.rows, matrix.columns)
        return self[matrix.view].reshape(matrix.view.shape).permute(order).reshape(matrix.shape)

    def set_matrix(self, operation: Operation, value: torch.Tensor, number: int = 0) -> None:
        """Stores such a matrix in the layout that the model has."""
        matrix = operation.projections[number].matrix
        order = _order(matrix.view, matrix.rows, matrix.columns)
        shape = [matrix.view.shape[axis] for axis in order]
        self[matrix.view] = value.reshape(shape).permute(*torch.tensor(order).argsort().tolist())


def _order(view: View, rows: tuple[int, ...], columns: tuple[int, ...]) -> tuple[int, ...]:
    return (*(axis for axis in range(len(view.shape)) if axis not in (*rows, *columns)), *rows, *columns)


def role_of(name: str, uses: Uses) -> Role:
    """Returns what a tensor or slice of `name` does in a model."""
    tensor, box = split(name)
    for at, operation in enumerate(uses.operations):
        for kind, view in parts_of(operation):
            if view.name == tensor and box[: len(view.item)] == tuple(Bounds(n, n + 1) for n in view.item):
                return Role(kind, at)
    return Role("free" if any(view.name == tensor for view in uses.free) else "unused")


def parts_of(operation: Operation) -> Iterator[tuple[Kind, View]]:
    """Yields every tensor of an operation, and what it does in it."""
    for projection in operation.projections:
        yield "matrix", projection.matrix.view
        if projection.bias:
            yield "bias", projection.bias
    if operation.vectors:
        for kind, view in zip(("scale", "shift"), operation.vectors, strict=True):
            if view:
                yield kind, view  # type: ignore[misc]


def in_parts(name: str, uses: Uses) -> list[str]:
    """Splits a bias of query, key and value in one into three; any other tensor stays whole."""
    role = role_of(name, uses)
    if role.kind != "bias" or split(name)[1]:
        return [name]
    operation = uses.operations[role.at]
    if operation.kind != "attention" or len(operation.projections) != 1:
        return [name]
    width = operation.rows // 3
    return [f"{name}[{start}:{start + width}]" for start in range(0, operation.rows, width)]


def neutral(name: str, uses: Uses, like: torch.Tensor) -> torch.Tensor:
    """Returns the values under which a tensor does least: scales 1, square matrices I, everything else 0."""
    kind = role_of(name, uses).kind
    if kind == "matrix" and like.ndim == 2 and like.shape[0] == like.shape[1]:
        return torch.eye(len(like), dtype=like.dtype)
    is_factor = kind == "scale" or (kind == "free" and like.numel() == 1)
    return torch.full_like(like, 1.0 if is_factor else 0.0, device="cpu")


def units(names: Iterable[str], uses: Uses) -> list[list[tuple[str, ...]]]:
    """Gathers what is left over: tensors of one operation together, and what is alike in all blocks in one group.

    Query, key and value of a packed bias stand for themselves.
    """
    found: dict[object, list[str]] = defaultdict(list)
    for name in names:
        parts = in_parts(name, uses)
        role = role_of(name, uses)
        is_whole = role.at >= 0 and uses.operations[role.at].kind != "attention"
        for part in parts:
            found[role.at if is_whole else part].append(part)
    in_order = sorted(found.values(), key=lambda unit: role_of(unit[0], uses).at)
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    for unit in in_order:
        groups[tuple(pattern(name) for name in unit)].append(tuple(unit))
    return list(groups.values())


def pattern(name: str) -> str:
    """Replaces the first number in a tensor's name, that of the block."""
    tensor, box = split(name)
    return re.sub(r"\d+", "{i}", tensor, count=1) + (name[len(tensor) :] if box else "")


def alike(names: Sequence[str]) -> str:
    """Names tensors for a sentence, those that are alike in all blocks once."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kinds[pattern(name)].append(name)
    texts = [members[0] if len(members) == 1 else f"{kind} ({len(members)} tensors)" for kind, members in kinds.items()]
    return " and ".join(texts)


def slots(groups: Iterable[Iterable[tuple[str, ...]]]) -> list[list[str]]:
    """Returns what only the source has, one list for all blocks' tensors that are alike."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in itertools.chain.from_iterable(unit for group in groups for unit in group):
        found[pattern(name)].append(name)
    return list(found.values())
