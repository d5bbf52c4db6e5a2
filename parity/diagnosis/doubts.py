"""What no check shows by itself: comparisons that could not have failed, and faults that leave no trace in a tensor."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

import torch

from parity.diagnosis.checks import DTYPES
from parity.diagnosis.verdict import Doubts
from parity.errors import ParityError, listed
from parity.models import is_graph, split, uniform
from parity.tracing import MODES, NOT_FINITE, bare_run, compare, first_tensor, is_degenerate, is_finite

if TYPE_CHECKING:
    from torch import nn

    from parity.diagnosis.verdict import Check, Place, Verdict
    from parity.tracing import Mode, Models, Subject


def find_doubts(subject: Subject, checks: list[Check], *, synthetic: bool) -> Doubts:
    """Looks for what the checks cannot show, and for what would make them worthless.

    Args:
        subject: who is compared.
        checks: all that were made.
        synthetic: the weights are our own, in which every parameter is known to have an effect.
    """
    models = subject.models
    unusable = _unusable(models, checks, subject.dtype)
    is_settled = unusable or any(check.verdict == "divergent" for check in checks)
    faults = [] if is_settled else _faults_on_other_batches(models)
    blind = _blind(models, checks, synthetic=synthetic)
    unmapped, overwritten = subject.mapping.without_counterpart(), subject.held.written_to()
    return Doubts(*map(tuple, (unusable, blind, faults, unmapped, overwritten)))


def if_the_map_is_right(subject: Subject, places: list[Place], reasons: list[str]) -> tuple[Verdict, list[str]]:
    """Returns the verdict on a difference that no cause explains: where the map isn't proved it may be the map's.

    Args:
        subject: who is compared.
        places: where they differ.
        reasons: why they are divergent under this map, a sentence each.
    """
    undecided = subject.mapping.undecided
    owners = {split(name)[0].rpartition(".")[0] for name in undecided}
    if not owners or any(not any(_is_around(place.reference, owner) for owner in owners) for place in places):
        return "divergent", reasons
    if _mixes_images(subject.models):
        return "divergent", ["the logits of an image depend on the other images of its batch, which mix", *reasons]
    return "inconclusive", [
        f"the models differ only where the weight map isn't proved: {listed(list(undecided), 3)}",
        "to decide it, write the map that you know to be right with `parity map -o FILE` and --mapping FILE",
        *reasons,
    ]


def _is_around(one: str, other: str) -> bool:
    """Whether two modules are the same, or one is inside the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _mixes_images(models: Models) -> bool:
    """Whether the candidate gives an image other logits when it comes alone."""
    run = functools.partial(bare_run, mode=MODES["eval"], dtype=torch.float64, seed=models.seed, owner="candidate")
    with contextlib.suppress(ParityError):
        together, alone = (run(models.candidate, images).output for images in (models.images, models.images[:1]))
        assert together is not None
        assert alone is not None
        return not compare(together[:1], alone, ulp=False).same_function
    return False


def _unusable(models: Models, checks: list[Check], dtype: str) -> list[str]:
    made = [(check, check.free) for check in checks if check.free]
    reasons = []
    for check, free in [pair for pair in made if pair[0].name.endswith(dtype)][:1]:
        for model, owner, watched in (
            (models.reference, "reference", free.reference_output),
            (models.candidate, "candidate", free.candidate_output),
        ):
            reasons += _unsteady(model, owner, watched, models, check.mode, DTYPES[dtype])
    if any(m.problem == NOT_FINITE for _, free in made for m in free.measured.values()):
        reasons.append("the reference itself has values that are not finite; use other weights or inputs")
    return reasons


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


def _faults_on_other_batches(models: Models) -> list[str]:
    """Compares the bare logits of other images, in batches of one, of two and of the checks' own size.

    A mistake may depend on the batch's size, and a model that remembers something answers an old question.
    """
    faults = []
    sizes = {len(models.images)} if is_graph(models.candidate) else {1, 2, len(models.images)}
    for batch in sorted(sizes):
        images = uniform(f"{models.seed}/other batch {batch}", (batch, *models.images.shape[1:])).to(
            models.images.device
        )
        for dtype in (torch.float32, torch.float64):  # float64 only if the bits differ in float32
            mode, seed = MODES["eval"], models.seed
            expected = bare_run(models.reference, images, mode, dtype, seed, "reference")
            try:
                found = bare_run(models.candidate, images, mode, dtype, seed, "candidate")
            except ParityError as error:
                faults.append(f"a batch of {batch} is not possible: {error}")
                break
            assert expected.output is not None
            assert found.output is not None
            measurement = compare(expected.output, found.output)
            if found.has_changed_its_input:
                faults.append("the candidate writes to the images it is given, which others may still need")
            if measurement.identical:
                break
            if dtype == torch.float64 and not measurement.same_function:
                size_of = measurement.problem or f"relative error {measurement.relative:.2g}"
                faults.append(f"not the same function on other images in a batch of {batch}: logits with {size_of}")
    return list(dict.fromkeys(faults))


def _unsteady(
    model: nn.Module, owner: str, watched: torch.Tensor, models: Models, mode: Mode, dtype: torch.dtype
) -> list[str]:
    """Checks that a bare run, without hooks, has the bits of the watched one."""
    run = functools.partial(bare_run, model, models.images, mode, dtype, models.seed, owner)
    first = run().output
    assert first is not None
    if torch.equal(first, watched) or not is_finite(watched):
        return []
    second = run().output
    assert second is not None
    if torch.equal(first, second):
        return [f"watching the {owner}'s modules changes its result; it must not look at its own hooks"]
    return [f"the {owner} is not deterministic: two runs on the same input, weights and random state differ"]


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
