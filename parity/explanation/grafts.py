"""What no entry of the catalogue explains is a graft: the candidate's own operations between two aligned points.

The candidate's run and the bent model's are recorded; between the points around a difference, the one's operations are
put beside the other's. Knows no ViT.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.explanation.bending import Bend, Change, Kind
from parity.explanation.following import IMAGES, MISFITS, OUTPUT, random_state
from parity.explanation.formulas.reading import ARRANGING
from parity.explanation.formulas.recording import Recording, values_in
from parity.explanation.formulas.replaying import Graft, results_of
from parity.explanation.formulas.unifying import same_values
from parity.explanation.formulas.writing import Formulas
from parity.explanation.proof import GRAFT
from parity.tracing import DRAWING, outer_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    import torch

    from parity.explanation.bending import Bendable
    from parity.explanation.following import Follower, Outcome, Start
    from parity.explanation.formulas.recording import Operation, Stretch, Value
    from parity.tracing import Point

# what the operations of a stretch can't be carried out again for: they ask for a tensor's values in Python
_ASKING = {"local_scalar_dense", "nonzero", "unique", "unique2", "equal", "is_nonzero"}


# operations that change only what is beyond a bound
_BOUNDING = {"clamp", "clamp_min", "clamp_max", "maximum", "minimum", "hardtanh", "threshold"}

RANDOM_NUMBERS = "random-numbers"

# where a stretch makes more values than that, they are not looked at one by one
_MOST_VALUES = 2**26


class _Stop(Exception):  # noqa: N818  (no error: the run has seen enough)
    """Ends a run of the bent model."""


@dataclass(frozen=True)
class Difference:
    """How a candidate and the bent model differ between the points where they agree and the first where they don't.

    Attributes:
        changes: the candidate's operations in place of the bent model's: as soon as there is what they result in, or
            just before the point.
        lines: of the candidate's source, those whose operations the bent model has none like.
        why_not: why the operations cannot be carried out elsewhere, or lead to something else there, or an empty text.
        is_possible: whether they can be.
    """

    changes: tuple[Change, ...]
    lines: tuple[str, ...]
    why_not: str
    is_possible: bool

    @property
    def is_random(self) -> bool:
        """Whether the candidate draws random numbers there."""
        return self.changes[0].kind.is_random

    @property
    def is_bounded(self) -> bool:
        """Whether the candidate bounds something there, which may have had no effect so far."""
        return any(operation.name in _BOUNDING for operation in self.changes[0].value.stretch.operations)

    @property
    def key(self) -> tuple[str, str, str]:
        """Tells kinds of differences apart."""
        return self.changes[0].kind.key


class Grafts:
    """Finds what a candidate does between two points where it agrees with a bent model.

    Args:
        bent: returns the bent model, with weights that nobody has asked it for yet.
        state: its weights, by name.
        candidate: its recorded run.
        weights: of the candidate, by name.
        names: what each of these is called in the reference, where it has one counterpart.
        refuted: kinds of grafts that are none, since they don't hold for other weights and images.
        words: says what a point of the reference is called.
        follower: of the candidate.
    """

    def __init__(
        self,
        bent: Callable[[], Bendable],
        state: Mapping[str, torch.Tensor],
        candidate: Recording,
        weights: Mapping[str, torch.Tensor],
        names: Mapping[str, str],
        refuted: Collection[tuple[str, str, str]],
        words: Callable[[Point], str],
        follower: Follower,
    ) -> None:
        self._new_model = bent
        self._state = state
        self._candidate = candidate
        self._follower = follower
        self._weights = weights
        self._names = names
        self._refuted = refuted
        self._words = words

    def at(self, start: Start, base: Outcome) -> Difference | None:
        """Returns the difference at the point where a run of the bent model has stopped.

        None if the candidate's operations there were not seen, or if it only hands over more than the reference does
        there, such as all tokens to a head that chooses one: then the two draw a boundary elsewhere.
        """
        if base.dirty is None or base.passing is None:
            return None
        shared = self._follower.shared(start, base)
        theirs = self._candidate.stretch(base.dirty, shared.keys())
        if theirs is None or (base.dirty != OUTPUT and _only_hands_over_more(theirs, base.passing)):
            return None
        ours = self._bent(start, base, shared)
        same = self._same(theirs, ours, base, shared)
        formulas = Formulas(self._candidate, shared, self._names, self._words)
        phrase, instead, letters, lines = formulas.difference(theirs, ours, same, base.dirty)
        for absence in filter(None, (change.kind.zeros_for for change in base.changes)):
            instead = instead.replace("zeros_like(", f"{absence}(")
        kind = Kind(GRAFT, {}, phrase, instead, hint="", letters=letters)
        around, before = _place_around(theirs, base.dirty), (base.dirty.module, f"before {base.dirty.moment}")
        drawing = next((operation for operation in theirs.operations if operation.name in DRAWING), None)
        if drawing:
            kind, lines = self._random(drawing, theirs, base.dirty, is_inside=bool(around)), (drawing.line,)
        operations = [key for key in base.recent if base.bend.done[key][1] is base.passing]
        changes = [
            Change(kind, around if key == before else key[0], Graft(
                base.dirty, (*key, base.bend.calls[key[0], f"{key[1]}()"] - 1), theirs, self._follower.alignment,
                self._weights, self._asking(theirs),
            ))
            for key in dict.fromkeys((*operations[:1], before))
        ]  # fmt: skip
        why_not = self._why_not(theirs, base.dirty, kind)
        draws = f"it draws random numbers there ({drawing.name} at {drawing.line})" if drawing else ""
        return Difference(tuple(changes), lines, why_not or draws, not why_not)

    def _same(
        self, theirs: Stretch, ours: Stretch | None, base: Outcome, shared: Mapping[Point, torch.Tensor]
    ) -> dict[Value, Value]:
        """Returns which values of the candidate's stretch the bent model computes as well, however."""
        assert base.dirty is not None
        assert base.passing is not None
        size = sum(value.shape.numel() for operation in theirs.operations for value in values_in(operation.made))
        is_random = any(operation.name in DRAWING for operation in theirs.operations)
        if ours is None or is_random or size > _MOST_VALUES:
            return {}
        graft = Graft(base.dirty, ("", "", 0), theirs, self._follower.alignment, self._weights)
        entering = {value: shared[point] for value, point in ours.entering.items()}
        try:
            found = graft.results(base.passing, *(shared[point] for point in theirs.entering.values()))
            same = same_values(found, results_of(ours, entering, self._state, base.passing))
        except MISFITS:
            return {}
        bounded = {value for op in theirs.operations if op.name in _BOUNDING for value in values_in(op.made)}
        return {value: other for value, other in same.items() if value not in bounded}

    def _random(self, drawing: Operation, stretch: Stretch, to: Point, *, is_inside: bool) -> Kind:
        """Returns the kind for operations among which random numbers are drawn."""
        phrase = f"random numbers drawn in eval mode ({drawing.name} at {drawing.line})"
        if not is_inside:
            begins = [self._words(point) for point in stretch.entering.values()]
            phrase += f", between {begins[-1]} and {self._words(to)}" if begins else f", before {self._words(to)}"
        return Kind(RANDOM_NUMBERS, {}, phrase, "none", "draw them in train mode alone", is_random=True)

    def lines_with(self, names: Collection[str]) -> tuple[str, ...]:
        """Returns the lines of the candidate's source that use one of these of its tensors."""
        held: set[Value] = set()
        lines: dict[str, None] = {}
        for operation in self._candidate.operations:
            if any(value.name in names or value in held for value in operation.taken):
                made = [*values_in(operation.made)]
                is_same = operation.name in ARRANGING
                held.update(made if is_same else ())
                lines |= {} if is_same else {operation.line: None}
        return tuple(lines)

    def _why_not(self, stretch: Stretch, to: Point, kind: Kind) -> str:
        if to == OUTPUT and IMAGES in stretch.entering.values():
            return "nothing between the images and the logits is aligned"
        if kind.key not in self._refuted:
            return ""
        asking = self._asking(stretch)
        how = f" (a value is read in Python at {asking})" if asking else ""
        return f"what it does there depends on the weights and images in other ways than its operations say{how}"

    def _asking(self, stretch: Stretch) -> str:
        between = map(self._candidate.operations.__getitem__, stretch.numbers)
        return next((operation.line for operation in between if operation.name in _ASKING), "")

    def _bent(self, start: Start, base: Outcome, shared: Mapping[Point, torch.Tensor]) -> Stretch | None:
        """Returns the bent model's operations that lead to the point where its run has stopped."""
        recording, model = Recording(self._state, line=str), self._new_model()
        for point, tensor in start.passed.items():
            recording.passes(point, tensor)

        def watch(point: Point, passing: torch.Tensor) -> torch.Tensor:
            tensor = shared.get(point, passing)
            for same in (passing, tensor):
                recording.passes(point, same)
            if point == base.dirty:
                raise _Stop
            return tensor

        bend = Bend(base.changes, watch, None, start.calls, model.traits, start.passed)
        with recording, random_state(start.random):
            try:
                tensor = start.tensor
                for stage in model.stages[start.stage :]:
                    tensor = model.run(stage, tensor, bend)
            except (_Stop, *MISFITS):
                pass
        assert base.dirty is not None
        return recording.stretch(base.dirty, shared.keys())


def _only_hands_over_more(stretch: Stretch, passing: torch.Tensor) -> bool:
    is_more = stretch.leaving.shape.numel() > passing.numel()
    return is_more and not any(
        operation.name not in ARRANGING or any(value.name for value in operation.taken)
        for operation in stretch.operations
    )


def _place_around(stretch: Stretch, to: Point) -> str:
    """Returns the innermost module that lies around a point and those from which a stretch leads there."""
    around = [[*outer_modules(f"{point.module}."), point.module] for point in stretch.entering.values()]
    within = [*outer_modules(f"{to.module}.")]
    return max((name for name in within if all(name in names for names in around)), key=len, default="")
