"""Moving real weights into a candidate's own state dict, and back, under a map that has been proved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parity.checking import check
from parity.errors import ParityError
from parity.mapping import set_up
from parity.models import build_without_values, fitted, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import torch

    from parity.models import WeightMap
    from parity.report import Report


@dataclass(frozen=True)
class Converted:
    """Weights under the other model's names.

    Attributes:
        state: contiguous tensors of their own by name, ready for a file.
        source: where the weights come from.
        mapping: the map that was used, in the direction in which it was used.
        report: the proof of the map.
        notes: what was done to read the weights, a sentence each.
    """

    state: dict[str, torch.Tensor]
    source: str
    mapping: WeightMap
    report: Report
    notes: Sequence[str]


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

    The map is proved first: both models run in float64, and must be the same function under it.

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
        ParityError: as in `check`; or the map is not proved, and `force` was not given.
        MappingError: the weights are not those of the map.
    """
    moved_weights = "synthetic" if reverse else weights
    setup = set_up(candidate, reference, overrides or {}, candidate_args, moved_weights, 0, reference_args)
    report = check(
        candidate,
        reference,
        overrides={**setup.weights.config, **(overrides or {})},  # with the sizes that the weights bring
        candidate_args=candidate_args,
        reference_args=reference_args,
        mapping=mapping,
        modes=["eval"],
        dtype="float64",
        batch=2,
        progress=progress,
    )
    found = report.mapping
    if found is None or (report.exit_status and not force):
        raise ParityError(
            f"the map is not proved, since the models are {report.verdict}: {report.reasons[0]}; look closer with "
            "`parity check` and `parity map`, or convert all the same with --force"
        )
    progress(f"weights {weights}", 0, 0)
    if reverse:
        found, checkpoint = found.invert(), read(weights)
        moved = found.apply(fitted(checkpoint, build_without_values(setup.candidate), "candidate"))
        return Converted(_own(moved), weights, found, report, checkpoint.notes)
    moved = found.apply(setup.weights.state_dict(setup.reference))
    if build_without_values(setup.candidate).state_dict().keys() - moved.keys():
        # what the candidate never uses, and its counters and indices, are in its state dict all the same
        moved = setup.candidate.build().state_dict() | moved
    return Converted(_own(moved), setup.weights.source, found, report, setup.weights.notes)


def _own(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gives every tensor storage of its own, as a file needs it."""
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
