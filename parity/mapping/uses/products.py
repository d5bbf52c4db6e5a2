"""Which tensors are the products of a model's matrices, so that what is added to them is known as a bias of these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from parity.mapping.uses.axes import item_of, own_axes
from parity.mapping.uses.calls import FUSED
from parity.mapping.uses.operations import View

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Owners:
    """Matrices that have made something together.

    Attributes:
        first: for each of them the first of its rows among all of theirs, and the number of its use.
        rows: of all of them.
    """

    first: tuple[tuple[int, int], ...]
    rows: int

    def shares(self, vector: View) -> list[tuple[View, int]]:
        """Cuts one vector into a bias for each matrix, and the number of its use; none if it can't be cut so."""
        stops = [row for row, _ in self.first[1:]] + [self.rows]
        ranges = [(row, stop - row, number) for (row, number), stop in zip(self.first, stops, strict=True)]
        if vector.shape == (self.rows,) and not vector.item:
            return [(vector.cut(start, length), number) for start, length, number in ranges]
        if vector.shape[:1] == (len(ranges),) and vector.size == self.rows:
            shape = vector.shape[1:]
            items = [View(vector.name, shape, (*vector.item, n), own_axes(shape)) for n in range(len(ranges))]
            return [(item, number) for item, (*_, number) in zip(items, ranges, strict=True)]
        return []


@dataclass(frozen=True)
class Product:
    """What matrices have made.

    Attributes:
        owners: the matrices.
        whole: the tensor that all of it is.
        part: of a single matrix, which of several equal parts of its rows this is; None for all of them.
        is_by_items: what the matrix is multiplied with has some of its axes, such as that of the heads.
    """

    owners: Owners
    whole: torch.Tensor
    part: int | None = None
    is_by_items: bool = False


@dataclass(frozen=True)
class Piece:
    """A model's tensor in one that was joined of several: where it begins along the axis, and how long it is."""

    start: int
    length: int
    view: View


@dataclass(frozen=True)
class Joined:
    """A tensor that was joined of several: those of them that are a model's own, and the length of the axis."""

    pieces: tuple[Piece, ...]
    length: int

    def of(self, views: list[View]) -> Joined:
        """Returns the same, after an operation has made these views of the pieces."""
        return replace(self, pieces=tuple(replace(p, view=view) for p, view in zip(self.pieces, views, strict=True)))


class Products:
    """Remembers the products of matrices, and what is still one after an operation."""

    def __init__(self) -> None:
        self._made: dict[int, Product] = {}  # by the tensor's id
        self._kept: list[torch.Tensor] = []  # so that no other tensor gets its id

    def remember(self, tensor: Any, product: Product | None) -> None:
        """Remembers that `tensor` is a product, or a part of one."""
        if product and isinstance(tensor, torch.Tensor):
            self._made[id(tensor)] = product
            self._kept.append(tensor)

    def of(self, tensors: Iterable[Any]) -> Product | None:
        """Returns what is known of the tensors; of several products the one of the matrix that was used last."""
        made = [self._made[id(tensor)] for tensor in tensors if id(tensor) in self._made]
        return max(made, key=lambda product: product.owners.first[0][1], default=None)

    def follow(self, name: str, args: Any, result: Any) -> None:
        """Notes that views of a product are still this product, or one of several equal parts of it."""
        source = args[0] if args else None
        product = self.of([source])
        if product is None:
            return
        results = result if isinstance(result, (tuple, list)) else [result]
        for number, tensor in enumerate(results):
            if not isinstance(tensor, torch.Tensor):
                continue
            known, part = _part_of(product, tensor)
            if not known and product.part is None:
                part = self._by_position(name, args, number, len(results))
            elif not known:
                part = product.part
            self.remember(tensor, replace(product, part=part))

    def sum_up(self, tensors: list[Any], result: Any) -> None:
        """Notes that a sum with a product in it, such as a residual, is one to which a bias may yet be added."""
        product = self.of(tensors)
        if product and isinstance(result, torch.Tensor):
            parts = {
                made.part for made in map(self._made.get, map(id, tensors)) if made and made.owners == product.owners
            }
            if len(parts) > 1:  # all that is there of one product
                product = replace(product, part=None)
            is_whole = product.part is None and result.shape == product.whole.shape
            self.remember(result, replace(product, whole=result) if is_whole else product)

    def total(self, tensors: list[Any], result: Any) -> None:
        """Notes that the sum of a product over some of its axes is one to which a bias may yet be added."""
        product = self.of(tensors) if len(tensors) == 1 else None
        if product and product.is_by_items:
            self.remember(result, replace(product, whole=result))

    def join(self, tensors: list[torch.Tensor], result: torch.Tensor) -> None:
        """Notes the products of several matrices that were joined along the last axis."""
        made = [self._made.get(id(tensor)) for tensor in tensors]
        first, row = [], 0
        for tensor, product in zip(tensors, made, strict=True):
            if product is None or product.part is not None or product.owners.rows != tensor.shape[-1]:
                return
            first += [(row + start, number) for start, number in product.owners.first]
            row += product.owners.rows
        self.remember(result, Product(Owners(tuple(first), row), result))

    @staticmethod
    def _by_position(name: str, args: Any, number: int, pieces: int) -> int | None:
        """Returns which part a piece of a copy is, by its place."""
        if pieces in FUSED:
            return number
        if name in ("__getitem__", "select") and len(args[0]) in FUSED:
            return next(iter(item_of(name, args, args[0], 0, 1)), None)
        return None


def _part_of(product: Product, tensor: torch.Tensor) -> tuple[bool, int | None]:
    """Returns whether a view shows by its place in memory which rows it has, and which of several equal parts it is."""
    whole, rows = product.whole, product.owners.rows
    if not rows or whole.shape[-1] != rows or not whole.is_contiguous() or 0 in tensor.shape:
        return False, None
    if tensor.untyped_storage()._cdata != whole.untyped_storage()._cdata:  # noqa: SLF001  (no public way on meta)
        return False, None
    start = int(tensor.storage_offset() - whole.storage_offset())
    found = {start % rows}
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if stride % rows:
            found = {(row + step * stride) % rows for row in found for step in range(length)}
    if len(found) == rows:
        return True, None
    count, odd = divmod(rows, len(found))
    first = min(found)
    run = next(n for n in range(1, rows + 1) if first + n not in found)
    is_part = (
        not odd
        and count in FUSED
        and found == {first + n + start for start in range(0, rows, count * run) for n in range(run)}
    )
    return (True, first // run) if is_part else (False, None)
