"""The result of a comparison: an object to ask, JSON to keep, a table to read."""

from __future__ import annotations

import html
import io
import json
import math
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.segment import Segment, Segments
from rich.table import Column, Table
from rich.text import Text

from parity.diagnosis import PhaseCheck, number, table_of
from parity.errors import told
from parity.models import WeightMap
from parity.report.plain import as_json, in_a_line, printable
from parity.tracing import OUTPUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from parity.diagnosis import Check, Layer, Place, Verdict
    from parity.explanation import Explanation
    from parity.findings import Cause
    from parity.transfer import OwnWeights

SCHEMA = 1
_COLOURS = {"identical": "green", "equivalent": "green", "divergent": "red", "inconclusive": "yellow",
            "clean": "green", "origin": "bold red", "propagated": "red", "not compared": "yellow",
            "other recipe": "yellow"}  # fmt: skip


@dataclass(frozen=True)
class Top:
    """The five likeliest classes of one picture, (name, logit), by both models."""

    picture: str
    reference: tuple[tuple[str, float], ...]
    candidate: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Report:
    """What a comparison found. `print` it for the table; `to_dict` has the keys of the JSON report.

    Attributes:
        verdict: `identical`, `equivalent`, `divergent` or `inconclusive`.
        reasons: why, a sentence each.
        reference: name, configuration and weights of the reference.
        candidate: name and constructor arguments of the candidate.
        environment: versions and platform.
        inputs: what both models were shown.
        mapping: the weight map, or None if none was found.
        left_over: where there is no map, the tensors of reference and candidate without a counterpart.
        notes: what else there is to know, a sentence each.
        unverifiable: tensors, or slices of tensors, of the reference that cannot change its output whatever they hold
            (a key's bias), so that the map alone certifies them.
        parameters: number of values that are mapped.
        checks: one entry per mode and dtype of the forward pass, and per comparison of the other phases.
        layers: one row per module of the reference, in order of execution.
        origins: every place with an error of its own, in order of execution.
        causes: what explains the differences, as far as that is known.
        explanation: how far the causes in the forward pass explain it; None where they were not looked for.
        weights: what is known of the weights that the candidate brings; None where it brings none.
        top5: of every picture shown, by both models.
        timings: seconds by step.
        peak_memory: of the whole process so far, in bytes; None where the platform doesn't tell.
    """

    verdict: Verdict
    reasons: list[str]
    reference: dict[str, Any]
    candidate: dict[str, Any]
    environment: dict[str, Any]
    inputs: str
    mapping: WeightMap | None = None
    left_over: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    notes: list[str] = field(default_factory=list)
    unverifiable: tuple[str, ...] = ()
    parameters: int = 0
    checks: list[Check | PhaseCheck] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    origins: list[Place] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    explanation: Explanation | None = None
    weights: OwnWeights | None = None
    top5: list[Top] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    peak_memory: int | None = None

    @property
    def origin(self) -> Place | None:
        """The first place with an error of its own, or None."""
        return self.origins[0] if self.origins else None

    @property
    def exit_status(self) -> int:
        """The command line's exit status for this verdict."""
        return {"identical": 0, "equivalent": 0, "divergent": 1, "inconclusive": 3}[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON types, schema 1; numbers that are not finite are None."""
        mapping = self.mapping or WeightMap((), "none", "", *self.left_over)
        report = {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "reference": self.reference,
            "candidate": self.candidate,
            "environment": self.environment,
            "input": self.inputs,
            "mapping": {
                "tensors": len(mapping.entries),
                "parameters": self.parameters,
                "source": mapping.source,
                "certainty": mapping.certainty,
                "unmapped_reference": mapping.unmapped_reference,
                "unmapped_candidate": mapping.unmapped_candidate,
                "unused_candidate": mapping.unused,
                "without_effect": mapping.without_effect,
                "certified_by_bijection": self.unverifiable,
                "entries": [asdict(entry) for entry in mapping.entries],
                "warnings": mapping.warnings,
            },
            "notes": self.notes,
            "checks": [_check_row(check) for check in self.checks],
            "layers": [asdict(layer) for layer in self.layers],
            "origin": asdict(self.origin) if self.origin else None,
            "origins": [asdict(place) for place in self.origins],
            "causes": [asdict(cause) for cause in self.causes],
            "explanation": _explanation_row(self.explanation) if self.explanation else None,
            "weights": self.weights.to_dict() if self.weights else None,
            "top5": [asdict(top) for top in self.top5],
            "timings": self.timings,
            "peak_memory": self.peak_memory,
            "complete": self.mapping is not None,
        }
        written: dict[str, Any] = as_json(report)
        return written

    def to_json(self) -> str:
        """Returns the report as JSON text; where that fails, the verdict and why it has failed."""
        try:
            return json.dumps(self.to_dict(), indent=1, allow_nan=False)
        except Exception as error:  # noqa: BLE001  (no crash costs a verdict)
            reasons = [*self.reasons, f"the report could not be written as JSON: {told(error)}"]
            return json.dumps({"schema": SCHEMA, "verdict": self.verdict, "reasons": reasons, "complete": False})

    def drawn(self, console: Console, *, all_layers: bool = False) -> str:
        """Returns what `console` makes of the report; where that fails, the reasons, why it has failed, the verdict.

        Args:
            console: of rich; nothing is printed.
            all_layers: show every module, not only blocks and those that differ.
        """
        try:
            with console.capture() as capture:
                console.print(self._printable(console, all_layers=all_layers), crop=False)
            return capture.get()
        except Exception as error:  # noqa: BLE001  (no crash costs a verdict)
            reasons = [*self.reasons, f"the report could not be drawn: {told(error)}"]
            return "".join(f"- {printable(reason)}\n" for reason in reasons) + f"{self.verdict}\n"

    def render(self, *, all_layers: bool = False) -> RenderableType:
        """Returns the report for a rich console; the verdict is its last line.

        Args:
            all_layers: show every module, not only blocks and those that differ.
        """
        parts: list[RenderableType] = [_heading(self)]
        if self.checks:
            forward = [place for place in self.origins if place.check.startswith("forward/")]
            parts.append(_check_table(self.checks))
            if self.explanation and self.explanation.is_of_train_mode and not all_layers:
                parts.append(_table_of_places(self.layers, self.causes))
            else:
                parts.append(_layer_table(self.layers, forward, all_layers=all_layers))
            parts += [table for c in self.checks if isinstance(c, PhaseCheck) and (table := table_of(c))]
        parts += [_top_table(top) for top in self.top5]
        parts += [_line(f"- {reason}") for reason in self.reasons]
        if self.causes:
            parts.append(_cause_table(self.causes))
        if "total" in self.timings:
            memory = f", peak memory {self.peak_memory / 2**30:.1f} GiB" if self.peak_memory else ""
            parts.append(_line(f"took {self.timings['total']:.1f} s{memory}"))
        compared = sum(layer.status != "not compared" for layer in self.layers)
        last = _line(self.verdict, style=_COLOURS[self.verdict])
        last.append(
            f": {self.candidate['name']} and {self.reference['name']}, {compared} layers compared", style="default"
        )
        return Group(*parts, last)

    def _printable(self, console: Console, *, all_layers: bool = False) -> Segments:
        segments = console.render(self.render(all_layers=all_layers))
        return Segments([Segment(printable(segment.text), segment.style, segment.control) for segment in segments])

    def __str__(self) -> str:
        return self.drawn(Console(width=140, no_color=True, markup=False)).rstrip()

    def _repr_html_(self) -> str:
        console = Console(width=140, record=True, file=io.StringIO(), markup=False)
        try:
            console.print(self._printable(console))
        except Exception:  # noqa: BLE001  (the text says which)
            return f"<pre>{html.escape(f'{self}')}</pre>"
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def _line(text: str, style: str = "") -> Text:
    """Returns a text that stays on one line however long it is."""
    return Text(text, style=style, no_wrap=True, overflow="ignore")


def _check_row(check: Check | PhaseCheck) -> dict[str, Any]:
    if isinstance(check, PhaseCheck):
        return check.to_dict()
    row: dict[str, Any] = {"name": check.name, "verdict": check.verdict, "why": check.skipped or check.note}
    output = check.free.measured[OUTPUT] if check.free else None
    return row | {
        "max_abs": output.max_abs if output else None,
        "relative": output.relative if output else None,
        "max_ulp": output.max_ulp if output else None,
        "identical": output.identical if output else None,
        "noise_ratio": _noise(check),
        "points": len(check.free.measured) if check.free else 0,
    }


def _explanation_row(explanation: Explanation) -> dict[str, Any]:
    keys = "complete", "minimal", "residual", "unexplained"
    return {key: getattr(explanation, key) for key in keys}


def _noise(check: Check) -> float | None:
    if check.exact or check.free is None:
        return None
    return 1.0 if check.free.measured[OUTPUT].identical else check.free.noise.get(OUTPUT)


def _heading(report: Report) -> Text:
    config = ", ".join(f"{k}={in_a_line(v)}" for k, v in report.reference.get("config", {}).items() if v is not None)
    arguments = ", ".join(f"{k}={in_a_line(v)}" for k, v in report.candidate.get("config", {}).items())
    defaults = ", ".join(report.candidate.get("defaults", ()))
    lines = [
        f"reference  {report.reference['name']}({config})",
        f"candidate  {report.candidate['name']}({arguments})" + (f", left at default: {defaults}" if defaults else ""),
        *_bound_line(report.candidate.get("bound", {})),
        f"weights    {report.reference['weights']}",
        f"input      {report.inputs}",
    ]
    if report.mapping:
        lines += [f"map        {line}" if n == 0 else f"           {line}" for n, line in enumerate(_map_lines(report))]
    if report.weights and report.weights.verdict == "set aside" and report.mapping:
        lines += [f"its own    {sentence}" for sentence in report.weights.notes]
    lines += [f"note       {note}" for note in report.notes]
    return Text("\n".join(lines))


def _bound_line(bound: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Says why each argument was given what it was given, in one line."""
    reasons: dict[str, list[str]] = {}
    for path, entry in bound.items():
        reasons.setdefault(entry["why"], []).append(path)
    told = "; ".join(f"{why}: {', '.join(paths)}" for why, paths in reasons.items() if why != "left at its default")
    if told:
        yield f"bound      {told}"


def _map_lines(report: Report) -> Iterator[str]:
    found = report.mapping
    assert found is not None
    yield f"{len(found.entries)} tensors, {report.parameters:,} parameters, each used exactly once ({found.origin})"
    if report.unverifiable:
        yield (
            f"certified by the map alone, since no output depends on them: {len(report.unverifiable)} tensors such as "
            f"{report.unverifiable[0]}"
        )
    yield from found.remarks()


def _check_table(checks: list[Check | PhaseCheck]) -> Table:
    table = Table("check", "verdict", "relative", "max abs", "max ulp", "noise", "points", "", box=None, pad_edge=False,
                  header_style="bold")  # fmt: skip
    for check in checks:
        if isinstance(check, PhaseCheck):
            table.add_row(*check.cells(_COLOURS))
            continue
        if check.free is None:
            table.add_row(check.name, Text("not compared", style="yellow"), Text(f"{check.skipped}", overflow="fold"))
            continue
        output = check.free.measured[OUTPUT]
        table.add_row(
            check.name,
            Text(check.verdict, style=_COLOURS[check.verdict]),
            number(output.relative),
            number(output.max_abs),
            str(output.max_ulp) if output.max_ulp is not None else "-",
            number(_noise(check)),
            str(len(check.free.measured)),
            check.note or "",
        )
    return table


def _empty_layer_table() -> Table:
    names = Column("layer of the reference", overflow="fold"), Column("of the candidate", overflow="fold")
    numbers = "same bits", "max ulp", "noise", "isolated", "accumulated", "status"
    return Table(*names, *numbers, box=None, pad_edge=False, header_style="bold")


def _table_of_places(layers: list[Layer], causes: list[Cause]) -> Table | Text:
    """Draws a row per layer where a cause acts first, which is all there is to see of what is explained."""
    firsts = {place for cause in causes for place in cause.where if _block_of(place) == _block_of(cause.where[0])}
    shown = [layer for layer in layers if layer.reference in firsts and layer.status != "not compared"]
    caption = f"{len(shown)} of {len(layers)} layers, where a cause acts first; --all-layers shows the others"
    if not shown:
        return _line(caption)
    table = _empty_layer_table()
    for layer in shown:
        _add_layer(table, layer, layer.reference)
    table.caption, table.caption_justify = caption, "left"
    return table


def _layer_table(layers: list[Layer], origins: list[Place], *, all_layers: bool) -> Table:
    """Draws a row per layer; a block without an origin is folded into one row unless `all_layers` is wanted."""
    table = _empty_layer_table()
    glue = defaultdict(list)
    for place in origins:
        if place.kind == "glue" and place.reference not in {x.reference for x in layers if x.status == "origin"}:
            glue[place.reference].append(place)
    opened = {_block_of(place.reference) for place in origins}
    inside = Counter(_block_of(layer.reference) for layer in layers if layer.status != "not compared")
    for layer in layers:
        for place in glue.pop(layer.reference, ()):
            _add_glue(table, place)
        block = _block_of(layer.reference)
        folded = block is not None and block not in opened and not all_layers
        if (folded and layer.reference != block) or (layer.status == "not compared" and not all_layers):
            continue
        name = layer.reference + (f" (+{inside[block] - 1} inside)" if folded and inside[block] > 1 else "")
        _add_layer(table, layer, name)
    for place in glue.get("", ()):
        _add_glue(table, place)
    missing = sum(layer.status == "not compared" for layer in layers)
    if missing and not all_layers:
        table.caption = f"{missing} modules without a counterpart of their own; --all-layers gives each one's reason"
        table.caption_justify = "left"
    return table


def _block_of(name: str) -> str | None:
    """Returns the numbered block that a module is part of: its name up to the first part that ends in a digit."""
    parts = name.split(".")
    for position, part in enumerate(parts):
        if part[-1:].isdigit():
            return ".".join(parts[: position + 1])
    return None


def _add_glue(table: Table, place: Place) -> None:
    where = Text(f"  between {place.before} and {place.after}", style="bold red")
    isolated = place.problem or number(place.isolated)
    table.add_row(where, "", "no", "", "", isolated, "", Text("origin", style=_COLOURS["origin"]))


def _add_layer(table: Table, layer: Layer, name: str) -> None:
    bits = "-" if layer.identical is None else "yes" if layer.identical else "no"
    status = Text(layer.status, style=_COLOURS[layer.status])
    table.add_row(
        name,
        layer.candidate or "-",
        bits,
        "-" if layer.max_ulp is None else str(layer.max_ulp),
        number(layer.noise_ratio),
        number(layer.isolated),
        number(layer.accumulated),
        status.append(f" ({layer.why})", style="default") if layer.why else status,
    )


def _cause_table(causes: list[Cause]) -> Table:
    names = (
        Column("cause"),
        Column("what", overflow="fold"),
        Column("without it"),
        Column("mend it with", overflow="fold"),
    )
    table = Table(*names, box=None, pad_edge=False, header_style="bold")
    for cause in causes:
        without = cause.without if math.isfinite(cause.without or 0) else None  # logits that cannot be compared
        table.add_row(Text(cause.id, style="bold red"), cause.statement, number(without), cause.hint)
    return table


def _top_table(top: Top) -> Table:
    table = Table(f"top 5 of {top.picture}", "reference", "candidate", box=None, pad_edge=False, header_style="bold")
    for rank, (expected, found) in enumerate(zip(top.reference, top.candidate, strict=True), start=1):
        table.add_row(str(rank), *(f"{name} {logit:.4f}" for name, logit in (expected, found)))
    return table
