"""The orchestrator: takes a reference and a candidate through every step and returns a report.

The steps: set up, map, align, check, doubt, diagnose, explain, look beyond, report.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.diagnosis import (  # fmt: skip
    DTYPES,
    BareRuns,
    Check,
    Doubts,
    Mixing,
    attention_maps,
    causes_of_rounding,
    compare_shapes,
    find_doubts,
    mixing,
    origins,
    run_checks,
    surroundings,
)
from parity.errors import Failures, MappingError, ParityError, input_errors
from parity.explanation import explain
from parity.judging import NO_ATTENTION, NO_DOUBTS, NO_WEIGHTS, ONE_ALONE, Found, reported
from parity.mapping import (
    WHATEVER_RUNS,
    anew,
    at_own_sizes,
    fitting_batch,
    in_place,
    infer_mapping,
    own_sizes_told,
    set_up,
    sizes_shown,
    with_sizes,
)
from parity.models import brought_by, build_without_values, in_words, make_inputs
from parity.progress import Progress
from parity.question import Options, Question, require_kinds
from parity.report import Report, digest_of_map, digest_of_weights, options_asked
from parity.tracing import MODES, OUTPUT, ambient_kept
from parity.training import DRAWING_CAUSES, look_beyond, modes_of
from parity.transfer import OwnWeights, compare_as_they_are, compare_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from parity.diagnosis import AttentionMaps, Surroundings
    from parity.explanation import Explanation
    from parity.findings import Cause
    from parity.mapping import Setup
    from parity.models import Brought, WeightMap
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
    weights: str | Path | None = None,
    candidate_weights: str | Path | None = None,
    mapping: str | Path | None = None,
    input: str | Path = "random",  # noqa: A002  (the option's name)
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
    require_kinds(locals())
    weights, candidate_weights = (None if path is None else f"{path}" for path in (weights, candidate_weights))
    asked = options_asked(locals())
    options = Options(Path(mapping) if mapping else None, seed, dtype, device, modes, phases, steps, asked)
    options.require_known()
    told = Progress(progress)
    before = surroundings(device)
    with told.step("total"):
        with told.step("build"):
            setup = set_up(candidate, reference, overrides or {}, candidate_args, weights, seed, reference_args)
            module = build_without_values(setup.candidate)
            setup = at_own_sizes(setup, module, seed, follow=follow)
            brought = _brought(setup, module, candidate_weights)
        shown = make_inputs(f"{input}", setup.weights, setup.image_shape, batch, seed)
        question = Question(setup, module, brought, shown, options, told, so_far=so_far)
        try:
            return _if_sound(_with_sizes(_compare(question), setup, follow=follow), before)
        except ParityError as error:
            only_batch = fitting_batch(module, shown.images)
            if only_batch is None:
                said = before.blamed(with_sizes(error, setup, module))
                if said is error:  # whose own cause is not to be lost
                    raise
                raise said from error
        # the error is gone, and with it what it kept alive
        report = _compare(question.with_batch_of(only_batch))
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


def _compare(question: Question, mapping: WeightMap | None = None) -> Report:
    """Takes two models that are set up through all the other steps.

    Args:
        question: what is asked.
        mapping: the weight map, if it is known.
    """
    began = time.process_time()
    setup, module, options = question.setup, question.module, question.options
    images, about = question.shown.images, question.about()
    question.keep(about)
    try:
        mapping = mapping or infer_mapping(
            setup.reference, module, options.mapping, images=images, build=setup.candidate.build
        )
    except MappingError as error:
        return _without_map(question, about, error)
    about |= {"mapping": mapping, "parameters": mapping.number_mapped(setup.reference)}
    about["digests"]["map"] = digest_of_map(mapping)
    if options.device == "meta":
        verdict, reasons, rows = compare_shapes(setup.reference, module, mapping, images)
        return Report(verdict, reasons, layers=rows, **about)

    at = options.seed, options.dtype, options.device
    with in_place(setup, module, mapping, images, *at, question.progress) as subject:
        own = question.brought.state if question.brought else {}
        about["digests"]["weights"] = digest_of_weights(subject.held.reference, own)
        question.keep_what_is_found(about, subject)
        found = _find(question, subject, began)
        verdict, reasons = ("divergent", []) if isinstance(found, Mixing) else found.decided()
    if isinstance(found, Mixing):
        return _compare(question.with_one_image(found), mapping)
    return reported(question, about, found, verdict, reasons)


def _find(question: Question, subject: Subject, began: float) -> Found | Mixing:
    """Makes all checks, looks for what they don't show, and explains what they do.

    Returns:
        What was found; where nothing explains it and the images of a batch act on each other, only how they do.
    """
    setup, options, progress = question.setup, question.options, question.progress
    bare = BareRuns(subject.models, DTYPES[options.dtype])
    checks = run_checks(subject, modes_of(options.phases, options.modes), bare, progress)
    seconds = time.process_time() - began
    failures = Failures()
    doubts, weights = Doubts(blind=(NO_DOUBTS,)), None
    with progress.step("doubts"), failures.kept(NO_DOUBTS):
        doubts = find_doubts(
            subject,
            checks,
            bare,
            lambda with_values: anew(setup.candidate, subject, with_values=with_values),
            synthetic=setup.is_synthetic,
            singly=question.mixing is not None,
        )
        doubts = dataclasses.replace(doubts, blind=(*doubts.blind, *setup.candidate.limits))
    places = origins(checks, subject.alignment)
    mixed, is_batch = question.mixing, question.mixing is None and len(question.shown.images) > 1
    looking = "it could not be looked at whether the images of a batch act on each other"
    with failures.kept(looking):
        mixed = mixed or (None if _any_layer_in(checks) else _mixed(subject, checks, doubts, None))
    if mixed and is_batch:
        return mixed
    explanation, explained = _explained(question, subject, checks, doubts, seconds, failures)
    with failures.kept(looking):
        mixed = mixed or _mixed(subject, checks, doubts, explanation)
    if mixed and is_batch and not (explanation and explanation.complete):
        return mixed
    roundings: list[Cause] = []
    with failures.kept("it could not be looked at why the candidate is less accurate"):
        if explanation is None or not explanation.complete:
            roundings = causes_of_rounding(subject, checks)
    beyond = look_beyond(options.phases, subject, question.classroom, checks, doubts, progress)
    beyond = beyond.without_causes(DRAWING_CAUSES if explanation and explanation.names_dropouts else ())
    with failures.kept(NO_WEIGHTS):
        weights = _compared(question, subject)
    attention: list[AttentionMaps] = []
    with progress.step("attention"), failures.kept(NO_ATTENTION):
        attention = attention_maps(subject, question.shown.pictures)
    return Found(
        subject, checks, places, doubts, explanation, explained, roundings, beyond, weights, attention, failures,
        question.setup.name, mixed,
    )  # fmt: skip


def _any_layer_in(checks: list[Check]) -> bool:
    """Whether any check could compare a layer, and not just the logits."""
    passes = [check.free.measured for check in checks if check.free]
    return any(point != OUTPUT and not measured.problem for seen in passes for point, measured in seen.items())


def _mixed(subject: Subject, checks: list[Check], doubts: Doubts, explanation: Explanation | None) -> Mixing | None:
    """Returns how the images of a batch act on each other, where something differs that no cause by name explains."""
    is_alone = len(subject.models.images) == 1  # where only what other inputs show tells
    is_other = (is_alone and bool(doubts.faults)) or any(
        check.verdict == "divergent" and not check.mode.train for check in checks
    )
    is_named = explanation is not None and explanation.complete and explanation.by_name
    return mixing(subject.models) if is_other and not (is_named or doubts.unusable) else None


def _without_map(question: Question, about: dict[str, Any], error: MappingError) -> Report:
    """Says what can be said of two models between which there is no weight map."""
    left_over = error.unmapped_reference, error.unmapped_candidate
    other = sizes_shown(question.setup, question.module, WHATEVER_RUNS)
    failures, weights = Failures(), None
    with failures.kept("the logits of both models as they are could not be compared"):
        weights = _as_they_are(question)
    logits = [weights.logits()] if weights else []
    reasons = [*other, f"no weight map: {error}", *logits, *failures.told(), *about["notes"]]
    return Report("divergent" if other else "inconclusive", reasons, **about, left_over=left_over, weights=weights)


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


def _as_they_are(question: Question) -> OwnWeights | None:
    """Runs both models with their own weights, where that is all that can be done."""
    setup = question.setup
    if question.brought is None or setup.is_synthetic:
        return None
    state = setup.weights.state_dict(setup.reference)
    return compare_as_they_are(
        setup.reference, state, question.module, question.brought.state, question.shown.images, question.options.seed
    )


def _compared(question: Question, subject: Subject) -> OwnWeights | None:
    """Compares the weights that the candidate brings with the reference's, where these mean something."""
    if question.brought is None:
        return None
    if question.setup.left_out is not None:
        raise ParityError(f"the reference's, {question.setup.left_out}, are of other sizes")
    if question.setup.is_synthetic:
        how = "give the reference the weights that they should be, as a module, --weights official or --weights PATH"
        aside = f"the candidate's own weights were set aside; to have them compared, {how}"
        return OwnWeights("set aside", question.brought.source, notes=(aside,))
    return compare_weights(subject, question.brought, question.progress)


def _explained(
    question: Question, subject: Subject, checks: list[Check], doubts: Doubts, seconds: float, failures: Failures
) -> tuple[Explanation | None, list[str]]:
    """Explains what differs; what other inputs than those of the checks show is not part of it."""
    found: Explanation | None = None
    sentences: list[str] = []
    with failures.kept("the causes could not be named"):
        config = question.classroom.config
        found, sentences = explain(subject, question.setup.name, config, checks, seconds, question.progress)
    if found is not None and ((found.agreement and doubts.faults) or question.mixing):
        found = dataclasses.replace(found, complete=False)
    if question.mixing:
        sentences = [f"{ONE_ALONE}: {sentence}" for sentence in sentences]
    return found, sentences
