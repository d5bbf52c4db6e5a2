"""Why no float32 tolerance tells right from wrong: how far logits of ViT-B/16 are apart in both dtypes.

python -m tests.corpus.tolerances
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import parity
from parity.models.reference import configuration
from tests.corpus.bugs import BUGS
from tests.corpus.cases import Case
from tests.corpus.hosts import HOSTS
from tests.corpus.running import built, difference, host_logits, logits
from tests.peers import timm_vit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

BASE = {key: value for key, value in configuration("vit_b_16", {}).items() if not key.endswith("dropout")}
_DTYPES = ("float32", "float64")


def rows(settings: dict[str, Any], peer: nn.Module) -> Iterator[tuple[str, float | None, float | None]]:
    """Yields what is compared, and the relative distance of the logits in float32 and in float64.

    Args:
        settings: of torchvision's ViT.
        peer: another right implementation of it.
    """
    host, frozen = HOSTS["ours"], tuple(sorted(settings.items()))
    expected = {dtype: host_logits(host.name, frozen, "synthetic", "eval", dtype) for dtype in _DTYPES}
    report = parity.check(peer, overrides=settings, modes=["eval"])
    apart = {check.name: check.free.measured for check in report.checks if check.free}  # type: ignore[union-attr]
    others = [list(apart[f"forward/eval/{dtype}"].values())[-1].relative for dtype in _DTYPES]
    yield "timm's ViT with the right weights", others[0], others[1]
    yield "the reference against its own float64 self", difference(expected["float64"], expected["float32"]), None
    for bug, what in (
        ("eps-1e-5-in-first-norm", "one LayerNorm with eps 1e-5 instead of 1e-6"),
        ("eps-1.1e-6-in-first-norm", "one LayerNorm with eps 1.1e-6"),
    ):
        case = Case(next(one for one in BUGS if one.id == bug), host, block=settings["num_layers"] // 2)
        with tempfile.TemporaryDirectory() as folder:
            spec = case.write(Path(folder))
            found = [
                difference(expected[dtype], logits(built(spec, settings), host, frozen, dtype=dtype))
                for dtype in _DTYPES
            ]
        yield what, found[0], found[1]


def main() -> int:
    """Measures at ViT-B/16's size and writes the table."""
    argparse.ArgumentParser(
        prog="python -m tests.corpus.tolerances", description=__doc__.partition("\n")[0]
    ).parse_args()
    torch.manual_seed(0)
    lines = ["| case | float32 | float64 |", "| --- | --- | --- |"]
    for what, *apart in rows(BASE, timm_vit()):
        lines.append(f"| {what} | {' | '.join('' if value is None else f'{value:.1e}' for value in apart)} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
