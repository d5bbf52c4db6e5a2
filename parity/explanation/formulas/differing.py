"""Where two terms differ: the smallest one that holds all differences, and the smallest ones of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.explanation.formulas.terms import CONSTANT, ENTERS, MATRIX, PART, PRODUCT, SUM, WEIGHT, Term, all_in

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    Pair = tuple[Term, Term]


_LEAVES = {CONSTANT, ENTERS, PART, WEIGHT}  # tensors, and parts of them


def path(found: Term, expected: Term) -> list[Pair]:
    """Returns the pairs of terms that differ, from the whole ones to the smallest ones that hold all differences."""
    pairs = [(found, expected)]
    while True:
        inner = _apart(*pairs[-1])
        if inner is None or len(inner) != 1:
            return pairs
        pairs += inner


def smallest(found: Term, expected: Term) -> list[Pair]:
    """Returns the pairs of terms that differ and have no parts in which alone they do, the innermost first."""
    wanted, seen, leaves = [(found, expected)], {(found, expected)}, []
    while wanted:
        pair = wanted.pop()
        inner = _apart(*pair)
        if not inner:
            leaves.append(pair)
        new = [one for one in inner or () if one not in seen]
        seen.update(new)
        wanted += new
    return leaves[::-1]


def alike_in(found: Term, expected: Term, weights: Collection[str]) -> set[Term]:
    """Returns those parts of a term that are as parts of another one are, made of other tensors: another block's, say.

    Args:
        found: the term.
        expected: the other one.
        weights: names of those that both models have; what is projected by one of them is a tensor like any other.
    """
    known: dict[object, int] = {}
    forms: dict[Term, int] = {}

    def is_projected(term: Term) -> bool:
        if term.op == SUM:
            return all(times == 1 and (_is_one_of(part, weights) or is_projected(part)) for part, times in term.args[1])
        return term.op == MATRIX and _is_one_of(term.args[1], weights)

    def form(term: Term) -> int:
        if term not in forms:
            key: object = None
            if is_projected(term):
                pass
            elif term.op in (SUM, PRODUCT):
                key = term.op, term.args[0], tuple(sorted((form(part), times) for part, times in term.args[1]))
            elif term.op not in _LEAVES:
                key = term.op, _without_terms(term.args), tuple(map(form, term.parts))
            forms[term] = known.setdefault(key, len(known))
        return forms[term]

    there = set(map(form, all_in(expected)))
    return {term for term in all_in(found) if form(term) in there}


def _is_one_of(term: Term, weights: Collection[str]) -> bool:
    """Whether a term is a weight, or a part of one, that is among some."""
    whole = term.args[0] if term.op == PART else term
    return whole.op == WEIGHT and whole.args[0] in weights


def is_same_otherwise(found: Term, expected: Term) -> bool:
    """Whether two terms are one operation, done with other numbers: a softmax over another axis."""
    return found.op == expected.op and found.op not in (SUM, PRODUCT) and bool(found.parts)


def _apart(found: Term, expected: Term) -> list[Pair] | None:
    """Returns the parts in which alone two terms differ, each beside its counterpart, if there are such."""
    if found.op != expected.op:
        return None
    if found.op in (SUM, PRODUCT):
        return _members_apart(found, expected) if found.args[0] == expected.args[0] else None
    if _without_terms(found.args) != _without_terms(expected.args):
        return None
    return [pair for pair in zip(found.parts, expected.parts, strict=True) if pair[0] is not pair[1]]


def _members_apart(found: Term, expected: Term) -> list[Pair] | None:
    ours, theirs = dict(found.args[1]), dict(expected.args[1])
    left = [[item for item in one.items() if item not in other.items()] for one, other in
            ((ours, theirs), (theirs, ours))]  # fmt: skip
    if len(left[0]) != len(left[1]):
        return None
    if len(left[0]) == 1:
        (mine, times), (other, also) = left[0][0], left[1][0]
        return [(mine, other)] if times == also else None
    for tells in (_by_power, _by_operation, _by_weight):
        sides = [{tells(*item): item[0] for item in items} for items in left]
        if sides[0].keys() == sides[1].keys() and len(sides[0]) == len(left[0]):
            return [(term, sides[1][key]) for key, term in sides[0].items()]
    return None


def _by_power(_: Term, times: float) -> object:
    return times


def _by_operation(term: Term, times: float) -> object:
    return times, term.op


def _by_weight(term: Term, times: float) -> object:
    """Tells branches apart by the weight that they end with."""
    return times, next((part for part in all_in(term) if part.op == WEIGHT), None)


def _without_terms(given: Sequence[object] | object) -> object:
    if isinstance(given, tuple):
        return tuple(map(_without_terms, given))
    return None if isinstance(given, Term) else given
