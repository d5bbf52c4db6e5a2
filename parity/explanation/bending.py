"""A model written as named operations, each of which can be replaced while it runs.

A *bendable* model asks a `Bend` for every step it takes: `bend.do(place, operation, function, *arguments)`. Without
changes that is `function(*arguments)`. A change wraps the operation at a place, so several of them add up. At the
boundaries of modules the model tells the bend which tensor passes (`bend.at`), and goes on with what it is handed back.
What a model has of its own beside the operations that it is written as are its *traits*: changes that are made unless
another one takes their place.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from parity.explanation.formulas.replaying import Graft
from parity.tracing import Point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from parity.tracing import Moment

    # called with the operation as it was, and its arguments
    Variant = Callable[..., Any]
    Key = tuple[str, str]  # place and operation


@dataclass(frozen=True)
class Kind:
    """One nameable way to be wrong: what happens at an operation instead of what the reference does.

    Attributes:
        id: stable name.
        variants: by operation, what happens instead: called with the original operation and its arguments, and with
            `value` if the kind has one. Several operations belong to one place.
        phrase: what the candidate has, `{value}` for the value: "LayerNorm eps {value}".
        instead: what the reference has in its place.
        hint: how to mend it, in a line of code or words.
        start: for a kind with a number that is not known beforehand: numbers from which to look for it.
        named: names of numbers, such as `1 / sqrt(head width)`, for the phrase.
        only: regular expression that a place must match.
        at: the one place where the kind is possible, if some of its operations belong to others.
        elsewhere: those operations, and the place of each.
        fit: for a kind with a tensor that is not known beforehand: returns it from the wanted result and the arguments
            of its operation, or None if there is none.
        words: says what such a tensor does, for the phrase.
        is_random: draws random numbers.
        by_place: the variants take the change's place as a keyword.
        undoes: for the absence of a trait: the key of the trait's kind.
        letters: those that may stand in the texts where they are formulas, and what each is.
        inside: for layers that only the candidate has: returns the variants with something done at each activation
            between them, which is called with the activation and what it is given.
        zeros_for: for the absence of something that leaves zeros: what the reference has there, as a formula calls it.
    """

    id: str
    variants: Mapping[str, Variant]
    phrase: str
    instead: str
    hint: str
    start: tuple[float, ...] = ()
    named: Mapping[str, float] = field(default_factory=dict)
    only: str = ""
    at: str | None = None
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    fit: Callable[..., torch.Tensor | None] | None = None
    words: Callable[[torch.Tensor], str] | None = None
    is_random: bool = False
    by_place: bool = False
    undoes: tuple[str, str, str] | None = None
    letters: tuple[tuple[str, str], ...] = ()
    inside: Callable[[Callable[..., torch.Tensor]], Mapping[str, Variant]] | None = None
    zeros_for: str = ""

    @property
    def has_value(self) -> bool:
        """Whether the kind has a number or a tensor that must be found."""
        return bool(self.start) or self.fit is not None

    def fits(self, place: str) -> bool:
        """Whether the kind is possible at a place."""
        return re.search(self.only, place) is not None

    @property
    def key(self) -> tuple[str, str, str]:
        """Tells kinds apart."""
        return self.id, self.phrase, self.instead


@dataclass(frozen=True)
class Change:
    """A kind at a place, with its value."""

    kind: Kind
    place: str
    value: Any = None

    def __hash__(self) -> int:
        return hash((self.kind.key, self.place))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Change):
            return NotImplemented
        are_tensors = any(isinstance(value, torch.Tensor) for value in (self.value, other.value))
        same_value = self.value is other.value or (not are_tensors and bool(self.value == other.value))
        return self.kind.key == other.kind.key and self.place == other.place and same_value

    @property
    def operations(self) -> set[Key]:
        """What it changes."""
        if isinstance(self.value, Graft):
            return {self.value.operation[:2]}
        return {(self.kind.elsewhere.get(operation, self.place), operation) for operation in self.kind.variants}

    @property
    def phrase(self) -> str:
        """What the candidate has, in words."""
        if isinstance(self.value, torch.Tensor) and self.kind.words:
            return self.kind.phrase.replace("{value}", self.kind.words(self.value))
        return self.kind.phrase.replace("{value}", self.number) if isinstance(self.value, float) else self.kind.phrase

    @property
    def number(self) -> str:
        """Its value, which is a number, in words."""
        name = next((name for name, number in self.kind.named.items() if number == self.value), None)
        return name or f"{self.value:.8g}"

    @property
    def is_measure(self) -> bool:
        """Whether the models differ in the number that is the value, and in nothing else."""
        return isinstance(self.value, float) and self.kind.instead[:1].isdigit()

    @property
    def as_had(self) -> str:
        """What the candidate has, as the object of a sentence about it."""
        if self.is_measure:
            return self.number
        phrase = self.phrase.rstrip(",").replace(" goes to ", " going to ")
        return re.sub(r"^extra ", "", re.sub(r"^an extra ", "a ", phrase))

    @property
    def mended(self) -> str:
        """What to write for the trait of a model in a candidate that lacks it."""
        return self.kind.hint if self.is_measure else self.as_had

    def takes_the_place_of(self, trait: Change) -> bool:
        """Whether a model with this change is one without that trait."""
        mine, other = self.kind, trait.kind
        if self.place != trait.place or mine.undoes:
            return self.place == trait.place and mine.undoes == other.key
        is_added = mine.id.startswith("extra-")
        return mine.key == other.key or (
            mine.id == other.id and not is_added and bool(mine.variants.keys() & other.variants.keys())
        )

    def variant(self, operation: str) -> Variant:
        """Returns what the change does at one of its operations."""
        function = self.kind.variants[operation]
        options = {"place": self.place} if self.kind.by_place else {}
        if self.kind.has_value:
            options["value"] = self.value
        return functools.partial(function, **options) if options else function


def undoing(traits: Iterable[Change]) -> list[Kind]:
    """Returns an entry for the absence of each kind of trait, at the places where the model has it."""
    alike: dict[tuple[tuple[str, str, str], str], list[Change]] = defaultdict(list)
    for trait in traits:
        alike[trait.kind.key, trait.phrase].append(trait)
    return [
        dataclasses.replace(
            members[0].kind,
            id=_opposite_id(members[0].kind.id),
            phrase=_opposite(members[0]),
            instead=members[0].as_had,
            hint=members[0].mended,
            start=(),
            fit=None,
            only=f"^({'|'.join(re.escape(trait.place) for trait in members)})$",
            undoes=members[0].kind.key,
        )
        for members in alike.values()
    ]


def _opposite_id(id: str) -> str:  # noqa: A002
    if id.startswith("extra-"):
        return f"{id.removeprefix('extra-')}-missing"
    return f"extra-{id.removesuffix('-missing')}" if id.endswith("-missing") else id


def _opposite(trait: Change) -> str:
    """Says in words of their own what a model has that lacks a trait."""
    kind, phrase = trait.kind, trait.phrase.rstrip(",")
    if trait.is_measure:
        return kind.phrase.format(value=kind.instead)
    extra = re.match(r"(an )?extra (.*)", phrase)
    if extra:
        return f"no {extra[2]}"
    if phrase.startswith("no ") and re.fullmatch(r"(a learned )?one( of each)?", kind.instead):
        return f"{'an' if phrase[3] in 'aeiou' else 'a'} {phrase[3:]}"
    if phrase.startswith("no ") or re.match(r"an? (?!learned)|exact ", kind.instead):
        return kind.instead
    return f"not {trait.as_had} but {kind.instead}"


class Memo:
    """Results of operations that have been run before with the very same arguments and changes."""

    def __init__(self) -> None:
        self._results: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}
        self.may_grow = True

    def call(self, key: tuple[Any, ...], function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Returns `function(*arguments)`, or the result it has given before."""
        full = (*key, *(id(a) if isinstance(a, torch.Tensor) or callable(a) else a for a in arguments))
        known = self._results.get(full)
        if known:
            return known[0]
        result = function(*arguments)
        if self.may_grow:
            self._results[full] = result, arguments  # the arguments stay alive, so that no other gets their address
        return result

    def clear(self) -> None:
        """Forgets everything."""
        self._results.clear()


def unwatched(_: Point, tensor: torch.Tensor) -> torch.Tensor:
    """Hands on whatever passes."""
    return tensor


class Bend:
    """How a bendable model is run: which operations are changed, and who sees what passes.

    Args:
        changes: what is different.
        watch: called with every point and the tensor there; returns the tensor to go on with.
        memo: of earlier runs.
        calls: how often each module was entered and left, and each operation done, in earlier stages.
        traits: of the model.
        passed: what passed the points of earlier stages that a graft may begin at.

    Attributes:
        done: arguments and result of each operation, in order.
        passed: what has passed each point: all of them where somebody searches, or else those that a graft begins at.
    """

    def __init__(
        self,
        changes: Iterable[Change] = (),
        watch: Callable[[Point, torch.Tensor], torch.Tensor] = unwatched,
        memo: Memo | None = None,
        calls: Mapping[tuple[str, str], int] | None = None,
        traits: Sequence[Change] = (),
        passed: Mapping[Point, torch.Tensor] | None = None,
    ) -> None:
        self._changes: dict[Key, list[Change]] = defaultdict(list)
        changes = tuple(changes)
        self._grafts = {change.value.operation: change for change in changes if isinstance(change.value, Graft)}
        self._asked = {point for change in self._grafts.values() for point in change.value.entering}
        self.passed: dict[Point, torch.Tensor] = dict(passed or {})
        kept = (trait for trait in traits if not any(change.takes_the_place_of(trait) for change in changes))
        for change in (*kept, *(change for change in changes if not change.kind.undoes)):
            for key in () if isinstance(change.value, Graft) else change.operations:
                self._changes[key].append(change)
        self.watch = watch
        self._memo = memo
        self.calls: Counter[tuple[str, str]] = Counter(calls)
        self.done: dict[Key, tuple[tuple[Any, ...], Any]] = {}

    def do(self, place: str, operation: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Carries out an operation that calls nothing else through this bend."""
        changes = self._noted(place, operation)
        run = _wrapped(function, changes, operation)
        if self._memo is None or any(change.kind.is_random for change in changes):
            result = run(*arguments)
        else:
            key = place, operation, *((c.kind.key, _hashable(c.value)) for c in changes)
            result = self._memo.call(key, run, arguments)
        result = self._grafted((place, operation, self.calls[place, f"{operation}()"]), result)
        self.calls[place, f"{operation}()"] += 1
        if self._memo is not None:  # a run that nobody searches in keeps nothing
            self.done[place, operation] = arguments, result
        return result

    def around(self, place: str, operation: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Carries out an operation that consists of others."""
        return _wrapped(function, self._noted(place, operation), operation)(*arguments)

    def at(self, module: str, moment: Moment, tensor: torch.Tensor) -> torch.Tensor:
        """Tells that a tensor enters or leaves a module, and returns the one to go on with."""
        point = Point(module, self.calls[module, moment], moment)
        self.calls[module, moment] += 1
        passing = self.watch(point, self.do(module, f"before {moment}", _same, tensor))
        if self._memo is not None or point in self._asked:
            self.passed[point] = passing
        result: torch.Tensor = self.do(module, moment, _same, passing)  # something may stand behind every point
        return result

    def _grafted(self, operation: tuple[str, str, int], result: Any) -> Any:
        change = self._grafts.get(operation)
        if change is None:
            return result
        graft = change.value
        arguments = result, *(self.passed[point] for point in graft.entering)
        if self._memo is None or change.kind.is_random:
            return graft.carried_out(*arguments)
        return self._memo.call((graft,), graft.carried_out, arguments)

    def _noted(self, place: str, operation: str) -> list[Change]:
        self.done[place, operation] = (), None
        return self._changes.get((place, operation), [])


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _wrapped(function: Callable[..., Any], changes: list[Change], operation: str) -> Callable[..., Any]:
    for change in changes:
        function = _bound(change.variant(operation), function)
    return function


def _bound(variant: Variant, original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: variant(original, *arguments)


def _hashable(value: Any) -> Any:
    return id(value) if isinstance(value, torch.Tensor) else value


class Bendable(Protocol):
    """A model that can be bent, cut into stages that follow each other."""

    stages: tuple[str, ...]
    traits: tuple[Change, ...]

    def run(self, stage: str, tensor: torch.Tensor, bend: Bend) -> torch.Tensor:
        """Runs one stage on what the stage before has returned; the first one takes the images."""
        ...
