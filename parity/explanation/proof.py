"""From changes that explain a candidate to named causes: grouped, proved on the whole model, each one needed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.findings import Cause
from parity.tracing import SAME_FUNCTION_BOUND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from parity.explanation.bending import Change


@dataclass(frozen=True)
class Explanation:
    """Why a candidate is another function than the reference.

    Attributes:
        causes: in order of execution.
        complete: with all of them the reference agrees with the candidate within the bound, in float64.
        minimal: without any one of them it doesn't.
        residual: relative error of the logits with all of them.
        phrases: the causes in short, as they are listed in a sentence.
        unexplained: places where no cause fits, with what is known of them.
        changes: what the causes change in the reference.
    """

    causes: tuple[Cause, ...]
    complete: bool
    minimal: bool
    residual: float
    phrases: tuple[str, ...] = ()
    unexplained: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()

    def sentences(self, reference: str) -> list[str]:
        """Returns what is unexplained, a sentence each, and at the end what the candidate is."""
        return [*self.unexplained, self._sentence(reference)]

    def _sentence(self, reference: str) -> str:
        if not self.causes:
            return f"no known cause makes {reference} your model"
        changes = "this change" if len(self.causes) == 1 else f"these {len(self.causes)} changes"
        listed = ", ".join(self.phrases[:-1])
        model = f"your model is {reference} with {listed}{' and ' * bool(listed)}{self.phrases[-1]}"
        if self.complete:
            return f"{model}; with {changes} it agrees to {self.residual:.1g}"
        return f"{model}, and something more: with {changes} it still differs by {self.residual:.2g}"


@dataclass(frozen=True)
class Group:
    """One cause at all its places.

    Attributes:
        changes: the same kind with the same value.
        id: as in `Cause`.
        phrase: what the candidate has.
        instead: what the reference has.
        hint: how to mend it.
        where: the places.
    """

    changes: tuple[Change, ...]
    id: str
    phrase: str
    instead: str
    hint: str
    where: tuple[str, ...]


def grouped(changes: Iterable[Change]) -> list[Group]:
    """Groups changes of one kind and value, in order of the first place."""
    groups: dict[tuple[object, ...], list[Change]] = defaultdict(list)
    for change in changes:
        # a table that was read off the candidate is another object wherever it was read
        value = change.value if isinstance(change.value, float) else None
        groups[change.kind.key, value].append(change)
    return [
        Group(
            tuple(members),
            members[0].kind.id,
            members[0].phrase,
            members[0].kind.instead,
            members[0].kind.hint,
            tuple(dict.fromkeys(change.place for change in members)),
        )
        for members in groups.values()
    ]


def prove(
    groups: Sequence[Group],
    error: Callable[[Sequence[Group]], float],
    words: Callable[[Sequence[str]], str],
    unexplained: Sequence[str],
) -> Explanation:
    """Proves an explanation on the whole model, and leaves out every cause that isn't needed.

    Args:
        groups: the causes that were found.
        error: runs the whole reference with some of them and returns its relative distance from the candidate.
        words: says where places are.
        unexplained: places where no cause fits, in words.
    """
    residual = error(groups)
    needed = list(groups)
    without: dict[int, float] = {}
    if residual <= SAME_FUNCTION_BOUND:
        for group in list(groups):
            others = [other for other in needed if other is not group]
            left = error(others)
            if left <= SAME_FUNCTION_BOUND:
                needed, residual = others, left
            else:
                without[id(group)] = left
    else:
        without = {id(group): error([other for other in groups if other is not group]) for group in groups}
    complete = residual <= SAME_FUNCTION_BOUND
    wheres = {id(group): words(group.where) for group in needed}
    causes = tuple(
        Cause(
            group.id,
            f"{f'{group.phrase} {wheres[id(group)]}'.strip()}; the reference has {group.instead}",
            group.where,
            residual,
            without[id(group)],
            group.hint,
        )
        for group in needed
    )
    return Explanation(
        causes,
        complete,
        complete and all(error > SAME_FUNCTION_BOUND for error in without.values()),
        residual,
        tuple(f"{group.phrase} {wheres[id(group)]}".strip() for group in needed),
        tuple(unexplained),
        tuple(change for group in needed for change in group.changes),
    )
