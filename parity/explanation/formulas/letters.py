"""What the terms of a formula are called: a letter for what enters, the usual ones for queries, keys and values."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from parity.explanation.formulas.terms import ENTERS, Term

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from parity.explanation.formulas.shapes import Shape
    from parity.tracing import Point

ROLES = {"query": "q", "key": "k", "value": "v"}
OTHER_LETTERS = ("x", "y", "z", "u", "w", "s", "t")

BLOCK = re.compile(r"^.*?\.\D*(\d+)\.")


class Letters(dict["Term", str]):
    """What terms are called in writing, and what others were written as by these names.

    Args:
        block: in which a query is called so without a number.
        letters: of some terms.
    """

    def __init__(self, block: str, letters: Mapping[Term, str] = MappingProxyType({})) -> None:
        super().__init__(letters)
        self.block = block
        self.of_others: dict[str, str] = {}
        self.entering: Mapping[Term, Collection[Shape]] = {}
        self.written: dict[Term, tuple[str, int]] = {}

    def role(self, point: Point) -> str:
        """Returns what a query, key or value at a point is called, an empty text for anything else."""
        return self.of_block(ROLES.get(point.module.rpartition(".")[2], ""), point)

    def of_block(self, letter: str, point: Point) -> str:
        """Returns a letter with the number of its block, if that is another one."""
        block, number = block_of_point(point)
        if not letter or block == self.block:
            return letter
        role = next(role for role, known in ROLES.items() if known == letter)
        self.of_others[f"{letter}_{number}"] = f"the {role} of block {number}"
        return f"{letter}_{number}"


def letters_for(terms: Sequence[Term], points: Sequence[Point], passing: Mapping[Term, Point], to: Point) -> Letters:
    """Names what enters, and queries, keys and values.

    Args:
        terms: of both models.
        points: at which something may enter, in order.
        passing: the points that other terms are at.
        to: the point that the terms lead to.
    """
    entering = sorted(
        {term for term in terms if term.op == ENTERS},
        key=lambda term: points.index(term.args[0]) if term.args[0] in points else len(points),
    )
    letters = Letters(block_of_point(to)[0])
    for term in entering:
        role = letters.role(term.args[0])
        free = [letter for letter in OTHER_LETTERS if letter not in letters.values()]
        letters[term] = role if role and role not in letters.values() else (*free, f"x{len(letters)}")[0]
    for term, point in passing.items():
        role = letters.role(point)
        if role and role not in letters.values() and term in terms:
            letters[term] = role
    return letters


def block_of_point(point: Point) -> tuple[str, int]:
    """Returns the beginning of a point's name that is the block's, and the block's number; none outside the blocks."""
    found = BLOCK.match(f"{point.module}.")
    return (found[0], int(found[1])) if found else ("", -1)
