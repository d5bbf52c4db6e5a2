"""Finding the weight map between two models that nobody has written one for.

What the shapes, the operations and their order leave open is decided by running: both models go in step, in float64 and
with synthetic weights, up to the end of the first block, once for every map that is possible. The right one agrees, and
that no other does is the proof that it is the only one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from parity.errors import MappingError, ParityError, listed
from parity.mapping.apart import ImagesMixError
from parity.mapping.decisions import AMBIGUOUS, CLOSEST, PROVED
from parity.mapping.effects import with_effects
from parity.mapping.head_widths import of_other_widths
from parity.mapping.images import image_shape
from parity.mapping.matching import match
from parity.mapping.own_sizes import inner_width
from parity.mapping.pieces import with_pieces
from parity.mapping.trial import BREAKS, Trial, as_map
from parity.mapping.uses.gathering import mark_idle, trace_uses
from parity.mapping.uses.ways import ATTENTION
from parity.models import (
    UNUSED,
    WeightMap,
    as_pattern,
    by_name,
    configuration_of,
    expand,
    lacks_values,
    read_map,
    require_bijection,
    require_separate,
    split,
    state_shapes,
    uniform,
    without_values,
)
from parity.tracing import ambient_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch
    from torch import nn

    from parity.mapping.uses.gathering import Uses
    from parity.mapping.uses.ways import Matches
    from parity.models import Shapes


@ambient_kept()
def infer_mapping(
    reference: nn.Module,
    candidate: nn.Module,
    path: Path | None = None,
    *,
    images: torch.Tensor | None = None,
    build: Callable[[], nn.Module] | None = None,
) -> WeightMap:
    """Finds the weight map between two modules.

    Neither module is changed; both are run, on weights of their own making.

    Args:
        reference: the model taken as right.
        candidate: the model under test, on any device.
        path: a written map to use. Without it equal names are tried, then the maps that are shipped, then the map is
            inferred from what both models do with their tensors.
        images: two images or more (B, C, H, W) that both take; by default random ones that the reference takes.
        build: builds the candidate anew, with values in its buffers, should it have none.

    Returns:
        The map. Tensors without a counterpart are listed in it, with what it means that they have none.

    Raises:
        ParityError: the file cannot be read, or a model cannot be run.
        MappingError: a written map is no bijection, or no attention of the one corresponds to one of the other.
    """
    if path is not None:
        images = (_fitting_images(reference) if images is None else images)[:2]
        written = _written(path, reference, candidate, images, build)
        require_separate(written, reference, candidate)
        return written if written.is_complete else with_effects(written, reference, candidate, images)
    try:
        return by_name(reference, candidate)
    except MappingError as error:
        unnamed = error.with_traceback(None)  # a traceback keeps every caller's tensors alive
    images = _fitting_images(reference) if images is None else images
    try:
        return _inferred(reference, candidate, images, build)
    except MappingError:
        if isinstance(candidate, type(reference)):  # the same code: what the names leave over says more
            raise unnamed from None
        raise


def _written(
    path: Path,
    reference: nn.Module,
    candidate: nn.Module,
    images: torch.Tensor,
    build: Callable[[], nn.Module] | None,
) -> WeightMap:
    """Reads a written map; a buffer that it doesn't know and that the candidate never uses is left out.

    Raises:
        ParityError: it calls tensors unused that the candidate uses.
    """
    patterns, shapes = read_map(path), (state_shapes(reference), state_shapes(candidate))
    try:
        found = expand(patterns, *shapes, str(path))
    except MappingError as error:
        unknown = {*error.unmapped_candidate}
        buffers = {name for name, _ in candidate.named_buffers()}
        if not unknown or not unknown <= buffers & {*_traced(candidate, images, "candidate", build)[1].unused}:
            raise
        patterns = dataclasses.replace(patterns, unused=(*patterns.unused, *map(as_pattern, sorted(unknown))))
        found = expand(patterns, *shapes, str(path))
    if found.unused:
        idle = _traced(candidate, images, "candidate", build)[1].unused
        if used := [name for name in found.unused if split(name)[0] not in idle]:
            raise ParityError(
                f"the weight map {path} calls {listed(used)} unused, and the candidate's forward pass uses them; map "
                "them, or list them under [unmapped] as candidate"
            )
    return found


def _inferred(
    reference: nn.Module, candidate: nn.Module, images: torch.Tensor, build: Callable[[], nn.Module] | None
) -> WeightMap:
    """Infers the map in one direction or the other: which layouts are tried depends on who is taken as right."""
    there: WeightMap | MappingError
    try:
        there = _infer_at_once(reference, candidate, images, build)
    except MappingError as error:
        there = error.with_traceback(None)
    if not configuration_of(reference) and not _is_proved(there):  # torchvision's layouts are known
        with contextlib.suppress(ParityError):
            back = _infer_at_once(candidate, reference, images, None)
            if _is_proved(back):
                return back.invert()
    if isinstance(there, MappingError):
        raise there
    return there


def _is_proved(found: WeightMap | MappingError) -> bool:
    return isinstance(found, WeightMap) and found.certainty == PROVED and found.is_complete and not found.unused


def _infer_at_once(
    reference: nn.Module, candidate: nn.Module, images: torch.Tensor, build: Callable[[], nn.Module] | None
) -> WeightMap:
    try:
        return _infer(reference, candidate, images[:2], build, any_batch=False)
    except ImagesMixError:
        with contextlib.suppress(ParityError):
            alone = _infer(reference, candidate, images[:1], build)
            if alone.certainty == PROVED:
                return alone
        return _infer(reference, candidate, images[:2], build)
    except ParityError as error:
        if len(images) <= 2 or isinstance(error, MappingError):
            raise
        return _infer(reference, candidate, images, build)  # a hard-wired batch


def _fitting_images(reference: nn.Module) -> torch.Tensor:
    return uniform("images to map by", (2, *image_shape(reference)))


def _infer(
    reference: nn.Module,
    candidate: nn.Module,
    images: torch.Tensor,
    build: Callable[[], nn.Module] | None,
    *,
    any_batch: bool = True,
) -> WeightMap:
    _, ours = _traced(reference, images, "reference", None)
    module, theirs = _traced(candidate, images, "candidate", build)
    buffers = [{name for name, _ in model.named_buffers()} for model in (reference, module)]
    if Counter(op.key for op in theirs.operations) - Counter(op.key for op in ours.operations):
        with contextlib.suppress(ParityError), without_values(module):
            mark_idle(theirs, module, images.to("meta"), "candidate")
    matches = match(ours, theirs, (buffers[0], buffers[1]))
    if not (matches.choices.get(ATTENTION) or any(of_other_widths(ours, theirs))):
        config = configuration_of(reference)
        inner = inner_width(module, config)
        advice = "write a map and give it with --mapping FILE"
        if inner is not None and inner * config["num_heads"] == config["hidden_dim"]:
            advice = (
                f"each of its heads has a query, key and value of its own, of {inner} features, and what joins them is "
                f"not recognised; {advice}"
            )
        raise MappingError(
            "no projections to query, key and value that correspond to the reference's were found in the candidate; "
            f"it uses {listed([str(view) for op in theirs.operations for view in op.views])}; {advice}",
            state_shapes(reference),
            state_shapes(module),
        )
    mapped = {split(entry.candidate)[0] for entry in as_map(ours, theirs, matches, matches.defaults()).entries}
    if build is not None and lacks_values(module, besides=mapped | dict(module.named_parameters()).keys()):
        module = build()
    trial = Trial(reference, module, images, ours, theirs, matches, any_batch)
    try:
        decision = trial.decide()
    except ParityError:
        if build is None or not lacks_values(module):
            raise
        decision = dataclasses.replace(trial, candidate=build()).decide()
    found = as_map(ours, theirs, matches, decision.chosen, decision.certainty, tuple(theirs.unused))
    require_bijection(found, state_shapes(reference), state_shapes(module))
    if not found.is_complete:
        closed = with_pieces(found, (ours, theirs), (reference, module), images)
        idle = {view.name for operation in theirs.operations if operation.is_idle for view in operation.views}
        found = closed or with_effects(found, reference, module, images, idle)
        if closed and found.certainty in (AMBIGUOUS, CLOSEST):  # its logits agree, which nobody could know before
            found = dataclasses.replace(found, certainty=PROVED)
            decision = dataclasses.replace(decision, warnings=[], undecided=[])
    return dataclasses.replace(
        found,
        warnings=(*matches.warnings, *decision.warnings, *_out_of_order(found)),
        undecided=(*_open(decision.undecided, found, theirs), *_computed(found, ours, theirs)),
        meaning=_meanings(found, matches, state_shapes(reference), state_shapes(module)),
    )


def _open(undecided: Sequence[str], found: WeightMap, theirs: Uses) -> Sequence[str]:
    """Returns what other ways map to something else, if one of them may leave nothing of the candidate's over."""
    left = {split(name)[0] for name in {*found.unmapped_candidate} - {*found.without_effect, *found.constants}}
    return [] if not found.unmapped_reference and left - theirs.computed else undecided


def _computed(found: WeightMap, ours: Uses, theirs: Uses) -> list[str]:
    """Returns the reference's side of the entries of weights that one of the models computes of several tensors."""
    computed = [uses.computed if uses.computed_parts else frozenset() for uses in (ours, theirs)]
    return [
        entry.reference
        for entry in found.entries
        if split(entry.reference)[0] in computed[0] or split(entry.candidate)[0] in computed[1]
    ]


def _meanings(found: WeightMap, matches: Matches, ours: Shapes, theirs: Shapes) -> dict[str, str]:
    """Says what each tensor without a counterpart is, and which one of the other side is the closest to it."""
    meanings = dict.fromkeys(found.unmapped_reference, UNUSED)
    meanings |= matches.left_reference | matches.left_candidate | matches.left_meaning
    left = {name: split(name)[0] for name in (*found.unmapped_candidate, *found.unused)}
    for name in found.unmapped_reference:
        tensor = split(name)[0]
        alike = [other for other in left.values() if math.prod(theirs[other]) == math.prod(ours[tensor])]
        close = alike[:1] or difflib.get_close_matches(tensor, left.values(), n=1, cutoff=0.5)
        if close:
            meanings[name] += f" (the closest is {close[0]} {theirs[close[0]]}, this is {ours[tensor]})"
    return meanings


def _traced(
    model: nn.Module, images: torch.Tensor, owner: str, build: Callable[[], nn.Module] | None
) -> tuple[nn.Module, Uses]:
    """Traces a model on the meta device; with values where it refuses that."""
    with contextlib.suppress(ParityError), without_values(model):
        return model, trace_uses(model, images.to("meta"), owner)
    if build is not None and lacks_values(model):
        model = build()
    return model, trace_uses(model, images, owner)


def _out_of_order(found: WeightMap) -> list[str]:
    """Says where tensors whose names differ by one number are used in another order than that of their numbers."""
    earlier: dict[tuple[str, ...], tuple[int, str]] = {}
    warnings = []
    names = dict.fromkeys(split(entry.candidate)[0].rpartition(".")[0] for entry in found.entries)
    for name in filter(None, names):
        parts = re.split(r"(\d+)", name)
        for place in range(1, len(parts), 2):
            number, others = int(parts[place]), (*parts[:place], "", *parts[place + 1 :])
            before, before_name = earlier.get(others, (number, name))
            if before > number:
                warnings.append(f"{before_name} is used before {name}, whatever their numbers say; {BREAKS}")
            earlier[others] = number, name
    return warnings[:3]
