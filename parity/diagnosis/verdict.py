"""From measurements to a verdict: do the models differ, where does it begin, and what follows from that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from parity.errors import listed
from parity.tracing import NOISE_BOUND, OUTPUT, SAME_FUNCTION_BOUND

if TYPE_CHECKING:
    from collections.abc import Iterable

    from parity.models import WeightMap
    from parity.tracing import Alignment, Measurement, Mode, Pass, Places, Point, Sizes

Verdict = Literal["identical", "equivalent", "divergent", "inconclusive"]
Status = Literal["clean", "origin", "propagated", "not compared"]


# why train mode is not compared by its values where the masks of both models cannot be made the same
OTHER_LAYOUT = "both drop at the same rates and as often, but over another layout, so that masks cannot be aligned"


@dataclass(frozen=True)
class Check:
    """One way to run both models: a mode in a dtype.

    Attributes:
        name: such as `forward/eval/float64`.
        mode: how both models were run.
        exact: in float64, where the question is *same function?*; otherwise it is *same bits?*.
        free: the free pass, or None if the check was not made.
        forced: the forced pass; None where the free one shows no difference that it could explain.
        skipped: why the check was not made.
        elsewhere: modules of the reference that this check could not compare, since the candidate, right as it is,
            draws their boundaries elsewhere.
        like: the mode in which both models do the very same operations, whose results these are.
    """

    name: str
    mode: Mode
    exact: bool
    free: Pass | None = None
    forced: Pass | None = None
    skipped: str | None = None
    elsewhere: frozenset[str] = frozenset()
    like: str | None = None

    @property
    def note(self) -> str | None:
        """How the check was made, where that is not the plain way."""
        if self.like:
            return f"as in {self.like}"
        if self.mode.same_masks:
            return "dropout masks drawn in logical order, since the two models lay out memory differently"
        if self.mode.by_size:
            return "dropout masks drawn by size, since the two models draw them in other ways or in another order"
        if self.mode.by_value:
            return "what is dropped is decided by its value, since the two models have it in another order"
        if self.mode.no_dropout:
            return "without dropout, which is compared in float64 alone, since the two models drop in another order"
        return None

    @property
    def isolated(self) -> Pass | None:
        """The pass that shows each place's own error: the forced one, and the free one where no bit differs.

        Where every input is the reference's to the bit, a free pass is a forced one.
        """
        if self.forced is not None:
            return self.forced
        return self.free if self.free is not None and self.free.identical else None

    @property
    def verdict(self) -> Verdict | Literal["not compared"]:
        """This check's own answer."""
        if self.free is None:
            return "not compared"
        if self.free.identical:
            return "identical"
        if self.exact:
            return "divergent" if self.dirty or not self.free.measured[OUTPUT].same_function else "equivalent"
        return "divergent" if self.noisy else "equivalent"

    @property
    def dirty(self) -> list[Point]:
        """Points of a float64 check where the candidate's own error is beyond rounding, in order of execution."""
        if not self.exact or self.isolated is None:
            return []
        return [point for point, m in self.isolated.measured.items() if not m.is_clean]

    @property
    def noisy(self) -> list[Point]:
        """Points where the candidate is clearly less accurate than the reference, or cannot be compared with it."""
        if self.exact or self.free is None:
            return []
        return [
            point
            for point, m in self.free.measured.items()
            if not m.identical and (m.problem or (self.free.noise.get(point) or 1.0) > NOISE_BOUND)
        ]


@dataclass(frozen=True)
class Place:
    """Where a difference begins: a module, or the glue between two points.

    Attributes:
        kind: `module`, or `glue`: the code between modules (tokens, positions, residuals, pooling).
        reference: the module, or the one that the glue leads to or ends.
        candidate: the same in the candidate.
        before: the last clean point before it, in words.
        after: the dirty point, in words.
        isolated: the error that is added here, relative.
        check: the name of the check that shows it.
        problem: why values could not be compared, or None.
        places: where in the tensor the error sits, as far as that was kept.
    """

    kind: Literal["module", "glue"]
    reference: str
    candidate: str
    before: str
    after: str
    isolated: float
    check: str
    problem: str | None = None
    places: Places | None = None

    def describe(self) -> str:
        """Returns the place as a phrase: `in <module>` or `between <point> and <point>`."""
        if self.kind == "module":
            return f"in {self.reference} (candidate: {self.candidate})"
        return f"between {self.before} and {self.after}"


@dataclass(frozen=True)
class Layer:
    """What all checks say about one module of the reference; the JSON report's row of the same keys.

    Errors are relative, and the largest of all modes: `isolated` and `accumulated` in float64, `rounded` as both models
    run freely in the dtype under test.

    How large errors are, `sizes`, is known from the dtype under test, and where they sit, `places`, from float64, where
    the module was given the reference's own input; each from the first check that shows other bits.
    """

    reference: str
    candidate: str | None
    identical: bool | None
    max_ulp: int | None
    noise_ratio: float | None
    isolated: float | None
    accumulated: float | None
    status: Status
    why: str | None = None
    sizes: Sizes | None = None
    places: Places | None = None
    rounded: float | None = None


@dataclass(frozen=True)
class Doubts:
    """What the checks themselves don't show, one sentence each.

    Attributes:
        unusable: nothing that was measured counts (a candidate that is not deterministic ...).
        blind: differences that were found count, but finding none means nothing (all logits zero ...).
        faults: differences that no tensor of the checks shows (an input that is written to ...).
        unmapped: tensors without a counterpart; whatever they do, agreement is no proof as long as they do something.
        overwritten: names of the candidate's tensors that it has written to, which explains whatever else is odd.
        notes: what is worth knowing and decides nothing, such as branches that no input has reached.
    """

    unusable: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    unmapped: tuple[str, ...] = ()
    overwritten: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def is_another_function(checks: list[Check], mapping: WeightMap) -> bool:
    """Whether float64 shows, out of train mode, a difference that has a cause in the forward pass."""
    exact = [check for check in checks if check.exact and check.free and not check.mode.train]
    return any(check.verdict == "divergent" for check in exact) or bool(exact and not mapping.is_complete)


def open_in_train_mode(checks: list[Check]) -> Check | None:
    """Returns the float64 check of train mode, if it shows a difference or could not be made for its masks."""
    exact = (check for check in checks if check.exact and check.mode.train)
    return next((check for check in exact if check.verdict == "divergent" or check.skipped == OTHER_LAYOUT), None)


def origins(checks: list[Check], alignment: Alignment) -> list[Place]:
    """Returns every place with an error of its own, in order of execution, from the first check that shows any."""
    for check in checks:
        if check.dirty and check.isolated:
            return _places(check, check.isolated, check.dirty, alignment)
    for check in checks:
        if check.noisy and check.free:
            return _places(check, check.free, check.noisy[:1], alignment)
    return []


def _places(check: Check, shown: Pass, points: list[Point], alignment: Alignment) -> list[Place]:
    order = list(shown.measured)
    candidates = {reference: candidate for candidate, reference in alignment.pairs.items()}
    places = []
    for point in points:
        position = order.index(point)
        is_module = point.moment == "leave" and point != OUTPUT and point.module not in alignment.containers
        places.append(
            Place(
                kind="module" if is_module else "glue",
                reference=point.module,
                candidate=candidates.get(point.module, ""),
                before=in_words_of(order[position - 1]) if position else "the input",
                after=in_words_of(point),
                isolated=shown.measured[point].relative,
                check=check.name,
                problem=shown.measured[point].problem,
                places=shown.places.get(point),
            )
        )
    return places


def in_words_of(point: Point) -> str:
    """Returns a point of the reference's run as a phrase: `the input of <module>`."""
    if point == OUTPUT:
        return "the logits"
    side = "input" if point.moment == "enter" else "output"
    call = f" (call {point.call + 1})" if point.call else ""
    return f"the {side} of {point.module}{call}"


def layers(checks: list[Check], alignment: Alignment, places: Iterable[Place]) -> list[Layer]:
    """Sums up all checks per module of the reference, in order of execution.

    Args:
        checks: of the forward pass.
        alignment: which module is which.
        places: where a difference begins.
    """
    candidates = {reference: candidate for candidate, reference in alignment.pairs.items()}
    shown_origins = {place.reference for place in places
                     if place.kind == "module" or place.after.startswith("the output")}  # fmt: skip
    passes = [shown for check in checks for shown in (check.free, check.forced) if shown]
    rows = []
    for module in alignment.order:
        if module in alignment.unaligned:
            rows.append(layer_not_compared(module, None, alignment.unaligned[module]))
            continue
        free = [(c, p, m) for c in checks if c.free for p, m in _leaves(c.free, module)]
        own = [m.relative for c in checks if c.exact and c.isolated for _, m in _leaves(c.isolated, module)]
        if not free:
            is_elsewhere = any(module in check.elsewhere for check in checks)
            why = (
                "the logits agree, and the candidate draws this boundary elsewhere"
                if is_elsewhere
                else "no check saw it"
            )
            rows.append(layer_not_compared(module, candidates[module], why))
            continue
        exact = [m.relative for c, _, m in free if c.exact]
        inexact = [(c.free.noise.get(p, 1.0), m.max_ulp) for c, p, m in free if not c.exact and c.free]
        rounded = [m.relative for c, _, m in free if not c.exact]
        dirty = any(relative > SAME_FUNCTION_BOUND for relative in exact)
        rows.append(
            Layer(
                reference=module,
                candidate=candidates[module],
                identical=all(m.identical for *_, m in free),
                max_ulp=max((ulp for _, ulp in inexact if ulp is not None), default=None),
                noise_ratio=max((ratio for ratio, _ in inexact if ratio is not None), default=None),
                isolated=max(own, default=None),
                accumulated=max(exact, default=None),
                status="origin" if module in shown_origins else "propagated" if dirty else "clean",
                why=next((m.problem for *_, m in free if m.problem), None),
                sizes=next((sizes for shown in passes for p, sizes in shown.sizes.items() if p.module == module), None),
                places=next(
                    (shown.places[p] for shown in passes for p, _ in _leaves(shown, module) if p in shown.places), None
                ),
                rounded=max(rounded, default=None),
            )
        )
    return rows


def _leaves(shown: Pass, module: str) -> list[tuple[Point, Measurement]]:
    return [(p, m) for p, m in shown.measured.items() if p.module == module and p.moment == "leave"]


def layer_not_compared(module: str, candidate: str | None, why: str) -> Layer:
    """Returns the row of a module that nothing was measured at."""
    return Layer(module, candidate, None, None, None, None, None, "not compared", why)


def decide(checks: list[Check], places: list[Place], doubts: Doubts, alignment: Alignment) -> tuple[Verdict, list[str]]:
    """Returns the verdict and the reasons for it, a sentence each.

    A difference that was found counts even where finding none would have meant nothing.
    """
    if doubts.unusable and not doubts.overwritten:
        return "inconclusive", list(doubts.unusable)
    made = [check for check in checks if check.free]
    divergent = [check for check in made if check.verdict == "divergent"]
    faults = [f"the candidate writes to its own weights as it runs: {listed([*doubts.overwritten])}"]
    faults = [*faults * bool(doubts.overwritten), *doubts.faults]
    if divergent or faults:
        found = [*_why_divergent(divergent, places), *_narrowed(made, alignment), *doubts.unmapped, *faults]
        return "divergent", found
    why_nothing_is_shown = list(doubts.blind)
    if doubts.unmapped:
        agree = "the outputs agree, although some tensors have no counterpart, which nothing explains"
        why_nothing_is_shown += [agree, *doubts.unmapped]
    if not any(check.exact for check in made):
        why_nothing_is_shown.append("no check in float64 was made, and only float64 tells rounding from a bug")
    left_out = [f"not part of this verdict: {check.name}, since {check.skipped}" for check in checks if check.skipped]
    if why_nothing_is_shown:
        return "inconclusive", [*why_nothing_is_shown, *left_out]
    run = [check for check in made if not check.like]
    points = sum(len(check.free.measured) for check in run if check.free)
    if all(check.verdict == "identical" for check in made):
        same = f"the same bits in all {len(run)} checks that were made, at all {points} points compared"
        return "identical", [same, *left_out]
    worst = max(m.relative for c in made if c.exact and c.free for m in c.free.measured.values())
    noise = max((n or 1.0 for c in made if c.free for n in c.free.noise.values()), default=1.0)
    return "equivalent", [
        f"the same function: in float64 no error beyond {worst:.1e} (bound {SAME_FUNCTION_BOUND:.0e})",
        f"other bits, as accurate as the reference: noise ratio at most {noise:.2f} (bound {NOISE_BOUND:g})",
        *left_out,
    ]


def _narrowed(made: list[Check], alignment: Alignment) -> list[str]:
    """Says where the candidate leaves float64 in a float64 run, which limits its precision whatever else is right."""
    candidates = {reference: candidate for candidate, reference in alignment.pairs.items()}
    for check in made:
        if check.exact and check.free and check.free.narrowed:
            point, dtype, _ = check.free.narrowed
            where = f"{'the input of' if point.moment == 'enter' else 'the output of'} {candidates[point.module]}"
            return [f"in a float64 run {where} is {dtype}: a cast or a constant limits the candidate's precision"]
    return []


def _why_divergent(divergent: list[Check], places: list[Place]) -> list[str]:
    reasons = []
    if places:
        first = places[0]
        size = first.problem or f"relative error {_number(first.isolated)}"
        reasons.append(f"it begins {first.describe()}: {size}, given the reference's own input ({first.check})")
        if len(places) > 1:
            reasons.append(f"{len(places)} places in all have an error of their own")
    another = {check.mode.name for check in divergent if check.exact}
    for exact in (True, False):
        same_kind = [c for c in divergent if c.exact == exact and c.free and (exact or c.mode.name not in another)]
        if same_kind:
            reasons.append(_how_far(same_kind, exact=exact))
    return reasons


def _how_far(divergent: list[Check], *, exact: bool) -> str:
    """Says how far the logits of these checks, which are of one dtype, are apart at most."""
    modes, dtype = [check.name.split("/")[1] for check in divergent], divergent[0].name.split("/")[-1]
    outputs = [check.free.measured[OUTPUT] for check in divergent if check.free]
    problem = next((m.problem for m in outputs if m.problem), None)
    size = problem or f"relative error up to {_number(max(m.relative for m in outputs))}"
    if exact:
        return f"not the same function: logits with {size} in {dtype} ({', '.join(modes)})"
    ratio = max((check.free.noise.get(OUTPUT) or 1.0 for check in divergent if check.free), default=1.0)
    accuracy = f", {_number(ratio)} times the reference's own error" if ratio > 1 else ""
    return f"less accurate than the reference: logits with {size}{accuracy} in {dtype} ({', '.join(modes)})"


def _number(value: float) -> str:
    return f"{value:.2g}" if math.isfinite(value) else "without bound"
