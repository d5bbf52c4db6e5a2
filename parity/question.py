"""What one check is asked: two models that are built, what both are shown, what is to be compared, who is told."""

from __future__ import annotations

import dataclasses
import numbers
import os
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.diagnosis import DTYPES, Check, Mixing, layers, origins
from parity.errors import ParityError, described, listed
from parity.models import is_graph, make_inputs, tensors_of, unregistered
from parity.report import Report, digest_of_files, digest_of_json, environment, source_files
from parity.tracing import MODES, refusal_of_modes
from parity.training import Classroom, require_known

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from parity.diagnosis import PhaseCheck
    from parity.mapping import Setup
    from parity.models import Brought, Inputs
    from parity.progress import Progress
    from parity.tracing import Subject


@dataclass(frozen=True)
class Options:
    """What is to be compared, and how: the options of `check` that setting up doesn't need."""

    mapping: Path | None
    seed: int
    dtype: str
    device: str
    modes: Sequence[str]
    phases: Sequence[str]
    steps: int
    asked: Mapping[str, Any]

    def require_known(self) -> None:
        """Raises ParityError if one of them is none that there is."""
        require_known(self.phases, self.steps)
        if not 0 <= self.seed < 2**63:
            raise ParityError(f"--seed {self.seed}: expected a whole number from 0 to 2**63 - 1")
        if self.dtype not in DTYPES:
            raise ParityError(f"--dtype {self.dtype}: expected one of {', '.join(DTYPES)}")
        for mode in self.modes:
            if mode not in MODES:
                raise ParityError(f"--modes {mode}: expected some of {', '.join(MODES)}")
        if self.device == "meta" and set(self.phases) != {"forward"}:
            raise ParityError("--device meta: it has shapes and no values, which only --phases forward can compare")
        try:
            torch.empty(1, dtype=torch.float64, device=self.device)
        except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
            raise ParityError(
                f"--device {self.device}: it has no float64 tensors ({described(error)}); use --device cpu"
            ) from error


_Kind = tuple[tuple[type, ...], str]  # what a value may be an instance of, and how that is called
_NAMED: _Kind = (Mapping,), "dict with names as keys"
_PATH: _Kind = (str, os.PathLike), "str or Path"
_WHOLE: _Kind = (numbers.Integral,), "int"
_SEVERAL: _Kind = (list, tuple, AbstractSet), "list or tuple"
_KINDS: dict[str, _Kind] = {
    "reference": ((str, nn.Module), "str or Module"), "overrides": _NAMED, "candidate_args": _NAMED,
    "reference_args": _NAMED, "weights": _PATH, "candidate_weights": _PATH, "mapping": _PATH, "input": _PATH,
    "batch": _WHOLE, "seed": _WHOLE, "steps": _WHOLE, "modes": _SEVERAL, "phases": _SEVERAL,
}  # fmt: skip
_MAY_BE_NONE = {"overrides", "candidate_args", "reference_args", "weights", "candidate_weights", "mapping"}


def require_kinds(given: Mapping[str, Any]) -> None:
    """Raises ParityError if an argument of a check is of a type that none can have."""
    for name, (kinds, expected) in _KINDS.items():
        value = given[name]
        if (value is None and name in _MAY_BE_NONE) or (isinstance(value, kinds) and not isinstance(value, bool)):
            keys = [*value] if isinstance(value, Mapping) else []
            if all(isinstance(key, str) for key in keys):
                continue
        raise ParityError(f"{name}={value!r}: expected a value of type {expected}")


@dataclass(frozen=True)
class Question:
    """One question to the harness.

    Attributes:
        setup: what reference, candidate and weights agree on.
        module: the candidate, without values.
        brought: the weights that the candidate brings, if any.
        shown: the images.
        options: what is to be compared, and how.
        progress: told what is being done.
        notes: what is odd about the question itself, a sentence each.
        so_far: given the report as it stands, if anybody wants it.
        mixing: how the images of a batch act on each other in the candidate, which is why one alone is shown.
    """

    setup: Setup
    module: nn.Module
    brought: Brought | None
    shown: Inputs
    options: Options
    progress: Progress
    notes: tuple[str, ...] = ()
    so_far: Callable[[Report], None] | None = None
    mixing: Mixing | None = None

    def keep(self, about: Mapping[str, Any], **found: Any) -> None:
        """Hands over the report as it stands."""
        if self.so_far is not None:
            self.so_far(Report("inconclusive", ["the check is not at its end"], complete=False, **about, **found))

    def keep_what_is_found(self, about: Mapping[str, Any], subject: Subject) -> None:
        """Hands over the report as it stands after each comparison from now on."""
        made: list[Check | PhaseCheck] = []

        def keep(found: Check | PhaseCheck) -> None:
            made.append(found)
            forward = [check for check in made if isinstance(check, Check)]
            places = origins(forward, subject.alignment)
            rows = layers(forward, subject.alignment, places)
            self.keep(about, checks=[*made], layers=rows, origins=places)

        if self.so_far is not None:
            self.progress.found = keep

    def with_batch_of(self, size: int) -> Question:
        """Returns the question about that many random images."""
        shown = make_inputs("random", self.setup.weights, self.setup.image_shape, size, self.options.seed)
        note = f"the candidate takes batches of {size} only, so such a batch is compared"
        return dataclasses.replace(self, shown=shown, notes=(note,))

    def with_one_image(self, mixing: Mixing) -> Question:
        """Returns the question about the first image alone, since those of a batch act on each other."""
        shown = dataclasses.replace(self.shown, images=self.shown.images[:1], pictures=self.shown.pictures[:1])
        note = "the images of a batch act on each other in the candidate, so one image alone is compared"
        return dataclasses.replace(self, shown=shown, notes=(*self.notes, note), mixing=mixing)

    @property
    def classroom(self) -> Classroom:
        """What both models learn from."""
        setup = self.setup
        config = setup.config if setup.builder and setup.config else None
        build = setup.builder.build if setup.builder else None
        return Classroom(config, build, setup.candidate, self.options.steps, bool(self.shown.pictures))

    def about(self) -> dict[str, Any]:
        """Returns what every report says, whatever comes of the check."""
        setup, where = self.setup, environment(self.options.device)
        files = source_files(self.module, setup.candidate.name)
        return {
            "reference": {
                "name": setup.name,
                "config": setup.settings,
                "asked": setup.asked,
                "arguments": setup.builder.arguments if setup.builder else {},
                "weights": setup.weights.source,
            },
            "candidate": {
                "name": setup.candidate.name,
                "config": setup.candidate.arguments,
                "defaults": list(setup.candidate.defaults),
                "files": files,
                "bound": {
                    path: {"value": bound.value, "why": bound.why} for path, bound in setup.candidate.bound.items()
                },
            },
            "environment": where,
            "inputs": self.shown.describe(),
            "notes": [*self.notes, *_oddities(setup, self.module)],
            "timings": self.progress.seconds,
            "options": self.options.asked,
            "digests": {"candidate": digest_of_files(files), "environment": digest_of_json(where)},
        }


def _oddities(setup: Setup, module: nn.Module) -> list[str]:
    """Says what is odd about the candidate before anything is compared."""
    notes = list(setup.candidate.notes)
    for owner, model in (("reference", setup.reference), ("candidate", module)):
        dtypes = {f"{p.dtype}".removeprefix("torch.") for p in model.parameters() if p.is_floating_point()}
        if others := sorted(dtypes - {"float32"}):
            how = "both models are held in the dtypes that are compared"
            notes.append(f"the {owner} is built in {' and '.join(others)}; {how}")
    refusal = refusal_of_modes(module)
    if refusal:
        notes.append(f"the candidate's train() refuses ({refusal}), so its modules' training flags are set instead")
    if is_graph(module):
        how = "whose layers nobody can watch and which may take one size of batch alone"
        notes.append(f"the candidate is an exported graph, {how}: its logits are compared, in batches of one size")
    hidden = [*dict(module.named_parameters()).keys() - tensors_of(module).keys()]
    if hidden:
        notes.append(f"the candidate's state_dict() leaves out parameters of its own: {listed(sorted(hidden))}")
    lists = unregistered(module)
    if setup.left_out is not None:
        notes.append(f"{setup.left_out} are of other sizes than the candidate, so both models hold synthetic weights")
    if lists:
        what = "is a plain list or attribute that holds layers torch doesn't know of"
        notes.append(f"{listed(lists)} {what}: their weights are in no state dict and no optimizer; use nn.ModuleList")
    if isinstance(setup.reference, type(module)):
        notes.append(f"the candidate is a {type(module).__name__}, the reference's own class: a model beside itself")
    return notes
