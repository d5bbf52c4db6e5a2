"""Moving real weights into a candidate's own state dict, and back: proved, written, read back and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from parity.checking import check
from parity.errors import ParityError, listed
from parity.folding import Plan, Side, effects_of, fixed_tables, in_float64, plan_folds
from parity.mapping import fitting_batch, set_up
from parity.models import build_without_values, fitted, make_inputs, read, replaced
from parity.tracing import NOISE_BOUND, SAME_FUNCTION_BOUND, ambient_kept, compare, is_degenerate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from parity.mapping import Setup
    from parity.models import WeightMap
    from parity.report import Report

# batches of more than one size, since a mistake may depend on the batch
_BATCHES = (2, 1, 3)


@dataclass(frozen=True)
class Converted:
    """Weights under the other model's names.

    Attributes:
        state: contiguous tensors of their own by name, ready for a file.
        source: where the weights come from.
        names: whose names the tensors have.
        mapping: the map that was used, in the direction in which it was used.
        report: what the check of the map says.
        folds: what was folded where the map alone is not enough, a sentence each.
        proof: why both models are the same function with these weights, or that this is not proved.
        is_proved: whether it is.
        notes: what was done to read the weights, a sentence each.
    """

    state: dict[str, torch.Tensor]
    source: str
    names: str
    mapping: WeightMap
    report: Report
    folds: Sequence[str]
    proof: str
    is_proved: bool
    notes: Sequence[str]
    _weights: Mapping[str, torch.Tensor]
    _plan: Plan

    def write(self, path: Path) -> str:
        """Writes a safetensors file, reads it back and compares both models, each with its own weights, in float64.

        Args:
            path: of the file, which must be moved to its place only if nothing is raised.

        Returns:
            How far the logits of both models agree, in a sentence.

        Raises:
            ParityError: the file doesn't load into the model that it is for, or the models don't agree.
            OSError: the file cannot be written.
        """
        about = {"format": "pt", "source": self.source, "proof": self.proof, "folds": "; ".join(self.folds)}
        path.write_bytes(safetensors.torch.save(self.state, metadata=about))
        target = self._plan.target
        again = fitted(read(f"{path}"), target.module, target.owner)
        changed = [name for name, tensor in self.state.items() if not torch.equal(again[name].to(tensor), tensor)]
        if changed:
            raise ParityError(
                f"nothing is written: what the {target.owner}'s own code makes of the weights as it loads them is "
                f"something else: {listed(changed, 3)}"
            )
        with ambient_kept():
            return self._compared(again)

    def _compared(self, state: Mapping[str, torch.Tensor]) -> str:
        source, target = self._plan.source, self._plan.target
        wanted, found = source.logits(self._weights), _loaded(target, state)
        measured = compare(wanted, found, ulp=False)
        bound = SAME_FUNCTION_BOUND
        rounded = ""
        if self.folds:
            # what is folded is rounded once more, which may do no more than rounding does to the source itself
            noise = compare(wanted, source.logits(self._weights, dtype=torch.float32), ulp=False).relative
            bound = max(bound, NOISE_BOUND * noise)
            if measured.relative > SAME_FUNCTION_BOUND:
                rounded = f"; before what is folded was rounded, to {max(self._plan.errors):.1g}"
        size = measured.problem or f"{measured.relative:.1g}"
        if not self.is_proved:
            return (
                f"read back: logits of both models differ by {size}, and that they are the same function is not proved"
            )
        if measured.relative > bound or (self.folds and not compare(target.logits(self.state), found).same_function):
            raise ParityError(
                f"nothing is written: read back into the {target.owner}, the weights give logits that differ from the "
                f"{source.owner}'s by {size}, where {bound:.1g} is the most; look closer with `parity check`"
            )
        why = is_degenerate(wanted)
        nothing_shown = f", but they {why} whatever the images, which shows little" if why else ""
        return f"read back: logits of both models agree to {size}{rounded}{nothing_shown}"


@ambient_kept()
def convert(
    candidate: str | Callable[..., Any],
    reference: str = "vit_b_16",
    *,
    weights: str = "official",
    reverse: bool = False,
    force: bool = False,
    overrides: Mapping[str, Any] | None = None,
    candidate_args: Mapping[str, Any] | None = None,
    reference_args: Mapping[str, Any] | None = None,
    mapping: str | Path | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Converted:
    """Turns the reference's weights into the candidate's state dict, or the candidate's into the reference's.

    The map is proved first: both models run in float64, and must be the same function under it. What the map leaves
    over, and what a complete explanation says of the candidate, is folded into other weights where that is the same
    function, which is proved with these weights and with others.

    Args:
        candidate: as in `check`.
        reference: as in `check`.
        weights: the weights to move: as in `check`; with `reverse` a file of the candidate's own.
        reverse: from the candidate's names to the reference's.
        force: convert although the models are not the same function.
        overrides: as in `check`.
        candidate_args: as in `check`.
        reference_args: as in `check`.
        mapping: as in `check`.
        progress: as in `check`.

    Raises:
        ParityError: as in `check`; the weights are not the source's, or cannot be the target's; or it is not proved
            that both models are the same function, and `force` was not given.
        MappingError: the weights are not those of the map.
    """
    chosen = "synthetic" if reverse else weights
    setup = set_up(candidate, reference, overrides or {}, candidate_args, chosen, 0, reference_args)
    progress(f"weights {weights}", 0, 0)
    source, target = _sides(setup, reverse=reverse)
    if reverse:
        checkpoint = read(weights)
        held, origin, notes = fitted(checkpoint, source.module, "candidate"), weights, checkpoint.notes
    else:
        held, origin = setup.weights.state_dict(setup.reference), setup.weights.source
        notes = list(setup.weights.notes)
    report = check(
        candidate,
        reference,
        overrides={**setup.weights.config, **(overrides or {})},  # with the sizes that the weights bring
        candidate_args=candidate_args,
        reference_args=reference_args,
        weights="synthetic",
        mapping=mapping,
        modes=["eval"],
        dtype="float64",
        batch=2,
        progress=progress,
    )
    found = report.mapping
    if found is None:
        raise _not_proved(report)
    if setup.candidate.computed:
        raise ParityError(
            f"the candidate computes {listed(setup.candidate.computed)} of other tensors, for which there is no one "
            "choice of values; convert for the candidate without that, and apply it once the weights are loaded"
        )
    plan = Plan(source, target, found.invert() if reverse else found, forward=not reverse)
    is_proved, proof = not report.exit_status, f"{report.verdict}, {report.reasons[0]}"
    if not is_proved:
        progress("folding what is left over", 0, 0)
        plan = _with_folds(plan, report, setup, held)
        is_proved = plan.is_proved
        if not is_proved and not force:
            raise _not_proved(report, plan.unfolded)
        proof = f"not proved, since the models are {report.verdict}: {report.reasons[0]}"
        if is_proved:
            these, others = plan.errors
            proof = (
                f"the same function with {len(plan.sentences)} fold{'s' * (len(plan.sentences) > 1)}: in float64 both "
                f"models agree to {these:.1g} with these weights, and to {others:.1g} with others"
            )
    moved = plan.apply(in_float64(held) if plan.sentences else held)
    state = _fitting(moved, target, has_folds=bool(plan.sentences))
    names = setup.name if reverse else setup.candidate.name
    return Converted(state, origin, names, plan.mapping, report, plan.sentences, proof, is_proved, notes, held, plan)


def _sides(setup: Setup, *, reverse: bool) -> tuple[Side, Side]:
    """Returns source and target, and the images that both take."""
    module = setup.candidate.build()
    shown = [make_inputs("random", setup.weights, setup.image_shape, n, seed=n).images for n in _BATCHES]
    only = fitting_batch(build_without_values(setup.candidate), shown[0])
    if only is not None:
        shown = [make_inputs("random", setup.weights, setup.image_shape, only).images]
    sides = Side(setup.reference, "reference", tuple(shown)), Side(module, "candidate", tuple(shown))
    return (sides[1], sides[0]) if reverse else sides


def _with_folds(plan: Plan, report: Report, setup: Setup, weights: Mapping[str, torch.Tensor]) -> Plan:
    """Returns the plan with whatever folds there are; as it is if there is nothing to fold."""
    explanation = report.explanation
    changes = explanation.changes if explanation and explanation.complete else ()
    state = setup.reference.state_dict()
    # what the map leaves over is folded whatever the explanation makes of it
    left = {*plan.mapping.unmapped_reference, *plan.mapping.unmapped_candidate}
    effects = [effect for effect in effects_of(changes, setup.config, state) if not left.issuperset(effect.parts)]
    if plan.mapping.is_complete and not effects:
        return plan
    fixed = {} if plan.forward else fixed_tables(changes, state)
    plan = Plan(plan.source, plan.target, plan.mapping, plan.forward, effects, fixed)
    return plan_folds(plan, weights)


def _not_proved(report: Report, unfolded: Sequence[str] = ()) -> ParityError:
    left = f"; no other weights can take over what {listed([*unfolded], 3)} does" if unfolded else ""
    return ParityError(
        f"the map is not proved, since the models are {report.verdict}: {report.reasons[0]}{left}; look closer with "
        "`parity check` and `parity map`, or convert all the same with --force"
    )


def _fitting(state: Mapping[str, torch.Tensor], target: Side, *, has_folds: bool) -> dict[str, torch.Tensor]:
    """Returns tensors with storage of their own, as `target` has them: names, shapes and dtypes, all of them finite.

    Raises:
        ParityError: one is missing, has another shape, is not finite, or loses digits in the model's own dtype.
    """
    own = target.own
    missing = [name for name in own if name not in state]
    if missing:
        raise ParityError(f"nothing is written: the map gives no values to {listed(missing, 3)} of the {target.owner}")
    fitting = {}
    for name, mine in own.items():
        tensor = state[name].detach()
        if tensor.shape != mine.shape:
            raise ParityError(
                f"nothing is written: {name} would have shape {tuple(tensor.shape)}, and the {target.owner} has "
                f"{tuple(mine.shape)}"
            )
        fitting[name] = tensor.to(mine.dtype, copy=True).contiguous()
        is_own = not mine.is_meta and torch.equal(fitting[name], mine)
        if not is_own and not bool(torch.isfinite(fitting[name]).all()):
            raise ParityError(f"nothing is written: {name} would have values that are not finite")
        if not has_folds and not torch.equal(fitting[name].to(tensor.dtype), tensor):
            dtype = f"{mine.dtype}".removeprefix("torch.")
            raise ParityError(
                f"nothing is written: {name} is {dtype} in the {target.owner}, which cannot hold the weights exactly; "
                "build it in float32"
            )
    return fitting


def _loaded(target: Side, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns the logits of `target` in float64, after it has loaded `state` by its own code, strictly."""

    def room(_: str, tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(tensor, device="cpu") if tensor.is_meta else tensor.detach().clone()

    with replaced(target.module, room):
        try:
            target.module.load_state_dict(dict(state))
        except Exception as error:
            reason = " ".join(f"{error}".split())
            raise ParityError(
                f"nothing is written: the {target.owner} cannot load the weights, {type(error).__name__}: {reason}"
            ) from error
        return target.logits({})
