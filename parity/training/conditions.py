"""The conditions phase: is it the same model however it is run?

A model that is right in float32 on a contiguous batch may still fail, or compute something else, in half precision,
under autocast, in inference mode, on images in another memory layout, when it is compiled, or on images of another
size. Both models are run bare under each condition, and their logits compared.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from parity.diagnosis import DTYPES, Beyond, PhaseCheck, Row, not_compared
from parity.errors import ParityError
from parity.findings import Cause
from parity.models import assigned, build_reference, tensors_of, uniform
from parity.tracing import (
    MODES,
    NOISE_BOUND,
    NOT_FINITE,
    SAME_FUNCTION_BOUND,
    Measurement,
    bare_run,
    compare,
    noise_ratio,
)
from parity.training.resizing import RULES, Crop, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from parity.diagnosis import Outcome
    from parity.tracing import Subject
    from parity.training.resizing import Resizing

_EVAL = MODES["eval"]
_POSITIONS = "encoder.pos_embedding"  # torchvision's name
_TORCHVISIONS = Rule("bicubic", align_corners=True)

# Code that resizes in float32 whatever it is given is off by some 1e-7 in its table, and no more in the logits; another
# rule makes 1e-3 and more of a small model's.
_ROUNDED_LOGITS = 1e-5


@dataclass(frozen=True)
class Condition:
    """One way to run a model that a user expects to change nothing.

    Attributes:
        name: as in the report, and the cause's id.
        what: the same in words that go on a sentence.
        arrange: lays out the images (B, C, H, W) in memory.
        around: entered around a run.
        dtype: what the models are held in; None: the dtype under test, and float64 if the bits differ there.
        hint: what usually mends it.
    """

    name: str
    what: str
    arrange: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.contiguous
    around: Callable[[nn.Module], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    dtype: str | None = None
    hint: str = ""


def _channels_last(images: torch.Tensor) -> torch.Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _transposed(images: torch.Tensor) -> torch.Tensor:
    """Lays out images column by column, which makes them no contiguous tensor of any memory format."""
    return images.mT.contiguous().mT


def _under_autocast(model: nn.Module) -> torch.autocast:
    return torch.autocast(next(iter(tensors_of(model).values())).device.type, torch.bfloat16)


@contextlib.contextmanager
def _with_forward(model: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Gives a model another forward pass for as long as the context lasts."""
    own = {key: value for key, value in vars(model).items() if key == "forward"}
    model.forward = forward
    try:
        yield
    finally:
        del model.forward
        vars(model).update(own)


@contextlib.contextmanager
def _compiled(model: nn.Module) -> Iterator[None]:
    """Compiles a model's forward pass for as long as the context lasts."""
    torch.compiler.reset()
    try:
        with warnings.catch_warnings(), _with_forward(model, torch.compile(model.forward)):
            warnings.simplefilter("ignore")  # the compiler's about itself are no failure of the model
            yield
    finally:
        torch.compiler.reset()


PLAIN = Condition("none", "")
_LAYOUT = "use reshape instead of view"
CONDITIONS = (
    Condition("inference-mode", "in torch.inference_mode", around=lambda _: torch.inference_mode(),
              hint="change no tensor in place that was made outside of it"),
    Condition("channels-last", "on images in channels_last layout", _channels_last, hint=_LAYOUT),
    Condition("transposed-input", "on images that are not contiguous", _transposed, hint=_LAYOUT),
    Condition("bfloat16", "in bfloat16", dtype="bfloat16", hint="make every constant of the input's dtype"),
    Condition("float16", "in float16", dtype="float16", hint="make every constant of the input's dtype"),
    Condition("autocast", "under autocast with bfloat16", dtype="float32",
              around=_under_autocast, hint="compute in the dtype that arrives"),
)  # fmt: skip
COMPILED = Condition("compile", "when it is compiled", around=_compiled, hint="see torch.compile's own report")


def look(subject: Subject, config: dict[str, Any] | None, progress: Callable[[str], None]) -> Beyond:
    """Compares the logits under every condition.

    Args:
        subject: who is compared.
        config: of a torchvision reference that is given by name; None for another one.
        progress: told what is being done.
    """
    beyond = Beyond()
    conditions = [*CONDITIONS, COMPILED]
    progress("conditions/none")
    truth = _logits(subject.models.reference, subject.models.images, "float64", "reference")
    why = _why_not(subject, truth)
    if why:
        names = [condition.name for condition in conditions] + ["resolution"]
        return Beyond([not_compared(f"conditions/{name}", why) for name in names])
    for condition in conditions:
        progress(f"conditions/{condition.name}")
        beyond.add(_compare(subject, condition, truth))
    progress("conditions/resolution")
    beyond.add(_resolutions(subject, config))
    return beyond


def _why_not(subject: Subject, truth: torch.Tensor) -> str | None:
    try:
        found = _logits(subject.models.candidate, subject.models.images, "float64", "candidate")
    except ParityError as error:
        return f"the candidate cannot be run in float64: {error}"
    return None if compare(truth, found).same_function else "the logits differ already without any"


def _compare(subject: Subject, condition: Condition, truth: torch.Tensor) -> Beyond:
    dtype = condition.dtype or subject.dtype
    label = f"conditions/{condition.name}" + f"/{dtype}" * (condition.name != dtype)
    is_compiled = condition is COMPILED
    why = why_no_compiler(subject.models.images.device) if is_compiled else None
    if why:
        return Beyond([not_compared(label, why)])
    try:
        expected = _under(PLAIN if is_compiled else condition, subject, dtype, "reference")
    except ParityError as error:
        return Beyond([not_compared(label, f"{error}")])
    try:
        found = _under(condition, subject, dtype, "candidate")
        measured = compare(expected, found)
        if measured.problem == NOT_FINITE:
            return Beyond([not_compared(label, f"{condition.what} the reference overflows")])
        checks = [_in_dtype(label, expected, found, measured, truth)]
        if not measured.identical and condition.dtype is None and dtype != "float64":
            twin = _under(condition, subject, "float64", "candidate")
            exact = compare(truth, twin)
            verdict: Outcome = "equivalent" if exact.same_function else "divergent"
            checks.append(PhaseCheck(f"conditions/{condition.name}/float64", verdict, 1, exact))
    except ParityError as error:
        reason = f"{error}".splitlines()[0]
        statement = f"{condition.what} the candidate fails, and the reference does not: {reason}"
        check = PhaseCheck(label, "divergent", 1, why=reason)
        return Beyond([check], [Cause(condition.name, statement, ("the model",), hint=condition.hint)])
    wrong = next((check for check in reversed(checks) if check.verdict == "divergent"), None)
    if wrong is None:
        return Beyond(checks)
    return Beyond(checks, [Cause(condition.name, _statement(condition, wrong), ("the model",), hint=condition.hint)])


def _in_dtype(
    label: str, expected: torch.Tensor, found: torch.Tensor, measured: Measurement, truth: torch.Tensor
) -> PhaseCheck:
    """Judges logits in the dtype under test, by the noise that the reference itself makes there."""
    if measured.identical:
        return PhaseCheck(label, "identical", 1, measured, 1.0)
    noise = None if measured.problem else noise_ratio(expected, found, truth)
    is_right = noise is not None and noise <= NOISE_BOUND
    return PhaseCheck(label, "equivalent" if is_right else "divergent", 1, measured, noise, measured.problem)


def _statement(condition: Condition, check: PhaseCheck) -> str:
    assert check.worst is not None
    if check.worst.problem:
        return f"{condition.what} the candidate's logits are wrong: {check.worst.problem}"
    if check.name.endswith("/float64"):
        return f"{condition.what} the candidate computes another function, off by {check.worst.relative:.1e}"
    return f"{condition.what} the candidate is {check.noise or float('inf'):.0f} times less accurate than the reference"


def why_no_compiler(device: torch.device | None = None) -> str | None:
    """Says why nothing can be compiled for a device (by default the CPU), or returns None."""
    if not hasattr(torch, "compiler") or not hasattr(torch.compiler, "reset"):
        return f"torch {torch.__version__} cannot be asked to forget what it has compiled"
    layer = nn.Linear(2, 2, device=device)
    try:
        with torch.no_grad(), _compiled(layer):
            layer(torch.ones(1, 2, device=device))
    except Exception as error:  # noqa: BLE001  (there is no list of what a missing compiler raises)
        return f"nothing can be compiled here: {f'{error}'.strip().splitlines()[0]}"
    return None


def _under(condition: Condition, subject: Subject, dtype: str, owner: str) -> torch.Tensor:
    model = getattr(subject.models, owner)
    return _logits(model, subject.models.images, dtype, owner, condition)


def _logits(
    model: nn.Module,
    images: torch.Tensor,
    dtype: str,
    owner: str,
    condition: Condition = PLAIN,
) -> torch.Tensor:
    """Runs a model bare, in eval mode and under a condition, and returns its logits.

    Raises:
        ParityError: the model failed.
    """
    # a block that is widened as it is entered cannot be compiled with what is around it
    first = 1 if condition is COMPILED else 0
    arrange, around = condition.arrange, condition.around
    bare = bare_run(model, images, _EVAL, DTYPES[dtype], 0, owner, arrange=arrange, around=around, first=first)
    assert bare.output is not None
    return bare.output.detach()


def _resolutions(subject: Subject, config: dict[str, Any] | None) -> Beyond:
    """Compares the logits of larger and of smaller images, if the candidate takes them, with torchvision's.

    Torchvision's models take one size; `interpolate_embeddings` makes their positions fit another.
    """
    name = "conditions/resolution"
    if config is None:
        return Beyond([not_compared(name, "the reference is no torchvision model that is given by name")])
    patch, side = config["patch_size"], config["image_size"] // config["patch_size"]
    sides = (n for n in (side + -(-side // 2), side - -(-side // 3)) if 1 <= n != side)
    found = {n: logits for n in sides if (logits := _at_resolution(subject, n * patch)) is not None}
    if not found:
        size = config["image_size"]
        return Beyond([not_compared(name, f"the candidate takes images of {size} x {size} only")])

    def measure(rule: Resizing) -> dict[int, Measurement]:
        return {n: _by_rule(subject, config, n, rule, logits) for n, logits in found.items()}

    def worst(rule: Resizing) -> float:
        return max(measured.relative for measured in measure(rule).values())

    expected = measure(_TORCHVISIONS)
    if all(measured.same_function for measured in expected.values()):
        return Beyond([_at_size(n * patch, measured) for n, measured in expected.items()])
    rules: list[Resizing] = [*RULES, Crop()] if max(found) < side else [*RULES]
    errors = {rule: worst(rule) for rule in rules}
    best = min(errors, key=errors.__getitem__)
    how = ", computed in less than float64" if SAME_FUNCTION_BOUND < errors[best] <= _ROUNDED_LOGITS else ""
    if how and best == _TORCHVISIONS:
        return Beyond(
            [_at_size(n * patch, measured, f"by torchvision's rule{how}") for n, measured in expected.items()]
        )
    fits = errors[best] <= _ROUNDED_LOGITS
    by = f"by {best}{how}" if fits else "by no rule that is known"
    cause = Cause(
        "position-resizing",
        f"for images of another size positions are resized {by}; torchvision's rule is {_TORCHVISIONS}",
        (_POSITIONS,),
        errors[best] if fits else None,
        errors[_TORCHVISIONS],
        'F.interpolate(grid, size=(h, w), mode="bicubic", align_corners=True)',
    )
    return Beyond([_at_size(n * patch, measured, f"resized {by}") for n, measured in expected.items()], [cause])


def _at_size(size: int, measured: Measurement, why: str | None = None) -> PhaseCheck:
    label = f"conditions/resolution-{size}/float64"
    if measured.relative <= _ROUNDED_LOGITS:
        return PhaseCheck(label, "identical" if measured.identical else "equivalent", 1, measured, why=why)
    return PhaseCheck(label, "divergent", 1, measured, rows=(Row(_POSITIONS, "", f"{why}", measured.relative),))


def _images_of(subject: Subject, size: int) -> torch.Tensor:
    models = subject.models
    return uniform(f"{models.seed}/images of {size}", (1, 3, size, size)).to(models.images.device)


def _at_resolution(subject: Subject, size: int) -> torch.Tensor | None:
    """Returns the candidate's logits for an image of `size` pixels; None if it takes none."""
    model = subject.models.candidate
    with contextlib.suppress(ParityError), _resizing(model):
        return _logits(model, _images_of(subject, size), "float64", "candidate")
    return None


def _by_rule(subject: Subject, config: dict[str, Any], side: int, rule: Resizing, found: torch.Tensor) -> Measurement:
    """Measures how far logits are from those of a reference for this grid, its positions resized by a rule."""
    size = side * config["patch_size"]
    resized = build_reference(config | {"image_size": size})
    state = {**subject.models.reference.state_dict()}
    # in float64, as the candidate's own table is before it is resized
    state[_POSITIONS] = rule.apply(state[_POSITIONS].detach().double(), side)
    with assigned(resized, state):
        return compare(_logits(resized, _images_of(subject, size), "float64", "reference"), found, ulp=False)


def _resizing(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Asks a model to resize its positions, if that takes asking, for as long as the context lasts."""
    parameters = inspect.signature(model.forward).parameters
    asked = next((name for name in parameters if name.startswith("interpolate_pos")), None)
    if asked is None:
        return contextlib.nullcontext()
    return _with_forward(model, functools.partial(model.forward, **{asked: True}))
