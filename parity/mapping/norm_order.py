"""In which order a block's norms and branches are matched: as pre-norm has them, wherever the norms stand."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parity.mapping.uses.operations import Operation


def norms_first(operations: list[Operation]) -> list[Operation]:
    """Puts each block's two norms before its branches, as in pre-norm, where they stand behind them.

    In order of use, a block's last norm could as well be the next one's first; their names tell to which it belongs.
    """
    return _second_norm_first(operations) or _both_norms_first(operations)


def _second_norm_first(operations: list[Operation]) -> list[Operation]:
    """Puts each block's second norm before the MLP if it stands behind that, and the first one before the attention."""
    starts = [number for number, op in enumerate(operations) if op.kind == "attention"]
    moved = operations[: starts[0]] if starts else []
    for start, stop in itertools.pairwise([*starts, len(operations)]):
        block = operations[start:stop]
        own = [number for number, op in enumerate(block) if _belongs(op, block[0])]
        matrices = [number for number in own if block[number].kind == "matrix"]
        norms = [number for number in own if block[number].kind == "norm" and block[number].key[-1] == block[0].key[-1]]
        is_before = start > 0 and operations[start - 1].kind == "norm" and _belongs(operations[start - 1], block[0])
        if not is_before or len(matrices) < 2 or len(norms) != 1 or norms[0] < matrices[-1]:
            return []
        norm, mlp = norms[0], matrices[-2]
        moved += [*block[:mlp], block[norm], *block[mlp:norm], *block[norm + 1 :]]
    return moved


def _both_norms_first(operations: list[Operation]) -> list[Operation]:
    starts = [number for number, op in enumerate(operations) if op.kind == "attention"]
    moved = operations[: starts[0]] if starts else list(operations)
    for start, stop in itertools.pairwise([*starts, len(operations)]):
        block = operations[start:stop]
        width = block[0].key[-1]
        norms = [number for number, op in enumerate(block) if op.kind == "norm" and op.key[-1] == width]
        is_before = start > 0 and operations[start - 1].kind == "norm" and _belongs(operations[start - 1], block[0])
        # where no projection stands between them, a norm behind the attention may as well be the one before the MLP
        is_behind = len(norms) > 1 and norms[1] > norms[0] + 1 and all(_belongs(block[n], block[0]) for n in norms[:2])
        if not is_behind or (is_before and start == starts[0]):
            return list(operations)
        first, second = norms[:2]
        moved += [block[first], *block[:first], block[second], *block[first + 1 : second], *block[second + 1 :]]
    return moved


def _belongs(operation: Operation, attention: Operation) -> bool:
    """Whether an operation and an attention are parts of one numbered module."""
    return _owner(operation) == _owner(attention) != ""


def _owner(operation: Operation) -> str:
    """Returns the numbered module that an operation belongs to, such as `blocks.0.`, if there is one."""
    match = re.match(r".*?(^|\.)\d+\.", operation.views[0].name)
    return match[0] if match else ""
