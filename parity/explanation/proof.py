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
        changes: what the causes change in the reference; none where another model stands for it.
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


@dataclass(frozen=True)
class Proof:
    """Which changes make the reference the candidate.

    Attributes:
        needed: the causes that are left.
        residual: relative error of the logits with all of them.
        without: the error without one of them, by its place in `needed`.
    """

    needed: tuple[Group, ...]
    residual: float
    without: tuple[float, ...]

    @property
    def is_complete(self) -> bool:
        """Whether they make the reference the candidate, within the bound."""
        return self.residual <= SAME_FUNCTION_BOUND

    def explanation(
        self, words: Callable[[Sequence[str]], str], named: Callable[[str], str], unexplained: Sequence[str]
    ) -> Explanation:
        """Puts it in words.

        Args:
            words: says where places are.
            named: says what a place is called in the reference.
            unexplained: places where no cause fits, in words.
        """
        phrases = tuple(f"{group.phrase} {words(group.where)}".strip() for group in self.needed)
        causes = []
        for group, phrase, error in zip(self.needed, phrases, self.without, strict=True):
            where = tuple(map(named, group.where))
            statement = f"{phrase}; the reference has {group.instead}"
            causes.append(Cause(group.id, statement, where, self.residual, error, group.hint))
        is_minimal = self.is_complete and all(error > SAME_FUNCTION_BOUND for error in self.without)
        changes = tuple(change for group in self.needed for change in group.changes)
        return Explanation(
            tuple(causes), self.is_complete, is_minimal, self.residual, phrases, tuple(unexplained), changes
        )


def prove(groups: Sequence[Group], error: Callable[[Sequence[Group]], float]) -> Proof:
    """Tries causes on the whole model, and leaves out every one that isn't needed.

    Args:
        groups: the causes that were found.
        error: runs the whole reference with some of them and returns its relative distance from the candidate.
    """
    residual = error(groups)
    needed = list(groups)
    without: dict[int, float] = {}
    for group in groups:
        others = [other for other in needed if other is not group]
        left = error(others)
        if max(left, residual) <= SAME_FUNCTION_BOUND:
            needed, residual = others, left
        else:
            without[id(group)] = left
    return Proof(tuple(needed), residual, tuple(without[id(group)] for group in needed))
