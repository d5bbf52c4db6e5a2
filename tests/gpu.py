"""Checks on a GPU: are the answers those of the CPU, and which of torch's settings moves bits where?

`python -m tests.gpu` writes `docs/gpu.md` and its `.json`, in some minutes. Each check runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import parity
import vit
from parity.releases.row import ARCHITECTURES
from tests.determinism import ROOT, Setting, Study, answers, measure, moves, publish, studied, what_moves
from tests.small import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAME = "gpu"
_DEVICE = "cuda"
_STEPS = 5
_ALL = ("forward", "backward", "training", "conditions")
_DIVERGENT = "tests/candidates/eps_bias_pool.py:SmallViT"

# ways to the same function by other operations than torchvision's
RIGHT = (
    "tests/candidates/linear_patches_cpp.py:MyViT",
    "tests/candidates/unfold_patches.py:UnfoldViT",
    "tests/candidates/fused_qkv.py:VisionTransformer",
    "tests/candidates/sdpa.py:FlashViT",
    "tests/candidates/einsum_parameters.py:FlaxStyleViT",
)
HALVES = ("bfloat16", "float16")


class TF32ViT(vit.ViT):
    """Tells torch to compute products with fewer digits whenever it runs."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the logits: (B, C, H, W) -> (B, num_classes)."""
        torch.backends.cuda.matmul.allow_tf32 = True
        return super().forward(images)


@dataclass(frozen=True)
class Question:
    """One check.

    Attributes:
        candidate: as in `parity check`.
        reference: the name of a torchvision ViT.
        dtype: under test beside float64.
        phases: that are made.
        is_small: of a few thousand parameters in place of the architecture's own.
    """

    candidate: str
    reference: str = "vit_b_16"
    dtype: str = "float32"
    phases: tuple[str, ...] = ("forward",)
    is_small: bool = False


def questions() -> Iterator[Question]:
    """Yields every check, those that take longest first."""
    yield from (Question("vit:ViT", name) for name in reversed(ARCHITECTURES))
    yield from (Question("vit:ViT", dtype=dtype) for dtype in HALVES)
    yield from (Question("vit:FastViT", dtype=dtype) for dtype in ("float32", *HALVES))
    yield from (Question(_DIVERGENT, dtype=dtype) for dtype in ("float32", *HALVES))
    yield from (Question(candidate, phases=_ALL, is_small=True) for candidate in ("vit:ViT", "vit:FastViT", *RIGHT))
    yield Question("tests.gpu:TF32ViT", is_small=True)
    yield from (Question(_DIVERGENT, dtype=dtype, is_small=True) for dtype in ("float32", *HALVES))


def _kernel(name: str) -> Setting:
    tell = getattr(torch.backends.cuda, f"enable_{name}_sdp", lambda _: None)
    return Setting(f"no {name} kernel for attention", f"torch.backends.cuda.enable_{name}_sdp(False)",
                   tell=lambda: tell(False))  # fmt: skip


def _of_matmul(name: str, *, value: bool) -> Callable[[], None]:
    return lambda: setattr(torch.backends.cuda.matmul, name, value)


def _only_math() -> None:
    for name in ("flash", "mem_efficient", "cudnn"):
        _kernel(name).tell()


SETTINGS = {
    "first": Setting("all as torch has it", ""),
    "again": Setting("nothing", "the same once more"),
    "tf32": Setting(
        "TF32 in products", "torch.backends.cuda.matmul.allow_tf32 = True", tell=_of_matmul("allow_tf32", value=True)
    ),
    "no-tf32": Setting(
        "no TF32 in convolutions",
        "torch.backends.cudnn.allow_tf32 = False",
        tell=lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    ),
    "bfloat16": Setting(
        "no reduced sums of bfloat16",
        "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False",
        tell=_of_matmul("allow_bf16_reduced_precision_reduction", value=False),
    ),
    "float16": Setting(
        "no reduced sums of float16",
        "torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False",
        tell=_of_matmul("allow_fp16_reduced_precision_reduction", value=False),
    ),
    "flash": _kernel("flash"),
    "mem_efficient": _kernel("mem_efficient"),
    "cudnn": _kernel("cudnn"),
    "math": Setting("attention in plain operations alone", "the three switches before", tell=_only_math),
    "benchmark": Setting(
        "cuDNN picks by trying",
        "torch.backends.cudnn.benchmark = True",
        tell=lambda: setattr(torch.backends.cudnn, "benchmark", True),
    ),
    "deterministic": Setting(
        "deterministic algorithms alone",
        "torch.use_deterministic_algorithms(True)",
        variables={"CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
        tell=lambda: torch.use_deterministic_algorithms(True),
    ),
}
CHECKS = {"vit:ViT": _ALL[:3], "tests/candidates/sdpa.py:FlashViT": ("forward",), _DIVERGENT: ("forward",)}
STUDY = Study("tests.gpu", SETTINGS, CHECKS, _DEVICE, ("float32", "float64", *HALVES))


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes all checks and writes the page; returns 1 if one of them came to no end or an answer is another."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder to write to (default: docs)")
    parser.add_argument("--at-once", type=int, default=4, help="so many processes (default: 4)")
    parser.add_argument(
        "--one", choices=SETTINGS, help="measure a setting in this process, and write to --output alone"
    )
    parser.add_argument("--question", type=int, help="make one check in this process, and print what came of it")
    options = parser.parse_args(arguments)
    if options.one:
        measure(STUDY, options.one, options.output)
        return 0
    if options.question is not None:
        sys.stdout.write(json.dumps(answered([*questions()][options.question])) + "\n")
        return 0
    with ThreadPool(options.at_once) as pool:
        checks = pool.map(_asked, range(len([*questions()])), chunksize=1)
    found = studied(STUDY, at_once=options.at_once) | {"checks": checks}
    publish(options.output, NAME, page(found), found)
    is_other = any(row["other"] for row in found["settings"])
    return int(is_other or any("verdict" not in check for check in checks))


def _asked(number: int) -> dict[str, Any]:
    """Has a check made in a process of its own, and returns what came of it."""
    command = [sys.executable, "-m", "tests.gpu", "--question", str(number)]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)  # noqa: S603
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        failed = {"error": done.stderr[-4000:], "seconds": 0.0}
        return {"question": asdict([*questions()][number])} | failed
    answer: dict[str, Any] = json.loads(lines[-1])
    sys.stderr.write(f"{answer}\n")
    return answer


def answered(question: Question) -> dict[str, Any]:
    """Makes a check in this process, and returns what came of it.

    Args:
        question: which one.
    """
    begin = time.perf_counter()
    found: dict[str, Any] = {"question": asdict(question)}
    try:
        report = parity.check(
            question.candidate,
            question.reference,
            overrides=SMALL if question.is_small else None,
            dtype=question.dtype,
            phases=question.phases,
            steps=_STEPS,
            device=_DEVICE,
        ).to_dict()
    except Exception:  # noqa: BLE001  (whatever a device does, the other checks are made)
        return found | {"error": traceback.format_exc(), "seconds": time.perf_counter() - begin}
    passed = "identical", "equivalent"
    return found | {
        "verdict": report["verdict"],
        "reasons": report["reasons"],
        "causes": [cause["id"] for cause in report["causes"]],
        "complete": (report["explanation"] or {}).get("complete"),
        "others": [f"{row['name']}: {row['why']}" for row in report["checks"] if row["verdict"] not in passed],
        "seconds": time.perf_counter() - begin,
    }


def page(found: dict[str, Any]) -> str:
    """Returns the page.

    Args:
        found: as `studied` returns it, with `checks`, what came of every question.
    """
    where = "; ".join(f"{key} {value}" for key, value in found["environment"].items() if key != "platform")
    lines = [_HEAD, *_answers(found["checks"]), _STUDY, *answers(STUDY, found), _SETTINGS, *what_moves(STUDY, found)]
    return "\n".join([*lines, _MOVES, *moves(STUDY, found)]) + f"\n\nMeasured on {found['machine']}; {where}.\n"


def _answers(checks: list[dict[str, Any]]) -> Iterator[str]:
    yield "| candidate | reference | dtype | phases | answer |"
    yield "| --- | --- | --- | --- | --- |"
    for check in checks:
        question = check["question"]
        size = " in small" if question["is_small"] else ""
        causes = ", ".join(f"`{cause}`" for cause in dict.fromkeys(check.get("causes", ())))
        said = f"`{check['verdict']}`{': ' * bool(causes)}{causes}" if "verdict" in check else "came to no end"
        phases = "all" if tuple(question["phases"]) == _ALL else ", ".join(question["phases"])
        yield f"| `{question['candidate']}` | {question['reference']}{size} | {question['dtype']} | {phases} | {said} |"


_HEAD = """# On a GPU

What a check with `--device cuda` says of five architectures, in three dtypes, of right models and of a wrong one, and
which of torch's settings moves bits. What was learned by it stands in [other systems and devices](platforms.md). This
page is written by

```bash
python -m tests.gpu
```

on a machine with a GPU, which makes these checks, *all* being the phases forward, backward, training and conditions:
"""

_STUDY = """
## What torch's settings change

Three checks of models of a few thousand parameters are made under each setting, in a process of its own:
"""

_SETTINGS = """
*Answers* and *bits* are those of [the page on determinism](determinism.md), here in all four dtypes.
"""

_MOVES = """
## Which layer moves first

In the order of execution, and how many layers moved in all, with the largest distance of the logits in each dtype.
"""


if __name__ == "__main__":
    sys.exit(main())
