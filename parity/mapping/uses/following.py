"""Following a model's own tensors through the calls that rewrite them: which of them, or which part, a tensor still is.

A transpose, a slice or a stack of a model's tensors holds nothing but those; so does what is computed of them alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from parity.mapping.uses.axes import axes_after, axis_order, item_of, joined_axis, leading_item, own_axes, rows_of
from parity.mapping.uses.calls import KEEPING, REORDERING
from parity.mapping.uses.operations import View
from parity.mapping.uses.products import Joined, Piece
from parity.models import tensors_of

if TYPE_CHECKING:
    from torch import nn


class Followed:
    """What is known of the tensors of a run of `model`."""

    def __init__(self, model: nn.Module) -> None:
        self._own: dict[str, View] = {}
        self._views: dict[int, tuple[View, ...]] = {}  # by the id of a tensor, as all of these
        self._joined: dict[int, Joined] = {}
        self._made_of: dict[int, list[int]] = {}  # numbers of the uses that a tensor was computed by
        self._constants: set[int] = set()  # made of nothing that a model holds or is given
        self._kept: list[torch.Tensor] = []  # so that no other tensor gets a known one's id
        self._parameters = {name for name, _ in model.named_parameters()}
        for name, tensor in tensors_of(model, keep_vars=True).items():
            if not tensor.is_floating_point():  # masks, counters and indices are no weights
                self.keep_constant(tensor)
            elif tensor not in self:  # a shared one goes by its first name, as in `named_parameters`
                shape = tuple(tensor.shape)
                self._own[name] = View(name, shape, axes=own_axes(shape))
                self._know(tensor, (self._own[name],))
        self._held = {*self._views}  # by id

    def __contains__(self, value: Any) -> bool:
        """Returns whether a tensor is known to hold tensors of the model."""
        return id(value) in self._views

    def whole(self, name: str) -> View:
        """Returns a tensor of the model by its name in the state dict."""
        return self._own[name]

    def views(self, value: Any) -> tuple[View, ...]:
        """Returns the model's tensors, or parts of them, that a tensor holds."""
        return self._views.get(id(value), ())

    def one(self, value: Any) -> View | None:
        """Returns the one tensor of the model that a tensor is, if it is one."""
        views = self.views(value) if isinstance(value, torch.Tensor) else ()
        return views[0] if len(views) == 1 else None

    def joined(self, tensor: Any) -> Joined | None:
        """Returns which part of a tensor that was joined of several is whose."""
        return self._joined.get(id(tensor))

    def made_of(self, tensor: Any) -> list[int]:
        """Returns the numbers of the uses that a tensor was computed by."""
        return self._made_of.get(id(tensor), [])

    def is_own(self, tensor: torch.Tensor) -> bool:
        """Returns whether a tensor is made of the model's own and of constants alone."""
        return tensor in self or self.is_constant(tensor)

    def is_constant(self, tensor: torch.Tensor) -> bool:
        """Returns whether a tensor is made of nothing that the model holds or is given."""
        return id(tensor) in self._constants

    def keep_constant(self, value: torch.Tensor) -> None:
        """Remembers a tensor that is made of nothing that the model holds or is given."""
        self._constants.add(id(value))
        self._kept.append(value)

    def overwrite(self, into: torch.Tensor, written: list[torch.Tensor]) -> None:
        """Forgets a tensor into which something was written that is made of what the model is given."""
        if all(map(self.is_own, written)):
            return
        for tensor in (into, into._base):  # noqa: SLF001
            self._constants.discard(id(tensor))
            if id(tensor) not in self._held:
                self._views.pop(id(tensor), None)

    def recognise(self, value: torch.Tensor, base: torch.Tensor) -> None:
        """Knows a view that was made by indexing, which torch 2.0 tells nobody of, by the tensor that it is part of."""
        view = self.one(base)
        if view is None:
            return
        items: list[int] = []
        left = int(value.storage_offset() - base.storage_offset())
        for stride in base.stride()[: base.ndim - value.ndim]:
            items.append(left // stride)
            left %= stride
        inner = value.shape == base.shape[len(items) :] and value.stride() == base.stride()[len(items) :]
        axes = own_axes(value.shape) if inner else None
        shape, item = (view.shape[len(items) :], tuple(items)) if inner else (view.shape, ())
        self._know(value, (View(view.name, shape, item, axes),))

    def compute(self, given: list[torch.Tensor], result: torch.Tensor, uses: range) -> None:
        """Remembers a tensor that is computed by these uses, of a model's own alone, as one of them.

        That is a parameter of its shape; a low rank may be added to it, a mask or a length multiplied with it.
        """
        views = [view for tensor in given if tensor.shape == result.shape and (view := self.one(tensor))]
        views.sort(key=lambda view: view.name not in self._parameters)
        self._know(result, tuple(views[:1]))
        self._made_of[id(result)] = [*(number for tensor in given for number in self.made_of(tensor)), *uses]

    def follow(self, name: str, args: Any, given: list[torch.Tensor], result: Any) -> None:
        """Remembers that the result of an operation on a model's own tensors alone is still those tensors."""
        views = tuple(view for tensor in given for view in self.views(tensor))
        results = result if isinstance(result, (tuple, list)) else [result]
        made_of = [number for tensor in given for number in self.made_of(tensor)]
        joined = self.joined(given[0])
        for position, tensor in enumerate(results):
            if not isinstance(tensor, torch.Tensor):
                continue
            self._made_of[id(tensor)] = made_of
            item = item_of(name, args, given[0], position, len(results))
            rewritten = [_rewritten(name, args, view, given[0], tensor, item) for view in views]
            if joined and item and len(joined.pieces) == joined.length:
                self._know(tensor, (rewritten[item[0]],))
            elif joined:
                self._know_joined(tensor, joined.of(rewritten))
            else:
                self._know(tensor, tuple(rewritten) if len(views) == 1 else views)

    def join(self, name: str, tensors: list[torch.Tensor], args: Any, kwargs: Any, result: torch.Tensor) -> None:
        """Remembers which part of a tensor joined of several, which may be none of the model's own, is whose."""
        axis = joined_axis(name, args, kwargs, result)
        position, pieces = 0, []
        for tensor in tensors:
            length = tensor.shape[axis] if tensor.ndim == result.ndim else 1
            for view in self.views(tensor):
                axes = view.axes if self.one(tensor) else None
                if axes is not None and tensor.ndim < result.ndim:
                    axes = (*axes[:axis], (), *axes[axis:])
                pieces.append(Piece(position, length, replace(view, axes=axes)))
            position += length
        self._know_joined(result, Joined(tuple(pieces), position))

    def _know(self, tensor: torch.Tensor, views: tuple[View, ...]) -> None:
        self._views[id(tensor)] = views
        self._kept.append(tensor)

    def _know_joined(self, tensor: torch.Tensor, joined: Joined) -> None:
        self._joined[id(tensor)] = joined
        self._know(tensor, tuple(piece.view for piece in joined.pieces))


def _rewritten(
    name: str, args: Any, view: View, before: torch.Tensor, after: torch.Tensor, item: tuple[int, ...]
) -> View:
    """Returns what an operation on a view of a model's tensor has made of it, or the item of it that was taken."""
    if name in KEEPING:
        return view
    if name in REORDERING:
        return _reordered(view, before, after)
    if item and view.axes == own_axes(view.shape) and after.shape == before.shape[len(item) :]:
        shape = view.shape[len(item) :]
        return View(view.name, shape, (*view.item, *item), own_axes(shape))
    first, rest = leading_item(name, args, before)
    if first and view.axes == own_axes(view.shape) and before.shape == view.shape:
        shape = view.shape[len(first) :]
        inner = View(view.name, shape, (*view.item, *first), own_axes(shape))
        return _rewritten(name, (before[first], rest), inner, before[first], after, ())
    rows = rows_of(view, before, after)
    return View(view.name, view.shape, view.item, axes_after(name, view.axes, before, after, args), rows)


def _reordered(view: View, before: torch.Tensor, after: torch.Tensor) -> View:
    if view.axes is None or len(view.axes) != before.ndim:
        return View(view.name, view.shape, view.item)
    # axes are told apart by their strides, which a reordering view keeps
    order = axis_order(before, after)
    axes = tuple(view.axes[axis] for axis in order) if order else None
    return View(view.name, view.shape, view.item, axes)
