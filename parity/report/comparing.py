"""Two reports beside each other: what has become better or worse, what has appeared, what is gone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from parity.report import answer
from parity.report.terminal import COLOURS, printed, sentence, table
from parity.report.wording import decades, is_number, number, pattern_of, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

_MOST_ROWS = 20
_INCOMPARABLE = 99


@dataclass(frozen=True)
class Moved:
    """A layer, or such as are alike, that has become better or worse.

    Attributes:
        where: by the reference's names.
        before: its own error before, of several the largest, or why there is none.
        after: the same of the later report.
    """

    where: str
    before: str
    after: str


@dataclass(frozen=True)
class Comparison:
    """What has changed from one report to a later one.

    Attributes:
        verdicts: of both.
        appeared: causes that only the later one has, a sentence each.
        gone: causes that only the earlier one has.
        worse: layers with a larger error of their own, or with other bits where they were the same.
        better: layers the other way round.
        weights: what is said of the candidate's own tensors in one of the reports only, a sentence each.
        around: what else isn't the same: models, options, environment, digests; a sentence each.
    """

    verdicts: tuple[str, str]
    appeared: tuple[str, ...]
    gone: tuple[str, ...]
    worse: tuple[Moved, ...]
    better: tuple[Moved, ...]
    weights: tuple[str, ...]
    around: tuple[str, ...]

    def headline(self) -> str:
        """Returns the answer in a line."""
        before, after = self.verdicts
        counted = [
            (len(self.appeared), "cause appeared", "causes appeared"), (len(self.gone), "cause gone", "causes gone"),
            (len(self.worse), "place worse", "places worse"), (len(self.better), "place better", "places better"),
        ]  # fmt: skip
        said = ", ".join(f"{many} {one if many == 1 else more}" for many, one, more in counted if many)
        verdict = f"{after} as before" if before == after else f"{after}, was {before}"
        return f"{verdict}: {said or 'no cause, no layer has changed'}"


def compare(before: dict[str, Any], after: dict[str, Any]) -> Comparison:
    """Returns what has changed from one report to a later one.

    Args:
        before: the earlier report, complete as `saved.complete` makes it.
        after: the later one.
    """
    causes = [{(c["id"], c["statement"]): f"{c['id']}: {c['statement']}" for c in r["causes"]} for r in (before, after)]
    tensors = [
        {f"{t['candidate']}: {t['statement']}" for t in (report["weights"] or {}).get("tensors", ())}
        for report in (before, after)
    ]
    return Comparison(
        verdicts=(before["verdict"], after["verdict"]),
        appeared=tuple(said for key, said in causes[1].items() if key not in causes[0]),
        gone=tuple(said for key, said in causes[0].items() if key not in causes[1]),
        worse=_moved(before, after, lambda old, new: new > old),
        better=_moved(before, after, lambda old, new: new < old),
        weights=(*(f"only before: {said}" for said in sorted(tensors[0] - tensors[1])),
                 *(f"only after: {said}" for said in sorted(tensors[1] - tensors[0]))),
        around=tuple(_around(before, after)),
    )  # fmt: skip


def drawn_beside(before: dict[str, Any], after: dict[str, Any], console: Console) -> str:
    """Returns what `console` makes of the comparison of two reports; nothing is printed."""
    return printed(_lines(compare(before, after), console.width), console)


def _lines(found: Comparison, width: int) -> Iterator[Text]:
    yield from sentence(found.headline(), width, style=f"bold {COLOURS[found.verdicts[1]]}")
    for title, said in (("appeared", found.appeared), ("gone", found.gone)):
        for text in said:
            yield from sentence(text, width, f"{title:<11}")
    for title, moved in (("worse", found.worse), ("better", found.better)):
        if moved:
            yield Text()
            rows = [(place.where, place.before, place.after) for place in moved[:_MOST_ROWS]]
            yield from table((f"{title}, by its own error", "before", "after"), rows, width)
            if len(moved) > len(rows):
                yield from sentence(f"and {len(moved) - len(rows)} more", width)
    if found.weights or found.around:
        yield Text()
    for text in (*found.weights, *found.around):
        yield from sentence(text, width, "- ")


def _moved(before: dict[str, Any], after: dict[str, Any], is_so: Callable[[int, int], bool]) -> tuple[Moved, ...]:
    alike: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {}
    for name, old, new in _pairs(before, after):
        if _is_compared(old) and _is_compared(new) and is_so(_level(old), _level(new)):
            alike.setdefault(pattern_of(name), []).append((name, old, new))
    return tuple(
        Moved(together(name for name, *_ in rows), *(_said(max(side, key=_level)) for side in sides))
        for rows in alike.values()
        for _, *sides in [zip(*rows, strict=True)]
    )


def _pairs(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Returns the layers that both reports have, in order of execution."""
    old = {row["reference"]: row for row in before["layers"]}
    return [(name, old[name], row) for row in after["layers"] if (name := row["reference"]) in old]


def _is_compared(layer: dict[str, Any]) -> bool:
    return bool(layer["status"] != "not compared")


def _level(layer: dict[str, Any]) -> int:
    """Returns how bad a layer is, by decades of its own error."""
    is_incomparable = layer["status"] == "origin" and not is_number(layer["isolated"])
    return _INCOMPARABLE if is_incomparable else decades(layer["isolated"])


def _said(layer: dict[str, Any]) -> str:
    if layer["identical"]:
        return "same bits"
    return f"{layer['why'] or number(layer['isolated'])}"


def _flags(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Says where layers are newly compared, or no longer, and where bits have changed within rounding."""
    words: dict[str, list[str]] = {}
    for name, old, new in _pairs(before, after):
        if _is_compared(old) != _is_compared(new):
            words.setdefault("newly compared" if _is_compared(new) else "no longer compared", []).append(name)
        elif _level(old) == _level(new) and bool(old["identical"]) != bool(new["identical"]):
            word = "newly the same bits" if new["identical"] else "other bits within rounding"
            words.setdefault(word, []).append(name)
    yield from (f"{word}: {together(names)}" for word, names in words.items())


def _around(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for side in ("candidate", "reference"):
        old, new = answer.name_of(before, side), answer.name_of(after, side)
        if old == new:
            yield from _changed(f"the {side}'s ", before[side]["config"], after[side]["config"])
        else:
            yield f"the {side} is {new}, was {old}"
    if before["reference"]["weights"] != after["reference"]["weights"]:
        yield f"the weights are {after['reference']['weights']}, were {before['reference']['weights']}"
    yield from _changed("", before["environment"], after["environment"])
    other = [key for key in before["digests"] if before["digests"][key] != after["digests"].get(key, "")]
    if other:
        yield f"other digests of: {', '.join(other)}"
    yield from _flags(before, after)
    for word, report, beside in (("no longer", before, after), ("newly", after, before)):
        rows = Counter(row["reference"] for row in report["layers"])
        rows.subtract(row["reference"] for row in beside["layers"])
        if missing := [name for name, count in rows.items() if count > 0]:
            yield f"{word} in the reference: {together(missing)}"


def _changed(owner: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            yield f"{owner}{key} is {after.get(key, 'not told')}, was {before.get(key, 'not told')}"
