"""Which shape something has as it is written, where what only arranges a tensor otherwise is left out of a formula.

Where an axis means another one than the written formula says, the shape that it is an axis of is written as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.explanation.formulas.terms import CONSTANT, ENTERS, MATRIX, NUMBER, PART, PRODUCT, SUM, WEIGHT, Term

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    Shape = tuple[int | None, ...]  # None for a length that nobody knows

# what has the shape of what it is given, and what has an axis of length 1 or none where it is given one
_SAME = frozenset({"softmax", "flip", "roll", "cumsum", "gelu", "relu", "tanh", "sigmoid", "exp", "log", "abs", "sort"})


def looks_otherwise(term: Term, entering: Mapping[Term, Collection[Shape]]) -> bool:
    """Whether what is done along axes seems to be done along others, as far as it is known what that looks like.

    Args:
        term: of something that is done along axes.
        entering: the shapes of what enters, in both models.
    """
    taken, shape = term.args[0], term.of
    seeming = _seeming(taken, entering) if shape and isinstance(taken, Term) else None
    is_of_features = term.args[1:2] in ((-1,), ((-1,),))
    return seeming is not None and not all(
        _may_be(one, shape) or (is_of_features and one[-1:] in ((None,), shape[-1:])) for one in seeming
    )


def _may_be(seeming: Shape, shape: Sequence[int]) -> bool:
    return len(seeming) == len(shape) and all(a in (None, b) for a, b in zip(seeming, shape, strict=True))


def _seeming(term: Term, entering: Mapping[Term, Collection[Shape]]) -> Collection[Shape] | None:
    """Returns the shapes that a term may look like; None if nobody knows."""
    leaves: dict[str, Callable[[], Collection[Shape] | None]] = {
        ENTERS: lambda: entering.get(term), NUMBER: lambda: [()], CONSTANT: lambda: [tuple(term.args[1])],
    }  # fmt: skip
    if term.op in leaves:
        return leaves[term.op]()
    if term.op in (SUM, PRODUCT):
        return _together([member for member, _ in term.args[1]], entering)
    if term.op not in _SAME and term.op not in (MATRIX, PART):
        return None
    whole = _seeming(term.args[0], entering)
    if whole is None or term.op in _SAME:
        return whole
    return [(*shape[:-1], None) for shape in whole] if term.op == MATRIX else _parts(term, whole)


def _parts(term: Term, whole: Collection[Shape]) -> Collection[Shape] | None:
    if not all(-len(shape) <= term.axis < len(shape) for shape in whole):
        return None
    start, stop, step = term.bounds
    length = [] if term.is_one else [len(range(start, stop, step))]
    axes = [(shape, term.axis % len(shape)) for shape in whole]
    return [(*shape[:axis], *length, *shape[axis + 1 :]) for shape, axis in axes]


def _together(terms: Iterable[Term], entering: Mapping[Term, Collection[Shape]]) -> Collection[Shape] | None:
    """Returns the shapes that a sum or a product may look like, which are the longest of its members'."""
    known = [_seeming(term, entering) for term in terms if term.op != WEIGHT]
    if not known or any(shapes is None for shapes in known):
        return None
    return max((shapes for shapes in known if shapes is not None), key=lambda shapes: max(map(len, shapes), default=0))
