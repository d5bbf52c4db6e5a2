"""What no check shows by itself: comparisons that could not have failed, and faults that leave no trace in a tensor."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from parity.diagnosis.checks import DTYPES
from parity.diagnosis.native_kernel import fault_of_the_kernel, makes_the_difference
from parity.diagnosis.other_images import faults_on_other_images
from parity.diagnosis.other_runs import faults_of_other_runs
from parity.diagnosis.verdict import Doubts
from parity.errors import listed
from parity.models import cut, split, tensors_of, uniform
from parity.tracing import (
    MODES,
    NOT_FINITE,
    bare_run,
    first_tensor,
    is_degenerate,
    is_finite,
    random_state_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import nn

    from parity.diagnosis.bare import BareRuns
    from parity.diagnosis.other_runs import Anew
    from parity.diagnosis.verdict import Check, Place, Verdict
    from parity.tracing import Mode, Models, Pass, Subject


def find_doubts(
    subject: Subject, checks: list[Check], bare: BareRuns, anew: Anew, *, synthetic: bool, singly: bool = False
) -> Doubts:
    """Looks for what the checks cannot show, and for what would make them worthless.

    Args:
        subject: who is compared.
        checks: all that were made.
        bare: how both models run with nobody watching.
        anew: holds the candidate as it is when it has never been run; None if that can't be had.
        synthetic: the weights are our own, in which every parameter is known to have an effect.
        singly: only one image at a time is shown.
    """
    models = subject.models
    by_kernel = functools.cache(functools.partial(makes_the_difference, bare, models, DTYPES[subject.dtype]))
    unusable = _unusable(models, checks, bare, subject.dtype, by_kernel)
    is_settled = unusable or any(check.verdict == "divergent" and not check.mode.train for check in checks)
    faults, draws = ([], []) if unusable else _randomness(models, checks, bare, subject.dtype)
    faults += [] if unusable else _kernels_alone(models, checks, bare, subject.dtype, by_kernel)
    if not is_settled:
        faults += faults_of_other_runs(subject, checks, bare, anew)
        faults += faults_on_other_images(subject, bare.branches, singly=singly)
    unreached = [] if is_settled else bare.branches.untaken()
    blind = _blind(models, checks, synthetic=synthetic)
    unmapped, overwritten = subject.mapping.without_counterpart(), subject.held.written_to()
    notes = [*draws, *_in_words(unreached)]
    if bare.branches.drawing and not (unusable or faults or draws):
        what = f"random numbers are drawn in eval mode ({listed([*bare.branches.drawing], 3)})"
        notes.append(f"{what}, and those that were drawn have changed nothing")
    return Doubts(*map(tuple, (unusable, blind, faults, unmapped, overwritten, notes)))


def if_the_map_is_right(subject: Subject, places: list[Place], reasons: list[str]) -> tuple[Verdict, list[str]]:
    """Returns the verdict on a difference that no cause explains: where the map isn't proved it may be the map's.

    Args:
        subject: who is compared.
        places: where they differ.
        reasons: why they are divergent under this map, a sentence each.
    """
    said = _in_another_form(subject, places) or _undecided(subject.mapping.undecided, places)
    if not said:
        return "divergent", reasons
    return "inconclusive", [said, _TO_DECIDE, *reasons]


def _undecided(names: Sequence[str], places: list[Place]) -> str | None:
    owners = _owners(names)
    if not owners or any(not _is_around_any(place.reference, owners) for place in places):
        return None
    return f"the models differ only where the weight map isn't proved: {listed([*names], 3)}"


_TO_DECIDE = "to decide it, write the map that you know to be right with `parity map -o FILE` and --mapping FILE"


def _owners(names: Iterable[str]) -> set[str]:
    return {split(name)[0].rpartition(".")[0] for name in names}


def _in_another_form(subject: Subject, places: list[Place]) -> str | None:
    """Says that tensors without a counterpart may be each other's, where they hold equally many values together.

    A module that differs although all of its tensors have a counterpart differs however the others belong together.
    """
    found, models = subject.mapping, subject.models
    left = found.unmapped_reference, found.unmapped_candidate
    counts = [_values(names, model) for names, model in zip(left, (models.reference, models.candidate), strict=True)]
    owners = _owners(left[0])
    is_elsewhere = any(place.kind == "module" and not _is_around_any(place.reference, owners) for place in places)
    if not all(left) or counts[0] != counts[1] or is_elsewhere:
        return None
    theirs, ours = (listed([*names], 3) for names in left)
    many = f"{ours} of your model have as many values as {theirs} of the reference"
    return f"{many}, and may be these in another form, for which no weight map was found"


def _values(names: Iterable[str], model: nn.Module) -> int:
    tensors = tensors_of(model)
    return sum(cut(tensors[name], box).numel() for name, box in map(split, names))


def _is_around_any(one: str, others: Iterable[str]) -> bool:
    """Whether a module is one of some others, or is around one or inside one."""
    return any(f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.") for other in others)


def _unusable(
    models: Models, checks: list[Check], bare: BareRuns, dtype: str, by_kernel: Callable[[Mode], bool]
) -> list[str]:
    made = [(check, check.free) for check in checks if check.free]
    reasons: list[str] = []
    for number, (check, free) in enumerate(_run_in(checks, dtype)):
        for model, owner, watched in (
            (models.reference, "reference", free.reference_output),
            (models.candidate, "candidate", free.candidate_output),
        ):
            if reasons or (owner == "reference" and number) or _is_steady(bare, owner, watched, check):
                continue
            if owner == "reference" or not by_kernel(check.mode):  # which is a fault of the candidate's, or rounding
                reasons += _unsteady(model, owner, watched, models, check.mode, DTYPES[dtype])
    if any(m.problem == NOT_FINITE for _, free in made for m in free.measured.values()):
        reasons.append("the reference itself has values that are not finite; use other weights or inputs")
    return reasons


def _run_in(checks: Iterable[Check], dtype: str) -> list[tuple[Check, Pass]]:
    """Returns the checks that ran the models in a dtype, each with what it saw."""
    return [(check, check.free) for check in checks if check.free and check.name.endswith(dtype) and not check.like]


def _kernels_alone(
    models: Models, checks: Iterable[Check], bare: BareRuns, dtype: str, by_kernel: Callable[[Mode], bool]
) -> list[str]:
    """Says what torch's native kernel makes of the candidate where watching keeps torch from taking it."""
    for check, free in _run_in(checks, dtype):
        is_steady = _is_steady(bare, "candidate", free.candidate_output, check)
        if not is_steady and by_kernel(check.mode):
            return fault_of_the_kernel(models, bare)
    return []


def _is_steady(bare: BareRuns, owner: str, watched: torch.Tensor, check: Check) -> bool:
    """Whether a bare run has the bits of the watched one, which a run whose dropout is made another can't have."""
    is_plain = check.mode.has_own_masks
    return not is_finite(watched) or (is_plain and torch.equal(bare.of(owner, check.mode).output, watched))


def _blind(models: Models, checks: list[Check], *, synthetic: bool) -> list[str]:
    reasons = []
    shown = next((check.free for check in checks if check.free), None)
    why = is_degenerate(shown.reference_output) if shown else None
    if why:
        reasons.append(
            f"the reference's logits {why}, so no comparison of them could have failed; use weights that make a "
            "difference, such as --weights synthetic (torchvision's fresh models have a head of zeros)"
        )
    dead = [] if synthetic else _dead_parameters(models)
    if dead:
        reasons.append(
            f"{len(dead)} parameters of the reference have no effect on its logits (gradient exactly 0), so wrong ones "
            f"would not show: {listed(dead)}"
        )
    return reasons


def _in_words(unreached: list[str]) -> list[str]:
    if not unreached:
        return []
    return [f"not covered, since nothing that was tried gets there: {listed(unreached)}"]


def _randomness(models: Models, checks: list[Check], bare: BareRuns, dtype: str) -> tuple[list[str], list[str]]:
    """Says what the candidate does with torch's random numbers that it should not, and what both models do.

    Returns:
        What the candidate alone does, and what both do, a sentence each.
    """
    faults: list[str] = []
    both: list[str] = []
    watched = next((c.free.candidate_output for c in checks if c.free and c.name == f"forward/eval/{dtype}"), None)

    def draws(owner: str) -> bool:
        model = models.candidate if owner == "candidate" else models.reference
        other = bare_run(model, models.images, MODES["eval"], DTYPES[dtype], models.seed, owner).output
        assert other is not None
        return not _are_the_same(bare.of(owner, MODES["eval"]).output, other)

    def sets_the_seed(owner: str) -> bool:
        states = [bare.of(owner, MODES[mode]).random_state for mode in ("eval", "train")]
        seeds = [torch.Generator().set_state(state).initial_seed() for state in states]
        return seeds != [torch.Generator().set_state(random_state_of(models.seed + n)).initial_seed() for n in (1, 0)]

    is_steady = watched is not None and torch.equal(bare.of("candidate", MODES["eval"]).output, watched)
    for is_so, said in ((sets_the_seed, _SEEDING), (draws, _DRAWING)):
        if (is_so is draws and is_steady) or not is_so("candidate"):
            continue
        drawing = bare.branches.drawing
        where = f" ({listed([*drawing], 3)})" if drawing else ""
        is_both = is_so("reference")
        (both if is_both else faults).append(
            said.format(who="both models" if is_both else "the candidate", where=where)
        )
    return faults, both


_DRAWING = "random numbers in eval mode: the logits of {who} depend on torch's random state{where}"
_SEEDING = (
    "the forward pass of {who} sets the seed of torch's global generator, so that whatever is random is the same at "
    "every step; take torch.manual_seed out of it"
)


def _unsteady(
    model: nn.Module, owner: str, watched: torch.Tensor, models: Models, mode: Mode, dtype: torch.dtype
) -> list[str]:
    """Says why bare runs, without hooks, don't have the bits of the watched one."""
    run = functools.partial(bare_run, model, models.images, mode, dtype, models.seed, owner)
    first = run().output
    assert first is not None
    if torch.equal(first, watched):
        return []
    second = run().output
    assert second is not None
    if _are_the_same(first, second):
        return [f"watching the {owner}'s modules changes its result; it must not look at its own hooks"]
    return [f"the {owner} is not deterministic: two runs on the same input, weights and random state differ"]


def _are_the_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two results have the same bits, and what is no number in the same places."""
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def _dead_parameters(models: Models) -> list[str]:
    """Returns the parameters of the reference whose gradient, for a random projection of the logits, is exactly 0."""
    model, alive = models.reference, set()

    def note(name: str, parameter: torch.Tensor) -> None:
        if parameter.grad is not None and bool(parameter.grad.any()):
            alive.add(name)
        parameter.grad = None  # only one gradient at a time takes memory

    parameters = dict(model.named_parameters())
    handles = [
        parameter.register_post_accumulate_grad_hook(functools.partial(note, name))  # type: ignore[no-untyped-call]
        for name, parameter in parameters.items()
        if hasattr(parameter, "register_post_accumulate_grad_hook")  # since torch 2.1
    ]
    training = model.training
    try:
        with torch.enable_grad():
            logits = first_tensor(model.eval()(models.images[:1]))
            assert logits is not None
            direction = uniform(f"{models.seed}/projection", tuple(logits.shape)).to(logits)
            torch.autograd.backward((logits * direction).sum())
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
        for name, parameter in parameters.items():
            note(name, parameter)
    return [name for name in parameters if name not in alive]
