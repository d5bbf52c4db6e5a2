"""The difference of two stretches of operations as a formula, with the lines of the source that it comes from."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from parity.diagnosis import in_words_of
from parity.explanation.formulas.differing import alike_in, is_same_otherwise, path, smallest
from parity.explanation.formulas.letters import BLOCK, OTHER_LETTERS, ROLES, Letters, block_of_point, letters_for
from parity.explanation.formulas.reading import Reading
from parity.explanation.formulas.shapes import looks_otherwise
from parity.explanation.formulas.terms import (  # fmt: skip
    CONSTANT,
    ENTERS,
    MATRIX,
    NUMBER,
    PART,
    PRODUCT,
    SUM,
    WEIGHT,
    Term,
    all_in,
    number,
)
from parity.models import split
from parity.tracing import SourceLine

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import torch

    from parity.explanation.formulas.recording import Recording, Stretch, Value
    from parity.tracing import Point

    Pair = tuple[Term, Term]
    Said = tuple[tuple[str, str], ...]  # letters, each with what it is

# A formula is shown with what is around the difference, as far as both sides stay so short; where the difference itself
# is longer than the second number, the lines of source are shown instead, up to the third, or the operations listed.
_CONTEXT, _LONGEST, _MOST_QUOTED, _MOST_LISTED = 60, 110, 180, 6


class Formulas:
    """Says how the operations of a candidate differ from those of a bent model.

    Args:
        candidate: its run.
        shared: what passes the points where both agree.
        names: what the candidate's tensors are called in the reference.
        words: says what a point is called.
    """

    def __init__(
        self,
        candidate: Recording,
        shared: Mapping[Point, torch.Tensor],
        names: Mapping[str, str],
        words: Callable[[Point], str],
    ) -> None:
        self._candidate = candidate
        self._shared = shared
        self._names = names
        self._words = words

    def difference(
        self, theirs: Stretch, ours: Stretch | None, same: Mapping[Value, Value], to: Point
    ) -> tuple[str, str, Said, tuple[str, ...]]:
        """Returns what the candidate computes, what the reference does, what letters are, and the candidate's lines.

        Args:
            theirs: the candidate's operations.
            ours: the bent model's; None if they were not seen.
            same: which values of the one are which of the other one.
            to: the point that both lead to.
        """
        weights = {whole for name in self._names.values() for whole in (name, split(name)[0])}
        for keep, apart in itertools.product((False, True), repeat=2):
            reading = Reading(self._shared, self._candidate.passing_first, self._names, keep=keep, apart=apart)
            expected = reading.term_of(ours) if ours else None
            found = reading.term_of(theirs, {value: reading.read[other] for value, other in same.items()})
            if expected is not None and found is not expected and not reading.is_uneven:
                pairs = path(found, expected)
                passing = {reading.read[value]: point for value, point in (ours.passing if ours else {}).items()}
                letters = letters_for([*all_in(found), *all_in(expected)], list(self._shared), passing, to)
                letters.entering = reading.entering
                phrase, instead, letters = _in_words(pairs, letters, weights)
                said = self._said(letters, passing, to)
                return phrase, instead, said, _lines(pairs, weights) or self._lines_of(theirs)
        return "operations of its own", "others", (), self._lines_of(theirs)

    def _said(self, letters: Letters, passing: Mapping[Term, Point], to: Point) -> Said:
        """Says what letters are; a query, a key and a value are called by their own, and those of another block not."""
        said = dict(letters.of_others)
        for term, letter in letters.items():
            point = term.args[0] if term.op == ENTERS else passing.get(term)
            if letter in ROLES.values():
                continue
            if point is not None:
                said[letter] = self._place(point, to)
            else:
                without = Letters(letters.block, letters)
                del without[term]
                text = _text(term, without)
                place = f"what both make at {term.line}" if term.line else "the same in both"
                said[letter] = text if len(text) <= _CONTEXT else place
        return tuple(said.items())

    def _place(self, point: Point, to: Point) -> str:
        """Says where a point is on the way to another one; in the same way for all blocks."""
        (block, number), here = block_of_point(point), block_of_point(to)
        inner = f"{point.module}."[len(block) :].removesuffix(".")
        if not inner and point.moment == "leave" and here[1] == number + 1:
            return "the input of the block"
        if not block or here[0] != block:
            return self._words(point)
        return in_words_of(point._replace(module=inner or "the block"))

    def _lines_of(self, stretch: Stretch) -> tuple[str, ...]:
        """Returns the lines of a stretch, or where it is empty the one that takes what it leads to."""
        if stretch.operations:
            return tuple(dict.fromkeys(operation.line for operation in stretch.operations if operation.line))
        taking = (op.line for op in self._candidate.operations if stretch.leaving in op.taken)
        return tuple(line for line in [next(taking, None)] if line)


def _lines(pairs: Sequence[Pair], weights: Collection[str]) -> tuple[str, ...]:
    """Returns the lines that ask for what only the candidate computes, or else for what it does with the same.

    Those come first that do something of which the reference does nothing there.

    Args:
        pairs: of terms that differ, the smallest one the last.
        weights: names of those that both models have.
    """
    found, expected = pairs[-1]
    known = all_in(expected)
    kinds = {_kind(term) for term in known}
    apart = smallest(found, expected)
    inside = [part for term, other in apart for part in reversed(all_in(term)) if part not in all_in(other)]
    own = [term for term in dict.fromkeys(inside) if term not in known and term.line]
    alike = alike_in(found, expected, weights)
    own = [term for term in own if term not in alike] or own
    own.sort(key=lambda term: _kind(term) in kinds)
    own = [*(term for term, other in apart if term.line and is_same_otherwise(term, other)), *own]
    around = [term.line for term, _ in reversed(pairs) if term.line]
    return tuple(dict.fromkeys(line for term in own for line in (*term.more, term.line))) or tuple(around[:1])


def _kind(term: Term) -> tuple[str, frozenset[float]]:
    return term.op, frozenset(exponent for _, exponent in term.args[1]) if term.op == PRODUCT else frozenset()


def _in_words(pairs: Sequence[Pair], letters: Letters, weights: Collection[str]) -> tuple[str, str, Letters]:
    """Returns both sides as formulas, with as much around them as is short, and the letters in them.

    What is too long is said by the operations that differ.
    """
    for pair in pairs:
        texts = [_text(term, letters) for term in pair]
        if max(map(len, texts)) <= _CONTEXT:
            return texts[0], texts[1], letters
    found, expected = pairs[-1]
    for named in (letters, _abbreviated(found, expected, letters)):
        texts = [_text(term, named) for term in pairs[-1]]
        if max(map(len, texts)) <= _LONGEST:
            return texts[0], texts[1], named
    instead = _text(expected, letters)
    instead = instead if len(instead) <= _LONGEST else _listed(expected, found)
    return quoted(_lines(pairs, weights)) or _listed(found, expected), instead, letters


def quoted(lines: Sequence[str]) -> str:
    """Returns what stands in lines of somebody's source, as far as it is short; nothing if one cannot be read."""
    known = sorted((line for line in lines if isinstance(line, SourceLine)), key=lambda line: (line.path, line.number))
    texts = [line.text for line in known]
    if not texts or not all(texts):
        return ""
    shown = [text for n, text in enumerate(texts) if sum(map(len, texts[: n + 1])) <= _MOST_QUOTED] or texts[:1]
    more = len(texts) - len(shown)
    return f"`{'; '.join(shown)}`" + (f" and {more} more line{'s' * (more > 1)}" if more else "")


def _abbreviated(found: Term, expected: Term, letters: Letters) -> Letters:
    """Names the largest parts that two terms have in common as well."""
    both = {term for term in all_in(found) if term in all_in(expected) and len(_text(term, letters)) > 1}
    named = Letters(letters.block, letters)
    named.entering = letters.entering
    for term in all_in(found):
        free = [letter for letter in OTHER_LETTERS if letter not in named.values()]
        if term in both and free and not any(term in all_in(other) for other in named if other in both):
            named[term] = free[0]
    return named


def _listed(found: Term, expected: Term) -> str:
    """Lists the operations of a term that another one has none like, each with its line."""
    known = all_in(expected)
    kinds = {_kind(term) for term in known}
    own = [term for term in reversed(all_in(found)) if term not in known and term.op not in (NUMBER, ENTERS, WEIGHT)]
    own.sort(key=lambda term: _kind(term) in kinds)
    names = list(dict.fromkeys(f"{_name(t)}{f' at {t.line}' if t.line else ''}" for t in own))
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"{', '.join(names[:_MOST_LISTED])}{more}" or "nothing more"


def _name(term: Term) -> str:
    is_power = term.op == PRODUCT and any(abs(exponent) != 1 for _, exponent in term.args[1])
    return "a power" if is_power else _NAMES.get(term.op, term.op)


_NAMES = {SUM: "a sum", PRODUCT: "a product", MATRIX: "a product of matrices", PART: "a part", CONSTANT: "a constant"}

# how strongly what a term is written as holds together
_SUM, _PRODUCT, _MATRIX, _POWER, _ATOM = range(5)


def _text(term: Term, letters: Letters) -> str:
    return _written(term, letters)[0]


def _within(term: Term, letters: Letters, least: int) -> str:
    text, strength = _written(term, letters)
    return text if strength >= least else f"({text})"


def _written(term: Term, letters: Letters) -> tuple[str, int]:
    """Returns a term in writing, of one that is too long the beginning, and how strongly that holds together."""
    if term in letters:
        return letters[term], _ATOM
    if term not in letters.written:
        if term.op in _WRITERS:
            text, strength = _WRITERS[term.op](term, letters)
        else:
            given = [_argument(argument, letters) for argument in term.args]
            given[:1] = [_as_shaped(term, letters)[1:-1] or text for text in given[:1]]
            text, strength = f"{term.op}({', '.join(given)})", _ATOM
        # what is made of the same again and again would grow without end, and what is so long is not shown
        letters.written[term] = text[: 2 * _LONGEST], strength
    return letters.written[term]


def _number(term: Term, _: Letters) -> tuple[str, int]:
    return number(term.args[0]), _ATOM if term.args[0] >= 0 else _SUM


def _weight(term: Term, _: Letters) -> tuple[str, int]:
    return BLOCK.sub("", term.args[0]), _ATOM


def _constant(term: Term, _: Letters) -> tuple[str, int]:
    return f"constants {term.args[1]}", _ATOM


def _matrix(term: Term, letters: Letters) -> tuple[str, int]:
    one, other = (_within(part, letters, strength) for part, strength in zip(term.args, (_MATRIX, _POWER), strict=True))
    return f"{one} @ {other}{'^T' * term.is_turned}", _MATRIX


def _part(term: Term, letters: Letters) -> tuple[str, int]:
    whole, first, last, _ = term.args
    if whole.op == ENTERS and whole.args[0].module.endswith("in_proj") and math.isclose(3 * (last - first), 1):
        return letters.of_block("qkv"[round(3 * first)], whole.args[0]), _ATOM
    start, stop, step = term.bounds
    which = f"{start}" if term.is_one else f"{start}:{stop}{f':{step}' * (step != 1)}"
    before = "..., " if term.axis < 0 else ":, " * term.axis
    text = _as_shaped(term, letters) or _within(whole, letters, _POWER)
    return f"{text}[{before}{which}]", _POWER


def _as_shaped(term: Term, letters: Letters) -> str:
    """Returns what something is done with along axes, with its shape; an empty text where it looks as if it had it."""
    return f"({_text(term.args[0], letters)} as {term.of})" if looks_otherwise(term, letters.entering) else ""


def _over_axes(term: Term, letters: Letters) -> tuple[str, int]:
    axes = term.args[1] if isinstance(term.args[1], tuple) else (term.args[1],)
    numbers = ", ".join(map(str, axes))
    over = "" if axes == (-1,) else f", axis {numbers}" if len(axes) == 1 else f", axes {numbers or 'all'}"
    correction = f", correction {term.args[2]}" if term.args[2:] and term.args[2] else ""
    taken = _as_shaped(term, letters)[1:-1] or _text(term.args[0], letters)
    return f"{term.op}({taken}{over}{correction})", _ATOM


def _argument(given: object, letters: Letters) -> str:
    if isinstance(given, Term):
        return _text(given, letters)
    if isinstance(given, tuple) and len(given) == 1:
        return _argument(given[0], letters)
    if isinstance(given, tuple):
        return f"[{', '.join(_argument(item, letters) for item in given)}]"
    return number(given) if isinstance(given, float) else f"{given}"


def _sum(term: Term, letters: Letters) -> tuple[str, int]:
    parts = []
    for member, times in term.args[1]:
        text = (
            _multiplied(abs(times), ((member, 1.0),), letters)[0]
            if abs(times) != 1
            else _within(member, letters, _PRODUCT)
        )
        parts.append(("-" if times < 0 else "+", text))
    if term.args[0]:
        parts.append(("-" if term.args[0] < 0 else "+", number(abs(term.args[0]))))
    parts.sort(key=lambda part: (part[0] == "-", len(part[1]), part[1]))
    text = " ".join(f"{sign} {part}" for sign, part in parts)
    return text.removeprefix("+ "), _SUM


def _product(term: Term, letters: Letters) -> tuple[str, int]:
    return _multiplied(term.args[0], term.args[1], letters)


def _multiplied(factor: float, members: Sequence[tuple[Term, float]], letters: Letters) -> tuple[str, int]:
    above = [_power(term, exponent, letters) for term, exponent in members if exponent > 0]
    below = [_power(term, -exponent, letters) for term, exponent in members if exponent < 0]
    for texts in (above, below):
        texts.sort(key=lambda text: (len(text), text))
    sign, size = "-" * (factor < 0), abs(factor)
    inverse = number(1 / size)
    if size != 1 and len(inverse) < len(number(size)):
        below.append(inverse)
    elif size != 1:
        above.insert(0, number(size))
    text = " * ".join(above) or "1"
    if below:
        text += f" / {below[0]}" if len(below) == 1 else f" / ({' * '.join(below)})"
    if len(above) == 1 and not below and not sign and size == 1:
        return text, _POWER
    return sign + text, _PRODUCT if not sign else _SUM


def _power(term: Term, exponent: float, letters: Letters) -> str:
    if exponent == 0.5:
        return f"sqrt({_text(term, letters)})"
    if exponent == 1:
        return _within(term, letters, _MATRIX)
    return f"{_within(term, letters, _ATOM)}^{number(exponent)}"


_WRITERS: dict[str, Callable[[Term, Letters], tuple[str, int]]] = {
    NUMBER: _number, WEIGHT: _weight, CONSTANT: _constant, MATRIX: _matrix, PART: _part, SUM: _sum, PRODUCT: _product,
    "mean": _over_axes, "var": _over_axes, "sum": _over_axes, "softmax": _over_axes,
}  # fmt: skip
