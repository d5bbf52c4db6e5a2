"""Every way in which the projections of one attention can hold the query, key and value of another.

They are fused into one matrix or two or none, in any order. In a fused matrix the three parts (q), the heads (h) and a
head's features (d) may stand in any order as well, and so may heads and features in one that is alone. What the names
of the matrices say for a way is counted, and decides nothing here.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from parity.mapping.uses.patterns import Placed, entry_between, placed
from parity.mapping.uses.ways import Way
from parity.tracing import PARTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parity.mapping.uses.operations import Matrix, Operation, Projection
    from parity.models import Entry

_UNFIT = Placed("", ())  # a tensor whose axes are other ones

# orders of parts, heads and features in a fused matrix, the usual ones first
_ORDERS = {
    "qhd": "", "hqd": " per head", "hdq": " interleaved",
    "qdh": " feature by feature", "dqh": " per feature", "dhq": " interleaved feature by feature",
}  # fmt: skip
_USUAL = ("qhd", "hqd", "hdq", "hd", "d", "qd")
_PLAIN = ("qhd", "hd", "d", "qd")


@dataclass(frozen=True)
class _Part:
    """Where query, key or value stands, or a head of it: in which matrix, and as which of how many parts.

    Attributes:
        matrix: its number.
        number: of the part in it; None for all of them.
        count: of parts in it.
        order: of the matrix's rows, in letters of `_ORDERS`.
        head: the only head that is meant; None for all that are in the matrix.
    """

    matrix: int
    number: int | None
    count: int
    order: str
    head: int | None = None

    @property
    def fixed(self) -> dict[str, int]:
        """The letters of the order of which only one item is meant, and which."""
        chosen = {"q": self.number if self.count > 1 else None, "h": self.head}
        return {letter: number for letter, number in chosen.items() if number is not None and letter in self.order}


@dataclass(frozen=True)
class Reading:
    """What the matrices of an attention hold: query, key and value, each as one part or as one for every head.

    Its rarity is that of a way.
    """

    name: str
    parts: tuple[tuple[_Part, ...], ...]
    rarity: int = 0

    @property
    def orders(self) -> set[str]:
        """Orders of the rows of its matrices."""
        return {part.order for parts in self.parts for part in parts}

    @property
    def is_uniform(self) -> bool:
        """Whether heads and features stand in one order in all matrices."""
        return len({order.replace("q", "") for order in self.orders}) == 1

    @property
    def is_in_order(self) -> bool:
        """Whether query, key and value come one after the other, as far as they are told apart by their places."""
        places = [(parts[0].matrix, parts[0].number or 0) for parts in self.parts]
        return places == sorted(places)


def attention_ways(ours: Operation, theirs: Operation, heads: int | None, *, is_packed: bool) -> list[Way]:
    """Lists the maps between the projections of two attentions, the usual ones first.

    Args:
        ours: the reference's.
        theirs: the candidate's.
        heads: how many there are, if that is known.
        is_packed: the reference's query, key and value are known to stand one after the other, as torch has them.
    """
    width = ours.rows // 3
    head = width // heads if heads and heads > 1 and width % heads == 0 else width
    mine, other = (
        list(readings([projection.matrix.shape[0] for projection in operation.projections], width, head))
        for operation in (ours, theirs)
    )
    # only how the parts of both sides stand to each other counts: on one of them they are called in their order
    mine = [reading for reading in mine if reading.is_in_order and reading.is_uniform]
    lengths = {"h": width // head, "d": head}
    ways: dict[tuple[Entry, ...], Way] = {}
    for our, their in itertools.product(mine[:1] if is_packed else mine, other):
        way = _way(ours, theirs, (our, their), lengths)
        if way is not None:
            ways.setdefault(way.entries, way)
    return sorted(ways.values(), key=lambda way: way.rarity)


def merging_ways(ours: Matrix, theirs: Matrix, heads: int | None) -> list[Way]:
    """Lists the maps between two projections of the heads' outputs, whose features may stand in another order."""
    width = ours.shape[1]
    if not heads or heads in (1, width) or width % heads or ours.shape != theirs.shape:
        return []
    lengths = {"h": heads, "d": width // heads, "o": ours.shape[0]}
    our, their = (
        placed(matrix.view, [(matrix.rows, "o"), (matrix.columns, order)], lengths)
        for matrix, order in ((ours, "hd"), (theirs, "dh"))
    )
    entry = entry_between(our, their, lengths)
    return [Way(", heads merged feature by feature", (entry,), rarity=1)] if entry else []


def _in_words(order: tuple[int, ...]) -> str:
    return ", ".join(PARTS[part] for part in order)


def readings(sizes: list[int], width: int, head: int) -> Iterator[Reading]:
    """Yields what matrices of `sizes` rows can hold of query, key and value, of `width` rows each."""
    count = width // head
    orders = {order: how for order, how in _ORDERS.items() if count > 1 or order == "qhd"}
    alone = [order for order in ("hd", "dh") if count > 1 or order == "hd"]
    single = sizes.index(width) if sorted(sizes) == [width, 2 * width] else None
    for order in itertools.permutations(range(3)):
        at = [order.index(part) for part in range(3)]
        words = _in_words(order)
        if sizes == [3 * width]:
            for rows, how in orders.items():
                yield Reading(f"{words} fused{how}", tuple((_Part(0, n, 3, rows),) for n in at))
        elif sizes == [width] * 3:
            for each in itertools.product(alone, repeat=3):
                turned = [PARTS[part] for part in order if each[part] == "dh"]
                which = f", {' and '.join(turned)}" if len(turned) in (1, 2) else ""
                name = f"{words}{which}{_ORDERS['qdh']}" if turned else words
                yield Reading(name, tuple((_Part(n, 0, 1, own),) for n, own in zip(at, each, strict=True)))
        elif single is not None:
            for (rows, how), alone_rows in itertools.product(orders.items(), alone):
                places = [
                    _Part(single, 0, 1, alone_rows) if n == 2 * single else _Part(1 - single, n - 1 + single, 2, rows)
                    for n in at
                ]
                mixed = "" if alone_rows in rows.replace("q", "") else f", the other one{_ORDERS[f'q{alone_rows}']}"
                yield Reading(f"{words}, two of them fused{how}{mixed}", tuple((place,) for place in places))
    if count > 1:
        yield from _readings_by_heads(sizes, width, head)


# of how many parts each matrix is, and which matrices take turns, head by head; the usual ways first
_TURNS: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((1, 1, 1),), ((1,), (1,), (1,)), ((3,),), ((1, 2),), ((2, 1),), ((1,), (2,)), ((2,), (1,)), ((1, 1), (1,)),
    ((1,), (1, 1)),
)  # fmt: skip
_USUAL_TURNS = _TURNS[:3]

_Unit = tuple[int, ...]  # the parts in one matrix


def _readings_by_heads(sizes: list[int], width: int, head: int) -> Iterator[Reading]:
    """Yields what matrices of `sizes` rows can hold if some of them are a single head's.

    A matrix has one part, two, or all three of them. Those of the heads come one after the other, or take turns with
    those of other parts. Beside them, a matrix may hold the part or parts of all heads.
    """
    count = width // head
    for turns, order in itertools.product(_TURNS, itertools.permutations(range(3))):
        ahead = iter(order)
        units = [[tuple(itertools.islice(ahead, length)) for length in turn] for turn in turns]
        for wholes in itertools.product(*((False, True) if len(turn) == 1 else (False,) for turn in units)):
            matrices: list[_Unit] = []
            for turn, is_whole in zip(units, wholes, strict=True):
                matrices += turn * (1 if is_whole else count)
            alone = {turn[0] for turn, is_whole in zip(units, wholes, strict=True) if is_whole}
            if not all(wholes) and sizes == [len(u) * (width if u in alone else head) for u in matrices]:
                yield from _read_by_heads(units, matrices, alone, rarity=turns not in _USUAL_TURNS or any(wholes))


def _read_by_heads(
    turns: list[list[_Unit]], matrices: list[_Unit], alone: set[_Unit], *, rarity: bool
) -> Iterator[Reading]:
    """Yields the readings of matrices of which each holds these parts, of all heads if it is `alone`."""
    units = [unit for turn in turns for unit in turn]
    fused = [order for order in _ORDERS if order in _USUAL]
    of_unit = [
        (fused if len(unit) > 1 else ["hd"]) if unit in alone else ["qd" if len(unit) > 1 else "d"] for unit in units
    ]
    for orders in itertools.product(*of_unit):
        how = dict(zip(units, orders, strict=True))
        parts = {
            part: tuple(_Part(n, at, len(unit), how[unit]) for n, held in enumerate(matrices) if held == unit)
            for unit in units
            for at, part in enumerate(unit)
        }
        words = "; ".join(
            ", ".join(" with ".join(PARTS[part] for part in unit) for unit in turn)
            + (f" of all heads{_ORDERS.get(how[turn[0]], '')}" if turn[0] in alone else " head by head")
            for turn in turns
        )
        yield Reading(words, tuple(parts[part] for part in range(3)), int(rarity))


def _way(ours: Operation, theirs: Operation, readings: tuple[Reading, Reading], lengths: dict[str, int]) -> Way | None:
    """Returns the entries of both sides' readings, weights and biases; None if the shapes rule them out."""
    both = zip(readings[0].parts, readings[1].parts, strict=True)
    pairs = [pair for our, their in both for pair in _paired(our, their, lengths["h"])]
    is_whole = _is_whole(ours.projections, pairs[0][0]) and _is_whole(theirs.projections, pairs[0][1])
    if is_whole and all(our.number == their.number for our, their in pairs):
        pairs = [(replace(pairs[0][0], number=None), replace(pairs[0][1], number=None))]
    entries: list[Entry] = []
    left_reference: list[str] = []
    left_candidate: list[str] = []
    for our, their in pairs:
        sides = (ours.projections[our.matrix], our), (theirs.projections[their.matrix], their)
        columns = max((projection.matrix.column_lengths for projection, _ in sides), key=len)
        letters = lengths | {"q": our.count} | dict(zip("ijkl", columns, strict=False))
        one, other = (rows_of(*side, letters, "ijkl"[: len(columns)]) for side in sides)
        found = [entry_between(one, other, letters)]
        one, other = (bias_of(*side, lengths) for side in sides)
        if _UNFIT in (one, other):
            return None
        if one and other:
            found.append(entry_between(one, other, letters))
        else:
            left_reference += [one.name] if one else []
            left_candidate += [other.name] if other else []
        if None in found:
            return None
        entries += filter(None, found)
    votes = [
        vote(theirs.projections[their.matrix].matrix, their, part)
        for part, parts in zip(PARTS, readings[1].parts, strict=True)
        for their in parts
    ]
    is_plain, is_usual = readings[0].orders <= {*_PLAIN}, readings[1].orders <= {*_USUAL}
    name = readings[1].name if is_plain else f"{readings[1].name}, of {readings[0].name}"
    rarity = (not is_usual) + 2 * (not is_plain) + readings[1].rarity
    against = next((words for vote, words in votes if vote < 0), "")
    by_name = sum(vote for vote, _ in votes)
    return Way(name, tuple(entries), by_name, against, tuple(left_reference), tuple(left_candidate), rarity)


def _paired(ours: tuple[_Part, ...], theirs: tuple[_Part, ...], heads: int) -> list[tuple[_Part, _Part]]:
    """Pairs the parts of both sides, head by head if one of them has one for each."""
    sides = [
        [replace(parts[0], head=h) for h in range(heads)] if len(parts) == 1 < count else list(parts)
        for parts, count in ((ours, len(theirs)), (theirs, len(ours)))
    ]
    return list(zip(*sides, strict=True))


def _is_whole(projections: list[Projection], part: _Part) -> bool:
    """Whether the first part stands in a matrix, with its bias if it has one, that holds all three."""
    return len(projections) == 1 and part.head is None and not projections[0].bias_parts


def rows_of(projection: Projection, part: _Part, lengths: dict[str, int], columns: str) -> Placed | None:
    """Returns the rows of a part, with the letters of its columns; None if the shapes rule the part out."""
    axes = [(projection.matrix.rows, part.order), (projection.matrix.columns, columns)]
    return placed(projection.matrix.view, axes, lengths | {"q": part.count}, part.fixed)


def bias_of(projection: Projection, part: _Part, lengths: dict[str, int]) -> Placed | None:
    """Returns the bias of a part; None if there is none, and `_UNFIT` if its shape rules the part out."""
    view, order, fixed = projection.bias, part.order, part.fixed
    if view is None and projection.bias_parts:
        if projection.matrix.shape[0] // projection.part_rows != part.count or part.number is None:
            return _UNFIT
        view, order = projection.bias_parts.get(part.number), order.replace("q", "")
        fixed = {letter: number for letter, number in fixed.items() if letter != "q"}
    if view is None:
        return None
    axes = tuple(axis for axis in view.axes_in_use if view.shape[axis] != 1)
    # its axes may stand in another order than the weight's
    orders = [order, *map("".join, itertools.permutations(order))]
    fitting = (placed(view, [(axes, letters)], lengths | {"q": part.count}, fixed) for letters in orders)
    return next(filter(None, fitting), _UNFIT)


_FUSED_NAME = re.compile(r"(?<![a-z])(qkv|qvk|kqv|kvq|vqk|vkq|qk|kq|qv|vq|kv|vk)(?![a-z])")
_PART_NAME = re.compile(
    r"(?<![a-z])(?:w_?|to_?|(?:proj|lin|linear|fc)_?)?"  # to_q, w_q, proj_q
    r"([qkv])(?:uery|ueries|ey|eys|al|alue|alues)?"
    r"(?:_?(?:proj|lin|linear|fc|w))?(?![a-z])"  # q_proj, query_linear
)


def vote(matrix: Matrix, at: _Part, part: str) -> tuple[int, str]:
    """Returns whether a matrix's name speaks for (1) or against (-1) the part that is read there, and how."""
    name = matrix.view.name
    fused, single = _FUSED_NAME.findall(name.lower()), _PART_NAME.findall(name.lower())
    if fused:
        if len(fused[-1]) != at.count:
            return 0, ""
        letter = fused[-1][at.number or 0]
    elif single and at.count == 1:
        letter = single[-1]
    else:
        return 0, ""
    if letter == part[0]:
        return 1, ""
    named = next(p for p in PARTS if p[0] == letter)
    return -1, f"{name}, the {named} by its name, acts as the {part}"
