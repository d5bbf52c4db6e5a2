"""Two neighbouring releases: with the same weights and images, which layer's bits moved first, and how far."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from parity.releases.rows import LOGITS, file_of
from parity.tracing import IDENTICAL, MODES, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    import torch

    from parity.releases.rows import Row
    from parity.tracing import Measurement

    _Kept: TypeAlias = Callable[[str | None], torch.Tensor | None]

SIDES = ("reference", "candidate")

# what two rows have to have in common for their bits to be comparable
_SAME = {"machine": "another system", "processor": "another processor", "threads": "other threads"}


@dataclass(frozen=True)
class Move:
    """Bits of one model that are others than on the release before, in one dtype.

    Attributes:
        sides: `reference`, `candidate`, or both, where both have moved alike.
        model: which architecture and size.
        modes: of `tracing.MODES`, those in which it has moved alike.
        dtype: the model was held in.
        first: the first layer, by the reference's name, whose output has moved.
        first_ulp: how far that has, in units of the last place; None where its values are not kept.
        max_ulp: the largest distance at any layer; None likewise.
        logits_ulp: the distance of the logits; 0 if they have not moved.
        logits: their distance relative to their norm; 0 likewise.
        layers: how many have moved.
    """

    sides: tuple[str, ...]
    model: str
    modes: tuple[str, ...]
    dtype: str
    first: str
    first_ulp: int | None
    max_ulp: int | None
    logits_ulp: int | None
    logits: float | None
    layers: int


@dataclass(frozen=True)
class Neighbours:
    """Two releases, one after the other.

    Attributes:
        older: the release of torch that comes first.
        newer: the other.
        changed: what is another besides torch, that its release brings or chooses; a phrase each.
        unlike: what besides the release is not the same, so that it may be what moved the bits; a phrase each.
        moves: what has moved.
        still: how many passes have the same bits at every layer.
        not_compared: why passes could not be compared -> how many.
    """

    older: str
    newer: str
    changed: tuple[str, ...]
    unlike: tuple[str, ...]
    moves: tuple[Move, ...]
    still: int
    not_compared: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON types."""
        return asdict(self)


def neighbours(rows: list[Row], folder: Path) -> list[Neighbours]:
    """Compares every row with the one after it.

    Args:
        rows: the oldest release first.
        folder: in which the tensors are.
    """
    return [_compared(older, newer, folder) for older, newer in itertools.pairwise(rows)]


def _compared(older: Row, newer: Row, folder: Path) -> Neighbours:
    unlike = [f"{what} ({older[key]}, {newer[key]})" for key, what in _SAME.items() if older[key] != newer[key]]
    if older["code"] != newer["code"]:
        unlike.append("other code of parity, vit or the candidate")
    moves: list[Move] = []
    still, not_compared = 0, dict[str, int]()
    with _tensors(folder, older) as one, _tensors(folder, newer) as other:
        for model, bits in older["bits"].items():
            later = newer["bits"].get(model, {"runs": {}})
            for run in dict.fromkeys([*bits["runs"], *later["runs"]]):
                for side in SIDES:
                    before, after = (found["runs"].get(run, {}).get(side) for found in (bits, later))
                    why = _why_not(bits, later, before, after)
                    if why:
                        not_compared[why] = not_compared.get(why, 0) + 1
                    elif before == after:
                        still += 1
                    else:
                        mode, dtype = run.split("/")
                        measured = _measured(before, after, one, other)
                        moves.append(_move(measured, sides=(side,), model=model, modes=(mode,), dtype=dtype))
    changed = tuple(_changed(older, newer))
    return Neighbours(older["torch"], newer["torch"], changed, tuple(unlike), tuple(_alike(moves)), still, not_compared)


def _changed(older: Row, newer: Row) -> Iterator[str]:
    """Yields the libraries inside torch that are others, and the instructions of the processor that it chooses."""
    for name in dict.fromkeys([*older["libraries"], *newer["libraries"]]):
        before, after = (row["libraries"].get(name, "none") for row in (older, newer))
        if before != after:
            yield f"{name} {before} to {after}"
    if older["cpu_capability"] != newer["cpu_capability"]:
        yield f"instructions {older['cpu_capability']} to {newer['cpu_capability']}"


def _alike(moves: list[Move]) -> Iterator[Move]:
    """Yields one move for all modes in which the same sides have moved alike."""
    groups: dict[Move, list[Move]] = {}
    for move in moves:
        groups.setdefault(replace(move, sides=(), modes=()), []).append(move)
    for what, where in groups.items():
        sides = {mode: tuple(move.sides[0] for move in where if move.modes == (mode,)) for mode in MODES}
        for moving in dict.fromkeys(filter(None, sides.values())):
            yield replace(what, sides=moving, modes=tuple(mode for mode in MODES if sides[mode] == moving))


def _why_not(bits: dict[str, Any], later: dict[str, Any], before: Any, after: Any) -> str:
    if before is None or after is None:
        return "one of the two cannot run it"
    if bits["weights"] != later["weights"]:
        return "other weights"
    if bits["images"] != later["images"]:
        return "other images"
    return ""


def _measured(before: dict[str, str], after: dict[str, str], one: _Kept, other: _Kept) -> dict[str, Measurement | None]:
    """Returns the distance of every layer that has moved, in the order of execution; None where no value was kept.

    Args:
        before: digests by layer.
        after: the same of the newer release.
        one: returns a tensor of the older release by its digest.
        other: the same of the newer.
    """
    layers = [name for name in after if before.get(name) != after[name]] or [*before.keys() - after.keys()]
    pairs = ((name, one(before.get(name)), other(after.get(name))) for name in layers)
    return {name: None if r is None or c is None else compare(r, c) for name, r, c in pairs}


def _move(measured: dict[str, Measurement | None], **what: Any) -> Move:
    first, logits = next(iter(measured.items())), measured.get(LOGITS, IDENTICAL)
    distances = [found.max_ulp for found in measured.values() if found and found.max_ulp is not None]
    return Move(
        **what,
        first=first[0],
        first_ulp=first[1].max_ulp if first[1] else None,
        max_ulp=max(distances, default=None),
        logits_ulp=logits.max_ulp if logits else None,
        logits=logits.relative if logits else None,
        layers=len(measured),
    )


@contextlib.contextmanager
def _tensors(folder: Path, row: Row) -> Iterator[_Kept]:
    """Yields what returns a tensor of a row by its digest; None where it was not kept."""
    try:
        stack = contextlib.ExitStack()
        kept = stack.enter_context(safe_open(file_of(folder, row["torch"], ".safetensors"), "pt"))
    except (OSError, SafetensorError):
        yield lambda _: None
        return
    with stack:
        names = {*kept.keys()}
        yield lambda digest: kept.get_tensor(digest) if digest in names else None
