"""The result of a comparison: an object to ask, JSON to keep, a text to read."""

from __future__ import annotations

import html
import json
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console

from parity.diagnosis import PhaseCheck
from parity.errors import told
from parity.models import WeightMap
from parity.report.digests import digest_of_report
from parity.report.page import as_html, excerpt
from parity.report.plain import as_json, printable
from parity.report.saved import EXIT_STATUS, SCHEMA, complete
from parity.report.terminal import drawn
from parity.tracing import OUTPUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from parity.diagnosis import AttentionMaps, Check, Layer, Place, Verdict
    from parity.explanation import Explanation
    from parity.findings import Cause
    from parity.transfer import OwnWeights


@dataclass(frozen=True)
class Top:
    """The five likeliest classes of one picture, (name, logit), by both models."""

    picture: str
    reference: tuple[tuple[str, float], ...]
    candidate: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Report:
    """What a comparison found. `print` it for the answer; `to_dict` has the keys of the JSON report.

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
        attention: where both models look, picture by picture.
        timings: seconds by step.
        peak_memory: of the whole process so far, in bytes; None where the platform doesn't tell.
        options: what was asked for, by the names of `check`'s arguments; models that were handed over are None.
        digests: SHA-256 of what the verdict was reached on: weights, map, candidate (its source files), environment.
        complete: whether the check came to its end.
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
    attention: list[AttentionMaps] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    peak_memory: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    complete: bool = True

    @property
    def origin(self) -> Place | None:
        """The first place with an error of its own, or None."""
        return self.origins[0] if self.origins else None

    @property
    def exit_status(self) -> int:
        """The command line's exit status for this verdict."""
        return EXIT_STATUS[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON types, schema 1; numbers that are not finite are None."""
        mapping = self.mapping or WeightMap((), "none", "", *self.left_over)
        is_explained = self.explanation is not None and self.explanation.complete
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
                "origin": mapping.origin,
                "unmapped_reference": mapping.unmapped_reference,
                "unmapped_candidate": mapping.unmapped_candidate,
                "unused_candidate": mapping.unused,
                "without_effect": mapping.without_effect,
                "certified_by_bijection": self.unverifiable,
                "entries": [asdict(entry) for entry in mapping.entries],
                "warnings": mapping.warnings,
                "remarks": mapping.remarks(self.reasons, in_short=is_explained) if self.mapping else [],
            },
            "notes": self.notes,
            "checks": [_check_row(check) for check in self.checks],
            "layers": [asdict(layer) for layer in self.layers],
            "origin": asdict(self.origin) if self.origin else None,
            "origins": [asdict(place) for place in self.origins],
            "causes": [asdict(cause) for cause in self.causes],
            "explanation": _explanation_row(self.explanation, self.reference["name"]) if self.explanation else None,
            "weights": self.weights.to_dict() if self.weights else None,
            "top5": [asdict(top) for top in self.top5],
            "attention": [asdict(maps) for maps in self.attention],
            "timings": self.timings,
            "peak_memory": self.peak_memory,
            "options": self.options,
            "digests": self.digests,
            "complete": self.complete,
        }
        written: dict[str, Any] = as_json(report)
        written["digests"]["report"] = digest_of_report(written)
        return written

    def to_json(self) -> str:
        """Returns the report as JSON text; where that fails, the verdict and why it has failed."""
        try:
            return json.dumps(self.to_dict(), indent=1, allow_nan=False)
        except Exception as error:  # noqa: BLE001  (no crash costs a verdict)
            reasons = [*self.reasons, f"the report could not be written as JSON: {told(error)}"]
            return json.dumps({"schema": SCHEMA, "verdict": self.verdict, "reasons": reasons, "complete": False})

    def to_html(self) -> str:
        """Returns the report as one HTML page that needs no other file; where that fails, its text, and why."""
        return self._page(as_html)

    def drawn(self, console: Console, *, all_layers: bool = False) -> str:
        """Returns what `console` makes of the report; where that fails, the reasons, why it has failed, the verdict.

        Args:
            console: of rich; nothing is printed.
            all_layers: show every layer and every check, not only those that matter.
        """
        try:
            return drawn(complete(self.to_dict()), console, all_layers=all_layers)
        except Exception as error:  # noqa: BLE001  (no crash costs a verdict)
            reasons = [*self.reasons, f"the report could not be drawn: {told(error)}"]
            return "".join(f"- {printable(reason)}\n" for reason in reasons) + f"{self.verdict}\n"

    def __str__(self) -> str:
        width = shutil.get_terminal_size((80, 24)).columns
        return self.drawn(Console(width=width, no_color=True, markup=False)).rstrip()

    def _repr_html_(self) -> str:
        return self._page(excerpt)

    def _page(self, draw: Callable[[dict[str, Any]], str]) -> str:
        try:
            return draw(complete(self.to_dict()))
        except Exception as error:  # noqa: BLE001  (no crash costs a verdict)
            text = f"{self}\nthe page could not be drawn: {told(error)}"
            return f'<meta charset="utf-8"><pre>{html.escape(text)}</pre>'


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
        "problem": output.problem if output else None,
        "noise_ratio": _noise(check),
        "points": len(check.free.measured) if check.free else 0,
    }


def _explanation_row(explanation: Explanation, reference: str) -> dict[str, Any]:
    keys = "complete", "minimal", "by_name", "residual", "unexplained"
    sentences = explanation.sentences(reference)
    return {key: getattr(explanation, key) for key in keys} | {
        "sentence": sentences[0] if explanation.agreement else sentences[-1],
        "of_train_mode": explanation.is_of_train_mode,
    }


def _noise(check: Check) -> float | None:
    if check.exact or check.free is None:
        return None
    return 1.0 if check.free.measured[OUTPUT].identical else check.free.noise.get(OUTPUT)
