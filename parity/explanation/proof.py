"""From changes that explain a candidate to named causes: grouped, proved on the whole model, each one needed."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from parity.findings import Cause
from parity.tracing import SAME_FUNCTION_BOUND, by_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from parity.explanation.bending import Change

# the id of a cause without a name, and of how many lines of a file it is said that a cause comes from them
GRAFT, MOST_LINES = "graft", 4

# of so many causes it is looked at whether some of them do nothing together: of four, eleven sets
_MOST_TOGETHER = 4


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
        agreement: how the models agree as they are out of train mode, as the beginning of a sentence; empty if they
            don't.
        in_train_mode: the causes that act in train mode alone in short.
        left_in_train_mode: what the causes leave of the error of train mode's logits, relative; None where that is
            within the bound, or wasn't looked at.
        in_eval_mode_alone: whether the models agree in train mode as they are.
    """

    causes: tuple[Cause, ...]
    complete: bool
    minimal: bool
    residual: float
    phrases: tuple[str, ...] = ()
    unexplained: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    agreement: str = ""
    in_train_mode: tuple[str, ...] = ()
    left_in_train_mode: float | None = None
    in_eval_mode_alone: bool = False

    def with_train_mode(self, proof: Explanation) -> Explanation:
        """Returns the explanation of eval mode and, as `proof`, that of what differs in train mode alone."""
        causes = (dataclasses.replace(c, statement=f"in train mode {c.statement}") for c in proof.causes)
        return dataclasses.replace(
            self,
            causes=(*self.causes, *causes),
            complete=self.complete and proof.complete and bool(self.causes or proof.causes),
            minimal=self.minimal and proof.minimal,
            residual=max(self.residual, proof.residual),
            in_train_mode=proof.phrases,
            left_in_train_mode=None if proof.complete else proof.residual,
        )

    @property
    def by_name(self) -> bool:
        """Whether every cause has a name, and none is but the candidate's own operations."""
        return all(cause.id != GRAFT for cause in self.causes)

    @property
    def explains_eval_mode(self) -> bool:
        """Whether it explains all that differs in eval mode, whatever it leaves of train mode."""
        return self.complete or self.left_in_train_mode is not None

    @property
    def differs_in_train_mode(self) -> bool:
        """Whether something differs in train mode alone, explained or not."""
        return bool(self.in_train_mode) or self.left_in_train_mode is not None

    @property
    def names_dropouts(self) -> bool:
        """Whether its causes are all that differs in train mode alone."""
        return self.complete and bool(self.in_train_mode)

    @property
    def is_of_train_mode(self) -> bool:
        """Whether it explains all that differs, which does so in train mode alone."""
        return self.complete and bool(self.agreement)

    def sentences(self, reference: str) -> list[str]:
        """Returns what is unexplained, a sentence each, and at the end what the candidate is."""
        if self.agreement:
            return self._about_train_mode(reference)
        return [*self.unexplained, self._sentence(reference)]

    def _sentence(self, reference: str) -> str:
        if not self.causes:
            return f"no known cause makes {reference} your model"
        phrases = [f"with {_listed(self.phrases)}"] if self.phrases else []
        if self.in_train_mode:
            phrases.append(f"in train mode {_listed(self.in_train_mode)}")
        model = f"your model is {reference} {', and '.join(phrases)}"
        if self.in_eval_mode_alone:
            model = f"in train mode your model is {reference}; in eval mode it is {reference} {phrases[0]}"
        if self.complete:
            return f"{model}; with {self._changes} it agrees to {self.residual:.1g}"
        if self.left_in_train_mode is not None:
            return f"{model}; with {self._changes} it {self._differs_in_train_mode}"
        size = f" by {self.residual:.2g}" if math.isfinite(self.residual) else ""
        return f"{model}, and something more: with {self._changes} it still differs{size}"

    def _about_train_mode(self, reference: str) -> list[str]:
        if not self.in_train_mode and self.left_in_train_mode is None:
            return [f"{self.agreement}; in train mode the same dropouts draw other masks"]
        if not self.in_train_mode:
            return [f"{self.agreement}; in train mode the logits differ, and no cause was found"]
        found = f"{self.agreement}; in train mode {_listed(self.in_train_mode)}"
        if self.complete:
            how = "where dropouts of one size draw the same masks"
            return [
                found,
                f"with {self._changes} {reference} is your model in train mode too, to {self.residual:.1g}, {how}",
            ]
        return [f"{found}; with {self._changes} it {self._differs_in_train_mode}"]

    @property
    def _changes(self) -> str:
        return "this change" if len(self.causes) == 1 else f"these {len(self.causes)} changes"

    @property
    def _differs_in_train_mode(self) -> str:
        left = self.left_in_train_mode or math.inf
        size = f" by {left:.2g}" if math.isfinite(left) else ""
        return f"still differs in train mode{size}, for which no cause was found"


def _listed(phrases: Sequence[str]) -> str:
    listed = ", ".join(phrases[:-1])
    return f"{listed}{' and ' * bool(listed)}{phrases[-1]}"


# how a manner or a place begins
_MANNERS = ("after ", "as ", "attention first", "before ", "by ", "cut ", "first", "flattened", "in ", "once", "over ",
            "permuted", "plus", "row by ", "scaled ", "transposed", "viewed ", "with ")  # fmt: skip


def of_the_reference(instead: str) -> str:
    """Returns a clause that says what the reference has: a thing, or a manner or place, such as `over the keys`."""
    return f"{'in the reference' if instead.startswith(_MANNERS) else 'the reference has'} {instead}"


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
        source: the lines of the candidate's source that it comes from, as far as they are known.
        letters: those that may stand in the texts where they are formulas, and what each is.
    """

    changes: tuple[Change, ...]
    id: str
    phrase: str
    instead: str
    hint: str
    where: tuple[str, ...]
    source: str = ""
    letters: tuple[tuple[str, str], ...] = ()

    def in_short(self, where: str) -> str:
        """What the candidate has, as a sentence lists it."""
        source = f"({self.source})" * bool(self.source and self.id == GRAFT)
        return " ".join(filter(None, (self.phrase, source, where))).strip(" ,")

    def statement(self, where: str) -> str:
        """The difference, in one sentence."""
        if self.id != GRAFT:
            return f"{self.in_short(where)}; {of_the_reference(self.instead)}"
        source = f"{self.source}: " if self.source else ""
        return f"{source}{f'{self.phrase} {where}'.strip()}; the reference: {self.instead}{self._where()}"

    def _where(self) -> str:
        """Says what the letters in both formulas are, as the end of a sentence; source that is quoted has its own."""
        texts = self.instead if self.phrase.startswith("`") else f"{self.phrase} {self.instead}"
        said = [
            f"{letter} is {what}" for letter, what in self.letters if re.search(rf"(?<![\w.]){letter}(?!\w)", texts)
        ]
        return f", where {_listed(said)}" if said else ""


def grouped(changes: Iterable[Change], sources: Mapping[Change, tuple[str, ...]] = MappingProxyType({})) -> list[Group]:
    """Groups changes of one kind and value, in order of the first place.

    Args:
        changes: in order.
        sources: the lines of the candidate's source that some of them come from.
    """
    groups: dict[tuple[object, ...], list[Change]] = defaultdict(list)
    for change in changes:
        # a table that was read off the candidate is another object wherever it was read: its words tell what it does
        groups[change.kind.key, change.value if isinstance(change.value, float) else change.phrase].append(change)
    return [
        Group(
            tuple(members),
            members[0].kind.id,
            members[0].phrase,
            members[0].kind.instead,
            members[0].kind.hint,
            tuple(dict.fromkeys(change.place for change in members)),
            by_file((line for change in members for line in sources.get(change, ())), MOST_LINES),
            members[-1].kind.letters,
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

    def with_more(self, groups: Iterable[Group]) -> Proof:
        """Returns the proof with causes that are certain, and that the reference cannot be without for a change."""
        more = tuple(groups)
        return dataclasses.replace(
            self, needed=(*more, *self.needed), without=(*(math.inf for _ in more), *self.without)
        )

    def explanation(
        self, words: Callable[[Sequence[str]], str], named: Callable[[str], str], unexplained: Sequence[str]
    ) -> Explanation:
        """Puts it in words.

        Args:
            words: says where places are.
            named: says what a place is called in the reference.
            unexplained: places where no cause fits, in words; none is one if the causes explain everything.
        """
        phrases = tuple(group.in_short(words(group.where)) for group in self.needed)
        causes = []
        for group, error in zip(self.needed, self.without, strict=True):
            where, statement = tuple(map(named, group.where)), group.statement(words(group.where))
            causes.append(Cause(group.id, statement, where, self.residual, error, group.hint, group.source))
        is_minimal = self.is_complete and all(error > SAME_FUNCTION_BOUND for error in self.without)
        changes = tuple(change for group in self.needed for change in group.changes)
        left = () if self.is_complete else tuple(unexplained)
        return Explanation(tuple(causes), self.is_complete, is_minimal, self.residual, phrases, left, changes)


def prove(
    groups: Sequence[Group],
    error: Callable[[Sequence[Group]], float],
    arranges: Callable[[Group], bool] = lambda _: False,
) -> Proof:
    """Tries causes on the whole model, and leaves out every one that isn't needed.

    What only cancels each other out is left out together: tokens that are in another order throughout the model, say,
    which is how a candidate is written and no bug.

    Args:
        groups: the causes that were found.
        error: runs the whole reference with some of them and returns its relative distance from the candidate.
        arranges: whether a cause may be cancelled out by others.
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
    proof = Proof(tuple(needed), residual, tuple(without[id(group)] for group in needed))
    return _without_what_cancels(proof, error, arranges) if proof.is_complete else proof


def _without_what_cancels(
    proof: Proof, error: Callable[[Sequence[Group]], float], arranges: Callable[[Group], bool]
) -> Proof:
    """Leaves out the largest set of at least two causes that do nothing together, if there is one."""
    movable = [group for group in proof.needed if arranges(group)][:_MOST_TOGETHER]
    sizes = range(len(movable), 1, -1)
    for left_out in itertools.chain.from_iterable(itertools.combinations(movable, size) for size in sizes):
        others = tuple(group for group in proof.needed if group not in left_out)
        residual = error(others)
        if residual <= SAME_FUNCTION_BOUND:
            without = (error([other for other in others if other is not group]) for group in others)
            return Proof(others, residual, tuple(without))
    return proof
