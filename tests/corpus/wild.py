"""What people's ViTs get wrong, how often, what it costs at ViT-B/16's size, and how a check says it.

python -m tests.corpus.wild [--output docs/wild.md]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torchvision

from parity import check
from tests.corpus.bugs import BUGS
from tests.corpus.cases import Case
from tests.corpus.hosts import HOSTS
from tests.corpus.matrix import written
from tests.corpus.running import built, difference, host_logits, logits
from tests.corpus.tolerances import BASE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPOSITORIES = 75

# How many of the repositories have it, what it is, and the bug of the corpus that is an example of it.
FOUND = (
    (55, "LayerNorm with PyTorch's eps, 1e-5", "eps-1e-5-everywhere"),
    (20, "no final norm", "final-norm-missing"),
    (17, "no bias of query, key and value", "qkv-bias-missing"),
    (10, "another scale of attention", "scale-by-width"),
    (9, "more layers in the head", "projection-and-tanh-before-head"),
    (8, "fixed positions", "positions-sinusoidal"),
    (7, "more norms", "norm-before-blocks"),
    (7, "another activation", "activation-relu"),
    (5, "an activation after the MLP as well", "activation-after-mlp"),
    (5, "one block for all", "one-block-for-all"),
    (5, "norms after the branches", "post-norm"),
    (5, "probabilities instead of logits", "logits-softmax"),
    (5, "no projection of attention's output", "output-projection-missing"),
    (5, "hard-wired precision", "norms-in-bfloat16"),
    (5, "a reshape that mixes the heads", "heads-merged-without-transpose"),
    (5, "softmax over another axis", "softmax-over-queries"),
    (5, "a lost residual connection", "attention-residual-missing"),
    (5, "the mean of all tokens", "pool-mean"),
    (5, "dropout in eval mode", "dropout-of-tokens-in-eval"),
    (5, "a norm that is built and never applied", "final-norm-not-applied"),
)
_AT_MOST = 5  # counted no closer


class Cost(NamedTuple):
    """What a bug does to a ViT-B/16.

    Attributes:
        synthetic: relative distance of the logits in float64, with the weights that a check has.
        fresh: the same with weights as torchvision draws them, in which biases are 0 and scales 1.
    """

    synthetic: float
    fresh: float


def cost(bug: str, settings: dict[str, Any], folder: Path) -> Cost:
    """Plants a bug in all blocks of the scratch ViT and compares it with the unplanted one."""
    host = HOSTS["ours"]
    case = Case(next(one for one in BUGS if one.id == bug), host)
    frozen = tuple(sorted(settings.items()))
    apart = []
    for weights in ("synthetic", "initial"):
        expected = host_logits(host.name, frozen, weights, "eval", "float64")
        apart.append(difference(expected, logits(built(case.write(folder), settings), host, frozen, weights)))
    return Cost(*apart)


def said(bug: str, folder: Path) -> tuple[str, str]:
    """Returns the cause that a check of the planted model names, and its statement."""
    case = Case(next(one for one in BUGS if one.id == bug), HOSTS["ours"])
    report = check(case.write(folder), overrides=case.settings, modes=["eval"])
    return " and ".join(cause.id for cause in report.causes), "; ".join(cause.statement for cause in report.causes)


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Returns the page."""
    return "\n".join(_page(rows)) + "\n"


def _page(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"""# What people's ViTs get wrong

79 public Vision Transformers written from scratch ({REPOSITORIES} repositories) were mapped by hand and compared with
torchvision's in float64:

| | of 79 |
| --- | --- |
| the same function | 8 |
| the same parameters, and another function | 23 |
| other parameters | 37 |
| they don't run | 11 |

Often several things differ at once, up to nine. In all of the 68 that run, the differences found explain the output
completely (to about 1e-15), and leaving out any one of them breaks that.

How often, by repository; what it costs a ViT-B/16 in which nothing else is wrong; and what `parity check` says of it.
The costs are relative distances of the logits in float64: with synthetic weights, in which every tensor is random, and
with fresh ones, as torchvision draws them, where what concerns biases or scales does not show yet.

| what | repositories | synthetic weights | fresh weights | cause | in words |
| --- | --- | --- | --- | --- | --- |"""
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield f"""
A norm's eps is the one that nobody notices: with weights of usual size it moves the logits by no more than a usual
tolerance lets pass, and three repositories of four have it.

The shares are those of the survey. The costs and the words are written by `python -m tests.corpus.wild --output
docs/wild.md` with torch {torch.__version__}, torchvision {torchvision.__version__}."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every row and writes the page, by default to stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus.wild", description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args(arguments)
    rows = []
    for number, (count, what, bug) in enumerate(FOUND):
        print(f"{number + 1} of {len(FOUND)}: {what}", file=sys.stderr)  # noqa: T201  (progress)
        with tempfile.TemporaryDirectory() as folder:
            measured, (cause, words) = cost(bug, BASE, Path(folder)), said(bug, Path(folder))
        share = f"{count}" if count > _AT_MOST else f"{_AT_MOST} or fewer"
        rows.append([what, share, f"{measured.synthetic:.1e}", f"{measured.fresh:.1e}", f"`{cause}`", words])
    page = as_markdown(rows)
    if options.output:
        with written(options.output) as temporary:
            temporary.write_text(page, encoding="utf-8")
    else:
        sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
