"""Where the images of a batch come to act on each other, by what changes in a run when one of them is exchanged."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from parity.tracing.nested import leaves, map_leaves
from parity.tracing.sources import DRAWING, line_of_source, name_of_operation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parity.tracing.sources import SourceLine

# of the largest number of a tensor, what is more than rounding
_CHANGED = 1e-10


@dataclass(frozen=True, eq=False)
class _Made:
    """How a tensor came about.

    Attributes:
        line: of the model's source.
        depends: on the one image, and on the other.
        of: the tensors that it was made of.
    """

    line: SourceLine
    depends: tuple[bool, bool]
    of: tuple[_Made, ...]

    @property
    def on_both(self) -> bool:
        return all(self.depends)


class Crossing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Carries out each operation on a batch as it is, and with either one of two of its images exchanged.

    A number that changes whichever of the two is exchanged is where one acts on the other.

    Args:
        images: (B, C, H, W) that the model is given, in any floating dtype.
        exchanged: the same with another image in the place of the one, and of the other.
    """

    def __init__(self, images: torch.Tensor, exchanged: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._images, self._exchanged = images, exchanged
        self._twins = WeakTensorKeyDictionary()
        self._made = WeakTensorKeyDictionary()
        self._first: _Made | None = None

    def lines(self) -> tuple[SourceLine, ...]:
        """Returns the line where the two first act on each other; before it those that bring them together, if any.

        These are the line that makes the one image's part, and the one that joins it to the other image's.
        """
        if self._first is None:
            return ()
        joining = next(_joining(self._first), None)
        brought = []
        if joining is not None:
            own = next(made for made in joining.of if made.depends == (True, False))
            brought = [own.line, joining.line]
        return tuple(dict.fromkeys([*brought, self._first.line]))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [args, kwargs or {}]
        if self._first is not None:
            return function(*args, **given[1])
        taken = [*leaves(given, torch.Tensor)]
        self._recognise(taken)
        self._prepare_writing(function, given)
        has_twins = any(tensor in self._twins for tensor in taken)
        others = [map_leaves(functools.partial(self._twin, n), given) for n in (0, 1)] if has_twins else []
        result = function(*args, **given[1])
        if name_of_operation(function) in DRAWING or "empty" in name_of_operation(function):
            others = []
        twins = [function(*other[0], **other[1]) for other in others]
        if twins:
            self._note(result, twins, taken)
        elif not any(returned.alias_info for returned in function._schema.returns):  # noqa: SLF001
            for tensor in leaves(result, torch.Tensor):  # which may be written to
                self._twins[tensor] = self._exchanged_if_images(tensor) or (tensor.clone(), tensor.clone())
        return result

    def _recognise(self, taken: Sequence[torch.Tensor]) -> None:
        for tensor in taken:
            if tensor not in self._twins and (exchanged := self._exchanged_if_images(tensor)):
                self._twins[tensor] = exchanged

    def _exchanged_if_images(self, tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        is_alike = tensor.shape == self._images.shape and tensor.is_floating_point()
        if not is_alike or not torch.equal(tensor, self._images.to(tensor.dtype)):
            return ()
        return tuple(exchanged.to(tensor.dtype, copy=True) for exchanged in self._exchanged)

    def _prepare_writing(self, function: Any, given: list[Any]) -> None:
        """Gives twins to what was there before the run and is written to."""
        for number, argument in enumerate(function._schema.arguments):  # noqa: SLF001
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = given[0][number] if number < len(given[0]) else given[1].get(argument.name)
                for tensor in leaves(value, torch.Tensor):
                    if tensor not in self._twins:
                        self._twins[tensor] = tensor.clone(), tensor.clone()

    def _twin(self, number: int, value: Any) -> Any:
        is_known = isinstance(value, torch.Tensor) and value in self._twins
        return self._twins[value][number] if is_known else value

    def _note(self, result: Any, twins: Sequence[Any], taken: Sequence[torch.Tensor]) -> None:
        of = tuple(self._made[tensor] for tensor in taken if tensor in self._made)
        line = line_of_source()
        for tensor, *others in zip(*(leaves(each, torch.Tensor) for each in (result, *twins)), strict=True):
            if tensor not in self._twins:
                self._twins[tensor] = tuple(others)
            changed = [_changed(tensor, other) for other in others]
            one, other = (bool(each.any()) for each in changed)
            self._made[tensor] = _Made(line, (one, other), of)
            if one and other and bool((changed[0] & changed[1]).any()):
                self._first = self._made[tensor]
                return


def _joining(first: _Made) -> Iterator[_Made]:
    """Yields what was made of tensors of the one image and of the other alone, and has led to `first`."""
    waiting, seen = [first], {first}
    while waiting:
        made = waiting.pop()
        both = [other for other in made.of if other.on_both]
        if not both and {(True, False), (False, True)} <= {other.depends for other in made.of}:
            yield made
        waiting += [other for other in both if other not in seen]
        seen.update(both)


def _changed(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Returns at which places two tensors differ by more than rounding."""
    if not one.is_floating_point():
        return one != other
    largest = one[one.isfinite()].abs().amax() if bool(one.isfinite().any()) else one.new_zeros(())
    return ((one - other).abs() > _CHANGED * largest) | (one.isfinite() != other.isfinite())
