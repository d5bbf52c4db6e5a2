"""The orchestrator: takes a reference and a candidate through every step and returns a report.

The steps: set up, map, align, check, doubt, diagnose, explain, look beyond, report.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from parity.diagnosis import (  # fmt: skip
    DTYPES,
    BareRuns,
    Check,
    Doubts,
    casts,
    compare_shapes,
    decide,
    find_doubts,
    if_the_map_is_right,
    layers,
    origins,
    run_checks,
    surroundings,
)
from parity.errors import Failures, MappingError, ParityError, described, input_errors, listed
from parity.explanation import explain
from parity.mapping import (
    UNMAPPED,
    UNSEEN,
    WHATEVER_RUNS,
    at_own_sizes,
    fitting_batch,
    in_place,
    infer_mapping,
    own_sizes_told,
    set_up,
    sizes_shown,
    with_sizes,
)
from parity.models import (
    brought_by,
    build_without_values,
    cut,
    in_words,
    is_graph,
    make_inputs,
    split,
    tensors_of,
    unregistered,
    unverifiable,
)
from parity.progress import Progress
from parity.report import (  # fmt: skip
    Report,
    digest_of_files,
    digest_of_json,
    digest_of_map,
    digest_of_weights,
    environment,
    options_asked,
    peak_memory,
    source_files,
    top5,
)
from parity.tracing import MODES, ambient_kept, refusal_of_modes
from parity.training import DRAWING_CAUSES, Classroom, look_beyond, modes_of, require_known
from parity.transfer import OwnWeights, compare_as_they_are, compare_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from parity.diagnosis import PhaseCheck, Place, Surroundings, Verdict
    from parity.explanation import Explanation
    from parity.findings import Cause
    from parity.mapping import Setup
    from parity.models import Brought, Inputs, WeightMap
    from parity.tracing import Subject


@ambient_kept()
@input_errors()
def check(
    candidate: str | nn.Module | Callable[..., Any],
    reference: str | nn.Module = "vit_b_16",
    *,
    overrides: Mapping[str, Any] | None = None,
    candidate_args: Mapping[str, Any] | None = None,
    reference_args: Mapping[str, Any] | None = None,
    weights: str | None = None,
    candidate_weights: str | None = None,
    mapping: str | Path | None = None,
    input: str = "random",  # noqa: A002  (the option's name)
    batch: int = 3,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "cpu",
    modes: Sequence[str] = tuple(MODES),
    phases: Sequence[str] = ("forward",),
    steps: int = 20,
    follow: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    so_far: Callable[[Report], None] | None = None,
) -> Report:
    """Compares `candidate` with `reference`, layer by layer, and gives a verdict.

    Both models run in float64 (same function?) and in `dtype` (same bits?), in every mode, and hold the reference's
    weights. Where the candidate brings weights of its own and the reference has some that mean something, they are
    compared as well (same weights?), and both models are run as they are. Whatever belongs to the
    caller is put back afterwards: a module's own tensors and modes, torch's random state and flags.

    Args:
        candidate: a module, a class or function that returns one, `package.module:callable` or `file.py:callable`.
        reference: the name of a torchvision ViT, `timm:NAME`, `transformers:CLASS`, `package.module:callable`,
            `file.py:callable`, or a module.
        overrides: settings of a torchvision ViT to change, such as `{"image_size": 384}`.
        candidate_args: arguments for the candidate's constructor that the configuration cannot tell.
        reference_args: arguments for a reference that is not torchvision's; of `transformers:CLASS` the values of its
            configuration.
        weights: `synthetic`, `own` for those that the reference has when it is built, `official`, a member of
            torchvision's weights enum or a path; by default `synthetic`, and `own` for a module.
        candidate_weights: path of weights in the candidate's own names, which are compared with the reference's.
        mapping: path of a written weight map.
        input: `random`, or the path of a picture or of a folder of pictures.
        batch: images in the batch.
        seed: of synthetic weights, random images and dropout.
        dtype: the dtype under test beside float64: float32, bfloat16 or float16; float64 for nothing beside it.
        device: where to run; on `meta`, which has no values, only shapes are compared.
        modes: names of `tracing.MODES`, for the forward pass.
        phases: names of `diagnosis.PHASES`: what is compared beside the forward pass, which is always looked at.
        steps: of the trajectories that the phase `training` compares.
        follow: the candidate's own sizes are meant, and a ViT of torchvision's is given all of them. Without it the
            reference is given those only that the candidate cannot be told, and the verdict is `divergent`.
        progress: told what is being done, how many points are done, and of how many (0: not known).
        so_far: given the report as it stands, whenever there is more to it; it is not complete.

    Raises:
        ParityError: an option, a file or the candidate is unusable; the message says what to do.
    """
    asked = options_asked(locals())
    options = _Options(Path(mapping) if mapping else None, seed, dtype, device, modes, phases, steps, asked)
    options.require_known()
    told = Progress(progress)
    before = surroundings()
    with told.step("total"):
        with told.step("build"):
            setup = set_up(candidate, reference, overrides or {}, candidate_args, weights, seed, reference_args)
            module = build_without_values(setup.candidate)
            setup = at_own_sizes(setup, module, seed, follow=follow)
            brought = _brought(setup, module, candidate_weights)
        shown = make_inputs(input, setup.weights, setup.image_shape, batch, seed)
        case = _Case(setup, module, brought, shown, options, told, so_far=so_far)
        try:
            return _if_sound(_with_sizes(_compare(case), setup, follow=follow), before)
        except ParityError as error:
            only_batch = fitting_batch(module, shown.images)
            if only_batch is None:
                told_with_sizes = with_sizes(error, setup, module)
                if told_with_sizes is error:  # whose own cause is not to be lost
                    raise
                raise told_with_sizes from error
        # the error is gone, and with it what it kept alive
        report = _compare(case.with_batch_of(only_batch))
        return _if_sound(_with_sizes(report, setup, follow=follow), before)


def _if_sound(report: Report, before: Surroundings) -> Report:
    """Returns the report, whose verdict counts only if torch is what it was before the candidate was imported."""
    doubts = before.doubts()
    if not doubts:
        return report
    return dataclasses.replace(report, verdict="inconclusive", reasons=[*doubts, *report.reasons])


def _with_sizes(report: Report, setup: Setup, *, follow: bool) -> Report:
    """Returns the report of two models with what follows from the sizes in which the candidate is not the reference."""
    own = setup.own_sizes
    if not own:
        return report
    given = {key: own[key] for key in setup.asked}
    if follow:
        meant = f"beside a {setup.name} of your model's sizes, which --follow takes as meant: {in_words(given)}"
        first = f"{meant}; asked for were {in_words(setup.asked)}"
        return dataclasses.replace(report, reasons=[first, *report.reasons])
    reasons = own_sizes_told(setup)
    if given:
        beside = f"beside a {setup.name} of your model's sizes ({in_words(given)}) it is {report.verdict}"
        reasons.append(f"{beside}; where these sizes are meant, say --follow")
    return dataclasses.replace(report, verdict="divergent", reasons=[*reasons, *report.reasons])


def assert_parity(
    candidate: str | nn.Module | Callable[..., Any],
    reference: str | nn.Module = "vit_b_16",
    *,
    require: str = "equivalent",
    **options: Any,
) -> Report:
    """Raises AssertionError, with the whole report, unless `check` finds the candidate to be the reference.

    Args:
        candidate: as in `check`.
        reference: as in `check`.
        require: `equivalent` (the same function) or `identical` (the same bits as well).
        options: the other arguments of `check`.
    """
    if require not in ("equivalent", "identical"):
        raise ParityError(f"require={require!r}: expected 'equivalent' or 'identical'")
    report = check(candidate, reference, **options)
    accepted = ("identical",) if require == "identical" else ("identical", "equivalent")
    if report.verdict not in accepted:
        raise AssertionError(f"{report}")
    return report


@dataclass(frozen=True)
class _Options:
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


@dataclass(frozen=True)
class _Case:
    """One question to the harness: two models that are built, what both are shown, and what is to be compared.

    Attributes:
        setup: what reference, candidate and weights agree on.
        module: the candidate, without values.
        brought: the weights that the candidate brings, if any.
        shown: the images.
        options: what is to be compared, and how.
        progress: told what is being done.
        notes: what is odd about the question itself, a sentence each.
        so_far: given the report as it stands, if anybody wants it.
    """

    setup: Setup
    module: nn.Module
    brought: Brought | None
    shown: Inputs
    options: _Options
    progress: Progress
    notes: tuple[str, ...] = ()
    so_far: Callable[[Report], None] | None = None

    def keep(self, about: Mapping[str, Any], **found: Any) -> None:
        """Hands over the report as it stands."""
        if self.so_far is not None:
            self.so_far(Report("inconclusive", ["the check is not at its end"], complete=False, **about, **found))

    def with_batch_of(self, size: int) -> _Case:
        """Returns the question about that many random images."""
        shown = make_inputs("random", self.setup.weights, self.setup.image_shape, size, self.options.seed)
        note = f"the candidate takes batches of {size} only, so such a batch is compared"
        return dataclasses.replace(self, shown=shown, notes=(note,))

    @property
    def classroom(self) -> Classroom:
        """What both models learn from."""
        setup = self.setup
        config = setup.config if setup.builder and setup.config else None
        build = setup.builder.build if setup.builder else None
        return Classroom(config, build, setup.candidate, self.options.steps, bool(self.shown.pictures))

    def about(self) -> dict[str, Any]:
        """Returns what every report says, whatever comes of the check."""
        setup, where = self.setup, environment()
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


def _compare(case: _Case) -> Report:
    """Takes two models that are set up through all the other steps."""
    began = time.process_time()
    setup, module, images, options, progress = case.setup, case.module, case.shown.images, case.options, case.progress
    about = case.about()
    case.keep(about)
    try:
        mapping = infer_mapping(setup.reference, module, options.mapping, images=images, build=setup.candidate.build)
    except MappingError as error:
        return _without_map(case, about, error)
    about |= {"mapping": mapping, "parameters": _mapped(mapping, setup.reference)}
    about["digests"]["map"] = digest_of_map(mapping)
    if options.device == "meta":
        verdict, reasons, rows = compare_shapes(setup.reference, module, mapping, images)
        return Report(verdict, reasons, layers=rows, **about)

    with in_place(setup, module, mapping, images, options.seed, options.dtype, options.device, progress) as subject:
        own = case.brought.state if case.brought else {}
        about["digests"]["weights"] = digest_of_weights(subject.held.reference, own)
        if case.so_far is not None:
            progress.found = functools.partial(_keep, case, about, subject, [])
        bare = BareRuns(subject.models, DTYPES[options.dtype])
        checks = run_checks(subject, modes_of(options.phases, options.modes), bare, progress)
        seconds = time.process_time() - began
        failures = Failures()
        doubts, weights = Doubts(blind=(_NO_DOUBTS,)), None
        with progress.step("doubts"), failures.kept(_NO_DOUBTS):
            doubts = find_doubts(subject, checks, bare, synthetic=setup.is_synthetic)
            doubts = dataclasses.replace(doubts, blind=(*doubts.blind, *setup.candidate.limits))
        places = origins(checks, subject.alignment)
        explanation, explained = _explained(case, subject, checks, doubts, seconds, failures)
        beyond = look_beyond(options.phases, subject, case.classroom, checks, doubts, progress)
        beyond = beyond.without_causes(DRAWING_CAUSES if explanation and explanation.names_dropouts else ())
        with failures.kept(_NO_WEIGHTS):
            weights = _compared(case, subject)
        verdict, reasons = _decided(checks, places, doubts, subject, explanation)
        if verdict == "divergent" and not (explanation and explanation.complete):
            with failures.kept("it could not be looked at what another weight map would change"):
                verdict, reasons = if_the_map_is_right(subject, places, reasons)
    about["notes"] += [*doubts.notes, *setup.weights.notes, *(case.brought.notes if case.brought else ())]
    verdict, reasons = beyond.combined(verdict, reasons)
    if verdict in ("identical", "equivalent"):
        reasons += mapping.missing_without_effect()
    if _NO_WEIGHTS in failures.sentences and verdict in ("identical", "equivalent"):
        verdict, reasons = "inconclusive", [_NO_WEIGHTS, *reasons]
    if weights and not doubts.unusable:
        verdict, reasons = _with_own_weights(verdict, reasons, weights)
    if verdict == "divergent" and not (explanation and explanation.complete):
        reasons = [*_another_architecture(setup, about["parameters"]), *reasons]
    if verdict in ("divergent", "inconclusive") and not doubts.unusable:
        other = sizes_shown(setup, module, UNSEEN if mapping.is_complete else UNMAPPED)
        verdict, reasons = "divergent" if other else verdict, [*other, *reasons]
    causes, top = [*beyond.causes, *(weights.causes if weights else ())], []
    with failures.kept("the causes could not be listed"):
        causes = [*_causes(explanation, checks, subject), *causes]
    with failures.kept("what both models see in the pictures could not be listed"):
        top = top5(checks, case.shown.pictures, setup.weights.categories)
    if explanation and explanation.agreement and not (doubts.unusable or doubts.faults):
        reasons, explained = [*explained, *reasons], []
    return Report(
        verdict,
        [*reasons, *explained, *failures.told()],
        **about,
        unverifiable=unverifiable(setup.reference, mapping),
        checks=[*checks, *beyond.checks],
        layers=layers(checks, subject.alignment),
        origins=[*places, *beyond.places],
        causes=causes,
        explanation=explanation,
        weights=weights,
        top5=top,
        peak_memory=peak_memory(),
    )


def _keep(
    case: _Case, about: Mapping[str, Any], subject: Subject, made: list[Check | PhaseCheck], found: Check | PhaseCheck
) -> None:
    """Hands over the report as it stands after one more comparison."""
    made.append(found)
    forward = [check for check in made if isinstance(check, Check)]
    rows, places = layers(forward, subject.alignment), origins(forward, subject.alignment)
    case.keep(about, checks=[*made], layers=rows, origins=places)


# the share of the reference's values that a ViT with a few more or less parameters has counterparts of
_LEAST_IN_COMMON = 0.5


def _another_architecture(setup: Setup, mapped: int) -> list[str]:
    """Says that two models have little in common, where most of the reference's values have no counterpart."""
    share = mapped / max(sum(tensor.numel() for tensor in tensors_of(setup.reference).values()), 1)
    if share >= _LEAST_IN_COMMON:
        return []
    said = f"only {share:.0%} of the values of {setup.name} have a counterpart in your model"
    return [f"{said}: it is another architecture, and what follows says where the two part, not how to mend it"]


def _without_map(case: _Case, about: dict[str, Any], error: MappingError) -> Report:
    """Says what can be said of two models between which there is no weight map."""
    left_over = error.unmapped_reference, error.unmapped_candidate
    other = sizes_shown(case.setup, case.module, WHATEVER_RUNS)
    failures, weights = Failures(), None
    with failures.kept("the logits of both models as they are could not be compared"):
        weights = _as_they_are(case)
    logits = [weights.logits()] if weights else []
    reasons = [*other, f"no weight map: {error}", *logits, *failures.told(), *about["notes"]]
    return Report("divergent" if other else "inconclusive", reasons, **about, left_over=left_over, weights=weights)


_NO_DOUBTS = "it could not be looked at whether these comparisons could have failed at all"
_NO_WEIGHTS = "the candidate's own weights could not be compared"


def _brought(setup: Setup, module: nn.Module, file: str | None) -> Brought | None:
    """Returns the weights that the candidate brings, as far as that question is asked."""
    if setup.left_out is not None:
        return brought_by(setup.candidate, module, file)
    if setup.is_synthetic:
        if file is not None:
            raise ParityError(
                f"--candidate-weights {file}: the reference has synthetic weights, which nobody's are; give it "
                "those that the candidate's should be with --weights official or --weights PATH"
            )
        return brought_by(setup.candidate, module, None) if setup.candidate.is_built else None
    return brought_by(setup.candidate, module, file)


def _as_they_are(case: _Case) -> OwnWeights | None:
    """Runs both models with their own weights, where that is all that can be done."""
    setup = case.setup
    if case.brought is None or setup.is_synthetic:
        return None
    state = setup.weights.state_dict(setup.reference)
    return compare_as_they_are(
        setup.reference, state, case.module, case.brought.state, case.shown.images, case.options.seed
    )


def _compared(case: _Case, subject: Subject) -> OwnWeights | None:
    """Compares the weights that the candidate brings with the reference's, where these mean something."""
    if case.brought is None:
        return None
    if case.setup.left_out is not None:
        raise ParityError(f"the reference's, {case.setup.left_out}, are of other sizes")
    if case.setup.is_synthetic:
        how = "give the reference the weights that they should be, as a module, --weights official or --weights PATH"
        aside = f"the candidate's own weights were set aside; to have them compared, {how}"
        return OwnWeights("set aside", case.brought.source, notes=(aside,))
    return compare_weights(subject, case.brought, case.progress)


def _with_own_weights(verdict: Verdict, reasons: list[str], weights: OwnWeights) -> tuple[Verdict, list[str]]:
    """Returns the verdict about a candidate that brings these weights, and its reasons."""
    if weights.verdict == "set aside":
        return verdict, reasons
    is_other = weights.verdict == "different"
    said = [weights.summary(), *(cause.statement for cause in weights.causes), *weights.notes]
    if verdict == "divergent":
        if weights.tensors and weights.agrees_as_is:
            agree = "with the weights that they have both models agree: the candidate's make up for what its function"
            return verdict, [f"{agree} does otherwise; {said[0]}", *reasons]
        return verdict, [*reasons, f"{'and other weights: ' * is_other}{said[0]}", *said[1:]]
    # where the map itself is in doubt only the models as they are can tell
    is_shown = weights.as_is is not None and not weights.agrees_as_is
    if is_shown or (is_other and verdict != "inconclusive"):
        function = "the same function, " * (verdict != "inconclusive")
        what = "with other weights" if is_other else "with other values of what has no counterpart"
        return "divergent", [f"{function}{what}: {said[0]}", *said[1:], *reasons]
    return "equivalent" if weights.tensors and verdict == "identical" else verdict, [*reasons, *said]


def _explained(
    case: _Case, subject: Subject, checks: list[Check], doubts: Doubts, seconds: float, failures: Failures
) -> tuple[Explanation | None, list[str]]:
    """Explains what differs; what other inputs than those of the checks show is not part of it."""
    found: Explanation | None = None
    sentences: list[str] = []
    with failures.kept("the causes could not be named"):
        config = case.classroom.config
        found, sentences = explain(subject, case.setup.name, config, checks, seconds, case.progress)
    if found is not None and found.agreement and doubts.faults:
        found = dataclasses.replace(found, complete=False)
    return found, sentences


def _decided(
    checks: list[Check], places: list[Place], doubts: Doubts, subject: Subject, explanation: Explanation | None
) -> tuple[Verdict, list[str]]:
    """Returns the verdict and the reasons that the explanation leaves to be said."""
    if explanation is None:
        return decide(checks, places, doubts, subject.alignment)
    verdict, reasons = decide(checks, [] if explanation.is_of_train_mode else places, doubts, subject.alignment)
    if explanation.differs_in_train_mode and verdict in ("identical", "equivalent"):
        return "divergent", []  # the checks could not align the masks, which the explanation could
    return verdict, reasons


def _causes(explanation: Explanation | None, checks: list[Check], subject: Subject) -> list[Cause]:
    if explanation and explanation.complete:
        return [*explanation.causes]
    return [*(explanation.causes if explanation else ()), *casts(checks, subject.alignment)]


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


def _mapped(found: WeightMap, reference: nn.Module) -> int:
    """Returns how many values of the reference have a counterpart."""
    state: dict[str, torch.Tensor] = reference.state_dict()
    left_out = (cut(state[name], box) for name, box in map(split, found.unmapped_reference))
    return sum(tensor.numel() for tensor in state.values()) - sum(tensor.numel() for tensor in left_out)
