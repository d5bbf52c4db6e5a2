"""What is computed, as terms: sums and products in order, and the numbers that something is multiplied by taken out."""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NUMBER, ENTERS, WEIGHT, CONSTANT, SUM, PRODUCT, MATRIX, PART = "number", "in", "weight", "constant", "+", "*", "@", "[]"

# how near a number is to the one that it is called by, relative
_EXACT = 1e-11


@dataclass(frozen=True, eq=False)
class Term:
    """Something that is computed; equal terms of one `Terms` are one object.

    Attributes:
        op: how it is computed.
        args: of what, and with which constants.
        line: of the source that asks for it.
        more: lines that ask for what was taken out of its parts.
        is_turned: for a product of matrices: the last two axes of the second one are exchanged.
        axis: for a part: the axis along which it is one.
        bounds: for a part: where it begins and stops there, and in which steps.
        is_one: for a part: it is the one there, and has that axis no more.
        of: for what is done along axes: the shape that they are axes of.
    """

    op: str
    args: tuple[Any, ...]
    line: str = ""
    more: tuple[str, ...] = ()
    is_turned: bool = False
    axis: int = 0
    bounds: tuple[int, int, int] = (0, 0, 1)
    is_one: bool = False
    of: tuple[int, ...] = ()

    @functools.cached_property
    def parts(self) -> tuple[Term, ...]:
        """The terms that it is made of."""
        return tuple(_terms_in(self.args))


def all_in(term: Term) -> dict[Term, None]:
    """Returns a term and all that it is made of, the outermost first."""
    found = {term: None}
    wanted = [term]
    while wanted:
        for part in wanted.pop(0).parts:
            if part not in found:
                found[part] = None
                wanted.append(part)
    return found


def _terms_in(given: Any) -> Iterator[Term]:
    if isinstance(given, Term):
        yield given
    elif isinstance(given, tuple):
        for item in given:
            yield from _terms_in(item)


class Terms:
    """Makes terms; another way to write the same gives the same term."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Term] = {}
        self._order: dict[Term, int] = {}

    def make(self, op: str, *args: Any, line: str = "", **remarks: Any) -> Term:
        """Returns the term of these arguments, always the same one; line and remarks are those of the first time."""
        key = (op, *args)
        if key not in self._known:
            self._known[key] = Term(op, args, line, **remarks)
            self._order[self._known[key]] = len(self._order)
        return self._known[key]

    def together(self, tensors: tuple[Term, ...], axis: int, line: str) -> Term:
        """Returns tensors one behind the other; all parts of one are that one."""
        whole, cuts = tensors[0].args[0], [0, *(term.args[2] for term in tensors if term.op == PART)]
        parts = [
            term.op == PART and not term.is_one and term.axis == axis and term.args[0] is whole for term in tensors
        ]
        is_whole = all(parts) and [term.args[1:] for term in tensors] == [
            (start, stop, 1) for start, stop in itertools.pairwise(cuts)
        ]
        return whole if is_whole and cuts[-1] == 1 else self.make("cat", tensors, axis, line=line)

    def number(self, number: float) -> Term:
        """Returns a number as a term."""
        return self.make(NUMBER, _rounded(float(number)))

    def scaled(self, term: Term) -> tuple[float, Term]:
        """Returns the number that a term is multiplied by, and what."""
        if term.op != PRODUCT or term.args[0] == 1:
            return 1.0, term
        return term.args[0], self._product(1.0, dict(term.args[1]), term.line)

    def _product(self, factor: float, powers: Mapping[Term, float], line: str, more: tuple[str, ...] = ()) -> Term:
        members = sorted(((t, e) for t, e in powers.items() if e), key=lambda member: self._order[member[0]])
        factor = _rounded(factor)
        if not members or factor == 0:
            return self.number(factor)
        if factor == 1 and len(members) == 1 and members[0][1] == 1:
            return members[0][0]
        return self.make(PRODUCT, factor, tuple(members), line=line, more=more)

    def factors(self, term: Term) -> tuple[float, dict[Term, float]]:
        """Returns the number and the powers that a product consists of."""
        if term.op == NUMBER:
            return term.args[0], {}
        return (term.args[0], dict(term.args[1])) if term.op == PRODUCT else (1.0, {term: 1.0})

    def times(self, one: Term, other: Term, line: str) -> Term:
        """Returns a product."""
        (a, ours), (b, theirs) = self.factors(one), self.factors(other)
        powers: dict[Term, float] = defaultdict(float)
        for members in (ours, theirs):
            for term, exponent in members.items():
                powers[term] += exponent
        return self._product(a * b, powers, line)

    def power(self, term: Term, exponent: Any, line: str) -> Term:
        """Returns a power; the exponent is a number or a term."""
        exponent = exponent.args[0] if isinstance(exponent, Term) and exponent.op == NUMBER else exponent
        factor, powers = self.factors(term)
        if isinstance(exponent, Term) or (not powers and (factor < 0 or exponent < 0 == factor)):
            return self.make("pow", term, exponent, line=line)
        if powers and abs(exponent) != 1 and (factor != 1 or len(powers) > 1 or exponent != int(exponent)):
            return self._product(1.0, {term: exponent}, line)
        return self._product(factor**exponent, {t: e * exponent for t, e in powers.items()}, line)

    def plus(self, one: Term, other: Term, line: str, factor: float = 1.0) -> Term:
        """Returns a sum, of which the second part is multiplied by a number."""
        sums: dict[Term, float] = defaultdict(float)
        shift, more = 0.0, [*one.more, *other.more]
        for term, by in ((one, 1.0), (other, factor)):
            members = term.args[1] if term.op == SUM else ((term, 1.0),)
            shift += by * (term.args[0] if term.op == SUM else 0.0)
            for member, times in members:
                if member.op == NUMBER:
                    shift += by * times * member.args[0]
                else:
                    number, rest = self.scaled(member)
                    more += [] if rest is member else [*member.more, member.line]
                    sums[rest] += by * times * number
        kept = sorted(((t, n) for t, n in sums.items() if n), key=lambda member: self._order[member[0]])
        if not kept:
            return self.number(shift)
        if len(kept) == 1 and not shift:
            return self.times(self.number(kept[0][1]), kept[0][0], line)
        members = tuple((term, _rounded(times)) for term, times in kept)
        return self.make(SUM, _rounded(shift), members, line=line, more=tuple(above for above in more if above))

    def members(self, term: Term) -> Iterator[Term]:
        """Yields what a sum consists of."""
        yield from (self.scaled(part)[1] for part in (dict(term.args[1]) if term.op == SUM else [term]))

    def matrices(self, one: Term, other: Term, line: str, *, is_turned: bool) -> Term:
        """Returns a product of matrices; the last two axes of the second may be exchanged."""
        (a, ours), (b, theirs) = self.scaled(one), self.scaled(other)
        made = self.make(MATRIX, ours, theirs, line=line, is_turned=is_turned)
        more = tuple(above for term, part in ((one, ours), (other, theirs)) if part is not term
                     for above in (*term.more, term.line) if above)  # fmt: skip
        return self._product(a * b, {made: 1.0}, line, more)


def _rounded(number: float) -> float:
    """Returns a number without what the order of operations makes of it."""
    return float(f"{number:.14g}")


def number(value: float) -> str:
    """Returns a number in the shortest exact way: whole, as a root or its inverse, or in digits."""
    if value == int(value) if math.isfinite(value) else True:
        return f"{value:.17g}"
    if float(f"{value:.4g}") == value:
        return f"{value:.4g}"
    for inverted in (False, True):
        square = (1 / value if inverted else value) ** 2
        whole = round(square)
        if 0 < whole < 1e6 and math.isclose(square, whole, rel_tol=_EXACT):
            root = f"sqrt({whole})" if math.isqrt(whole) ** 2 != whole else f"{math.isqrt(whole)}"
            return f"{'-' * (value < 0)}{f'1 / {root}' if inverted else root}"
    return f"{value:.6g}"
