"""What a report says first, whatever it is drawn on: the answer, its causes, the model by depth, the rows that matter.

All of it is read from the report's JSON types, so that a saved report is drawn as the check itself has drawn it.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from parity.report.plain import in_a_line
from parity.report.wording import (
    above_rounding,
    count,
    decades,
    is_number,
    number,
    pattern_of,
    shortened,
    size,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAYS = {
    "identical": "{candidate} is {reference}, to the bit",
    "equivalent": "{candidate} is {reference}, up to rounding",
    "divergent": "{candidate} is not {reference}",
    "inconclusive": "nothing is proved about {candidate} and {reference}",
}
_WEIGHTS = "{candidate} is {reference} with other weights"

# whose the lines of source are that are the candidate's
CANDIDATE = "your model"

# the first and the last cell of the strip
BEFORE, AFTER = "in", "out"


@dataclass(frozen=True)
class CauseShown:
    """A cause, as it is shown.

    Attributes:
        id: its short name.
        statement: the difference.
        where: the modules or tensors, by their names in the reference; those of all blocks as one.
        candidate: the same in the candidate, where it calls them otherwise.
        source: the candidate's lines, such as `model.py:12`, or an empty text.
        size: how much it changes, or an empty text.
        proof: how that was made sure, or an empty text.
        hint: what to write instead, or an empty text.
        code: whose source, and its lines, each with where it stands; the candidate's first.
    """

    id: str
    statement: str
    where: str
    candidate: str
    source: str
    size: str
    proof: str
    hint: str
    code: list[tuple[str, list[tuple[str, str]]]]


@dataclass
class Stage:
    """A cell of the strip: what stands before the blocks, a block, or what stands behind them.

    Attributes:
        name: `in`, the block's name, or `out`.
        label: `in`, the block's number, or `out`.
        layers: its rows of the report.
        isolated: the largest isolated error in it; None where nothing was measured.
        accumulated: the largest accumulated error in it; None likewise.
        is_origin: whether a difference begins in it.
        is_broken: whether values in it could not be compared.
    """

    name: str
    label: str
    layers: list[dict[str, Any]] = field(default_factory=list)
    isolated: float | None = None
    accumulated: float | None = None
    is_origin: bool = False
    is_broken: bool = False

    def cell(self, value: float | None) -> str:
        """Returns an error of it in a letter: its decade above rounding, 1 to F; a dot for rounding."""
        if self.is_broken and value is None:
            return "!"
        if value is None:
            return "?"
        return f"{decades(value):X}" if decades(value) > 1 else "·"


def headline(report: dict[str, Any], width: int | None = None) -> str:
    """Returns the answer, which begins with the verdict; names are shortened where there are but `width` columns."""
    verdict = report["verdict"]
    says = _WEIGHTS if verdict == "divergent" and is_of_weights(report) else _SAYS[verdict]
    names = {side: name_of(report, side) for side in ("candidate", "reference")}
    if width is not None:
        room = width - size(f"{verdict}: {says.format(candidate='', reference='')}")
        names["reference"] = shortened(names["reference"], max(room // 2, room - size(names["candidate"])))
        names["candidate"] = shortened(names["candidate"], room - size(names["reference"]))
    return f"{verdict}: {says.format(**names)}"


def name_of(report: dict[str, Any], side: str) -> str:
    """Returns how a report calls its reference or candidate."""
    return f"{report[side].get('name', f'the {side}')}"


def is_of_weights(report: dict[str, Any]) -> bool:
    """Whether two models of one function differ in their weights alone."""
    weights = report["weights"] or {}
    return weights.get("verdict") == "different" and not any(
        check.get("verdict") in ("divergent", "inconclusive") for check in report["checks"]
    )


def meaning(report: dict[str, Any]) -> tuple[str, list[str]]:
    """Returns what the answer means in a sentence, and the other sentences that say why and are no cause."""
    explanation, reasons = report["explanation"] or {}, report["reasons"]
    first = explanation["sentence"] if explanation.get("complete") else ""
    if first not in reasons:
        first = next(iter(reasons), "")
    shown = {first, *(cause["statement"] for cause in report["causes"])}
    return first, [reason for reason in reasons if reason not in shown]


def compared(report: dict[str, Any]) -> int:
    """Returns how many layers were compared."""
    return sum(layer.get("status") != "not compared" for layer in report["layers"])


def causes(report: dict[str, Any]) -> list[CauseShown]:
    """Returns the causes as they are shown, in the order of the report."""
    candidates = {layer.get("reference"): layer.get("candidate") for layer in report["layers"]}
    candidates |= {tensor.get("reference"): tensor.get("candidate") for tensor in report["mapping"].get("entries", [])}
    shown = [_shown(cause, candidates, name_of(report, "reference")) for cause in report["causes"]]
    if len(shown) == 1 and (report["explanation"] or {}).get("complete"):  # what the checks have measured is its own
        errors = [
            check["relative"] for check in report["checks"] if is_of_logits(check) and is_number(check["relative"])
        ]
        shown[0] = dataclasses.replace(shown[0], size=_moves(max(errors, default=None)))
    return shown


def is_of_logits(check: dict[str, Any]) -> bool:
    """Whether a check compares logits in float64."""
    name: str = check["name"]
    return name.startswith("forward/") and name.endswith("/float64")


def _moves(error: Any, how: str = "") -> str:
    times = above_rounding(error)
    return f"{how}it moves the logits by {number(error)}, {times}" if times else ""


def _shown(cause: dict[str, Any], candidates: dict[Any, Any], reference: str) -> CauseShown:
    where = cause.get("where") or []
    own = together(other for name in where if (other := candidates.get(name)) and other != name)
    return CauseShown(
        id=f"{cause.get('id', '')}",
        statement=f"{cause.get('statement', '')}",
        where=together(where),
        candidate=own,
        source=cause["source"],
        size=_moves(cause.get("without"), "alone "),
        proof=_proof(cause),
        hint=f"{cause.get('hint') or ''}",
        code=[
            (owner, [(line["at"], line["text"]) for line in cause[key]])
            for owner, key in ((CANDIDATE, "candidate_code"), (reference, "reference_code"))
            if cause[key]
        ],
    )


def _proof(cause: dict[str, Any]) -> str:
    left, without = cause["residual"], cause["without"]
    if not is_number(left) or not is_number(without):
        return ""
    taken = f"with all causes taken away the logits agree to {number(left)}"
    return f"{taken}, with all but this one to {number(without)}, relative in float64"


def block_of(name: str) -> str | None:
    """Returns the numbered block that a module is part of: its name up to the first part that ends in a digit."""
    parts = name.split(".")
    for position, part in enumerate(parts):
        if part[-1:].isdigit():
            return ".".join(parts[: position + 1])
    return None


def stages(report: dict[str, Any]) -> list[Stage]:
    """Returns the model by depth: a stage before the blocks, one per block, and one behind them."""
    first, last = Stage(BEFORE, BEFORE), Stage(AFTER, AFTER)
    blocks: dict[str, Stage] = {}
    names = [f"{layer.get('reference', '')}" for layer in report["layers"]]
    filled = {block_of(name) for name in names if name != block_of(name)}
    around = {name for name in names if any(f"{block}".startswith(f"{name}.") for block in filled)}  # end behind them
    for name, layer in zip(names, report["layers"], strict=True):
        block = block_of(name)
        if block in filled and block is not None:
            stage = blocks.setdefault(block, Stage(block, _number_of(block)))
        else:
            stage = last if blocks or name in around else first
        stage.layers.append(layer)
        _take(stage, layer)
        stage.is_origin |= layer.get("status") == "origin"
    for place in report["origins"]:
        name = f"{place.get('reference', '')}"
        stage = blocks.get(block_of(name) or "") or next((s for s in (first, last) if _holds(s, name)), last)
        if f"{place.get('after')}".startswith("the input of ") and any(
            block.startswith(f"{name}.") for block in blocks
        ):
            stage = first
        stage.is_origin = True
        _take(stage, place)
    for check in report["checks"]:
        if is_of_logits(check):
            last.accumulated = _larger(last.accumulated, check["relative"])  # the logits are no layer
    return [stage for stage in (first, *blocks.values(), last) if stage.layers or stage.is_origin]


def _number_of(block: str) -> str:
    return block[len(block.rstrip("0123456789")) :]


def _holds(stage: Stage, name: str) -> bool:
    return any(layer.get("reference") == name for layer in stage.layers)


def _take(stage: Stage, row: dict[str, Any]) -> None:
    """Lets a stage have a row's errors where they are larger than those that it has."""
    stage.isolated = _larger(stage.isolated, row.get("isolated"))
    stage.accumulated = _larger(stage.accumulated, row.get("accumulated"))
    stage.is_broken |= bool(row.get("problem")) or (
        row.get("status") in ("origin", "propagated") and not is_number(row.get("accumulated"))
    )


@dataclass(frozen=True)
class Begins:
    """A place of the forward pass with an error of its own, or places that are alike in several blocks.

    Attributes:
        where: by the reference's names.
        candidate: the same in the candidate; empty for code between modules.
        much: the largest error, relative, or why values cannot be compared.
        max_ulp: the largest distance outside float64; None where nobody knows.
        between: the points that the code between modules lies between; None for a module.
    """

    where: str
    candidate: str
    much: str
    max_ulp: float | None
    between: tuple[str, str] | None = None


def _larger(one: float | None, other: Any) -> float | None:
    return max(one or 0.0, other) if is_number(other) else one


def origins(report: dict[str, Any]) -> list[Begins]:
    """Returns every place of the forward pass with an error of its own, those of all blocks as one."""
    distances = {layer["reference"]: layer["max_ulp"] for layer in report["layers"]}
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for place in report["origins"]:
        if place["check"].startswith("forward/"):
            names = (place["reference"], "") if place["kind"] == "module" else (place["before"], place["after"])
            alike[tuple(map(pattern_of, names))].append(place)
    return [_begins(places, distances) for places in alike.values()]


def _begins(places: list[dict[str, Any]], distances: dict[str, Any]) -> Begins:
    def joined(key: str) -> str:
        return together(place[key] for place in places)

    problem = next((place["problem"] for place in places if place["problem"]), None)
    sizes = [place["isolated"] for place in places if is_number(place["isolated"])]
    much = f"{problem or number(max(sizes, default=None))}"
    if places[0]["kind"] != "module":
        before, after = joined("before"), joined("after")
        return Begins(f"between {before} and {after}", "", much, None, (before, after))
    far = [ulp for place in places if is_number(ulp := distances.get(place["reference"]))]
    return Begins(joined("reference"), joined("candidate"), much, max(far, default=None))


def tops(report: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yields every picture with the likeliest classes of it, by the reference and by the candidate."""
    for top in report["top5"]:
        said = ([" ".join(map(number, ranked)) for ranked in top[side]] for side in ("reference", "candidate"))
        yield top["picture"], list(zip(*said, strict=False))


def about(report: dict[str, Any], *, every: bool) -> Iterator[tuple[str, str]]:
    """Yields what was compared with what, and how: a title and a text each; `every` one, or those that vary."""
    reference, candidate, mapping = report["reference"], report["candidate"], report["mapping"]
    config, arguments = reference.get("config") or {}, candidate.get("config") or {}
    defaults = candidate.get("defaults") or []
    yield "reference", f"{name_of(report, 'reference')}({_arguments(config)})"
    left = f", left at default: {', '.join(map(str, defaults))}" if defaults else ""
    yield "candidate", f"{name_of(report, 'candidate')}({_arguments(arguments)}){left}"
    yield "bound", _bound(candidate.get("bound") or {})
    yield "weights", f"{reference.get('weights', '')}"
    yield "input", f"{report['input']}"
    if mapping.get("entries"):
        tensors, values = count(mapping.get("tensors")), count(mapping.get("parameters"))
        yield "map", f"{tensors} tensors, {values} parameters, each used exactly once ({mapping.get('origin', '')})"
        certified = mapping.get("certified_by_bijection") or []
        if certified and every:
            how = "certified by the map alone, since no output depends on them"
            yield "", f"{how}: {len(certified)} tensors such as {certified[0]}"
        is_settled = (report["explanation"] or {}).get("complete") and not every
        for remark in mapping.get("remarks") or []:
            if not (is_settled and f"{remark}".startswith("warning: ")):  # what closes with this map needs no other
                yield "", f"{remark}"
    own = report["weights"] or {}
    if own.get("verdict") == "set aside":
        yield from (("its own", f"{note}") for note in own.get("notes") or [])
    yield from (("note", f"{note}") for note in report["notes"])


def _arguments(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={in_a_line(value)}" for key, value in values.items() if value is not None)


def _bound(bound: dict[str, Any]) -> str:
    """Says why each argument was given what it was given."""
    reasons: dict[str, list[str]] = {}
    for path, entry in bound.items():
        reasons.setdefault(f"{entry.get('why')}", []).append(path)
    return "; ".join(f"{why}: {', '.join(paths)}" for why, paths in reasons.items() if why != "left at its default")


# options that the command line calls otherwise than Python
_FLAGS = {"overrides": "--set", "candidate_args": "--candidate-arg", "reference_args": "--reference-arg"}


def command(report: dict[str, Any]) -> str:
    """Returns the command that makes a report again; an empty text where no command does, as of a module."""
    options = report["options"]
    if not isinstance(options.get("candidate"), str) or not isinstance(options.get("reference", ""), str):
        return ""
    words = ["parity", "check", options["candidate"]]
    for key, value in options.items():
        flag = _FLAGS.get(key, f"--{key.replace('_', '-')}")
        if isinstance(value, dict):
            words += [word for name, item in value.items() for word in (flag, f"{name}={item}")]
        elif value is True:
            words.append(flag)
        elif key != "candidate" and value is not None and value is not False:
            words += [flag, ",".join(map(str, value)) if isinstance(value, list) else f"{value}"]
    return shlex.join(words)
